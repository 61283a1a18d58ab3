"""Who talks to whom: graphs by name, from files or from networkx, their mixing matrices and their figures."""

from __future__ import annotations

import difflib
import os
import re
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import networkx as nx
import numpy as np

from topology.analysis import Figures, analyse
from topology.files import read_graph
from topology.given import from_graph
from topology.graphs import AnyTopology, Topology
from topology.mixing import RULES, mixing_matrix

__all__ = [
    "RULES",
    "AnyTopology",
    "Figures",
    "Topology",
    "analyse",
    "build",
    "from_graph",
    "menu",
    "mixing_matrix",
    "read_graph",
]


def build(name: str, n: int, seed: int = 0, **options: Any) -> nx.Graph:
    """The graph of this name on n peers: `build("random-regular", 16, seed=0, degree=4)`.

    The answer is a connected networkx graph on the nodes 0..n-1, the same for the same seed. The names and options are
    those of the menu (`menu()`); for the mixing rule see `mixing_matrix`.

    Raises ValueError for an unknown name or option, for an option out of range, and where there is no such graph on
    n peers; each message names what would work.
    """
    graphs = menu()
    if name not in graphs:
        raise ValueError(f"no topology {name!r}; known are {', '.join(graphs)}{_did_you_mean(name, graphs)}")
    if "mixing" in options:
        raise ValueError("mixing is no property of the graph: give the rule to mixing_matrix(graph, rule) or analyse")
    known = [field for field in graphs[name].__struct_fields__ if field != "mixing"]
    for option in options:
        if option not in known:
            has = f"its options are {', '.join(known)}" if known else "it takes no options"
            raise ValueError(f"{name} has no option {option!r}; {has}{_did_you_mean(option, known)}")
    try:
        chosen = msgspec.convert({"name": name, **{key: _plain(value) for key, value in options.items()}}, AnyTopology)
    except msgspec.ValidationError as error:
        raise ValueError(f"{name}: {_in_words(error, graphs[name], options)}") from None
    return chosen.build(n, seed)


def menu() -> dict[str, type[Topology]]:
    """Every topology by name, in the order of the menu."""
    return {str(kind.__struct_config__.tag): kind for kind in get_args(AnyTopology)}


def _did_you_mean(name: object, known: Any) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _in_words(error: msgspec.ValidationError, kind: type[Topology], options: dict[str, Any]) -> str:
    """What msgspec finds wrong with an option, with the option first and the choices it has."""
    found = re.fullmatch(r"(.*) - at `\$\.(\w+)`", str(error))
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
