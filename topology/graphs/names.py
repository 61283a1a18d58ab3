"""Graphs by their names: what a user asks for, turned into a graph of the menu."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import networkx as nx
import numpy as np

from grapevine.topology.graphs.base import Topology
from grapevine.topology.graphs.menu import AnyTopology


def build(name: str, n: int, seed: int = 0, **options: Any) -> nx.Graph:
    """The graph of this name on n peers: `build("random-regular", 16, seed=0, degree=4)`.

    The answer is a connected networkx graph on the nodes 0..n-1, the same for the same seed. The names and options are
    those of the menu (`menu()`); for the mixing rule see `mixing_matrix`. `d-cliques` wants label_counts=[n, classes],
    `overlay` delays=[n, n]. `exponential`, and `equi-static` with directed=True, are DiGraphs, sender -> receiver.

    Raises ValueError for an unknown name or option, for an option out of range, and where there is no such graph on
    n peers; each message names what would work.
    """
    if "mixing" in options:
        raise ValueError("mixing is no property of the graph: give the rule to mixing_matrix(graph, rule) or analyse")
    known = {key: options.pop(key) for key in ("label_counts", "delays") if key in options}
    return part_named("topology", menu(), AnyTopology, name, options).build(n, seed, directed=True, **known)


def menu() -> dict[str, type[Topology]]:
    """Every topology by name, in the order of the menu."""
    return {str(kind.__struct_config__.tag): kind for kind in get_args(AnyTopology)}


def part_named(what: str, parts: Mapping[str, type[msgspec.Struct]], union: Any, name: str, options: dict[str, Any]) -> Any:
    """The part of a menu with this name and these options."""
    if name not in parts:
        raise ValueError(f"no {what} {name!r}; known are {', '.join(parts)}{_did_you_mean(name, parts)}")
    kind = parts[name]
    known = [field for field in kind.__struct_fields__ if field != "mixing"]
    for option in options:
        if option not in known:
            has = f"its options are {', '.join(known)}" if known else "it takes no options"
            raise ValueError(f"{name} has no option {option!r}; {has}{_did_you_mean(option, known)}")
    try:
        return msgspec.convert({"name": name, **{key: _plain(value) for key, value in options.items()}}, union)
    except msgspec.ValidationError as error:
        raise ValueError(f"{name}: {_in_words(error, kind, options)}") from None


def _did_you_mean(name: object, known: Any) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _in_words(error: msgspec.ValidationError, kind: type[msgspec.Struct], options: dict[str, Any]) -> str:
    """What msgspec finds wrong with an option, with the option first and the choices it has."""
    found = re.fullmatch(r"(.*) - at `\$\.(\w+)(?:\[\.\.\.\])?`", str(error))
    if found is None:
        missing = [field.name for field in msgspec.structs.fields(kind) if field.required and field.name not in options]
        return f"the option {missing[0]!r} is missing" if missing else str(error)
    problem, option = found.groups()
    hint = get_type_hints(kind)[option]
    choices = [choice for part in (hint, *get_args(hint)) if get_origin(part) is Literal for choice in get_args(part)]
    return f"{option} = {options[option]!r} will not do: " + (f"known are {', '.join(choices)}" if choices else problem.lower())


def _plain(value: Any) -> Any:
    """Numbers of numpy and paths, as what a file of options would hold."""
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value
