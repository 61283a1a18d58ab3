"""From an experiment to a fleet: every part made concrete, every impossible pair refused before anything starts."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, get_args

import networkx as nx
import numpy as np

from grapevine import topology
from grapevine.experiments.config.bounds import refuse_beyond, refuse_too_large, refuse_too_many
from grapevine.experiments.config.errors import ConfigError, config_error
from grapevine.experiments.config.events import Event
from grapevine.experiments.config.experiment import Experiment, Processes, Virtual
from grapevine.experiments.config.own_codec import refuse_codec
from grapevine.experiments.kernel import carried
from grapevine.experiments.membership import MembershipPlan, compile_membership
from grapevine.experiments.open_files import files_allowed, files_needed
from grapevine.experiments.scenario import in_order, planned
from grapevine.experiments.tasks import AnyTask, Problem
from grapevine.experiments.tasks.partitions import Partition, Spared
from grapevine.experiments.tasks.trial import try_out
from grapevine.netem import Device, NetworkPlan
from grapevine.netem.units import duration_ns, show_bytes
from grapevine.peer.layout import Layout
from grapevine.peer.spaces import Facts, Space, Spaces, checked
from grapevine.peer.wrappers.board import LIMIT_BYTES as BOARD_BYTES
from grapevine.peer.wrappers.board import Board
from grapevine.topology import Figures, Schedule, ScheduleFigures, TimeVarying
from grapevine.topology.graphs.base import check_links

if TYPE_CHECKING:
    from scipy.sparse import csr_array

T = TypeVar("T")


@dataclass(frozen=True)
class Fleet:
    """An experiment with all of its parts made concrete; what a world carries out.

    `graph` holds every link that is ever used, undirected since answers travel back; `rounds` who sends to whom at each step
    where that changes or links go one way, else None; `shares` W of the first round, a sparse array [peers, peers]; `plan` the
    asked network; `devices` one a peer; `problem` the task; `membership` who joins and leaves when, None where all stay: then
    `graph` holds every link that any two members ever have, and `shares` the weights of the members at the start.
    """

    experiment: Experiment
    graph: nx.Graph
    shares: csr_array
    plan: NetworkPlan
    devices: list[Device]
    problem: Problem
    rounds: Schedule | None = None
    spaces: tuple[Space, ...] = ()
    """The vectors besides the model that the strategy declares."""
    membership: MembershipPlan | None = None

    @property
    def wrapped(self) -> list[int]:
        """The peers that any of the experiment's wrappers stands at, ascending."""
        return sorted({peer for wrapper in self.experiment.wrappers for peer in wrapper.among(self.experiment.peers)})

    @property
    def all_spaces(self) -> Spaces:
        """The model, and the vectors besides it that the strategy declares."""
        return Spaces(self.problem.size, self.experiment.codec, self.spaces)

    @property
    def first_graph(self) -> nx.Graph:
        """Who may talk to whom at the start, on the nodes 0 to members - 1: all links, unless members change."""
        if self.membership is None:
            return self.graph
        return nx.convert_node_labels_to_integers(self.membership.graph, ordering="sorted")

    @property
    def script(self) -> list[Event]:
        """What happens while the fleet runs, in order of time: the experiment's events, and those of its law of membership."""
        drawn = [] if self.membership is None else self.membership.drawn
        return in_order([*self.experiment.events, *drawn])

    @property
    def stop_ns(self) -> int | None:
        """The emulated time at which to stop; None where only steps end the run."""
        time = self.experiment.stop.time
        return None if time is None else duration_ns(time)

    @property
    def every_ns(self) -> int:
        """The emulated time between two records."""
        return duration_ns(self.experiment.record.every)

    def mixing_of(self, peer: int) -> dict[int, float]:
        """W_ij of each neighbour of a peer, in order of neighbour; 0 for who is heard in other rounds only."""
        row = slice(self.shares.indptr[peer], self.shares.indptr[peer + 1])
        heard = dict(zip(self.shares.indices[row].tolist(), self.shares.data[row].tolist(), strict=True))
        if self.membership is not None:
            return {neighbour: weight for neighbour, weight in sorted(heard.items()) if neighbour != peer}
        return {neighbour: heard.get(neighbour, 0.0) for neighbour in sorted(self.graph.neighbors(peer))}

    @property
    def mixing(self) -> np.ndarray:
        """W of the first round, float64 [peers, peers]."""
        dense: np.ndarray = self.shares.toarray()
        return dense

    @property
    def figures(self) -> Figures | ScheduleFigures:
        """What theory says of the mixing: spectral gap, effective neighbours, ...; of the members at the start."""
        if self.membership is not None and self.membership.schedule is not None:
            return topology.analyse(self.membership.schedule.plan(len(self.membership.first), self.experiment.seed))
        if self.membership is not None:
            at_first: Figures = topology.analyse(self.first_graph, self.membership.rule)
            return at_first
        if self.rounds is not None and self.rounds.period != 1:
            return topology.analyse(self.rounds)
        rule = mixing_rule(self.experiment)
        if self.rounds is not None or rule == "sinkhorn":
            return topology.analyse(self.mixing)
        figures: Figures | ScheduleFigures = topology.analyse(self.graph, rule)
        return figures


def build(experiment: Experiment, make_problem: Callable[[Experiment], Problem] | None = None) -> Fleet:
    """Make an experiment concrete.  Raises ConfigError, naming key, value and cure, where its parts do not fit.

    `make_problem` takes the place of `problem_of`: whoever builds many alike may keep what it answers.
    """
    refuse_too_many(experiment)
    make_problem = make_problem or problem_of
    problem = make_problem(experiment) if _laid_after(experiment) == "data" else None
    membership = compile_membership(experiment, mixing_rule(experiment), lambda: _seen(experiment, problem))
    if membership is None:
        laid = _located("topology", lambda: _laid(experiment, problem))
        graph = _located("topology", lambda: laid.reach) if isinstance(laid, Schedule) else laid
        graph = nx.Graph(graph) if graph.is_directed() else graph
    else:
        graph, laid = membership.reach, membership.graph
    _refuse_rounds(experiment, laid)
    _refuse_missing_edges(experiment, graph)
    if membership is None:  # else that was looked at for each of its graphs
        _refuse_unstable(experiment, graph)
    _refuse_aggregator(experiment)
    refuse_codec(experiment.codec)
    _refuse_taken_ports(experiment)
    _refuse_too_few_files(experiment, graph)
    plan = carried(experiment, _located("network", lambda: experiment.network.plan(graph, experiment.seed)))
    _refuse_disorder(experiment, plan)
    devices = _located("devices", lambda: experiment.devices.plan(experiment.peers, experiment.seed))
    plan, devices = planned(experiment, plan, devices, isinstance(experiment.world, Virtual))
    refuse_beyond(experiment, plan, devices)
    _refuse_endless(experiment, devices)
    shares, rounds = _located("topology.mixing", lambda: _mixed(experiment, laid, plan))
    if membership is not None:
        shares = _among_all(shares, membership.first, experiment.peers)
    problem = problem or make_problem(experiment)
    refuse_too_large(experiment, problem.size)
    fleet = Fleet(experiment, graph, shares, plan, devices, problem, rounds, _declared(experiment, problem), membership)
    _refuse_wrappers(fleet)
    return fleet


def _declared(experiment: Experiment, problem: Problem) -> tuple[Space, ...]:
    """The vector spaces that the strategy declares besides the model."""
    outputs, probe_samples = (getattr(problem, name, 0) or None for name in ("outputs", "probe"))
    facts = Facts(problem.size, Layout(problem.layout), experiment.peers, outputs, probe_samples)
    return _located("strategy", lambda: checked(experiment.strategy.spaces(facts)))


def topology_name(experiment: Experiment) -> str:
    """What to call the experiment's graph: its name in the menu, or the kind of a graph given from Python."""
    given = experiment.topology
    return "given" if isinstance(given, nx.Graph | Schedule) else str(given.__struct_config__.tag)


def mixing_rule(experiment: Experiment) -> str:
    """How much each neighbour counts: what the table says, or of a networkx graph its attribute `graph.graph["mixing"]`."""
    given = experiment.topology
    if isinstance(given, nx.Graph):
        return str(given.graph.get("mixing", "metropolis"))
    return getattr(given, "mixing", "metropolis")


def strategy_name(experiment: Experiment) -> str:
    """What to call the experiment's strategy: its name in the menu, or the class of one given from Python."""
    return str(type(experiment.strategy).__struct_config__.tag)


def problem_of(experiment: Experiment) -> Problem:
    """The task, its data split among the peers that train; peers that serve hold nothing."""
    partition: Partition = experiment.partition
    servers = experiment.strategy.hubs
    if 0 < servers < experiment.peers:
        partition = Spared(partition=partition, servers=servers)
    problem = _located("partition", lambda: experiment.task.problem(experiment.peers, partition, experiment.seed))
    if type(experiment.task) not in get_args(AnyTask):
        _located("task", lambda: try_out(problem, experiment.peers, experiment.task.batch_size))
    _refuse_unoffered(experiment, problem)
    share, probe = experiment.strategy.held_out_share, experiment.strategy.probe_samples
    if probe:
        _located("partition", lambda: problem.take_probe(probe, experiment.seed))
    if share:
        _located("partition", lambda: problem.hold_out(share, experiment.seed))
    return problem


def _refuse_unoffered(experiment: Experiment, problem: Problem) -> None:
    """A strategy may ask its task only for work that the task offers."""
    offers, strategy = problem.offers(), experiment.strategy
    if isinstance(strategy.asks, str):
        cure = f'write asks = ("{strategy.asks}",) on its class'
        raise ConfigError(key="strategy", value=strategy_name(experiment), problem="its asks are a text, no tuple", cure=cure)
    missing = sorted(map(str, strategy.asked - offers.keys()))
    if missing:
        task = str(type(experiment.task).__struct_config__.tag)
        words = ", ".join(f'"{name}"' for name in missing)
        raise ConfigError(
            key="task.name", value=task,
            problem=f'the strategy "{strategy_name(experiment)}" asks its task for {words}, which "{task}" does not offer',
            cure=f'choose a task that does; "{task}" offers {", ".join(offers)}',
        )  # fmt: skip


def _laid_after(experiment: Experiment) -> str:
    """What the graph must see before it can be laid: "nothing", the "data" of the peers, or the "network"."""
    return getattr(experiment.topology, "laid_after", "nothing")


def _laid(experiment: Experiment, problem: Problem | None) -> nx.Graph | Schedule:
    """The graph of the fleet, or its schedule."""
    given, peers = experiment.topology, experiment.peers
    if isinstance(given, Schedule):
        if not np.allclose(given.matrix(0).sum(axis=1), 1.0):
            cure = 'for push-sum give the graph itself, with graph.graph["mixing"] = "push-sum"'
            raise ValueError(f"the rows of the schedule's matrices do not sum to 1, as averaging needs; {cure}")
        return given
    if isinstance(given, TimeVarying):
        return given.plan(peers, experiment.seed)
    if isinstance(given, nx.Graph):
        return _both_ways(topology.from_graph(given, directed=True))
    counts, delays = _seen(experiment, problem)
    return _both_ways(given.build(peers, experiment.seed, directed=True, label_counts=counts, delays=delays))


def _seen(experiment: Experiment, problem: Problem | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The labels [peers, classes] and the delays [peers, peers] that the graph is laid after, where it is laid after any."""
    counts = delays = None
    peers = experiment.peers
    if problem is not None:
        counts = getattr(problem, "label_counts", None)
        if counts is None:
            name = topology_name(experiment)
            raise ValueError(f"{name} is laid after the peers' labels, and this task has none; choose micro-clouds")
    if _laid_after(experiment) == "network":
        check_links(peers * (peers - 1) / 2, "what overlay chooses from", peers)
        delays = asked_delays_s(experiment.network.plan(nx.complete_graph(peers), experiment.seed), peers)
    return counts, delays


def _both_ways(graph: nx.Graph) -> nx.Graph:
    """A directed graph all of whose links go both ways is an undirected one: files often hold such."""
    symmetric = graph.is_directed() and all(graph.has_edge(target, source) for source, target in graph.edges)
    return graph.to_undirected() if symmetric else graph


def asked_delays_s(plan: NetworkPlan, peers: int) -> np.ndarray:
    """The one-way delays of a plan, in seconds, float64 [peers, peers]; infinite where it has no link."""
    delays = np.full((peers, peers), np.inf)
    np.fill_diagonal(delays, 0.0)
    for (source, target), spec in plan.links.items():
        delays[source, target] = spec.delay_ns / 1e9
    return delays


def _mixed(experiment: Experiment, laid: nx.Graph | Schedule, plan: NetworkPlan) -> tuple[csr_array, Schedule | None]:
    """W, and the rounds where one graph and one W do not say all."""
    from scipy.sparse import csr_array

    if isinstance(laid, Schedule):
        return csr_array(laid.matrix(0)), laid
    rule, rates = mixing_rule(experiment), None
    if rule == "sinkhorn":
        rates = np.zeros((experiment.peers, experiment.peers))
        for (source, target), spec in plan.links.items():
            rates[source, target] = min(spec.effective_rate_bytes_per_s, plan.uplinks[source], plan.downlinks[target])
    if not laid.is_directed():
        if rule == "push-sum":
            cure = "choose metropolis, which keeps the mean on every undirected graph"
            raise ValueError(f"push-sum is for links that go one way, and those of this graph go both; {cure}")
        return topology.sparse_mixing(laid, rule, rates), None
    if rule == "metropolis":
        degrees = {degree for _, degree in (*laid.in_degree, *laid.out_degree)}
        if len(degrees) > 1:
            raise ValueError(
                "links go one way and peers have unequal numbers of them, so that no equal shares keep the fleet's mean; "
                f'set {_where_mixing(experiment)} = "push-sum" (with strategy d-psgd), or "uniform", with which the mean drifts'
            )
        rule = "uniform"  # the same shares where all degrees are equal
    return topology.sparse_mixing(laid, rule, rates), topology.still(laid, rule, rates)


def _among_all(shares: csr_array, members: list[int], peers: int) -> csr_array:
    """The weights of the members, by ascending number, among those of all peers: an absent one keeps what it has."""
    from scipy.sparse import coo_array, csr_array

    places, among = np.asarray(sorted(members)), coo_array(shares)
    absent = np.setdiff1d(np.arange(peers), places)
    rows, columns = (np.concatenate([places[part], absent]) for part in among.coords)
    return csr_array((np.concatenate([among.data, np.ones(len(absent))]), (rows, columns)), shape=(peers, peers))


def _where_mixing(experiment: Experiment) -> str:
    return 'graph.graph["mixing"]' if isinstance(experiment.topology, nx.Graph) else "mixing"


def _refuse_rounds(experiment: Experiment, laid: nx.Graph | Schedule) -> None:
    """A strategy that asks for its neighbours once would not notice that they change."""
    strategy, name = experiment.strategy, strategy_name(experiment)
    pushes = mixing_rule(experiment) == "push-sum"
    if isinstance(laid, Schedule) and not strategy.follows_rounds:
        raise ConfigError(
            key="strategy.name", value=name,
            problem=f'"{name}" keeps its neighbours, and those of "{topology_name(experiment)}" change from round to round',
            cure="use d-psgd, slices or ad-psgd, or a topology that stays",
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
            problem=f'"{name}" does not carry mass along, so that with these shares its models would not be averages',
            cure='use strategy.name = "d-psgd", or mixing = "metropolis" where all peers have equally many links',
        )  # fmt: skip


def _refuse_disorder(experiment: Experiment, plan: NetworkPlan) -> None:
    """A strategy that counts what its neighbours have read may take the newest message to be the last of all before it."""
    if experiment.strategy.needs_order and any(spec.reorders for spec in plan.links.values()):
        name = strategy_name(experiment)
        raise ConfigError(
            key="network.reorder", value=True,
            problem=f'"{name}" with these fields counts what its neighbours have read, '
            "and counts wrong where messages overtake each other",
            cure='leave reorder out, or choose another strategy ("dlion" itself with transfer_every = 0 or keep = false)',
        )  # fmt: skip


def _refuse_missing_edges(experiment: Experiment, graph: nx.Graph) -> None:
    """A strategy whose roles take more than a connected graph says so."""
    strategy, peers = experiment.strategy, experiment.peers
    name = strategy_name(experiment)
    if strategy.needs == "hubs" and strategy.hubs >= peers:
        raise ConfigError(
            key="peers", value=peers,
            problem=f'"{name}" keeps {strategy.hubs} of the peers as servers, so nobody is left to train',
            cure=f"set peers = {strategy.hubs + 1} or more",
        )  # fmt: skip
    asked = {"connected": 0, "complete": peers, "hubs": strategy.hubs}[strategy.needs]
    alone = [peer for peer in range(asked) if len(set(graph.neighbors(peer)) - {peer}) < peers - 1]
    if alone:
        everybody = "everybody" if strategy.needs == "complete" else f"each of its servers (peers 0 to {asked - 1})"
        raise ConfigError(
            key="topology.name", value=topology_name(experiment),
            problem=f'with "{name}" {everybody} talks to everybody, and on this graph peer {alone[0]} does not',
            cure='use topology.name = "complete"' + (' or "star"' if asked == 1 else ""),
        )  # fmt: skip


def _refuse_unstable(experiment: Experiment, graph: nx.Graph) -> None:
    """Gradients on a sparse graph drive peers apart: the update matrix is -(I + A), stable only where A has no eigenvalue
    below -1, which is to say where everyone hears everyone."""
    strategy = experiment.strategy
    if strategy.shares != "gradients":
        return
    smallest = topology.analyse(graph).gradient_gossip_eigenvalue
    assert smallest is not None
    if not topology.stable_for_gradients(smallest):
        name = strategy_name(experiment)
        raise ConfigError(
            key="strategy.name",
            value=name,
            problem=f'"{name}" shares gradients, which is unstable on this graph ("{topology_name(experiment)}"): '
            f"its adjacency matrix has the eigenvalue {smallest:.3f}, and below -1 the peers drift apart for ever",
            cure='use topology.name = "complete", or a strategy that shares parameters, such as "slices" or "d-psgd"',
        )


def _refuse_aggregator(experiment: Experiment) -> None:
    """A strategy that uses contributions one by one, as they arrive, leaves an aggregator nothing to choose from."""
    aggregator = str(type(experiment.aggregator).__struct_config__.tag)
    if aggregator != "mean" and not experiment.strategy.aggregates:
        raise ConfigError(
            key="aggregator.name",
            value=aggregator,
            problem=f'"{strategy_name(experiment)}" takes contributions one by one, so there is nothing to aggregate',
            cure='use aggregator.name = "mean", or a strategy with rounds, such as "d-psgd" or "full"',
        )


def _refuse_wrappers(fleet: Fleet) -> None:
    """Wrappers at peers that there are not, and colluders whose board would take more memory than it may."""
    experiment = fleet.experiment
    for place, wrapper in enumerate(experiment.wrappers):
        key, given = f"wrappers[{place}].peers", wrapper.peers
        cure = f"give some of the peers 0 to {experiment.peers - 1}, or leave peers out for all of them"
        if given is not None and (not given or max(given) >= experiment.peers):
            problem = f"there is no peer {max(given)}" if given else "the wrapper stands at no peer"
            raise ConfigError(key=key, value=list(given), problem=problem, cure=cure)
        colluders = len(wrapper.among(experiment.peers))
        if wrapper.colludes and not Board.slots_of(colluders, fleet.all_spaces):
            problem = f"the board of {colluders} colluders would take more than {show_bytes(BOARD_BYTES)}"
            raise ConfigError(key=key, problem=problem, cure="let fewer peers collude, or use a smaller model")


def _refuse_taken_ports(experiment: Experiment) -> None:
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


def _refuse_too_few_files(experiment: Experiment, graph: nx.Graph) -> None:
    if not isinstance(experiment.world, Processes):
        return
    most = max(degree for _, degree in graph.degree)
    needed, allowed = files_needed(experiment.peers, most), files_allowed()
    if needed > allowed:
        raise ConfigError(
            key="peers", value=experiment.peers,
            problem=f"{experiment.peers} processes with up to {most} neighbours hold up to {needed:,} files open each, and "
            f"{allowed:,} are permitted here",
            cure=f'raise the limit (ulimit -n {needed}), or use fewer peers or neighbours, or world.name = "virtual"',
        )  # fmt: skip


def _refuse_endless(experiment: Experiment, devices: list[Device]) -> None:
    """In virtual time a step that takes no time never brings the end of the time nearer."""
    endless = any(device.step_ns(experiment.task.batch_size) == 0 for device in devices)
    if isinstance(experiment.world, Virtual) and endless and experiment.stop.steps is None:
        raise ConfigError(
            key="devices.name", value=str(type(experiment.devices).__struct_config__.tag),
            problem="steps take no virtual time on these devices, so stop.time would never come",
            cure='use devices.name = "uniform" with a speed such as "2000 samples/s", or set stop.steps',
        )  # fmt: skip


def _located(key: str, action: Callable[[], T]) -> T:
    """Whatever a room refuses, with the key of its table."""
    try:
        return action()
    except ValueError as error:
        raise config_error(error, key=key) from None
