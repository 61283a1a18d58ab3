"""Checks that the parts of an experiment fit together; each raises ConfigError if they do not."""

from __future__ import annotations

import inspect
import socket
from operator import attrgetter
from typing import Any, Literal, get_args, get_origin, get_type_hints

import networkx as nx

from grapevine import topology
from grapevine.experiments.config.errors import ConfigError, nearest, show_value
from grapevine.experiments.config.experiment import Experiment, Processes, Virtual
from grapevine.experiments.config.menus import MENUS, name_of
from grapevine.experiments.faults import is_own
from grapevine.experiments.graph import mixing_rule, topology_name
from grapevine.experiments.open_files import files_allowed, files_needed
from grapevine.experiments.tasks import Problem
from grapevine.netem import Device, NetworkPlan
from grapevine.netem.units import show_bytes
from grapevine.peer.spaces import Spaces
from grapevine.peer.strategies import Strategy
from grapevine.peer.wrappers.board import LIMIT_BYTES as BOARD_BYTES
from grapevine.peer.wrappers.board import Board
from grapevine.topology import Schedule

ALIKE_DECLARATIONS = 0.8
"""The similarity from which a class attribute of a strategy is taken for a misspelt declaration."""


def refuse_unoffered(experiment: Experiment, problem: Problem) -> None:
    """Refuse a strategy that asks its task for work that the task does not offer."""
    offers, strategy = problem.offers(), experiment.strategy
    if isinstance(strategy.asks, str):
        problem, cure = "its asks are a text, not a tuple", f'write asks = ("{strategy.asks}",) on its class'
        raise ConfigError(key="strategy", value=name_of(strategy), problem=problem, cure=cure)
    missing = sorted(map(str, strategy.asked - offers.keys()))
    if missing:
        task = str(type(experiment.task).__struct_config__.tag)
        words = ", ".join(f'"{name}"' for name in missing)
        raise ConfigError(
            key="task.name", value=task,
            problem=f'the strategy "{name_of(experiment.strategy)}" asks its task for {words}, which "{task}" does not offer',
            cure=f'choose another task; "{task}" offers {", ".join(offers)}',
        )  # fmt: skip


def refuse_declarations(experiment: Experiment) -> None:
    """Refuse a user's own strategy whose `run` is not async, or whose class has a declaration of a wrong name or value."""
    strategy = experiment.strategy
    if not is_own(strategy):
        return
    name = MENUS["strategy"].called(strategy)
    if not inspect.iscoroutinefunction(inspect.unwrap(type(strategy).run)):
        problem, cure = "its run is not a coroutine", "write `async def run(self, peer)`, without yield"
        raise ConfigError(key="strategy", value=name, problem=problem, cure=cure)
    for declaration, kind in get_type_hints(Strategy).items():
        value, allowed = attrgetter(declaration)(strategy), _allowed(kind)
        if allowed and value not in allowed:
            problem, cure = f"{declaration} = {show_value(value)}", f"choose one of {', '.join(map(show_value, allowed))}"
            raise ConfigError(key="strategy", value=name, problem=problem, cure=cure)
    declarations = [known for known, value in vars(Strategy).items() if not known.startswith("_") and not callable(value)]
    for other in sorted(_attributes(type(strategy)) - set(dir(Strategy))):
        if guess := nearest(other, declarations, ALIKE_DECLARATIONS):
            problem, cure = f"there is no declaration {other}", f"did you mean {guess}? if not, choose a less similar name"
            raise ConfigError(key="strategy", value=name, problem=problem, cure=cure)


def _allowed(kind: Any) -> tuple[Any, ...]:
    """Return the values that a declaration of this type may have; () = others too."""
    inner = get_args(kind)[0]
    return (True, False) if inner is bool else get_args(inner) if get_origin(inner) is Literal else ()


def _attributes(cls: type) -> set[str]:
    """Return the names of the public class attributes and properties of a strategy, without its fields and methods."""
    members = {name: value for kin in reversed(cls.__mro__) for name, value in vars(kin).items()}
    fields = cls.__struct_fields__  # type: ignore[attr-defined]
    return {name for name, value in members.items() if not name.startswith("_") and name not in fields and not callable(value)}


def refuse_rounds(experiment: Experiment, laid: nx.Graph | Schedule) -> None:
    """Refuse links that change or go one way, and push-sum, to a strategy that does not support them."""
    strategy, name = experiment.strategy, name_of(experiment.strategy)
    pushes = mixing_rule(experiment) == "push-sum"
    if isinstance(laid, Schedule) and not strategy.follows_rounds:
        raise ConfigError(
            key="strategy.name", value=name,
            problem=f'"{name}" needs the same neighbours in every round, '
            f'and those of "{topology_name(experiment)}" change from round to round',
            cure="use d-psgd, slices or ad-psgd, or a topology that does not change",
        )  # fmt: skip
    if not isinstance(laid, Schedule) and laid.is_directed() and not strategy.follows_rounds:
        raise ConfigError(
            key="strategy.name", value=name,
            problem=f'"{name}" exchanges both ways, and the links of "{topology_name(experiment)}" go one way',
            cure="use d-psgd, slices or ad-psgd, or an undirected graph with as few links, such as hypercube",
        )  # fmt: skip
    if pushes and not strategy.pushes_sums:
        raise ConfigError(
            key="topology.mixing", value="push-sum",
            problem=f'"{name}" does not send the mass of push-sum with its models, so that they would not become averages',
            cure='use strategy.name = "d-psgd", or mixing = "metropolis" where all peers have equally many links',
        )  # fmt: skip


def refuse_disorder(experiment: Experiment, plan: NetworkPlan) -> None:
    """Refuse a network that reorders messages to a strategy that counts what its neighbours have read."""
    if experiment.strategy.needs_order and any(spec.reorders for spec in plan.links.values()):
        name = name_of(experiment.strategy)
        raise ConfigError(
            key="network.reorder", value=True,
            problem=f'"{name}" with these fields counts the messages that its neighbours have read, '
            "and counts wrongly if messages overtake each other",
            cure='leave reorder out, or choose another strategy ("dlion" itself with transfer_every = 0 or keep = false)',
        )  # fmt: skip


def refuse_missing_edges(experiment: Experiment, graph: nx.Graph) -> None:
    """Refuse a graph without the edges that the strategy's servers or peers need."""
    strategy, peers = experiment.strategy, experiment.peers
    name = name_of(experiment.strategy)
    if strategy.needs == "hubs" and strategy.hubs >= peers:
        raise ConfigError(
            key="peers", value=peers,
            problem=f'"{name}" uses {strategy.hubs} of the peers as servers, so no peer is left to train',
            cure=f"set peers = {strategy.hubs + 1} or more",
        )  # fmt: skip
    fully_linked = {"connected": 0, "complete": peers, "hubs": strategy.hubs}[strategy.needs]
    lacking = [peer for peer in range(fully_linked) if len(set(graph.neighbors(peer)) - {peer}) < peers - 1]
    if lacking:
        subject = "every peer" if strategy.needs == "complete" else f"each of its servers (peers 0 to {fully_linked - 1})"
        raise ConfigError(
            key="topology.name", value=topology_name(experiment),
            problem=f'with "{name}" {subject} needs a link to every other peer, and on this graph peer {lacking[0]} lacks one',
            cure='use topology.name = "complete"' + (' or "star"' if fully_linked == 1 else ""),
        )  # fmt: skip


def refuse_unstable(experiment: Experiment, graph: nx.Graph) -> None:
    """Refuse a strategy that shares gradients on a sparse graph, because its peers drift apart.

    The update matrix is -(I + A); it is stable only if A has no eigenvalue below -1, as on a complete graph.
    """
    strategy = experiment.strategy
    if strategy.shares != "gradients":
        return
    smallest = topology.analyse(graph).gradient_gossip_eigenvalue
    assert smallest is not None
    if not topology.stable_for_gradients(smallest):
        name = name_of(experiment.strategy)
        raise ConfigError(
            key="strategy.name",
            value=name,
            problem=f'"{name}" shares gradients, which is unstable on this graph ("{topology_name(experiment)}"): '
            f"its adjacency matrix has the eigenvalue {smallest:.3f}, and below -1 the peers drift apart without limit",
            cure='use topology.name = "complete", or a strategy that shares parameters, such as "slices" or "d-psgd"',
        )


def refuse_aggregator(experiment: Experiment) -> None:
    """Refuse an aggregator other than the mean to a strategy that uses each contribution alone, when it arrives."""
    aggregator = str(type(experiment.aggregator).__struct_config__.tag)
    if aggregator != "mean" and not experiment.strategy.aggregates:
        raise ConfigError(
            key="aggregator.name",
            value=aggregator,
            problem=f'"{name_of(experiment.strategy)}" uses each contribution alone, so there is nothing to aggregate',
            cure='use aggregator.name = "mean", or a strategy with rounds, such as "d-psgd" or "full"',
        )


def refuse_wrappers(experiment: Experiment, spaces: Spaces) -> None:
    """Refuse wrappers at peers that do not exist, and colluders whose board would take too much memory."""
    for place, wrapper in enumerate(experiment.wrappers):
        key, given = f"wrappers[{place}].peers", wrapper.peers
        cure = f"give some of the peers 0 to {experiment.peers - 1}, or leave peers out for all of them"
        if given is not None and (not given or max(given) >= experiment.peers):
            problem = f"there is no peer {max(given)}" if given else "the wrapper has no peer"
            raise ConfigError(key=key, value=list(given), problem=problem, cure=cure)
        colluders = len(wrapper.among(experiment.peers))
        if wrapper.colludes and not Board.slots_of(colluders, spaces):
            problem = f"the board of {colluders} colluders would take more than {show_bytes(BOARD_BYTES)}"
            raise ConfigError(key=key, problem=problem, cure="let fewer peers collude, or use a smaller model")


def refuse_taken_ports(experiment: Experiment) -> None:
    """Refuse a first port after which the peers' ports are in use or do not exist."""
    world = experiment.world
    if not isinstance(world, Processes) or not world.port:
        return
    last = world.port + experiment.peers - 1
    if last > 65535:
        raise ConfigError(
            key="world.port", value=world.port, problem=f"{experiment.peers} peers would need the ports up to {last}",
            cure=f"choose a port of at most {65536 - experiment.peers}, or 0 for any free ones",
        )  # fmt: skip
    for port in range(world.port, last + 1):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise ConfigError(
                    key="world.port", value=world.port, problem=f"port {port} cannot be used: {error.strerror}",
                    cure="choose another first port, or 0 for any free ones",
                ) from None  # fmt: skip


def refuse_too_few_files(experiment: Experiment, graph: nx.Graph) -> None:
    """Refuse more neighbours than the processes may hold files open for."""
    if not isinstance(experiment.world, Processes):
        return
    most = max(degree for _, degree in graph.degree)
    needed, allowed = files_needed(experiment.peers, most), files_allowed()
    if needed > allowed:
        raise ConfigError(
            key="peers", value=experiment.peers,
            problem=f"{experiment.peers} processes with up to {most} neighbours hold up to {needed:,} open files each, and "
            f"{allowed:,} are permitted here",
            cure=f'raise the limit (ulimit -n {needed}), or use fewer peers or neighbours, or world.name = "virtual"',
        )  # fmt: skip


def refuse_endless(experiment: Experiment, devices: list[Device]) -> None:
    """Refuse a virtual run that only stop.time ends, on a device whose steps take no time: the time would not advance."""
    endless = any(device.step_ns(experiment.task.batch_size) == 0 for device in devices)
    if isinstance(experiment.world, Virtual) and endless and experiment.stop.steps is None:
        raise ConfigError(
            key="devices.name", value=str(type(experiment.devices).__struct_config__.tag),
            problem="steps take no virtual time on these devices, so the run would never reach stop.time",
            cure='use devices.name = "uniform" with a speed such as "2000 samples/s", or set stop.steps',
        )  # fmt: skip
