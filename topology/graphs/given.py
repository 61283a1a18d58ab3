"""Convert a networkx graph of the user's own into one on peers 0..n-1."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def from_graph(graph: nx.Graph, directed: bool = False) -> nx.Graph:
    """Return a copy of a connected networkx graph on the nodes 0..n-1, ready for a fleet.

    Nodes are numbered in ascending order if all names are whole numbers (7, "7"), otherwise in the order of
    `graph.nodes`. Every node keeps its attributes and gets `original_name`; edge attributes and graph attributes are kept.
    Self loops are left out, since every peer keeps a share of its own model anyway. With `directed=True` a `DiGraph`
    is allowed; it must be strongly connected.

    Raises ValueError for an object that is not a networkx graph, an empty graph, a multigraph, a directed graph without
    `directed=True`, and a graph that is not connected; each message names the cure.
    """
    check_simple(graph)
    if graph.is_directed() and not directed:
        raise ValueError(
            "the graph is directed, and peers that average with each other need an undirected one; "
            "give graph.to_undirected() if every edge may be used both ways"
        )
    order = peer_order(graph)
    number = {name: i for i, name in enumerate(order)}
    fresh = nx.DiGraph() if graph.is_directed() else nx.Graph()
    fresh.graph.update(graph.graph)
    for name in order:
        fresh.add_node(number[name])
        fresh.nodes[number[name]].update({"original_name": name, **_text_keys(graph.nodes[name])})
    for source, target, attributes in graph.edges(data=True):
        if source != target:
            fresh.add_edges_from([(number[source], number[target], _text_keys(attributes))])
    _check_connected(fresh)
    return sorted_copy(fresh)


def peer_order(graph: nx.Graph) -> list[Any]:
    """Return the nodes in the order of their peer numbers: ascending if all are whole numbers, else as in `graph.nodes`."""
    names = list(graph.nodes)
    numbers = [_whole_number(name) for name in names]
    if any(number is None for number in numbers):
        return names
    return [names[i] for i in sorted(range(len(names)), key=lambda i: numbers[i])]  # type: ignore[arg-type, return-value]


def adjacency(graph: nx.Graph) -> np.ndarray:
    """Return the adjacency matrix: float64 [n, n] of 0 and 1, rows by `peer_order`; weights and self loops are ignored."""
    matrix = nx.to_numpy_array(graph, nodelist=peer_order(graph), weight=None, dtype=np.float64)
    np.fill_diagonal(matrix, 0.0)
    adjacency: np.ndarray = (matrix != 0).astype(np.float64)
    return adjacency


def links(graph: nx.Graph) -> csr_array:
    """Return the matrix of `adjacency` as a sparse array; in a directed graph rows are senders, columns receivers."""
    from scipy.sparse import csr_array

    beside = csr_array(nx.to_scipy_sparse_array(graph, nodelist=peer_order(graph), weight=None, dtype=np.float64, format="csr"))
    beside.setdiag(0.0)
    beside.eliminate_zeros()
    beside.data[:] = 1.0
    return beside


def check_simple(graph: object) -> None:
    """Raise ValueError unless this is a networkx graph with at least one node and at most one edge between two nodes."""
    if not isinstance(graph, nx.Graph):
        raise ValueError(f"expected a networkx graph, not {type(graph).__name__}; make one with networkx.Graph(edges)")
    if graph.is_multigraph():
        raise ValueError(
            "the graph is a multigraph, and two peers have at most one link between them; "
            "give networkx.Graph(graph), which keeps one edge for each pair"
        )
    if not len(graph):
        raise ValueError("the graph is empty; give it at least one node")


def sorted_copy(graph: nx.Graph) -> nx.Graph:
    """Return a copy with nodes, edges and neighbours in ascending order: equal graphs are then iterated in equal order."""
    fresh = graph.__class__()
    fresh.graph.update(graph.graph)
    fresh.add_nodes_from(sorted(graph.nodes(data=True), key=lambda item: item[0]))
    edges = graph.edges(data=True)
    if not graph.is_directed():
        edges = [(min(source, target), max(source, target), attributes) for source, target, attributes in edges]
    fresh.add_edges_from(sorted(edges, key=lambda edge: edge[:2]))
    return fresh


def _whole_number(name: object) -> int | None:
    if isinstance(name, Integral):
        return int(name)
    if isinstance(name, str) and name.strip().lstrip("+-").isascii() and name.strip().lstrip("+-").isdigit():
        try:
            return int(name)
        except ValueError:  # "+-3", or more digits than Python reads
            return None
    return None


def _text_keys(attributes: dict[Any, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in attributes.items()}


def _check_connected(graph: nx.Graph) -> None:
    directed = graph.is_directed()
    find = nx.strongly_connected_components if directed else nx.connected_components
    pieces = sorted(find(graph), key=lambda piece: (-len(piece), min(piece)))
    if len(pieces) == 1:
        return
    sizes = ", ".join(str(len(piece)) for piece in pieces[:5]) + (", ..." if len(pieces) > 5 else "")
    lost = graph.nodes[min(pieces[1])]["original_name"]
    raise ValueError(
        f"the graph is not {'strongly ' if directed else ''}connected: it falls into {len(pieces)} pieces (of {sizes} "
        f"nodes), and node {lost!r} is cut off from the largest; add edges between them, or keep the largest piece: "
        f"graph.subgraph(max(networkx.{find.__name__}(graph), key=len))"
    )
