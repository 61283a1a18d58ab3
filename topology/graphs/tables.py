"""Graphs written as tables: one line per edge, or one row per node."""

from __future__ import annotations

import ast
import csv
import math
from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError
from typing import Any

import networkx as nx
import numpy as np

# Exceptions that numpy raises when the header of an array file is damaged
DAMAGED = (ValueError, EOFError, SyntaxError, TokenError, TypeError, KeyError, OverflowError, MemoryError, RecursionError)


def read_edge_list(path: Path) -> nx.Graph:
    """Read an edge list as an undirected graph; `topology.graphs.files.read_graph` documents it. An edge may occur twice.

    Raises ValueError with the line's number for a line that is not an edge, and for two lines that contradict each other.
    """
    graph = nx.Graph()
    columns: list[str] | None = None
    for number, line in _lines(path):
        text, brace, rest = line.partition("{")
        cells = _cells(text)
        if columns is None:
            header = [cell.lower() for cell in cells[:2]] == ["source", "target"]
            columns = cells[2:] if header else []
            if header:
                continue
        if len(cells) < 2 or "" in cells[:2]:
            raise ValueError(f"line {number} is not an edge: {line!r}; expected two names and optional attributes")
        attributes = _attributes(cells[2:], columns, number)
        if brace:
            attributes |= _literal(brace + rest, number)
        known = graph.get_edge_data(cells[0], cells[1])
        if known is not None and known != attributes:
            raise ValueError(
                f"line {number} gives the edge {cells[0]}, {cells[1]} once more, with other attributes; "
                "keep one of the lines, since an edge is the same in both directions"
            )
        graph.add_edges_from([(cells[0], cells[1], attributes)])
    if not len(graph):
        raise ValueError("holds no edges; expected lines of two names")
    return graph


def matrix_from_text(path: Path) -> nx.Graph:
    """Read a table of numbers as a graph, with or without names in the first row and column."""
    rows = [(number, _cells(line)) for number, line in _lines(path)]
    if not rows:
        raise ValueError("holds no numbers; expected a square table, 0 where there is no edge")
    names: list[str] | None = None
    if any(_number(cell) is None for cell in rows[0][1]):
        header, rows = rows[0][1], rows[1:]
        if rows and len(rows[0][1]) == len(rows) + 1:  # a first column of names as well
            names = header[-len(rows) :]
            _check_row_names(names, rows)
            rows = [(number, cells[1:]) for number, cells in rows]
        else:
            names = header
        if len(set(names)) != len(names):
            raise ValueError("the first row names a node twice; give every node a name of its own")
    matrix = np.array([_row(cells, len(rows), number) for number, cells in rows], dtype=np.float64)
    if names is not None and len(names) != len(rows):
        raise ValueError(f"the first row names {len(names)} nodes, and {len(rows)} rows follow; give one row per node")
    return _graph_of(matrix, names)


def matrix_from_npy(path: Path) -> nx.Graph:
    """Read a numpy array [n, n] as a graph; arrays of Python objects are refused, since reading them can run code."""
    try:
        # mapped, not read: numpy then checks the shape in the header against the file's length before it takes memory
        mapped = np.lib.format.open_memmap(path, mode="r")
    except DAMAGED as error:
        raise ValueError(f"is not a numpy array that can be read ({error}); write it with numpy.save") from None
    if mapped.ndim != 2 or mapped.shape[0] != mapped.shape[1] or mapped.dtype.kind not in "biuf":
        raise ValueError(f"holds {mapped.dtype} of shape {mapped.shape}; expected a square array of numbers")
    return _graph_of(np.array(mapped, dtype=np.float64), None)


def _graph_of(matrix: np.ndarray, names: list[str] | None) -> nx.Graph:
    named: list[Any] = list(range(len(matrix))) if names is None else list(names)
    if not np.isfinite(matrix).all():
        raise ValueError("has an entry that is not a finite number; write 0 where there is no edge")
    if matrix.min(initial=0.0) < 0:
        i, j = np.argwhere(matrix < 0)[0]
        raise ValueError(
            f"entry ({named[i]}, {named[j]}) is negative; expected an adjacency matrix, 0 where there is no edge "
            "(for a Laplacian L, give D - L with D the diagonal matrix of the degrees)"
        )
    lopsided = np.argwhere(~np.isclose(matrix, matrix.T, rtol=1e-9, atol=0.0))
    if len(lopsided):
        i, j = lopsided[0]
        raise ValueError(
            f"entry ({named[i]}, {named[j]}) is {matrix[i, j]:g} and ({named[j]}, {named[i]}) is {matrix[j, i]:g}: the "
            "matrix is directed, and peers that average with each other need an undirected graph; make it symmetric, "
            "for example with (A + A.T) / 2"
        )
    weighted = bool(((matrix != 0) & (matrix != 1)).any())
    graph = nx.Graph()
    graph.add_nodes_from(named)
    for i, j in np.argwhere(np.triu(matrix)):
        graph.add_edges_from([(named[i], named[j], {"weight": float(matrix[i, j])} if weighted else {})])
    return graph


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines with their numbers, without empty lines, comments and a leading byte order mark."""
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        text = line.strip(" \r\n")
        if text.strip() and not text.startswith(("#", "%")):
            yield number, text


def _cells(line: str) -> list[str]:
    """Split a line at its commas, semicolons or tabs; if it has none of them, at its spaces."""
    for mark in (",", ";", "\t"):
        if mark in line:
            try:
                return [cell.strip() for cell in next(csv.reader([line], delimiter=mark, skipinitialspace=True))]
            except csv.Error as error:
                raise ValueError(f"the line {line[:40]!r} cannot be cut into cells ({error}); check its quotes") from None
    return line.split()


def _attributes(cells: list[str], columns: list[str], number: int) -> dict[str, Any]:
    if columns and len(cells) <= len(columns):
        return {name: _value(cell) for name, cell in zip(columns, cells, strict=False) if cell}
    if not columns and len(cells) == 1 and _number(cells[0]) is not None:
        return {"weight": _value(cells[0])}
    if not any(cells):
        return {}
    raise ValueError(
        f"line {number} has {len(cells)} values after the two names, and {len(columns) or 'no'} columns are named; "
        "begin the file with a line such as source,target,rate,delay"
    )


def _literal(text: str, number: int) -> dict[str, Any]:
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"line {number}: cannot read the attributes {text!r}; expected {{'rate': '20 Mbit/s'}}")
    return value


def _row(cells: list[str], width: int, number: int) -> list[float]:
    if len(cells) != width:
        raise ValueError(
            f"line {number} has {len(cells)} numbers, and there are {width} rows; expected a square table: "
            "if it is a list of edges, set format to edge-list or end its name in .edges"
        )
    values = [_number(cell) for cell in cells]
    for cell, value in zip(cells, values, strict=True):
        if value is None:
            raise ValueError(f"line {number}: {cell!r} is not a number; write 0 where there is no edge")
    return [value for value in values if value is not None]


def _check_row_names(names: list[str], rows: list[tuple[int, list[str]]]) -> None:
    for name, (number, cells) in zip(names, rows, strict=False):
        if cells[0] != name:
            raise ValueError(f"line {number} is named {cells[0]!r} where the first row has {name!r}; use the same order")


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _value(cell: str) -> int | float | str:
    """Return a cell as a whole number or a number if it can be read as one, else as text."""
    try:
        return int(cell)
    except ValueError:
        number = _number(cell)
        return cell if number is None or not math.isfinite(number) else number
