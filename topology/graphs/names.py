"""Make graphs by name: look up the name on the menu and check the options."""

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
    """Return the graph of this name for n peers: `build("random-regular", 16, seed=0, degree=4)`.

    The result is a connected networkx graph on the nodes 0..n-1, the same for the same seed. `menu()` holds the names and
    their options; for the mixing rule see `mixing_matrix`. `d-cliques` needs label_counts=[n, classes], `overlay`
    delays=[n, n]. `exponential`, and `equi-static` with directed=True, are DiGraphs with edges sender -> receiver.

    Raises ValueError for an unknown name or option, for an option out of range, and if no such graph exists for n
    peers; each message names a choice that works.
    """
    if "mixing" in options:
        raise ValueError("mixing is not a property of the graph: give the rule to mixing_matrix(graph, rule) or analyse")
    known = {key: options.pop(key) for key in ("label_counts", "delays") if key in options}
    return part_named("topology", menu(), AnyTopology, name, options).build(n, seed, directed=True, **known)


def menu() -> dict[str, type[Topology]]:
    """Return all topology classes by name, in the order of the menu."""
    return {str(kind.__struct_config__.tag): kind for kind in get_args(AnyTopology)}


def part_named(part: str, parts: Mapping[str, type[msgspec.Struct]], union: Any, name: str, options: dict[str, Any]) -> Any:
    """Return the configuration on a menu with this name and these options; raises ValueError if it is not valid."""
    if name not in parts:
        raise ValueError(f"no {part} {name!r}; known are {', '.join(parts)}{_did_you_mean(name, parts)}")
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
    """Return msgspec's error about an option as a sentence: the option first, then its choices."""
    found = re.fullmatch(r"(.*) - at `\$\.(\w+)(?:\[\.\.\.\])?`", str(error))
    if found is None:
        missing = [field.name for field in msgspec.structs.fields(kind) if field.required and field.name not in options]
        return f"the option {missing[0]!r} is missing" if missing else str(error)
    problem, option = found.groups()
    hint = get_type_hints(kind)[option]
    choices = [choice for part in (hint, *get_args(hint)) if get_origin(part) is Literal for choice in get_args(part)]
    return f"{option} = {options[option]!r} will not do: " + (f"known are {', '.join(choices)}" if choices else problem.lower())


def _plain(value: Any) -> Any:
    """Convert numpy numbers to Python numbers and paths to text."""
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value
