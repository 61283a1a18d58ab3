"""Peers at places in a square: each is linked to the nearest, and optionally to a few far away."""

from __future__ import annotations

from typing import ClassVar

import networkx as nx
import numpy as np

from grapevine.topology.graphs import growth
from grapevine.topology.graphs.base import Laid, Turn, require


class Geographic(Laid, frozen=True, kw_only=True, tag="geographic"):
    """Peers at random places, each linked to those nearest; with `far` links a small world.

    Places are uniform in a square of side 1: node attributes `x` and `y`, edge attribute `distance`. While these links
    leave the graph disconnected, the smallest piece is linked to the nearest peer outside it. A far link goes to another
    peer with a probability proportional to distance^-exponent (Kleinberg 2000).
    """

    nearest: int = 4
    """Nearest peers that each peer is linked to: 1 to peers - 1; a peer gets more links where others choose it."""

    far: int = 0
    """Additional links that each peer makes to random peers: 0 or more."""

    exponent: float = 2.0
    """How strongly far links prefer near peers: 0 (not at all) or more; at 2 greedy routing finds the shortest paths."""

    smallest: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.nearest >= 1, "nearest", self.nearest, "1 or more")
        require(self.far >= 0, "far", self.far, "0 or more")
        require(0.0 <= self.exponent < 100.0, "exponent", self.exponent, "a number from 0 to 100")

    def lay(self, graph: nx.Graph, seed: int, label_counts: np.ndarray | None, delays: np.ndarray | None) -> None:
        n = len(graph)
        if self.nearest + self.far >= n:
            raise ValueError(
                f"geographic with nearest = {self.nearest} and far = {self.far} needs more than {self.nearest + self.far} "
                f"peers, not {n}; raise peers or lower nearest"
            )
        rng = np.random.default_rng([seed, 7])
        places = rng.random((n, 2))
        pairs = self._near(places)
        _join(places, pairs)
        for i in range(n if self.far else 0):
            pairs |= self._far_links(places, i, pairs, rng)
        for i, place in enumerate(places):
            graph.nodes[i].update(x=float(place[0]), y=float(place[1]))
        lengths = {(i, j): float(np.linalg.norm(places[i] - places[j])) for i, j in pairs}
        graph.add_edges_from((i, j, {"distance": lengths[i, j]}) for i, j in sorted(pairs))

    def entered(self, graph: nx.Graph, newcomer: int, turn: Turn) -> nx.Graph:
        x, y = turn.rng.random(2)
        return growth.join_nearest(graph, newcomer, self.nearest, (float(x), float(y)))

    def left(self, graph: nx.Graph, leaver: int, turn: Turn) -> nx.Graph:
        return growth.leave_place(graph, leaver, self.nearest)

    def _near(self, places: np.ndarray) -> set[tuple[int, int]]:
        from scipy.spatial import KDTree

        _, near = KDTree(places).query(places, k=self.nearest + 1)
        return {(min(i, int(j)), max(i, int(j))) for i, row in enumerate(near) for j in row if i != int(j)}

    def _far_links(
        self, places: np.ndarray, i: int, taken: set[tuple[int, int]], rng: np.random.Generator
    ) -> set[tuple[int, int]]:
        distance = np.linalg.norm(places - places[i], axis=1)
        free = np.array([j != i and (min(i, j), max(i, j)) not in taken for j in range(len(places))])
        chance = np.where(free, 1.0 / np.maximum(distance, 1e-9) ** self.exponent, 0.0)
        if not free.any():
            return set()
        chosen = rng.choice(len(places), size=min(self.far, int(free.sum())), replace=False, p=chance / chance.sum())
        return {(min(i, int(j)), max(i, int(j))) for j in chosen}


def _join(places: np.ndarray, pairs: set[tuple[int, int]]) -> None:
    """Add the shortest link that leaves the smallest piece, until the graph is connected."""
    from scipy.spatial import KDTree

    graph = nx.empty_graph(len(places))
    graph.add_edges_from(pairs)
    while True:
        pieces = sorted(nx.connected_components(graph), key=lambda piece: (len(piece), min(piece)))
        if len(pieces) == 1:
            return
        inside, outside = sorted(pieces[0]), sorted(set(graph) - pieces[0])
        distance, found = KDTree(places[outside]).query(places[inside])
        i = int(np.argmin(distance))
        pair = (min(inside[i], outside[found[i]]), max(inside[i], outside[found[i]]))
        pairs.add(pair)
        graph.add_edge(*pair)
