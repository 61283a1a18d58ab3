"""Change a graph when a peer enters or leaves: pure functions from a graph to a new graph.

Nodes are living peers, numbered by any whole numbers. The new graph is connected if the given one was; random numbers come
from `rng` only. `Topology.entered` and `Topology.left` of each graph on the menu choose the function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import networkx as nx
import numpy as np

TRIES = 100
Edge = tuple[int, int]


def splice(graph: nx.Graph, newcomer: int, rng: np.random.Generator) -> nx.Graph:
    """Insert a newcomer into a random link of a ring; two peers and a newcomer become a ring of three."""
    edges = sorted(graph.edges)
    grown = _with_node(graph, newcomer)
    if len(graph) < 3:
        grown.add_edges_from((peer, newcomer) for peer in sorted(graph))
    else:
        first, second = edges[int(rng.integers(len(edges)))]
        grown.remove_edge(first, second)
        grown.add_edges_from([(first, newcomer), (second, newcomer)])
    return grown


def close(graph: nx.Graph, leaver: int) -> nx.Graph:
    """Remove a peer with at most two neighbours and link these: a ring stays a ring, a path stays a path."""
    beside = sorted(graph.neighbors(leaver))
    left = _without_node(graph, leaver)
    if len(beside) == 2:
        left.add_edge(*beside)
    return left


def append(graph: nx.Graph, newcomer: int, rng: np.random.Generator) -> nx.Graph:
    """Link a newcomer to one of the two ends of a path."""
    ends = [peer for peer in sorted(graph) if graph.degree(peer) < 2]
    grown = _with_node(graph, newcomer)
    grown.add_edge(ends[int(rng.integers(len(ends)))], newcomer)
    return grown


def join_all(graph: nx.Graph, newcomer: int) -> nx.Graph:
    """Link a newcomer to all peers, as in a complete graph."""
    grown = _with_node(graph, newcomer)
    grown.add_edges_from((peer, newcomer) for peer in graph)
    return grown


def join_hub(graph: nx.Graph, newcomer: int) -> nx.Graph:
    """Link a newcomer to the peer in the middle of a star."""
    grown = _with_node(graph, newcomer)
    grown.add_edge(_hub(graph), newcomer)
    return grown


def leave_star(graph: nx.Graph, leaver: int) -> nx.Graph:
    """Remove a peer from a star; if it was the middle, the peer with the lowest number replaces it."""
    middle = _hub(graph)
    left = _without_node(graph, leaver)
    if leaver == middle and len(left) > 1:
        heir, *others = sorted(left)
        left.add_edges_from((heir, other) for other in others)
    return left


def subdivide(graph: nx.Graph, newcomer: int, degree: int, rng: np.random.Generator) -> nx.Graph:
    """Insert a newcomer into degree / 2 random links without a common end: no degree changes.

    With an odd degree and an odd number of peers one peer has one neighbour less; the next newcomer is linked to it. Up to
    degree + 1 peers the graph is complete.
    """
    if len(graph) <= degree:
        return join_all(graph, newcomer)
    grown = _with_node(graph, newcomer)
    for first, second in _apart(graph, degree // 2, rng):
        grown.remove_edge(first, second)
        grown.add_edges_from([(first, newcomer), (second, newcomer)])
    return _filled_up(grown, degree, rng)


def pair_orphans(graph: nx.Graph, leaver: int, degree: int, rng: np.random.Generator) -> nx.Graph:
    """Remove a peer from a regular graph and link its former neighbours in pairs: no degree changes.

    Up to degree + 1 peers the graph is complete.
    """
    left = _without_node(graph, leaver)
    if len(left) <= degree + 1:
        left.add_edges_from(nx.complete_graph(sorted(left)).edges)
        return left
    for _ in range(TRIES):
        found = _filled_up(left, degree, rng)
        if nx.is_connected(found):
            return found
    return mend(found, rng)


def join_by_coin(graph: nx.Graph, newcomer: int, p: float, rng: np.random.Generator) -> nx.Graph:
    """Link a newcomer to each peer with probability p, and to at least one."""
    peers = sorted(graph)
    grown = _with_node(graph, newcomer)
    chosen = [peer for peer, draw in zip(peers, rng.random(len(peers)), strict=True) if draw < p]
    if not chosen and peers:
        chosen = [peers[int(rng.integers(len(peers)))]]
    grown.add_edges_from((peer, newcomer) for peer in chosen)
    return grown


def join_preferred(graph: nx.Graph, newcomer: int, m: int, rng: np.random.Generator) -> nx.Graph:
    """Link a newcomer to m peers, chosen with probabilities proportional to their links (Barabasi and Albert 1999)."""
    peers = sorted(graph)
    grown = _with_node(graph, newcomer)
    if peers:
        chance = np.array([max(1, graph.degree(peer)) for peer in peers], dtype=np.float64)
        chosen = rng.choice(len(peers), size=min(m, len(peers)), replace=False, p=chance / chance.sum())
        grown.add_edges_from((peers[int(place)], newcomer) for place in chosen)
    return grown


def join_circle(graph: nx.Graph, newcomer: int, k: int, p: float, rng: np.random.Generator) -> nx.Graph:
    """Link a newcomer to a random peer and k - 1 peers around it; each link moves to a random peer with probability p, as in
    a small world (Watts and Strogatz 1998)."""
    peers = sorted(graph)
    grown = _with_node(graph, newcomer)
    if not peers:
        return grown
    host = peers[int(rng.integers(len(peers)))]
    order = list(nx.bfs_tree(graph, host))[: min(k, len(peers))]
    for peer in order:
        free = [other for other in peers if other not in grown[newcomer] and other not in order]
        thrown = bool(free) and rng.random() < p
        grown.add_edge(free[int(rng.integers(len(free)))] if thrown else peer, newcomer)
    return grown


def take_out(graph: nx.Graph, leaver: int, rng: np.random.Generator) -> nx.Graph:
    """Remove a peer; if the graph is then disconnected, link its pieces at random."""
    return mend(_without_node(graph, leaver), rng)


def mend(graph: nx.Graph, rng: np.random.Generator) -> nx.Graph:
    """Link the pieces of a graph, with one random link for each piece after the first."""
    mended = graph.copy()
    pieces = sorted(nx.connected_components(graph), key=min)
    joined = sorted(pieces[0]) if pieces else []
    for piece in pieces[1:]:
        inside = sorted(piece)
        mended.add_edge(joined[int(rng.integers(len(joined)))], inside[int(rng.integers(len(inside)))])
        joined += inside
    return mended


def mend_by_place(graph: nx.Graph) -> nx.Graph:
    """Link the pieces of a graph whose nodes have `x` and `y`, each to the nearest peer outside it."""
    mended = graph.copy()
    while len(pieces := sorted(nx.connected_components(mended), key=lambda piece: (len(piece), min(piece)))) > 1:
        outside = set(mended) - pieces[0]
        first, second = min(
            ((i, j) for i in sorted(pieces[0]) for j in sorted(outside)), key=lambda pair: (distance(mended, *pair), pair)
        )
        mended.add_edge(first, second, distance=distance(mended, first, second))
    return mended


def join_nearest(graph: nx.Graph, newcomer: int, nearest: int, place: tuple[float, float]) -> nx.Graph:
    """Link a newcomer at a place to the `nearest` peers closest to it; nodes have `x` and `y`."""
    grown = _with_node(graph, newcomer)
    grown.nodes[newcomer].update(x=place[0], y=place[1])
    for peer in sorted(graph, key=lambda peer: (distance(grown, peer, newcomer), peer))[:nearest]:
        grown.add_edge(peer, newcomer, distance=distance(grown, peer, newcomer))
    return grown


def leave_place(graph: nx.Graph, leaver: int, nearest: int) -> nx.Graph:
    """Remove a peer; a neighbour left with fewer than `nearest` links gets the closest peer not yet linked to it."""
    left = _without_node(graph, leaver)
    for peer in sorted(graph.neighbors(leaver)):
        strangers = [other for other in left if other != peer and not left.has_edge(peer, other)]
        if left.degree(peer) < nearest and strangers:
            other = min(strangers, key=lambda other: (distance(left, peer, other), other))
            left.add_edge(peer, other, distance=distance(left, peer, other))
    return mend_by_place(left)


def distance(graph: nx.Graph, first: int, second: int) -> float:
    """Return the distance of two nodes with `x` and `y`."""
    one, two = graph.nodes[first], graph.nodes[second]
    return math.hypot(one["x"] - two["x"], one["y"] - two["y"])


def named(graph: nx.Graph, peers: Sequence[int]) -> nx.Graph:
    """Return a graph on 0..n-1 with its nodes renamed to the peers, in ascending order."""
    order = sorted(peers)
    return nx.relabel_nodes(graph, dict(enumerate(order)))


def _with_node(graph: nx.Graph, newcomer: int) -> nx.Graph:
    if newcomer in graph:
        raise ValueError(f"peer {newcomer} is in the graph already; only a peer that is not can enter")
    grown = graph.copy()
    grown.add_node(newcomer)
    return grown


def _without_node(graph: nx.Graph, leaver: int) -> nx.Graph:
    if leaver not in graph:
        raise ValueError(f"peer {leaver} is not in the graph; only a peer that is can leave")
    left = graph.copy()
    left.remove_node(leaver)
    return left


def _hub(graph: nx.Graph) -> int:
    hub: int = min(graph, key=lambda peer: (-graph.degree(peer), peer))
    return hub


def _apart(graph: nx.Graph, count: int, rng: np.random.Generator) -> list[Edge]:
    """Return `count` random links, no two of them with a common end."""
    edges = sorted((min(edge), max(edge)) for edge in graph.edges)
    for _ in range(TRIES):
        taken: set[int] = set()
        chosen: list[Edge] = []
        for place in rng.permutation(len(edges)):
            first, second = edges[int(place)]
            if first not in taken and second not in taken and len(chosen) < count:
                chosen.append((first, second))
                taken |= {first, second}
        if len(chosen) == count:
            return chosen
    return sorted((min(edge), max(edge)) for edge in nx.max_weight_matching(graph, maxcardinality=True))[:count]


def _filled_up(graph: nx.Graph, degree: int, rng: np.random.Generator) -> nx.Graph:
    """Link peers with fewer than `degree` neighbours in pairs; two that are linked already are inserted into another link."""
    filled = graph.copy()
    for _ in range(TRIES):
        lacking = [peer for peer in sorted(filled) for _ in range(degree - filled.degree(peer))]
        if len(lacking) < 2:
            break
        first, second = (lacking[int(place)] for place in rng.choice(len(lacking), size=2, replace=False))
        if first != second and not filled.has_edge(first, second):
            filled.add_edge(first, second)
        elif len(set(lacking)) < 3:  # no other pair is possible
            _through_a_link(filled, first, second, rng)
    return filled


def _through_a_link(graph: nx.Graph, first: int, second: int, rng: np.random.Generator) -> None:
    """Replace a random link by two: from each of its ends to one of the two peers."""
    edges = sorted(graph.edges)
    for place in rng.permutation(len(edges)):
        one, two = edges[int(place)]
        for near, far in ((one, two), (two, one)):
            if len({near, far, first, second}) == 4 - (first == second) and not (
                graph.has_edge(first, near) or graph.has_edge(second, far)
            ):
                graph.remove_edge(one, two)
                graph.add_edges_from([(first, near), (second, far)])
                return
