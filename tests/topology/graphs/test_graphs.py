"""The menu: every graph has the shape of its name, is connected, and is the same for the same seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import networkx as nx
import numpy as np
import pytest

from grapevine import topology
from grapevine.topology.graphs.menu import AnyTopology, torus_sides

RANDOM = ("random-regular", "erdos-renyi", "watts-strogatz", "barabasi-albert", "equi-static", "geographic")
ASKING = ("d-cliques", "overlay")  # they need labels or delays: see test_asking.py
BUILT = [name for name in topology.menu() if name not in ("file", *ASKING)]
DIRECTED = ("exponential",)


def suited(name: str, n: int) -> int:
    """Return a number of peers at or below n for which the graph exists: 13 and 61 are primes of the form 4 k + 1."""
    return {16: 13, 64: 61}[n] if name in ("paley", "chordal-cycle") else n


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("n", [16, 64])
def test_every_graph_is_connected_and_simple_on_the_nodes_0_to_n(name: str, n: int) -> None:
    n = suited(name, n)
    graph = topology.build(name, n, seed=1)
    assert type(graph) is (nx.DiGraph if name in DIRECTED else nx.Graph)
    assert list(graph.nodes) == list(range(n))
    assert nx.is_strongly_connected(graph) if name in DIRECTED else nx.is_connected(graph)
    assert nx.number_of_selfloops(graph) == 0
    assert graph.name == name
    assert all(list(graph[i]) == sorted(graph[i]) for i in graph)


@pytest.mark.parametrize(
    ("name", "n", "expected"),
    [
        ("ring", 7, nx.cycle_graph(7)),
        ("path", 6, nx.path_graph(6)),
        ("star", 9, nx.star_graph(8)),
        ("complete", 6, nx.complete_graph(6)),
        ("complete", 1, nx.empty_graph(1)),
        ("binary-tree", 12, nx.full_rary_tree(2, 12)),
        ("barbell", 10, nx.barbell_graph(5, 0)),
        ("barbell", 11, nx.barbell_graph(5, 1)),
    ],
)
def test_edges_of_plain_graphs(name: str, n: int, expected: nx.Graph) -> None:
    graph = topology.build(name, n)
    assert set(map(frozenset, graph.edges)) == set(map(frozenset, expected.edges))
    assert set(graph) == set(expected)


@pytest.mark.parametrize(("n", "sides"), [(9, (3, 3)), (12, (3, 4)), (16, (4, 4)), (32, (4, 8)), (60, (6, 10)), (21, (3, 7))])
def test_the_torus_is_as_square_as_can_be(n: int, sides: tuple[int, int]) -> None:
    assert torus_sides(n) == sides
    assert nx.is_isomorphic(topology.build("torus", n), nx.grid_2d_graph(*sides, periodic=True))


def test_every_torus_has_four_neighbours_each() -> None:
    built = [n for n in range(9, 80) if torus_sides(n)]
    assert all({degree for _, degree in topology.build("torus", n).degree} == {4} for n in built)
    assert 10 not in built
    assert 14 not in built  # 2 x 7 would give two links between the same two peers


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4, 6])
def test_the_hypercube_joins_numbers_that_differ_in_one_bit(dimensions: int) -> None:
    graph = topology.build("hypercube", 2**dimensions)
    assert all((i ^ j).bit_count() == 1 for i, j in graph.edges)
    assert {degree for _, degree in graph.degree} == {dimensions}


@pytest.mark.parametrize(("n", "degree"), [(16, 4), (9, 2), (10, 3), (30, 16), (40, 38), (24, 23)])
def test_random_regular_has_that_degree(n: int, degree: int) -> None:
    graph = topology.build("random-regular", n, seed=2, degree=degree)
    assert {found for _, found in graph.degree} == {degree}


def test_options_reach_the_random_graphs() -> None:
    assert topology.build("barabasi-albert", 30, m=3).number_of_edges() == 3 + 3 * 26
    assert topology.build("watts-strogatz", 30, k=6, p=0.5).number_of_edges() == 90
    assert topology.build("erdos-renyi", 12, p=1.0).number_of_edges() == 66
    lattice = topology.build("watts-strogatz", 20, k=4, p=0.0)
    assert set(map(frozenset, lattice.edges)) == set(map(frozenset, nx.circulant_graph(20, [1, 2]).edges))


def test_erdos_renyi_has_about_as_many_links_as_asked() -> None:
    counts = [topology.build("erdos-renyi", 60, seed=seed, p=0.3).number_of_edges() for seed in range(30)]
    assert abs(np.mean(counts) - 0.3 * 1770) < 5 * np.sqrt(1770 * 0.3 * 0.7 / 30)


@pytest.mark.parametrize("name", RANDOM)
def test_a_random_graph_depends_on_the_seed_only(name: str) -> None:
    first, again, other = (topology.build(name, 24, seed=seed) for seed in (5, 5, 6))
    assert list(first.edges) == list(again.edges)
    assert list(first.edges) != list(other.edges)


def test_random_graphs_are_connected_near_the_threshold() -> None:
    """At p = ln(n)/n about one graph in three is connected, and 2-regular graphs are often several rings."""
    for seed in range(25):
        assert nx.is_connected(topology.build("erdos-renyi", 40, seed=seed, p=float(np.log(40) / 40)))
        assert nx.is_connected(topology.build("random-regular", 20, seed=seed, degree=2))
        assert nx.is_connected(topology.build("watts-strogatz", 20, seed=seed, k=2, p=0.3))
        assert nx.is_connected(topology.build("barabasi-albert", 20, seed=seed, m=1))


@pytest.mark.slow
def test_the_same_seed_in_another_process_gives_the_same_graph() -> None:
    code = f"from grapevine import topology; print([list(topology.build(name, 20, seed=3).edges) for name in {RANDOM!r}])"
    root = Path(__file__).parents[2]
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1] == f"{[list(topology.build(name, 20, seed=3).edges) for name in RANDOM]}\n"


def test_build_takes_numbers_of_numpy_and_paths(tmp_path: Path) -> None:
    ten: Any = np.int64(10)
    one: Any = np.int64(1)
    graph = topology.build("random-regular", ten, seed=one, degree=np.int64(3))
    assert list(graph.edges) == list(topology.build("random-regular", 10, seed=1, degree=3).edges)
    (tmp_path / "pair.edges").write_text("0 1\n")
    assert len(topology.build("file", 2, path=tmp_path / "pair.edges")) == 2


@pytest.mark.parametrize("name", BUILT)
def test_a_topology_written_to_a_file_reads_back_the_same(name: str) -> None:
    kind = topology.menu()[name]
    topo = msgspec.convert({"name": name, "mixing": "lazy"}, AnyTopology)
    assert type(topo) is kind
    assert msgspec.convert(msgspec.to_builtins(topo), AnyTopology) == topo
    n = suited(name, 16)
    assert topo.build(n, 3, directed=True).edges == topology.build(name, n, 3).edges
    assert kind.__doc__


REFUSALS = [
    ("rign", 8, {}, "no topology 'rign'.*did you mean 'ring'"),
    (None, 8, {}, "no topology None; known are ring, path"),
    ("ring", 8, {"degree": 3}, "ring has no option 'degree'; it takes no options"),
    ("random-regular", 8, {"degre": 3}, "no option 'degre'; its options are degree; did you mean 'degree'"),
    ("random-regular", 8, {"degree": "3"}, "random-regular: degree = '3' will not do: expected `int`"),
    ("ring", 8, {"mixing": "lazy"}, "give the rule to mixing_matrix"),
    ("ring", 2, {}, "ring needs at least 3 peers, not 2; raise peers or choose topology 'complete'"),
    ("path", 1, {}, "at least 2"),
    ("star", 1, {}, "at least 2"),
    ("binary-tree", 1, {}, "at least 2"),
    ("hypercube", 1, {}, "at least 2"),
    ("barbell", 5, {}, "at least 6"),
    ("torus", 8, {}, "at least 9"),
    ("complete", 0, {}, "complete needs at least 1 peers, not 0; raise peers$"),
    ("complete", -4, {}, "raise peers"),
    ("ring", 8.5, {}, "number of peers is 8.5; give a whole number"),
    ("ring", "8", {}, "give a whole number"),
    ("ring", True, {}, "give a whole number"),
    ("torus", 13, {}, "set peers to 12 or 15"),
    ("torus", 10, {}, "set peers to 9 or 12"),
    ("hypercube", 12, {}, "set peers to 8 or 16"),
    ("random-regular", 8, {"degree": 1}, "degree: 1 will not do; expected 2 or more"),
    ("random-regular", 8, {"degree": 8}, "set degree to 7 or less"),
    ("random-regular", 9, {"degree": 3}, "set degree to 2 or 4, or peers to 10"),
    ("erdos-renyi", 8, {"p": 0.0}, "p: 0.0 will not do; expected a probability"),
    ("erdos-renyi", 8, {"p": 1.5}, "p: 1.5 will not do"),
    ("erdos-renyi", 8, {"p": float("nan")}, "p: nan will not do"),
    ("erdos-renyi", 64, {"p": 0.01}, r"none of 100.*raise p well above ln\(n\)/n = 0.065, say to 0.13"),
    ("watts-strogatz", 8, {"k": 3}, "k: 3 will not do; expected an even number"),
    ("watts-strogatz", 8, {"k": 0}, "k: 0 will not do"),
    ("watts-strogatz", 8, {"p": -0.1}, "p: -0.1 will not do"),
    ("watts-strogatz", 8, {"k": 8}, "set k to 6 or less"),
    ("barabasi-albert", 8, {"m": 0}, "m: 0 will not do"),
    ("barabasi-albert", 8, {"m": 8}, "set m to 7 or less"),
    ("file", 8, {}, "the option 'path' is missing"),
    ("file", 8, {"path": "x.gml", "format": "xml"}, "format = 'xml' will not do: known are graphml"),
    ("file", 8, {"path": 3}, "path = 3 will not do"),
]


@pytest.mark.parametrize(("name", "n", "options", "message"), REFUSALS)
def test_every_refusal_names_the_cure(name: str, n: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        topology.build(name, n, **options)


@pytest.mark.parametrize(
    ("name", "options", "cure"),
    [
        ("watts-strogatz", {"k": 2, "p": 1.0}, "raise k to 4 or more, or lower p"),
        ("random-regular", {"degree": 2}, "raise degree to 3 or more"),
    ],
)
def test_a_graph_never_connected_names_the_cure(name: str, options: dict[str, Any], cure: str, monkeypatch: Any) -> None:
    """With a single try, about nine of ten of these graphs are disconnected."""
    monkeypatch.setattr("grapevine.topology.graphs.base.TRIES", 1)
    refused = []
    for seed in range(30):
        try:
            assert nx.is_connected(topology.build(name, 200, seed=seed, **options))
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 15
    assert all("none of 1 random graphs was connected" in text and cure in text for text in refused)


def test_a_seed_below_zero_and_a_strange_rule_are_refused() -> None:
    with pytest.raises(ValueError, match="the seed is -1; give 0 or"):
        topology.build("ring", 8, seed=-1)
    with pytest.raises(ValueError, match=r"no rule 'metropolys'.*did you mean 'metropolis'"):
        topology.menu()["ring"](mixing="metropolys")  # type: ignore[arg-type]
