"""Graphs with short waiting times for a given network, computed from the delays between all pairs of peers.

Marfoq, Xu, Neglia and Vidal 2020, "Throughput-optimal topology design for cross-silo federated learning" (arXiv
2010.12229). The delay of a pair is the mean over both directions, since a round on an undirected link uses both.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal, get_args

import networkx as nx
import numpy as np

from grapevine.topology.graphs.base import Laid, require

Shape = Literal["spanning-tree", "bounded-tree", "ring", "star"]


class Overlay(Laid, frozen=True, kw_only=True, tag="overlay"):
    """The tree, ring or star with the shortest delays on its links, for a network whose delays between all peers are known.

    - `spanning-tree`: the smallest sum of delays, and the smallest largest delay.
    - `bounded-tree`: no peer has more than `most` neighbours, and the largest delay is low (delta-MBST: the better of Prim's
      method with bounded degrees and a path through the cube of the spanning tree, at most three times as long).
    - `ring`: a short round trip through all peers (Christofides: at most 1.5 times the shortest if delays are a metric).
    - `star`: the centre is the peer on most shortest paths; among equals, the peer with the smallest sum of delays.
    """

    shape: Shape = "spanning-tree"
    """spanning-tree, bounded-tree, ring or star."""

    most: int = 3
    """Largest number of neighbours of a peer in a bounded-tree: 2 (a path) or more."""

    laid_after: ClassVar[Literal["nothing", "data", "network"]] = "network"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.shape in get_args(Shape), "shape", self.shape, f"one of {', '.join(get_args(Shape))}")
        require(self.most >= 2, "most", self.most, "2 or more, since with fewer a fleet cannot be connected")

    def lay(self, graph: nx.Graph, seed: int, label_counts: np.ndarray | None, delays: np.ndarray | None) -> None:
        if delays is None:
            raise ValueError(
                "overlay depends on the network's delays; give delays=[peers, peers], from peer i to peer j, or choose "
                "binary-tree, ring or star, which need none"
            )
        cost = _both_ways(delays, len(graph))
        if self.shape == "spanning-tree":
            edges = _spanning_tree(cost)
        elif self.shape == "bounded-tree":
            edges = _bounded_tree(cost, self.most)
        else:
            edges = _ring(cost) if self.shape == "ring" else _star(cost)
        pairs = sorted((min(edge), max(edge)) for edge in edges)
        graph.add_edges_from((i, j, {"asked_delay": float(cost[i, j])}) for i, j in pairs)


def _both_ways(delays: np.ndarray, n: int) -> np.ndarray:
    given = np.array(delays, dtype=np.float64)
    if given.shape != (n, n):
        raise ValueError(f"delays are of shape {given.shape} for {n} peers; give one for each pair: [n, n]")
    np.fill_diagonal(given, 0.0)
    if not np.isfinite(given).all() or given.min() < 0.0:
        raise ValueError("a delay is negative or not finite; give the delay of every pair, along the shortest path")
    return (given + given.T) / 2.0


def _complete(cost: np.ndarray) -> nx.Graph:
    graph = nx.complete_graph(len(cost))
    nx.set_edge_attributes(graph, {(i, j): float(cost[i, j]) for i, j in graph.edges}, "delay")
    return graph


def _spanning_tree(cost: np.ndarray) -> list[tuple[int, int]]:
    return list(nx.minimum_spanning_edges(_complete(cost), weight="delay", data=False))


def _bounded_tree(cost: np.ndarray, most: int) -> list[tuple[int, int]]:
    found = [_path_through(_spanning_tree(cost), len(cost))]
    if most > 2:
        found.append(_prim(cost, most))
    return min(found, key=lambda edges: (max(cost[edge] for edge in edges), sum(cost[edge] for edge in edges)))


def _prim(cost: np.ndarray, most: int) -> list[tuple[int, int]]:
    """Grow a tree by the link of least cost, skipping peers that have `most` neighbours already."""
    n = len(cost)
    inside, degree = np.zeros(n, dtype=bool), np.zeros(n, dtype=int)
    edges: list[tuple[int, int]] = []
    inside[0] = True
    while len(edges) < n - 1:
        open_links = np.where((inside & (degree < most))[:, None] & ~inside[None, :], cost, np.inf)
        i, j = (int(place) for place in np.unravel_index(int(np.argmin(open_links)), cost.shape))
        inside[j] = True
        degree[i] += 1
        degree[j] += 1
        edges.append((i, j))
    return edges


def _path_through(tree_edges: list[tuple[int, int]], n: int) -> list[tuple[int, int]]:
    """Return a path through all nodes in which each step spans at most three links of the tree (Sekanina 1960).

    Nodes at even depths are visited on the way down, those at odd depths on the way up: at most two other nodes lie
    between two consecutive visits.
    """
    beside: dict[int, list[int]] = {node: [] for node in range(n)}
    for i, j in tree_edges:
        beside[i].append(j)
        beside[j].append(i)
    order: list[int] = []
    stack = [(0, -1, 0, False)]
    while stack:
        node, parent, depth, done = stack.pop()
        if done:
            order.append(node)
            continue
        if depth % 2:
            stack.append((node, parent, depth, True))
        else:
            order.append(node)
        stack.extend((child, node, depth + 1, False) for child in sorted(beside[node], reverse=True) if child != parent)
    return list(pairwise(order))


def _ring(cost: np.ndarray) -> list[tuple[int, int]]:
    if len(cost) < 4:
        return [(i, (i + 1) % len(cost)) for i in range(len(cost) if len(cost) > 2 else len(cost) - 1)]
    tour = nx.approximation.christofides(_complete(cost), weight="delay")
    return list(pairwise(tour))


def _star(cost: np.ndarray) -> list[tuple[int, int]]:
    if _direct_is_shortest(cost):  # then no peer is on another pair's path; networkx takes long to compute this
        load = dict.fromkeys(range(len(cost)), 0.0)
    else:
        load = nx.load_centrality(_complete(cost), weight="delay")
    centre = min(range(len(cost)), key=lambda peer: (-round(load[peer], 12), cost[peer].sum(), peer))
    return [(centre, peer) for peer in range(len(cost)) if peer != centre]


def _direct_is_shortest(cost: np.ndarray) -> bool:
    others = ~np.eye(len(cost), dtype=bool)
    for middle in range(len(cost)):
        apart = others & others[:, [middle]] & others[[middle], :]
        if (apart & (cost[:, [middle]] + cost[[middle], :] <= cost)).any():
            return False
    return True
