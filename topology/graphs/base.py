"""The base class of the graphs on the menu, the checks of their options, and random graphs drawn until one is connected."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar, Literal, NamedTuple

import msgspec
import networkx as nx
import numpy as np

from grapevine.topology.mixing.matrix import Rule, check_rule

TRIES = 100
MOST_LINKS = 10_000_000
GROWTH = 0x60  # a stream of random numbers of its own, for peers that enter and leave

Edges = Iterable[tuple[int, int]]


class Turn(NamedTuple):
    """One change of a graph: a peer enters or leaves."""

    seed: int
    number: int
    """The number of this change in the run."""
    label_counts: np.ndarray | None = None
    """[peers, classes], the samples of each label that each peer holds, for graphs that depend on the data."""
    delays: np.ndarray | None = None
    """[peers, peers], from peer i to peer j, for graphs that depend on the network."""

    @property
    def rng(self) -> np.random.Generator:
        """The random generator of this change."""
        return np.random.default_rng([self.seed, GROWTH, self.number])


class Topology(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """Configuration of a graph that does not change during a run; `build` makes it for a number of peers."""

    mixing: Rule = "metropolis"
    """How the weight of each neighbour's model is chosen: metropolis, max-degree, lazy, uniform, best-constant or fastest;
    push-sum for links that go one way; sinkhorn by the rates of the links."""

    smallest: ClassVar[int] = 2
    laid_after: ClassVar[Literal["nothing", "data", "network"]] = "nothing"

    def __post_init__(self) -> None:
        check_rule(self.mixing)

    @property
    def name(self) -> str:
        """The graph's name on the menu."""
        return str(self.__struct_config__.tag)

    @property
    def one_way(self) -> bool:
        """True if each link carries models in one direction only, from sender to receiver: the graph is directed."""
        return False

    def build(
        self,
        n: int,
        seed: int = 0,
        *,
        directed: bool = False,
        label_counts: np.ndarray | None = None,
        delays: np.ndarray | None = None,
    ) -> nx.Graph:
        """Return the graph for n peers: connected, on the nodes 0..n-1, the same for the same seed.

        A graph with `laid_after` = "data" needs `label_counts`, [n, classes]: the samples of each label that each peer
        holds. One with "network" needs `delays`, [n, n], from peer i to peer j, in any unit. With `directed=True` the
        result may be a DiGraph: strongly connected, edges from sender to receiver.

        Raises ValueError if no such graph exists for n peers (the message names the nearest n or option that works), for a
        directed graph without `directed=True`, if `label_counts` or `delays` are needed and missing, and if the edges name a
        peer that does not exist, join a peer with itself, or do not connect all peers.
        """
        n, seed = peers_and_seed(self.name, n, seed, self.smallest, "topology 'complete'")
        if self.one_way and not directed:
            raise ValueError(
                f"the links of {self.name} go one way, and peers that average with each other need links that go both "
                "ways; choose an undirected graph with as few, such as hypercube or (with directed = false) equi-static"
            )
        graph = nx.DiGraph(name=self.name) if self.one_way else nx.Graph(name=self.name)
        graph.add_nodes_from(range(n))
        self.lay(graph, seed, label_counts, delays)
        check_laid(graph, n, self.name)
        return graph

    def lay(self, graph: nx.Graph, seed: int, label_counts: np.ndarray | None, delays: np.ndarray | None) -> None:
        """Add the edges to a graph that has its n nodes already, and the attributes of nodes and edges if there are any."""
        edges = self.edges(len(graph), seed)
        graph.add_edges_from(sorted(edges if self.one_way else ((min(edge), max(edge)) for edge in edges)))

    @abstractmethod
    def edges(self, n: int, seed: int) -> Edges:
        """Return the pairs of neighbours among n peers, in any order; for a directed graph the pairs (sender, receiver)."""
        raise NotImplementedError

    def entered(self, graph: nx.Graph, newcomer: int, turn: Turn) -> nx.Graph:
        """Return the graph after a peer has entered; `graph`, on the living peers, is not changed.

        A graph without a rule of its own is built again for the living peers, by ascending number. Raises ValueError if no
        such graph exists for their number.
        """
        return self.over([*graph, newcomer], turn)

    def left(self, graph: nx.Graph, leaver: int, turn: Turn) -> nx.Graph:
        """Return the graph after a peer has left; otherwise like `entered`."""
        return self.over([peer for peer in graph if peer != leaver], turn)

    def over(self, living: list[int], turn: Turn) -> nx.Graph:
        """Return this graph on the given peers, by ascending number; a single peer has no neighbours."""
        order = sorted(living)
        if len(order) < 2:
            return nx.empty_graph(order)
        counts = None if turn.label_counts is None else turn.label_counts[order]
        delays = None if turn.delays is None else turn.delays[np.ix_(order, order)]
        built = self.build(len(order), turn.seed, label_counts=counts, delays=delays)
        return nx.relabel_nodes(built, dict(enumerate(order)))


class Laid(Topology, frozen=True, kw_only=True):
    """A graph that writes `lay` in place of `edges`: it has attributes, or depends on the data or on the network."""

    @abstractmethod
    def lay(self, graph: nx.Graph, seed: int, label_counts: np.ndarray | None, delays: np.ndarray | None) -> None:
        """Add the edges to a graph that has its n nodes already, and the attributes of nodes and edges if there are any."""
        raise NotImplementedError

    def edges(self, n: int, seed: int) -> Edges:
        built: Edges = self.build(n, seed, directed=True).edges
        return built


def check_laid(graph: nx.Graph, n: int, name: str) -> None:
    """Raise ValueError unless a graph has the nodes 0 to n - 1, no self loop, and is connected (directed: strongly)."""
    strangers = [node for node in graph if node not in range(n)] if len(graph) != n else []
    if strangers:
        raise ValueError(
            f"an edge of {name} names peer {strangers[0]!r}, and the {n} peers are 0 to {n - 1}; let edges(n, seed) return "
            "pairs of these numbers"
        )
    loop = next(nx.selfloop_edges(graph), None)
    if loop is not None:
        raise ValueError(f"an edge of {name} joins peer {loop[0]} with itself; let edges(n, seed) return pairs of two peers")
    if not (nx.is_strongly_connected(graph) if graph.is_directed() else nx.is_connected(graph)):
        find = nx.strongly_connected_components if graph.is_directed() else nx.connected_components
        pieces = sorted(find(graph), key=lambda piece: (-len(piece), min(piece)))
        raise ValueError(
            f"{name} on {n} peers is not {'strongly ' if graph.is_directed() else ''}connected: it falls into {len(pieces)} "
            f"pieces, and peer {min(pieces[1])} cannot reach peer {min(pieces[0])}; let edges(n, seed) join all peers"
        )


def check_links(links: float, name: str, n: int) -> None:
    """Raise ValueError if a graph has more links than `MOST_LINKS`; each link takes about 500 bytes of memory."""
    if links > MOST_LINKS:
        raise ValueError(
            f"{name} on {n:,} peers has about {links:,.0f} links, more than "
            f"{MOST_LINKS:,}; use fewer peers, or a graph with fewer links, such as ring or random-regular"
        )


def require(holds: bool, field: str, value: object, expected: str) -> None:
    """Raise ValueError unless `holds` is true; the message names the field, its value and the expected values."""
    if not holds:
        raise ValueError(f"{field}: {value!r} will not do; expected {expected}")


def whole(number: int, name: str) -> int:
    """Return a whole number as an int; raises ValueError for anything else, with `name` in the message."""
    try:
        if not isinstance(number, bool):
            return operator.index(number)
    except TypeError:
        pass
    raise ValueError(f"{name} is {number!r}; give a whole number")


def peers_and_seed(name: str, n: int, seed: int, smallest: int, otherwise: str) -> tuple[int, int]:
    """Return n and seed as ints.

    Raises ValueError if one is not a whole number, n is below `smallest` or the seed is negative; the message names the
    cure: more peers, or the choice `otherwise`.
    """
    n, seed = whole(n, "the number of peers"), whole(seed, "the seed")
    if n < smallest:
        other = "" if n < 1 else f" or choose {otherwise}"
        raise ValueError(f"{name} needs at least {smallest} peers, not {n}; raise peers{other}")
    if seed < 0:
        raise ValueError(f"the seed is {seed}; give 0 or a positive whole number")
    return n, seed


def first_connected(draw: Callable[[int], nx.Graph], stream: tuple[int, int], trouble: str) -> Edges:
    """Return the edges of the first connected graph among `TRIES` random ones.

    `draw` makes a graph from a seed; the seed of each try is derived from `stream`. Raises ValueError with `trouble` (the
    options, and their cure) if no graph is connected.
    """
    for attempt in range(TRIES):
        graph = draw(int(np.random.default_rng([*stream, attempt]).integers(2**62)))
        if nx.is_strongly_connected(graph) if graph.is_directed() else nx.is_connected(graph):
            result: Iterable[tuple[int, int]] = graph.edges
            return result
    raise ValueError(f"none of {TRIES} random graphs was connected: {trouble}")


def regular(degree: int, n: int, draw_seed: int) -> nx.Graph:
    """Return a random regular graph; a dense one is the complement of a sparse one, which is much faster to draw."""
    if 2 * degree < n:
        return nx.random_regular_graph(degree, n, seed=draw_seed)
    return nx.complement(nx.random_regular_graph(n - 1 - degree, n, seed=draw_seed))


def check_degree(name: str, field: str, degree: int, n: int, least: int = 1) -> None:
    """Raise ValueError, naming degrees that work, unless a graph on n peers exists in which every peer has this degree."""
    check_links(n * degree / 2 if degree < n else 0, name, n)
    if degree >= n:
        raise ValueError(
            f"{name} with {field} = {degree} needs more than {degree} peers, not {n}; raise peers "
            f"or set {field} to {n - 1} or less"
        )
    if n * degree % 2:
        degrees = " or ".join(str(d) for d in (degree - 1, degree + 1) if least <= d < n)
        raise ValueError(
            f"{name} needs an even number of link ends, and {n} peers x {field} {degree} is odd; "
            f"set {field} to {degrees}, or peers to {n + 1}"
        )
