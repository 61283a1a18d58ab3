"""Read graphs from files: GraphML, GML, edge lists, adjacency matrices."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from xml.etree.ElementTree import ParseError

import networkx as nx

from grapevine.topology.graphs.given import from_graph
from grapevine.topology.graphs.tables import matrix_from_npy, matrix_from_text, read_edge_list

MOST_BYTES = 2**28
"""The largest file that is read: 256 MiB, more than the text of a graph with the most links allowed."""

Format = Literal["graphml", "gml", "edge-list", "adjacency-matrix"]


def read_graph(path: str | os.PathLike[str], format: str | None = None, directed: bool = False) -> nx.Graph:
    """Read a connected graph from a file, on the nodes 0..n-1; with `directed=True` the result may be a DiGraph.

    | format | endings | contents |
    | --- | --- | --- |
    | `graphml` | .graphml .xml | all attributes; an edge without one gets the key's `<default>` |
    | `gml` | .gml | all attributes; nodes are named by `label`, or by `id` if labels are missing |
    | `edge-list` | .edges .edgelist .el | one edge per line: two names, then nothing, a `weight`, or `{'rate': '1 Mbit/s'}`; with a first line `source,target,rate,delay` each further column is an attribute; # and % start comments |
    | `adjacency-matrix` | .csv .txt .npy | a square symmetric table, 0 = no edge; values other than 0 and 1 become `weight`; the first row (and column) may hold names |

    `format` overrides the ending. Nodes are numbered in ascending order if all names are whole numbers, otherwise in the
    order of their first appearance in the file; the name is kept as `original_name`. Edges keep their attributes
    (`rate`, `delay`, ...). Self loops are left out.

    Raises ValueError, with the file's name and the cure, for a file that cannot be read or understood, is empty, or
    holds a disconnected graph, a multigraph or, without `directed=True`, a directed one. Nothing is ever unpickled.
    """  # noqa: E501
    path = Path(path)
    try:
        return from_graph(_reader(path, format)(path), directed)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; check the name: a path that is not absolute starts at {Path.cwd()}") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not text in UTF-8; save it as UTF-8, or name the right format") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _reader(path: Path, format: str | None) -> Callable[[Path], nx.Graph]:
    chosen = format if format is not None else ENDINGS.get(path.suffix.lower())
    if chosen is None:
        raise ValueError(
            f"cannot tell the format from the ending {path.suffix!r} (known are {', '.join(ENDINGS)}); "
            f"rename the file, or set format to one of {', '.join(FORMATS)}"
        )
    if chosen not in FORMATS:
        raise ValueError(f"no format {chosen!r}; known are {', '.join(FORMATS)}")
    return FORMATS[chosen]


def _graphml(path: Path) -> nx.Graph:
    _refuse_size(path)
    graph = _parsed(lambda: nx.read_graphml(path), "GraphML")
    node_default, edge_default = graph.graph.pop("node_default", {}), graph.graph.pop("edge_default", {})
    for _, attributes in graph.nodes(data=True):  # networkx reads the defaults but does not apply them
        attributes.update({**node_default, **attributes})
    for _, _, attributes in graph.edges(data=True):
        attributes.update({**edge_default, **attributes})
    return graph


def _gml(path: Path) -> nx.Graph:
    _refuse_size(path)
    try:
        return nx.read_gml(path, label="label")
    except nx.NetworkXError as error:
        if "no 'label' attribute" not in str(error):
            raise ValueError(f"is not GML that can be read ({error}); {REWRITE}") from None
    except UNREADABLE as error:
        raise ValueError(f"is not GML that can be read ({error}); {REWRITE}") from None
    return _parsed(lambda: nx.read_gml(path, label="id"), "GML")


def _adjacency_matrix(path: Path) -> nx.Graph:
    _refuse_size(path)
    return matrix_from_npy(path) if path.suffix.lower() == ".npy" else matrix_from_text(path)


def _edge_list(path: Path) -> nx.Graph:
    _refuse_size(path)
    return read_edge_list(path)


def _parsed(read: Callable[[], Any], language: str) -> nx.Graph:
    try:
        return read()
    except UNREADABLE as error:
        raise ValueError(f"is not {language} that can be read ({error}); {REWRITE}") from None


def _refuse_size(path: Path) -> None:
    if path.is_dir():
        raise ValueError("is a folder; name the file in it")
    size = path.stat().st_size
    if size == 0:
        raise ValueError("the file is empty; write a graph into it")
    if size > MOST_BYTES:
        raise ValueError(f"the file has {size:,} bytes, more than {MOST_BYTES:,}; write a smaller graph into it")


REWRITE = "write it again, for example with networkx, or set format to the right one"

# Exceptions that networkx raises for a damaged file; read_graph treats OSError separately
UNREADABLE = (nx.NetworkXError, ParseError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError)

FORMATS: dict[str, Callable[[Path], nx.Graph]] = {
    "graphml": _graphml,
    "gml": _gml,
    "edge-list": _edge_list,
    "adjacency-matrix": _adjacency_matrix,
}

ENDINGS = {
    ".graphml": "graphml",
    ".xml": "graphml",
    ".gml": "gml",
    ".edges": "edge-list",
    ".edgelist": "edge-list",
    ".el": "edge-list",
    ".csv": "adjacency-matrix",
    ".txt": "adjacency-matrix",
    ".npy": "adjacency-matrix",
}
