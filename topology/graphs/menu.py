"""The graphs on the menu: which peers are linked, by name and number of peers."""

from __future__ import annotations

import math
from typing import ClassVar

import networkx as nx
import numpy as np

from grapevine.topology.graphs import growth
from grapevine.topology.graphs.base import (
    Edges,
    Topology,
    Turn,
    check_degree,
    check_links,
    first_connected,
    regular,
    require,
)
from grapevine.topology.graphs.circulants import EquiStatic, Exponential
from grapevine.topology.graphs.cliques import DCliques, MicroClouds
from grapevine.topology.graphs.expanders import ChordalCycle, MargulisGabberGalil, Paley
from grapevine.topology.graphs.files import FORMATS, Format, read_graph
from grapevine.topology.graphs.overlays import Overlay
from grapevine.topology.graphs.places import Geographic


class Ring(Topology, frozen=True, kw_only=True, tag="ring"):
    """A closed circle: each peer is linked to the two beside it."""

    smallest: ClassVar[int] = 3

    def edges(self, n: int, seed: int) -> Edges:
        return [(i, (i + 1) % n) for i in range(n)]

    def entered(self, graph: nx.Graph, newcomer: int, turn: Turn) -> nx.Graph:
        return growth.splice(graph, newcomer, turn.rng)

    def left(self, graph: nx.Graph, leaver: int, turn: Turn) -> nx.Graph:
        return growth.close(graph, leaver)


class Path(Topology, frozen=True, kw_only=True, tag="path"):
    """An open chain: a ring with one link cut; the slowest of all graphs to reach agreement."""

    def edges(self, n: int, seed: int) -> Edges:
        return [(i, i + 1) for i in range(n - 1)]

    def entered(self, graph: nx.Graph, newcomer: int, turn: Turn) -> nx.Graph:
        return growth.append(graph, newcomer, turn.rng)

    def left(self, graph: nx.Graph, leaver: int, turn: Turn) -> nx.Graph:
        return growth.close(graph, leaver)


class Torus(Topology, frozen=True, kw_only=True, tag="torus"):
    """A grid whose opposite borders are joined, as square as the number of peers allows: four neighbours for each peer."""

    smallest: ClassVar[int] = 9

    def edges(self, n: int, seed: int) -> Edges:
        sides = torus_sides(n)
        if sides is None:
            below = next(m for m in range(n, 0, -1) if torus_sides(m))
            above = next(m for m in range(n, 2 * n) if torus_sides(m))
            raise ValueError(
                f"torus needs peers = a x b with both sides at least 3, and {n} is no such product; "
                f"set peers to {below} or {above}"
            )
        rows, columns = sides
        for row in range(rows):
            for column in range(columns):
                here = row * columns + column
                yield here, row * columns + (column + 1) % columns
                yield here, (row + 1) % rows * columns + column


class Hypercube(Topology, frozen=True, kw_only=True, tag="hypercube"):
    """The corners of a cube in log2(n) dimensions: few neighbours, short paths; n is a power of two."""

    def edges(self, n: int, seed: int) -> Edges:
        dimensions = n.bit_length() - 1
        if n != 1 << dimensions:
            raise ValueError(
                f"hypercube needs a power of two, not {n} peers; set peers to {1 << dimensions} or {2 << dimensions}"
            )
        return [(i, i ^ (1 << axis)) for i in range(n) for axis in range(dimensions) if i < i ^ (1 << axis)]


class Complete(Topology, frozen=True, kw_only=True, tag="complete"):
    """All peers are linked to each other: agreement in one round, at n - 1 messages per peer."""

    smallest: ClassVar[int] = 1

    def edges(self, n: int, seed: int) -> Edges:
        check_links(n * (n - 1) / 2, "complete", n)
        return [(i, j) for i in range(n) for j in range(i + 1, n)]

    def entered(self, graph: nx.Graph, newcomer: int, turn: Turn) -> nx.Graph:
        return growth.join_all(graph, newcomer)

    def left(self, graph: nx.Graph, leaver: int, turn: Turn) -> nx.Graph:
        return growth.take_out(graph, leaver, turn.rng)


class Star(Topology, frozen=True, kw_only=True, tag="star"):
    """All other peers are linked to peer 0 only, as to a server."""

    def edges(self, n: int, seed: int) -> Edges:
        return [(0, i) for i in range(1, n)]

    def entered(self, graph: nx.Graph, newcomer: int, turn: Turn) -> nx.Graph:
        return growth.join_hub(graph, newcomer)

    def left(self, graph: nx.Graph, leaver: int, turn: Turn) -> nx.Graph:
        return growth.leave_star(graph, leaver)


class BinaryTree(Topology, frozen=True, kw_only=True, tag="binary-tree"):
    """Each peer has up to two children (peer i has 2i+1 and 2i+2): no loops, and much traffic at the root."""

    def edges(self, n: int, seed: int) -> Edges:
        return [((i - 1) // 2, i) for i in range(1, n)]


class Barbell(Topology, frozen=True, kw_only=True, tag="barbell"):
    """Two complete halves joined by a single link (if n is odd, by one peer between them): the classic bottleneck."""

    smallest: ClassVar[int] = 6

    def edges(self, n: int, seed: int) -> Edges:
        half = n // 2
        check_links(half * half, "barbell", n)
        for start in (0, n - half):
            yield from ((start + i, start + j) for i in range(half) for j in range(i + 1, half))
        yield from ((i, i + 1) for i in range(half - 1, n - half))


class RandomRegular(Topology, frozen=True, kw_only=True, tag="random-regular"):
    """A random graph with the same number of neighbours for each peer; mixes about as fast as this number allows."""

    degree: int = 4
    """Neighbours of each peer: 2 to peers - 1, with peers x degree even; from 3 on it is nearly always connected."""

    smallest: ClassVar[int] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.degree >= 2, "degree", self.degree, "2 or more, since with fewer a fleet cannot be connected")

    def edges(self, n: int, seed: int) -> Edges:
        check_degree("random-regular", "degree", self.degree, n, least=2)
        return first_connected(
            lambda draw_seed: regular(self.degree, n, draw_seed),
            (seed, 1),
            f"random-regular with {n} peers and degree = {self.degree}; raise degree to 3 or more",
        )

    def entered(self, graph: nx.Graph, newcomer: int, turn: Turn) -> nx.Graph:
        return growth.subdivide(graph, newcomer, self.degree, turn.rng)

    def left(self, graph: nx.Graph, leaver: int, turn: Turn) -> nx.Graph:
        return growth.pair_orphans(graph, leaver, self.degree, turn.rng)


class ErdosRenyi(Topology, frozen=True, kw_only=True, tag="erdos-renyi"):
    """Each pair of peers is linked with the same probability, independently of the others."""

    p: float | None = None
    """Probability of each link, above 0 and at most 1; if left out: 2 ln(n) / n, twice the value that connects the fleet."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.p is None or 0.0 < self.p <= 1.0, "p", self.p, "a probability above 0 and at most 1")

    def edges(self, n: int, seed: int) -> Edges:
        edge = math.log(n) / n
        p = self._p(n)
        check_links(p * n * n / 2, "erdos-renyi", n)
        return first_connected(
            lambda draw_seed: nx.fast_gnp_random_graph(n, p, seed=draw_seed),
            (seed, 2),
            f"erdos-renyi with {n} peers and p = {p:.4g}; raise p well above ln(n)/n = {edge:.3g}, "
            f"say to {math.ceil(200 * edge) / 100:.2g}",
        )

    def entered(self, graph: nx.Graph, newcomer: int, turn: Turn) -> nx.Graph:
        return growth.join_by_coin(graph, newcomer, self._p(len(graph) + 1), turn.rng)

    def left(self, graph: nx.Graph, leaver: int, turn: Turn) -> nx.Graph:
        return growth.take_out(graph, leaver, turn.rng)

    def _p(self, n: int) -> float:
        return min(1.0, 2.0 * math.log(n) / n) if self.p is None else self.p


class WattsStrogatz(Topology, frozen=True, kw_only=True, tag="watts-strogatz"):
    """A small world: a ring of near neighbours; some of its links are moved to random peers as short cuts."""

    k: int = 4
    """Nearest neighbours linked on the ring before links are moved: even, 2 to peers - 1."""

    p: float = 0.1
    """Probability that a link is moved to a random peer: 0 (a ring) to 1 (nearly random)."""

    smallest: ClassVar[int] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.k >= 2 and self.k % 2 == 0, "k", self.k, "an even number, 2 or more: half of them on each side")
        require(0.0 <= self.p <= 1.0, "p", self.p, "a probability from 0 to 1")

    def edges(self, n: int, seed: int) -> Edges:
        if self.k >= n:
            raise ValueError(
                f"watts-strogatz with k = {self.k} needs more than {self.k} peers, not {n}; raise peers "
                f"or set k to {(n - 1) // 2 * 2} or less"
            )
        check_links(self.k * n / 2, "watts-strogatz", n)
        return first_connected(
            lambda draw_seed: nx.watts_strogatz_graph(n, self.k, self.p, seed=draw_seed),
            (seed, 3),
            f"watts-strogatz with {n} peers, k = {self.k} and p = {self.p}; raise k to 4 or more, or lower p",
        )

    def entered(self, graph: nx.Graph, newcomer: int, turn: Turn) -> nx.Graph:
        return growth.join_circle(graph, newcomer, self.k, self.p, turn.rng)

    def left(self, graph: nx.Graph, leaver: int, turn: Turn) -> nx.Graph:
        return growth.take_out(graph, leaver, turn.rng)


class BarabasiAlbert(Topology, frozen=True, kw_only=True, tag="barabasi-albert"):
    """Peers join one by one and prefer neighbours with many links: a few peers have many links, most have few."""

    m: int = 2
    """Links of each new peer to earlier ones: 1 to peers - 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.m >= 1, "m", self.m, "1 or more")

    def edges(self, n: int, seed: int) -> Edges:
        if self.m >= n:
            raise ValueError(
                f"barabasi-albert with m = {self.m} needs more than {self.m} peers, not {n}; raise peers "
                f"or set m to {n - 1} or less"
            )
        check_links(self.m * n, "barabasi-albert", n)
        return first_connected(
            lambda draw_seed: nx.barabasi_albert_graph(n, self.m, seed=draw_seed), (seed, 4), "barabasi-albert; raise m"
        )

    def entered(self, graph: nx.Graph, newcomer: int, turn: Turn) -> nx.Graph:
        return growth.join_preferred(graph, newcomer, self.m, turn.rng)

    def left(self, graph: nx.Graph, leaver: int, turn: Turn) -> nx.Graph:
        return growth.take_out(graph, leaver, turn.rng)


class File(Topology, frozen=True, kw_only=True, tag="file"):
    """A graph read from a file: GraphML, GML, an edge list or an adjacency matrix."""

    path: str
    """The path of the file; a path that is not absolute starts at the current folder."""

    format: Format | None = None
    """graphml, gml, edge-list or adjacency-matrix; if left out: chosen by the file's ending."""

    smallest: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.format is None or self.format in FORMATS, "format", self.format, f"one of {', '.join(FORMATS)}")

    def build(
        self,
        n: int,
        seed: int = 0,
        *,
        directed: bool = False,
        label_counts: np.ndarray | None = None,
        delays: np.ndarray | None = None,
    ) -> nx.Graph:
        """Return the file's graph, if it has n nodes; `topology.graphs.files.read_graph` documents order and attributes."""
        graph = read_graph(self.path, self.format, directed)
        if len(graph) != n:
            raise ValueError(f"{self.path}: has {len(graph)} nodes, and there are {n} peers; set peers = {len(graph)}")
        return graph

    def edges(self, n: int, seed: int) -> Edges:
        links: Edges = self.build(n, seed, directed=True).edges
        return links


AnyTopology = (
    Ring
    | Path
    | Torus
    | Hypercube
    | Complete
    | Star
    | BinaryTree
    | Barbell
    | RandomRegular
    | ErdosRenyi
    | WattsStrogatz
    | BarabasiAlbert
    | Exponential
    | EquiStatic
    | Paley
    | ChordalCycle
    | MargulisGabberGalil
    | DCliques
    | MicroClouds
    | Geographic
    | Overlay
    | File
)


def torus_sides(n: int) -> tuple[int, int] | None:
    """Return the most square a x b = n with 3 <= a <= b, or None; on a side of 2 two links would join the same two peers."""
    for rows in range(math.isqrt(n), 2, -1):
        if n % rows == 0:
            return rows, n // rows
    return None
