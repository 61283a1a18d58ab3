"""Graphs laid after the network: those that wait least, from the delays between all pairs of peers.

Marfoq, Xu, Neglia and Vidal 2020, "Throughput-optimal topology design for cross-silo federated learning" (arXiv
2010.12229). Delays are taken both ways in the mean, since an undirected link is as slow as both its ways together.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal, get_args

import networkx as nx
import numpy as np

from grapevine.topology.graphs.base import Topology, require

Shape = Literal["spanning-tree", "bounded-tree", "ring", "star"]


class Overlay(Topology, frozen=True, kw_only=True, tag="overlay"):
    """The tree, ring or star that waits least on its links, for a network whose delays between all peers are known.

    - `spanning-tree`: the least total delay, and the least largest one.
    - `bounded-tree`: no peer has more than `most` neighbours, and the largest delay is low (delta-MBST: Prim's method with
      bounded degrees, or a path through the cube of the spanning tree, at most three times as long, whichever is better).
    - `ring`: a short round trip through all (Christofides' method, at most 1.5 times the shortest where delays are a metric).
    - `star`: everybody with the peer through which most shortest ways lead, and of several the one that is nearest to all.
    """

    shape: Shape = "spanning-tree"
    """spanning-tree, bounded-tree, ring or star."""

    most: int = 3
    """Neighbours of a peer in a bounded-tree, at most: 2 (a path) or more."""

    laid_after: ClassVar[Literal["nothing", "data", "network"]] = "network"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.shape in get_args(Shape), "shape", self.shape, f"one of {', '.join(get_args(Shape))}")
        require(self.most >= 2, "most", self.most, "2 or more, since with fewer a fleet cannot be connected")

    def lay(self, graph: nx.Graph, seed: int, label_counts: np.ndarray | None, delays: np.ndarray | None) -> None:
        if delays is None:
            raise ValueError(
                "overlay is laid after the network's delays; give delays=[peers, peers], from peer i to peer j, or choose "
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
    asked = np.array(delays, dtype=np.float64)
    if asked.shape != (n, n):
        raise ValueError(f"delays are of shape {asked.shape} for {n} peers; give one for each pair: [n, n]")
    np.fill_diagonal(asked, 0.0)
    if not np.isfinite(asked).all() or asked.min() < 0.0:
        raise ValueError("a delay is negative or not finite; give the delay of every pair, along the shortest way")
    return (asked + asked.T) / 2.0


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
    """A tree grown by its cheapest link, passing over peers that have all the neighbours they may."""
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
    """A path through all nodes whose steps span at most three links of the tree (Sekanina 1960).

    Nodes at even depths are visited on the way down, those at odd depths on the way up: between two that are visited one
    after the other lie at most two others.
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
    if _direct_is_shortest(cost):  # then nobody lies on another's way; networkx would take long to find that out
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
