"""The fleet of an experiment: every part made concrete, and parts that do not fit together refused before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import networkx as nx
import numpy as np

from grapevine import topology
from grapevine.experiments.compatibility import (
    refuse_aggregator,
    refuse_declarations,
    refuse_disorder,
    refuse_endless,
    refuse_missing_edges,
    refuse_rounds,
    refuse_taken_ports,
    refuse_too_few_files,
    refuse_unoffered,
    refuse_unstable,
    refuse_wrappers,
)
from grapevine.experiments.config.bounds import refuse_beyond, refuse_too_large, refuse_too_many
from grapevine.experiments.config.errors import show_value
from grapevine.experiments.config.events import Event
from grapevine.experiments.config.experiment import Experiment, Virtual
from grapevine.experiments.config.menus import MENUS
from grapevine.experiments.config.own_parts import refuse_unwritten
from grapevine.experiments.config.own_trials import try_own_parts
from grapevine.experiments.faults import is_own, located
from grapevine.experiments.graph import labels_and_delays, laid_after, laid_graph, mixing_rule, mixing_shares, shares_among_all
from grapevine.experiments.kernel import carried
from grapevine.experiments.membership import MembershipPlan, compile_membership
from grapevine.experiments.scenario import in_order, planned
from grapevine.experiments.tasks import AnyTask, Problem
from grapevine.experiments.tasks.partitions import Checked, Partition, Spared
from grapevine.experiments.tasks.trial import try_out
from grapevine.netem import Device, LinkSpec, NetworkPlan
from grapevine.netem.networks.shaped import Shaped
from grapevine.netem.units import duration_ns
from grapevine.peer.layout import Layout
from grapevine.peer.spaces import Facts, Space, Spaces, checked
from grapevine.topology import Figures, Schedule, ScheduleFigures

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True)
class Fleet:
    """An experiment with all of its parts made concrete; a world carries it out.

    - `graph`: every link that is ever used; undirected, because acknowledgements travel back.
    - `shares`: the mixing matrix W of the first round, a sparse array [peers, peers].
    - `plan`: the configured network.
    - `devices`: one for each peer.
    - `problem`: the task.
    - `rounds`: the links of each step, if they change or go one way; else None.
    - `membership`: which peers join and leave, and when; None = all stay. With it, `graph` holds every link that any two
      members ever have, and `shares` the weights of the members at the start.
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
        """The peers that have at least one wrapper, ascending."""
        return sorted({peer for wrapper in self.experiment.wrappers for peer in wrapper.among(self.experiment.peers)})

    @property
    def all_spaces(self) -> Spaces:
        """The model, and the vectors besides it that the strategy declares."""
        return Spaces(self.problem.size, self.experiment.codec, self.spaces)

    @property
    def first_graph(self) -> nx.Graph:
        """The links at the start, on the nodes 0 to members - 1; all links of the fleet if its members do not change."""
        if self.membership is None:
            return self.graph
        return nx.convert_node_labels_to_integers(self.membership.graph, ordering="sorted")

    @property
    def script(self) -> list[Event]:
        """The events of the run in order of time: those of the experiment, and those drawn by its law of membership."""
        drawn = [] if self.membership is None else self.membership.drawn
        return in_order([*self.experiment.events, *drawn])

    @property
    def stop_ns(self) -> int | None:
        """The emulated time at which to stop; None if only steps end the run."""
        time = self.experiment.stop.time
        return None if time is None else duration_ns(time)

    @property
    def every_ns(self) -> int:
        """The emulated time between two records."""
        return duration_ns(self.experiment.record.every)

    def mixing_of(self, peer: int) -> dict[int, float]:
        """Return W_ij of each neighbour of a peer, by ascending neighbour; 0 for neighbours of later rounds only."""
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
        """The figures of the mixing in theory (spectral gap, effective neighbours, ...), for the members at the start."""
        if self.membership is not None:
            schedule, members = self.membership.schedule, len(self.membership.first)
            if schedule is not None and members >= schedule.smallest:
                return topology.analyse(schedule.plan(members, self.experiment.seed))
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
    """Return the fleet of an experiment.

    `make_problem` is called in place of `problem_of`; a caller that builds many similar fleets may pass one that caches.

    Raises ConfigError, with key, value and cure, if the experiment's parts do not fit together, or if code of the user's own
    raises; the message then has the exception and its line.
    """
    return located(experiment, "", lambda: _built(experiment, make_problem))


def _built(experiment: Experiment, make_problem: Callable[[Experiment], Problem] | None) -> Fleet:
    refuse_too_many(experiment)
    refuse_declarations(experiment)
    make_problem = make_problem or problem_of
    problem = make_problem(experiment) if laid_after(experiment) == "data" else None
    membership = compile_membership(experiment, mixing_rule(experiment), lambda: labels_and_delays(experiment, problem))
    if membership is None:
        laid = located(experiment, "topology", lambda: laid_graph(experiment, problem))
        graph = located(experiment, "topology", lambda: laid.reach) if isinstance(laid, Schedule) else laid
        graph = nx.Graph(graph) if graph.is_directed() else graph
    else:
        graph, laid = membership.reach, membership.graph
    refuse_rounds(experiment, laid)
    refuse_missing_edges(experiment, graph)
    if membership is None:  # compile_membership has checked each of its graphs
        refuse_unstable(experiment, graph)
    refuse_aggregator(experiment)
    try_own_parts(experiment, graph)
    refuse_taken_ports(experiment)
    refuse_too_few_files(experiment, graph)
    plan = carried(experiment, located(experiment, "network", lambda: _links(experiment, graph)))
    refuse_disorder(experiment, plan)
    devices = located(experiment, "devices", lambda: _devices(experiment))
    plan, devices = planned(experiment, plan, devices, isinstance(experiment.world, Virtual))
    refuse_beyond(experiment, plan, devices)
    refuse_endless(experiment, devices)
    shares, rounds = located(experiment, "topology.mixing", lambda: mixing_shares(experiment, laid, plan))
    if membership is not None:
        shares = shares_among_all(shares, membership.first, experiment.peers)
    problem = problem or make_problem(experiment)
    refuse_too_large(experiment, problem.size)
    fleet = Fleet(experiment, graph, shares, plan, devices, problem, rounds, _declared(experiment, problem), membership)
    refuse_wrappers(experiment, fleet.all_spaces)
    return fleet


def _links(experiment: Experiment, graph: nx.Graph) -> NetworkPlan:
    """Return the plan of the links.  Raises ValueError if the user's own network returns something else."""
    plan: object = experiment.network.plan(graph, experiment.seed)
    if not isinstance(plan, NetworkPlan):
        kind = type(plan).__name__
        raise ValueError(f"plan(graph, seed) returned {kind}: it must return a NetworkPlan; make one with grapevine.plan_links")
    if not MENUS["network"].holds(experiment.network):
        _refuse_wrong_links(experiment, plan, graph)
    return plan


def _refuse_wrong_links(experiment: Experiment, plan: NetworkPlan, graph: nx.Graph) -> None:
    """Raise ValueError if the plan of the user's own network lacks a link, a peer, or the network's own options."""
    for source, target in (pair for edge in graph.edges for pair in (edge, edge[::-1]) if len({*edge}) == 2):
        if not isinstance(found := plan.links.get((source, target)), LinkSpec):
            problem = f"the plan has {type(found).__name__} for link {source} -> {target}"
            raise ValueError(f"{problem}; return a LinkSpec for each direction of each edge, such as plan_links gives")
    if not len(plan.uplinks) == len(plan.downlinks) == experiment.peers:
        counts = f"{len(plan.uplinks)} uplinks and {len(plan.downlinks)} downlinks"
        raise ValueError(f"the plan has {counts}; give one rate for each of the {experiment.peers} peers, math.inf = no limit")
    if isinstance(experiment.network, Shaped):
        experiment.network.refuse_unfinished(plan)


def _devices(experiment: Experiment) -> list[Device]:
    """Return one device for each peer.  Raises ValueError if the user's own devices return something else."""
    devices: object = experiment.devices.plan(experiment.peers, experiment.seed)
    if not isinstance(devices, list) or not all(isinstance(device, Device) for device in devices):
        raise ValueError(
            f"plan(peers, seed) returned {show_value(devices)}: it must return a list of Device; one for each peer"
        )
    if len(devices) != experiment.peers:
        counts = f"a list of {len(devices)} for {experiment.peers} peers"
        raise ValueError(f"plan(peers, seed) returned {counts}; return one Device for each peer")
    return devices


def _declared(experiment: Experiment, problem: Problem) -> tuple[Space, ...]:
    """Return the vectors besides the model that the strategy declares."""
    outputs, probe_samples = (getattr(problem, name, 0) or None for name in ("outputs", "probe"))
    facts = Facts(problem.size, Layout(problem.layout), experiment.peers, outputs, probe_samples)
    return located(experiment, "strategy", lambda: checked(experiment.strategy.spaces(facts)))


def problem_of(experiment: Experiment) -> Problem:
    """Return the experiment's problem, with the data split among the peers that train; peers that only serve hold none."""
    partition: Partition = experiment.partition
    if is_own(partition):
        partition = Checked(partition=partition)
    servers = experiment.strategy.hubs
    if 0 < servers < experiment.peers:
        partition = Spared(partition=partition, servers=servers)
    problem = located(experiment, "task", lambda: experiment.task.problem(experiment.peers, partition, experiment.seed))
    if type(experiment.task) not in get_args(AnyTask):
        refuse_unwritten(type(problem), "task", MENUS["task"].called(experiment.task))
        located(experiment, "task", lambda: try_out(problem, experiment.peers, experiment.task.batch_size))
    refuse_unoffered(experiment, problem)
    share, probe = experiment.strategy.held_out_share, experiment.strategy.probe_samples
    if probe:
        located(experiment, "partition", lambda: problem.take_probe(probe, experiment.seed))
    if share:
        located(experiment, "partition", lambda: problem.hold_out(share, experiment.seed))
    return problem
