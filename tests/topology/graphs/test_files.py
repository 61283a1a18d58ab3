"""Graphs from files and from networkx: nothing is lost, and unreadable files are refused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grapevine import topology
from grapevine.topology.graphs.files import ENDINGS, FORMATS, MOST_BYTES, Format

CITIES = {
    ("oslo", "rome"): {"rate": "20 Mbit/s", "delay": "31 ms", "cost": 3},
    ("rome", "lima"): {"rate": "5 Mbit/s", "delay": "110 ms", "cost": 2.5},
    ("lima", "oslo"): {"rate": "1 Gbit/s", "delay": "95 ms", "cost": 1},
    ("lima", "bonn"): {"rate": "8 kbit/s", "delay": "99 ms", "cost": 7},
}


def cities() -> nx.Graph:
    graph = nx.Graph()
    for pair, attributes in CITIES.items():
        graph.add_edge(*pair, **attributes)
    graph.nodes["rome"]["region"] = "eu-south-1"
    return graph


def by_name(graph: nx.Graph) -> dict[frozenset[Any], dict[str, Any]]:
    names = nx.get_node_attributes(graph, "original_name")
    return {frozenset((names[i], names[j])): dict(data) for i, j, data in graph.edges(data=True)}


def write_header_edges(graph: nx.Graph, path: Path) -> None:
    rows = [f"{i},{j},{data['rate']},{data['delay']},{data['cost']}" for i, j, data in graph.edges(data=True)]
    path.write_text("\n".join(["source,target,rate,delay,cost", *rows]), encoding="utf-8-sig")


WRITERS: dict[str, Callable[[nx.Graph, Path], Any]] = {
    "net.graphml": nx.write_graphml,
    "net.xml": nx.write_graphml,
    "net.gml": nx.write_gml,
    "net.edgelist": nx.write_edgelist,
    "net.edges": write_header_edges,
    "NET.EL": write_header_edges,
}


@pytest.mark.parametrize("name", WRITERS)
def test_names_attributes_and_order_survive_every_format(name: str, tmp_path: Path) -> None:
    WRITERS[name](cities(), tmp_path / name)
    graph = topology.read_graph(tmp_path / name)
    assert type(graph) is nx.Graph
    assert list(graph) == [0, 1, 2, 3]
    assert [graph.nodes[i]["original_name"] for i in graph] == ["oslo", "rome", "lima", "bonn"]
    assert by_name(graph) == {frozenset(pair): attributes for pair, attributes in CITIES.items()}
    if name.endswith(("graphml", "xml", "gml")):
        assert graph.nodes[1]["region"] == "eu-south-1"


@pytest.mark.parametrize("name", [*list(WRITERS)[:4], "net.npy", "net.txt", "net.csv"])
def test_numbered_nodes_keep_their_numbers(name: str, tmp_path: Path) -> None:
    """The file has a shuffled order and two-digit names, which sorting as text would put in the wrong order."""
    original = topology.build("barabasi-albert", 14, seed=3)
    shuffled = nx.Graph()
    shuffled.add_nodes_from(np.random.default_rng(1).permutation(14).tolist())
    shuffled.add_edges_from(original.edges)
    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, nx.to_numpy_array(original))
    elif name.endswith(".txt"):
        np.savetxt(path, nx.to_numpy_array(original))
    elif name.endswith(".csv"):
        nx.to_pandas_adjacency(shuffled).to_csv(path)
    else:
        WRITERS[name](shuffled, path)
    graph = topology.build("file", 14, path=str(path))
    assert list(graph.edges) == list(original.edges)
    assert [int(graph.nodes[i]["original_name"]) for i in graph] == list(range(14))
    assert all("weight" not in data for _, _, data in graph.edges(data=True))


MATRICES = {
    "commas.csv": "0,1,0\n1,0,1\n0,1,0\n",
    "semicolons.csv": "0;1;0\n1;0;1\n0;1;0\n",
    "tabs.txt": "0\t1\t0\n1\t0\t1\n0\t1\t0\n",
    "spaces.txt": "# a path\n 0 1 0 \n\n1 0 1\n0  1  0",
    "windows.csv": "\ufeff0,1,0\r\n1,0,1\r\n0,1,0\r\n",
    "header.csv": "a,b,c\n0,1,0\n1,0,1\n0,1,0\n",
    "both.csv": ",a,b,c\na,0,1,0\nb,1,0,1\nc,0,1,0\n",
    "corner.csv": 'node,a,b,c\na,0,1,0\nb,1,0,1\n"c",0,1,0\n',
    "cornerless.txt": "a b c\na 0 1 0\nb 1 0 1\nc 0 1 0\n",
    "loops.txt": "5 1 0\n1 0 1\n0 1 9\n",
    "floats.txt": "0 1e0 0\n1.0 0 1\n0 1 0\n",
}


@pytest.mark.parametrize("name", MATRICES)
def test_every_way_to_write_a_matrix(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(MATRICES[name], encoding="utf-8", newline="")
    graph = topology.read_graph(tmp_path / name)
    assert list(graph.edges) == [(0, 1), (1, 2)]
    assert [graph.nodes[i]["original_name"] for i in graph] in ([0, 1, 2], ["a", "b", "c"])


@pytest.mark.parametrize("ending", ["npy", "txt", "csv"])
def test_matrix_entries_other_than_one_are_weights(ending: str, tmp_path: Path) -> None:
    matrix = np.array([[0, 2.5, 0], [2.5, 0, 1], [0, 1, 0]])
    path = tmp_path / f"net.{ending}"
    if ending == "npy":
        np.save(path, matrix)
    else:
        np.savetxt(path, matrix, delimiter="," if ending == "csv" else " ")
    assert list(topology.read_graph(path).edges(data="weight")) == [(0, 1, 2.5), (1, 2, 1.0)]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, ">f8"])
def test_arrays_of_any_numbers(dtype: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "net.npy", nx.to_numpy_array(nx.path_graph(4)).astype(dtype))
    assert list(topology.read_graph(tmp_path / "net.npy").edges) == [(0, 1), (1, 2), (2, 3)]


def test_an_edge_list_as_published(tmp_path: Path) -> None:
    """Comments, both directions of every edge, a self loop, weights, tabs."""
    (tmp_path / "net.txt").write_text("# FromNodeId\tToNodeId\n10\t2\n2\t10\n% more\n2\t2\n2\t33\n\n33\t10\n")
    graph = topology.read_graph(tmp_path / "net.txt", "edge-list")
    assert [graph.nodes[i]["original_name"] for i in graph] == ["2", "10", "33"]
    assert list(graph.edges) == [(0, 1), (0, 2), (1, 2)]
    (tmp_path / "net.el").write_text("a b 0.5\nb c 2\n")
    assert list(topology.read_graph(tmp_path / "net.el").edges(data="weight")) == [(0, 1, 0.5), (1, 2, 2)]
    (tmp_path / "quoted.el").write_text('source,target,rate\n"New York, NY",oslo,1 Mbit/s\noslo,rome,\n')
    graph = topology.read_graph(tmp_path / "quoted.el")
    assert graph.nodes[0]["original_name"] == "New York, NY"
    assert [data for _, _, data in graph.edges(data=True)] == [{"rate": "1 Mbit/s"}, {}]


def test_graphml_defaults_reach_every_edge(tmp_path: Path) -> None:
    (tmp_path / "net.graphml").write_text(
        """<?xml version="1.0"?><graphml xmlns="http://graphml.graphdrawing.org/xmlns">
        <key id="r" for="edge" attr.name="rate" attr.type="string"><default>7 Mbit/s</default></key>
        <key id="z" for="node" attr.name="region" attr.type="string"><default>here</default></key>
        <graph edgedefault="undirected"><node id="a"/><node id="b"><data key="z">there</data></node><node id="c"/>
        <edge source="a" target="b"/><edge source="b" target="c"><data key="r">1 kbit/s</data></edge></graph></graphml>"""
    )
    graph = topology.read_graph(tmp_path / "net.graphml")
    assert [data for _, _, data in graph.edges(data="rate")] == ["7 Mbit/s", "1 kbit/s"]
    assert [region for _, region in graph.nodes(data="region")] == ["here", "there", "here"]


def test_gml_without_labels_goes_by_id(tmp_path: Path) -> None:
    (tmp_path / "net.gml").write_text(
        "graph [ node [ id 7 ] node [ id 5 ] node [ id 6 ] "
        'edge [ source 7 target 5 rate "1 Mbit/s" ] edge [ source 5 target 6 ] ]'
    )
    graph = topology.read_graph(tmp_path / "net.gml")
    assert [graph.nodes[i]["original_name"] for i in graph] == [5, 6, 7]
    assert graph.edges[0, 2] == {"rate": "1 Mbit/s"}


def test_the_formats_are_those_that_an_experiment_may_name() -> None:
    assert tuple(FORMATS) == get_args(Format)
    assert set(ENDINGS.values()) == set(FORMATS)


def graphml(body: str, kind: str = "undirected") -> str:
    return f'<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="{kind}">{body}</graph></graphml>'


NPY = b"\x93NUMPY\x01\x00\x49\x00"
HEAD = b"{'descr': '<f8', 'fortran_order': False, 'shape': %s, }     "
TWO = '<node id="a"/><node id="b"/>'
REFUSALS: list[tuple[str, str | bytes | None, str]] = [
    ("absent.graphml", None, "absent.graphml: no such file; check the name"),
    ("net.foo", "x", r"cannot tell the format from the ending '.foo' \(known are .graphml"),
    ("net", "x", "cannot tell the format from the ending ''"),
    *[(f"empty.{end}", "", "the file is empty; write a graph") for end in ("graphml", "gml", "edges", "csv", "txt", "npy")],
    ("net.graphml", "<graphml", "is not GraphML that can be read .*; write it again"),
    ("net.graphml", "<html></html>", "is not GraphML that can be read"),
    ("net.graphml", graphml(""), "the graph is empty; give it at least one node"),
    ("net.graphml", graphml(TWO), "not connected: it falls into 2 pieces"),
    ("net.graphml", graphml(TWO + '<edge source="a" target="b"/>', "directed"), r"directed.*graph.to_undirected\(\)"),
    ("net.graphml", graphml(TWO + '<edge source="a" target="b"/>' * 2), "multigraph"),
    ("net.graphml", graphml(TWO + '<edge source="a" target="b"><data key="q">1</data></edge>'), "Bad GraphML data: no key"),
    ("net.gml", "graph [ node [", "is not GML that can be read"),
    ("net.gml", "hello", "is not GML that can be read"),
    ("net.gml", "graph [ ]", "the graph is empty"),
    ("net.gml", "graph [ directed 1 node [ id 0 ] node [ id 1 ] edge [ source 0 target 1 ] ]", "directed"),
    ("net.gml", 'graph [ node [ id 0 label "a" ] node [ id 1 label "a" ] ]', "label 'a' is duplicated"),
    ("net.gml", "graph [ node [ id 0 ] edge [ source 0 target 5 ] ]", "undefined target 5"),
    ("net.edges", "# nothing\n", "holds no edges; expected lines of two names"),
    ("net.edges", "a b\nc\n", "line 2 is not an edge: 'c'; expected two names"),
    ("net.edges", "a b\nb,\n", "line 2 is not an edge"),
    ("net.edges", "a b fast\n", "line 1 has 1 values after the two names, and no columns are named; begin the file with"),
    ("net.edges", "source,target,rate\na,b,1,2\n", "line 2 has 2 values after the two names, and 1 columns"),
    ("net.edges", "a b {'rate': 1\n", "line 1: cannot read the attributes"),
    ("net.edges", "a b {[]: 1}\n", "line 1: cannot read the attributes"),
    ("net.edges", "a b {1, 2}\n", "line 1: cannot read the attributes"),
    ("net.edges", "a b {'x': __import__('os')}\n", "line 1: cannot read the attributes"),
    ("net.edges", "a b 1\nb a 2\n", "line 2 gives the edge b, a once more, with other attributes; keep one"),
    ("net.edges", "a b\nc d\ne f\nf d\n", "3 pieces|2 pieces"),
    ("net.edges", b"\xff\xfe\x00a b", "is not text in UTF-8; save it"),
    ("net.csv", "# nothing\n", "holds no numbers; expected a square table"),
    ("net.csv", "0,1\n1,0\n0,1\n", "line 1 has 2 numbers, and there are 3 rows.*set format to edge-list"),
    ("net.csv", "0,1\n1,0,0\n", "line 2 has 3 numbers, and there are 2 rows"),
    ("net.csv", "0,1\n1,x\n", "line 2: 'x' is not a number; write 0"),
    ("net.csv", "0,1\n1,\n", "line 2: '' is not a number"),
    ("net.csv", "0,nan\nnan,0\n", "not a finite number"),
    ("net.csv", "0,1\n0,0\n", r"entry \(0, 1\) is 1 and \(1, 0\) is 0: the matrix is directed.*make it symmetric"),
    ("net.csv", "1,-1\n-1,1\n", r"entry \(0, 1\) is negative; expected an adjacency matrix"),
    ("net.csv", "a,a\n0,1\n1,0\n", "names a node twice"),
    ("net.csv", "a,b,c\n0,1\n1,0\n", "names 3 nodes, and 2 rows follow"),
    ("net.csv", "a,b,c\n", "names 3 nodes, and 0 rows follow"),
    ("net.csv", ",a,b\nb,0,1\na,1,0\n", "line 2 is named 'b' where the first row has 'a'; use the same order"),
    ("net.csv", "0,0\n0,0\n", "not connected"),
    ("net.npy", b"not numpy at all", "is not a numpy array that can be read.*write it with numpy.save"),
    ("net.npy", NPY + HEAD % b"(90000, 90000)" + b"\n", "is not a numpy array that can be read .*length"),  # 65 GB are claimed
    ("net.npy", NPY + HEAD % b"(((((((((((((9", "is not a numpy array"),
    ("net.npy", NPY + HEAD[:20], "is not a numpy array"),
]


@pytest.mark.parametrize(("name", "content", "message"), REFUSALS)
def test_every_refusal_names_file_and_cure(name: str, content: str | bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=message) as caught:
        topology.read_graph(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3)), r"holds float64 of shape \(2, 3\); expected a square array of numbers"),
        (np.zeros(4), "square"),
        (np.array([["a"]]), "holds <U1"),
        (np.array([[None]], dtype=object), "is not a numpy array that can be read"),
        (np.array([[1j]]), "complex128"),
        (np.zeros((0, 0)), "the graph is empty|is not a numpy array"),
        (np.array([[0, np.inf], [np.inf, 0]]), "not a finite number"),
    ],
)
def test_arrays_that_are_no_graph(array: np.ndarray, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "net.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        topology.read_graph(tmp_path / "net.npy")


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "net.edges", "wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(ValueError, match=r"net.edges: the file has 268,435,457 bytes, more than 268,435,456"):
        topology.read_graph(tmp_path / "net.edges")


def test_folders_formats_and_the_number_of_peers(tmp_path: Path) -> None:
    (tmp_path / "folder.gml").mkdir()
    with pytest.raises(ValueError, match=r"folder.gml: is a folder; name the file"):
        topology.read_graph(tmp_path / "folder.gml")
    (tmp_path / "net.el").write_text("a b\nb c\n")
    with pytest.raises(ValueError, match="no format 'csv'; known are graphml"):
        topology.read_graph(tmp_path / "net.el", "csv")
    with pytest.raises(ValueError, match=r"net.el: has 3 nodes, and there are 8 peers; set peers = 3"):
        topology.build("file", 8, path=tmp_path / "net.el")


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["net.graphml", "net.gml", "net.edges", "net.csv", "net.npy"]),
    st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4)), max_size=3),
    st.floats(0.3, 1),
)
def test_a_damaged_file_is_a_graph_or_a_value_error(tmp_path_factory: Any, name: str, damage: Any, kept: float) -> None:
    path = tmp_path_factory.mktemp("damaged") / name
    if name == "net.npy":
        np.save(path, nx.to_numpy_array(nx.cycle_graph(5)))
    elif name == "net.csv":
        np.savetxt(path, nx.to_numpy_array(nx.cycle_graph(5)), delimiter=",")
    else:
        WRITERS[name](cities(), path)
    raw = bytearray(path.read_bytes())
    for place, content in damage:
        at = int(place * len(raw))
        raw[at : at + len(content)] = content
    path.write_bytes(bytes(raw[: int(kept * len(raw))]))
    with contextlib.suppress(ValueError):  # no other exception may be raised
        assert nx.is_connected(topology.read_graph(path))
