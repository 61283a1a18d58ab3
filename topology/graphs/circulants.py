"""Circulant graphs, in which peer i is linked to i plus the same offsets for every i: exponential and EquiStatic."""

from __future__ import annotations

from typing import ClassVar

import networkx as nx
import numpy as np

from grapevine.topology.graphs.base import TRIES, Edges, Laid, Topology, require
from grapevine.topology.mixing.matrix import Rule


class Exponential(Topology, frozen=True, kw_only=True, tag="exponential"):
    """Each peer sends to the peers 1, 2, 4, 8, ... places after it: log2(n) links, one way; mixes nearly as fast as complete.

    Ying et al. 2021 (arXiv 2110.13363): doubly stochastic with `uniform` weights; for even n the gap is 2 / (1 + degree).
    """

    mixing: Rule = "uniform"
    """How the weight of each received model is chosen: uniform."""

    @property
    def one_way(self) -> bool:
        """True: links go one way."""
        return True

    def edges(self, n: int, seed: int) -> Edges:
        return [(i, (i + (1 << j)) % n) for i in range(n) for j in range((n - 1).bit_length())]


class EquiStatic(Laid, frozen=True, kw_only=True, tag="equi-static"):
    """Each peer is linked to the peers a few random distances away, the same for all; the gap does not fall with n.

    Song et al. 2022 (arXiv 2210.07881). The edge attribute `weight` is the share of the draws that gave this edge: in the
    published matrix a distance drawn twice counts twice. Draws that leave the graph disconnected are repeated.
    """

    draws: int | None = None
    """Distances drawn, with replacement: 1 to a million; if left out: twice log2(n), rounded up."""

    directed: bool = False
    """true: each peer sends to the peer that distance after it and receives from the one before; false: both ways."""

    smallest: ClassVar[int] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.draws is None or 1 <= self.draws <= 1_000_000, "draws", self.draws, "1 to a million")

    @property
    def one_way(self) -> bool:
        """True if the option `directed` is set."""
        return self.directed

    def lay(self, graph: nx.Graph, seed: int, label_counts: np.ndarray | None, delays: np.ndarray | None) -> None:
        n = len(graph)
        count = 2 * (n - 1).bit_length() if self.draws is None else self.draws
        for attempt in range(TRIES):
            steps = np.random.default_rng([seed, 5, attempt]).integers(1, n, size=count)
            if np.gcd.reduce([n, *steps.tolist()]) == 1:  # then a walk of these steps reaches the next peer, and so all peers
                break
        else:
            raise ValueError(f"none of {TRIES} draws connected all peers: equi-static with draws = {count}; raise draws")
        shares: dict[tuple[int, int], float] = {}
        for step in sorted(steps.tolist()):
            for i in range(n):
                other = (i + step) % n
                way = (i, other) if self.directed else (min(i, other), max(i, other))
                shares[way] = shares.get(way, 0.0) + (1.0 if self.directed else 0.5) / count
        for (i, j), share in sorted(shares.items()):
            graph.add_edge(i, j, weight=share)
