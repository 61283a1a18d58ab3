"""Conversion of networkx graphs into graphs of a fleet."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

from grapevine import topology


def test_whole_numbers_are_numbered_ascending_and_other_names_in_their_order() -> None:
    numbers = topology.from_graph(nx.Graph([(30, 4), (4, 100)]))
    assert [numbers.nodes[i]["original_name"] for i in numbers] == [4, 30, 100]
    assert list(numbers.edges) == [(0, 1), (0, 2)]
    texts = topology.from_graph(nx.Graph([("10", "9"), ("9", "-2")]))
    assert [texts.nodes[i]["original_name"] for i in texts] == ["-2", "9", "10"]
    names = topology.from_graph(nx.Graph([("rome", "oslo"), ("oslo", "3")]))
    assert [names.nodes[i]["original_name"] for i in names] == ["rome", "oslo", "3"]
    grid = topology.from_graph(nx.grid_2d_graph(2, 3))
    assert [grid.nodes[i]["original_name"] for i in grid] == [(r, c) for r in range(2) for c in range(3)]


def test_attributes_stay_and_the_given_graph_is_left_alone() -> None:
    given = nx.Graph(name="mine", owner="me")
    given.add_node("b", region="eu")
    given.nodes["b"]["node_for_adding"] = 1  # a key that files may contain
    given.add_edge("b", "a", rate="1 Mbit/s")
    given.edges["b", "a"]["u_of_edge"] = 2
    given.add_edge("a", "a")
    graph = topology.from_graph(given)
    assert graph.graph == {"name": "mine", "owner": "me"}
    assert graph.nodes[0] == {"original_name": "b", "region": "eu", "node_for_adding": 1}
    assert list(graph.edges(data=True)) == [(0, 1, {"rate": "1 Mbit/s", "u_of_edge": 2})]
    graph.edges[0, 1]["rate"] = "changed"
    assert given.edges["a", "b"]["rate"] == "1 Mbit/s"
    assert given.has_edge("a", "a")


def test_converting_twice_gives_the_same_graph() -> None:
    once = topology.from_graph(nx.relabel_nodes(topology.build("star", 5), {i: f"n{i}" for i in range(5)}))
    twice = topology.from_graph(once)
    assert dict(twice.nodes(data=True)) == dict(once.nodes(data=True))
    assert list(twice.edges) == list(once.edges)


def test_a_directed_graph_needs_directed_true_and_strong_connection() -> None:
    circle = nx.DiGraph([("a", "b"), ("b", "c"), ("c", "a")])
    graph = topology.from_graph(circle, directed=True)
    assert type(graph) is nx.DiGraph
    assert list(graph.edges) == [(0, 1), (1, 2), (2, 0)]
    assert type(topology.from_graph(nx.cycle_graph(4), directed=True)) is nx.Graph
    with pytest.raises(ValueError, match=r"not strongly connected: it falls into 2 pieces"):
        topology.from_graph(nx.DiGraph([("a", "b"), ("b", "a"), ("b", "c")]), directed=True)


def test_the_cure_for_a_disconnected_graph_works() -> None:
    given = nx.disjoint_union(nx.cycle_graph(5), nx.path_graph(2))
    with pytest.raises(ValueError, match=r"2 pieces \(of 5, 2 nodes\), and node 5 is cut off") as caught:
        topology.from_graph(given)
    assert "graph.subgraph(max(networkx.connected_components(graph), key=len))" in str(caught.value)
    largest = given.subgraph(max(nx.connected_components(given), key=len))
    assert len(topology.from_graph(largest)) == 5


REFUSALS = [
    (nx.Graph(), "the graph is empty; give it at least one node"),
    (nx.DiGraph([(0, 1), (1, 0)]), r"the graph is directed.*; give graph.to_undirected\(\)"),
    (nx.MultiGraph([(0, 1), (0, 1)]), r"multigraph.*; give networkx.Graph\(graph\)"),
    (nx.MultiDiGraph([(0, 1)]), "multigraph"),
    (nx.empty_graph(9), r"falls into 9 pieces \(of 1, 1, 1, 1, 1, ... nodes\)"),
    (np.eye(3), r"expected a networkx graph, not ndarray; make one with networkx.Graph\(edges\)"),
    ([(0, 1)], "not list"),
    (None, "not NoneType"),
]


@pytest.mark.parametrize(("graph", "message"), REFUSALS)
def test_every_refusal_names_the_cure(graph: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        topology.from_graph(graph)
