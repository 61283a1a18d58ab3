"""What every graph and schedule of the menus shares: checks of what is asked for, and luck that yields a connected graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import ClassVar, Literal

import msgspec
import networkx as nx
import numpy as np

from grapevine.topology.mixing.matrix import Rule, check_rule

TRIES = 100
MOST_LINKS = 10_000_000

Edges = Iterable[tuple[int, int]]


class Topology(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """A graph that stays as it is; `build` lays it over any number of peers."""

    mixing: Rule = "metropolis"
    """How much each neighbour's model counts: metropolis, max-degree, lazy, uniform, best-constant or fastest; push-sum for
    links that go one way; sinkhorn, after the rates of the links."""

    smallest: ClassVar[int] = 2
    laid_after: ClassVar[Literal["nothing", "data", "network"]] = "nothing"

    def __post_init__(self) -> None:
        check_rule(self.mixing)

    @property
    def name(self) -> str:
        """The graph's name in the menu."""
        return str(self.__struct_config__.tag)

    @property
    def one_way(self) -> bool:
        """Whether links go one way, from the sender to who hears it, so that the graph is directed."""
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
        """The graph for n peers: connected, on the nodes 0..n-1, the same for the same seed.

        Graphs that are laid after the peers' data look at `label_counts`, [n, classes], the samples of each label that
        each peer holds; those laid after the network look at `delays`, [n, n], from peer i to peer j in any unit. With
        `directed=True` the answer may be a DiGraph, its edges going from sender to receiver, strongly connected.

        Raises ValueError if there is no such graph on n peers, naming the nearest n or option that works, for a
        directed graph without `directed=True`, and where the data or delays that it is laid after are missing.
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
        return graph

    def lay(self, graph: nx.Graph, seed: int, label_counts: np.ndarray | None, delays: np.ndarray | None) -> None:
        """Add the edges to the peers, and attributes where the graph has some."""
        edges = self.edges(len(graph), seed)
        graph.add_edges_from(sorted(edges if self.one_way else ((min(edge), max(edge)) for edge in edges)))

    def edges(self, n: int, seed: int) -> Edges:
        """The pairs of neighbours among n peers, in any order; of a directed graph (sender, receiver)."""
        raise NotImplementedError


def check_links(links: float, name: str, n: int) -> None:
    """Raise ValueError where a graph would have more links than a machine holds: about 500 bytes each."""
    if links > MOST_LINKS:
        raise ValueError(
            f"{name} on {n:,} peers has about {links:,.0f} links, more than "
            f"{MOST_LINKS:,}; use fewer peers, or a graph with fewer links, such as ring or random-regular"
        )


def require(holds: bool, field: str, value: object, expected: str) -> None:
    """Raise ValueError, naming the field and what was expected, unless that holds."""
    if not holds:
        raise ValueError(f"{field}: {value!r} will not do; expected {expected}")


def whole(number: int, what: str) -> int:
    """A whole number as an int; raises ValueError for anything else."""
    try:
        if not isinstance(number, bool):
            return operator.index(number)
    except TypeError:
        pass
    raise ValueError(f"{what} is {number!r}; give a whole number")


def peers_and_seed(name: str, n: int, seed: int, smallest: int, otherwise: str) -> tuple[int, int]:
    """Both as ints, n at least `smallest`; raises ValueError with the cure, which may be something `otherwise`."""
    n, seed = whole(n, "the number of peers"), whole(seed, "the seed")
    if n < smallest:
        other = "" if n < 1 else f" or choose {otherwise}"
        raise ValueError(f"{name} needs at least {smallest} peers, not {n}; raise peers{other}")
    if seed < 0:
        raise ValueError(f"the seed is {seed}; give 0 or a positive whole number")
    return n, seed


def first_connected(draw: Callable[[int], nx.Graph], stream: tuple[int, int], trouble: str) -> Edges:
    """The edges of the first connected graph that is drawn; each try has its own generator, derived from the seed."""
    for attempt in range(TRIES):
        graph = draw(int(np.random.default_rng([*stream, attempt]).integers(2**62)))
        if nx.is_strongly_connected(graph) if graph.is_directed() else nx.is_connected(graph):
            result: Iterable[tuple[int, int]] = graph.edges
            return result
    raise ValueError(f"none of {TRIES} random graphs was connected: {trouble}")


def regular(degree: int, n: int, luck: int) -> nx.Graph:
    """A random regular graph; a dense one is drawn as what a sparse one leaves out, or the pairing would search for ages."""
    if 2 * degree < n:
        return nx.random_regular_graph(degree, n, seed=luck)
    return nx.complement(nx.random_regular_graph(n - 1 - degree, n, seed=luck))


def check_degree(name: str, field: str, degree: int, n: int, least: int = 1) -> None:
    """Raise ValueError, naming degrees that work, unless there is a graph on n peers with this degree everywhere."""
    check_links(n * degree / 2 if degree < n else 0, name, n)
    if degree >= n:
        raise ValueError(
            f"{name} with {field} = {degree} needs more than {degree} peers, not {n}; raise peers "
            f"or set {field} to {n - 1} or less"
        )
    if n * degree % 2:
        degrees = " or ".join(str(d) for d in (degree - 1, degree + 1) if least <= d < n)
        raise ValueError(
            f"{name} needs an even number of ends, and {n} peers x {field} {degree} is odd; "
            f"set {field} to {degrees}, or peers to {n + 1}"
        )
