"""The members of a fleet over time, and their graphs: all joining and leaving that is known before the run, compiled.

Each joining and leaving changes the members' graph by the topology's rule. From these graphs follow all pairs that are ever
neighbours, so that the network has a link for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import networkx as nx
import numpy as np

from grapevine import topology
from grapevine.experiments.config.errors import ConfigError, show_value
from grapevine.experiments.config.events import Event, JoinEvent, KillEvent, LeaveEvent
from grapevine.experiments.scenario import check_peer, in_order
from grapevine.netem.units import duration_ns
from grapevine.topology import Schedule, TimeVarying
from grapevine.topology.graphs.base import Topology, Turn
from grapevine.topology.graphs.menu import File

if TYPE_CHECKING:
    from grapevine.experiments.config.experiment import Experiment

Edge = tuple[int, int]
T = TypeVar("T")
STEADY_RULES = ("metropolis", "max-degree", "lazy", "uniform")
"""The mixing rules that can be computed again at any instant, on any graph."""


class Change(NamedTuple):
    """One joining or leaving that is known before the run, and its change of the graph."""

    at_ns: int
    peer: int
    joins: bool
    added: frozenset[Edge]
    """Links as (lower, higher number)."""
    removed: frozenset[Edge]


@dataclass(frozen=True)
class MembershipPlan:
    """The changes of a fleet's members that are known before the run.

    `first` are the members at the start and `graph` their graph; `changes` follow in order of time; `reach` is a graph of all
    peers with every pair that is ever linked. With a `schedule` the rounds are built again over the members at every change,
    and `reach` links all pairs. `drawn` are the events of the law, `rule` is the mixing rule.
    """

    first: list[int]
    graph: nx.Graph
    changes: list[Change]
    reach: nx.Graph
    rule: str
    drawn: list[Event]
    schedule: TimeVarying | None = None


def compile_membership(
    experiment: Experiment, rule: str, seen: Callable[[], tuple[np.ndarray | None, np.ndarray | None]]
) -> MembershipPlan | None:
    """Return the plan of an experiment whose members may change; None if all peers are members from start to end.

    `seen` returns the labels and delays from which the graph is built, as in `topology.graphs.base.Turn`.
    Raises ConfigError that names the event or the key if the plan is not possible.
    """
    scripted = [event for event in in_order(experiment.events) if isinstance(event, JoinEvent | LeaveEvent)]
    law, strategy = experiment.membership, experiment.strategy
    if not (scripted or law.changes or strategy.leaves):
        return None
    for event in scripted:
        check_peer(event.peer, experiment.peers, f"{_place(experiment, event)}.peer")
    _refuse_fixed(experiment, rule)
    first, drawn = _drawn(experiment, scripted)
    events = in_order([*experiment.events, *drawn])
    if not law.draws:
        opening: dict[int, Event] = {}
        for event in scripted:
            opening.setdefault(event.peer, event)
        first = [peer for peer in range(experiment.peers) if not isinstance(opening.get(peer), JoinEvent)]
    _refuse_no_member(first)
    growing = _Growing(experiment, first, Turn(experiment.seed, 0, *_located("topology", seen)))
    graph = growing.graph
    changes = [change for event in events if (change := growing.carried_out(event)) is not None]
    given = experiment.topology
    schedule = given if isinstance(given, TimeVarying) else None
    return MembershipPlan(first, graph, changes, growing.reach, rule, drawn, schedule)


class _Growing:
    """The members' graph as it grows and shrinks, and every link that it ever has."""

    def __init__(self, experiment: Experiment, first: list[int], turn: Turn) -> None:
        self.experiment = experiment
        self.turn = turn
        self.living = set(first)
        self.killed: set[int] = set()
        self.rule = _rule_of(experiment)
        self.graph = _located("topology", lambda: self.rule.over(first, turn))
        self.reach = nx.Graph()
        self.reach.add_nodes_from(range(experiment.peers))
        if isinstance(self.rule, _AllLinks):
            self.reach.add_edges_from(nx.complete_graph(experiment.peers).edges)
        self._note()

    def carried_out(self, event: Event) -> Change | None:
        """Apply an event of the file or of the law to the graph; return the change, None if no peer joins or leaves."""
        if isinstance(event, KillEvent):
            self.killed.add(event.peer)
            self.living.discard(event.peer)
            self.graph = self.graph.copy()
            self.graph.remove_nodes_from([event.peer])  # the topology's rule does not repair it
            return None
        if not isinstance(event, JoinEvent | LeaveEvent) or event.peer in self.killed:
            return None
        peer, joins = event.peer, isinstance(event, JoinEvent)
        self._refuse(event, joins)
        before, turn = self.graph, self.turn._replace(number=self.turn.number + 1)
        grow = self.rule.entered if joins else self.rule.left
        when = f"{event.describe()} at {event.at}: "
        self.graph = _located(f"{_place(self.experiment, event)}.peer", lambda: grow(before, peer, turn), when)
        self.turn = turn
        self.living ^= {peer}
        self._note()
        old, new = _edges(before), _edges(self.graph)
        return Change(event.at_ns, peer, joins, new - old, old - new)

    def _refuse(self, event: JoinEvent | LeaveEvent, joins: bool) -> None:
        if joins == (event.peer in self.living):
            state = "is a member already" if joins else "is not a member"
            raise ConfigError(
                key=f"{_place(self.experiment, event)}.peer", value=event.peer,
                problem=f"peer {event.peer} {state} at {event.at}",
                cure=f"let it {'leave' if joins else 'join'} before, or remove the event",
            )  # fmt: skip
        if not joins and len(self.living) == 1:
            raise ConfigError(
                key=f"{_place(self.experiment, event)}.peer", value=event.peer, problem=f"peer {event.peer} is the last member",
                cure="let another peer join before, or remove the event",
            )  # fmt: skip

    def _note(self) -> None:
        if self.experiment.strategy.shares == "gradients":
            count = len(self.graph)
            if self.graph.number_of_edges() < count * (count - 1) // 2:
                raise ConfigError(
                    key="topology.name", value=str(getattr(self.rule, "name", "given")),
                    problem="gradients are stable only where all members are neighbours, and on this graph some are not",
                    cure='use topology.name = "complete", or a strategy that shares parameters, such as "slices" or "d-psgd"',
                )  # fmt: skip
        self.reach.add_edges_from(self.graph.edges(data=True))
        for peer, attributes in self.graph.nodes(data=True):
            self.reach.nodes[peer].update(attributes)


class _GivenGraph:
    """The rule of a graph from a file or from Python: its own links between members, and no others."""

    name = "given"

    def __init__(self, graph: nx.Graph) -> None:
        self.whole = graph

    def over(self, living: Sequence[int], turn: Turn) -> nx.Graph:
        graph = nx.Graph(self.whole.subgraph(living))
        if len(graph) and not nx.is_connected(graph):
            pieces = [sorted(piece) for piece in nx.connected_components(graph)]
            raise ValueError(
                f"without the absent peers the graph is in {len(pieces)} pieces, one of them {pieces[0]}; let other peers "
                "leave, add links, or choose a topology of the menu, such as ring or random-regular, which closes its gaps"
            )
        return graph

    def entered(self, graph: nx.Graph, newcomer: int, turn: Turn) -> nx.Graph:
        return self.over([*graph, newcomer], turn)

    def left(self, graph: nx.Graph, leaver: int, turn: Turn) -> nx.Graph:
        return self.over([peer for peer in graph if peer != leaver], turn)


class _AllLinks:
    """The rule of a schedule whose rounds are built over the members: links between all of them."""

    def __init__(self, schedule: TimeVarying) -> None:
        self.schedule = schedule
        self.name = schedule.name

    def over(self, living: Sequence[int], turn: Turn) -> nx.Graph:
        if len(living) > 1:
            self.schedule.plan(len(living), turn.seed)
        return nx.complete_graph(sorted(living))

    def entered(self, graph: nx.Graph, newcomer: int, turn: Turn) -> nx.Graph:
        return self.over([*graph, newcomer], turn)

    def left(self, graph: nx.Graph, leaver: int, turn: Turn) -> nx.Graph:
        return self.over([peer for peer in graph if peer != leaver], turn)


def _rule_of(experiment: Experiment) -> Topology | _GivenGraph | _AllLinks:
    given, peers = experiment.topology, experiment.peers
    if isinstance(given, TimeVarying):
        return _AllLinks(given)
    if isinstance(given, nx.Graph):
        return _GivenGraph(topology.from_graph(given))
    if isinstance(given, File):
        return _GivenGraph(given.build(peers, experiment.seed))
    assert isinstance(given, Topology)
    return given


def _drawn(experiment: Experiment, scripted: list[JoinEvent | LeaveEvent]) -> tuple[list[int], list[Event]]:
    """Return the members at the start and the events of the law; both empty if the law draws none."""
    law = experiment.membership
    if not law.draws:
        return [], []
    if scripted:
        raise ConfigError(
            key="membership.name", value=str(type(law).__struct_config__.tag),
            problem="this law draws joining and leaving, and the file has such events too",
            cure='remove the events "join" and "leave", or set membership.name = "always"',
        )  # fmt: skip
    if experiment.stop.time is None:
        raise ConfigError(
            key="stop.time", problem="is missing: the law of membership needs the length of the run",
            cure='set stop.time, such as "60 s" (stop.steps may stay too)',
        )  # fmt: skip
    stop_ns = duration_ns(experiment.stop.time)
    return _checked(law.events(experiment.peers, experiment.seed, stop_ns), experiment.peers, stop_ns, experiment.stop.time)


def _checked(given: object, peers: int, stop_ns: int, stop: str) -> tuple[list[int], list[Event]]:
    """Return the result of a law's `events`; raise ConfigError for a peer that does not exist, and for events out of time."""
    key, name = "membership", "events(...)"
    if not isinstance(given, tuple) or len(given) != 2 or not all(isinstance(part, Iterable) for part in given):
        cure = "return a pair: the list of the members at the start, and the list of the later events"
        raise ConfigError(key=key, problem=f"{name} returned {show_value(given)}", cure=cure)
    first, drawn = list(given[0]), list(given[1])
    for event in drawn:
        if not isinstance(event, JoinEvent | LeaveEvent):
            cure = 'give JoinEvent(at="3 s", peer=1) and LeaveEvent(...)'
            raise ConfigError(key=key, problem=f"{name} returned {show_value(event)} among the events", cure=cure)
        if event.at_ns >= stop_ns:
            cure = "raise stop.time, or give earlier times: stop_ns is the end of the run"
            raise ConfigError(key=key, problem=f"{event.describe()} at {event.at}, and the run stops at {stop}", cure=cure)
    for peer in (*first, *(event.peer for event in drawn)):
        if isinstance(peer, bool) or not isinstance(peer, int | np.integer) or not 0 <= peer < peers:
            problem = f"there is no peer {show_value(peer)}, which {name} names"
            raise ConfigError(key=key, problem=problem, cure=f"the peers are 0 to {peers - 1}")
    return sorted({int(peer) for peer in first}), in_order(drawn)


def _refuse_fixed(experiment: Experiment, rule: str) -> None:
    strategy, given = experiment.strategy, experiment.topology
    name = str(type(strategy).__struct_config__.tag)
    if strategy.membership == "fixed":
        raise ConfigError(
            key="strategy.name", value=name,
            problem=f'"{name}" needs the same members from start to end, and here peers join or leave',
            cure='use "d-psgd", "slices", "ad-psgd", "full" or another one whose members may change, or let all peers stay',
        )  # fmt: skip
    if isinstance(given, Schedule):
        raise ConfigError(
            key="topology", problem="a schedule given from Python has a fixed number of peers, and here peers join or leave",
            cure="name a schedule of the menu, whose rounds are built again over the members",
        )  # fmt: skip
    if (given.is_directed() if isinstance(given, nx.Graph) else getattr(given, "one_way", False)) or rule == "push-sum":
        raise ConfigError(
            key="topology.name", value=str(getattr(given, "name", "given")),
            problem="its links go one way, and push-sum mass would be lost with peers that leave",
            cure="use a graph whose links go both ways, such as ring, random-regular or hypercube",
        )  # fmt: skip
    if rule not in STEADY_RULES:
        raise ConfigError(
            key="topology.mixing", value=rule, problem="cannot be computed again whenever a peer joins or leaves",
            cure=f"use one of {', '.join(STEADY_RULES)}",
        )  # fmt: skip


def _refuse_no_member(first: list[int]) -> None:
    if not first:
        raise ConfigError(
            key="events", problem="every peer joins later, so there is no member at the start",
            cure="remove the join event of one peer",
        )  # fmt: skip


def _located(key: str, action: Callable[[], T], when: str = "") -> T:
    """Return `action()`; raise its ValueError as a ConfigError with the key of the event or table."""
    try:
        return action()
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(key=key, problem=f"{when}{error}") from None


def _place(experiment: Experiment, event: Event) -> str:
    """Return the key of an event in the file; "membership" for one that the law has drawn."""
    return next((f"events[{place}]" for place, each in enumerate(experiment.events) if each is event), "membership")


def _edges(graph: nx.Graph) -> frozenset[Edge]:
    return frozenset((min(edge), max(edge)) for edge in graph.edges)
