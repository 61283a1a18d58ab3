"""Names, units and meanings of a graph's figures, for a terminal."""

from __future__ import annotations

from typing import Any

from grapevine import topology
from grapevine.experiments.results.numbers import figure

WORDS = {
    "name": "graph",
    "rule": "mixing",
    "kirchhoff": "Kirchhoff index",
    "slem": "second eigenvalue",
    "gap": "spectral gap",
    "gradient_gossip_eigenvalue": "adjacency eigenvalue",
}
UNITS = {
    "nodes": "peers",
    "diameter": "links",
    "average_shortest_path": "links",
    "node_connectivity": "peers whose loss can disconnect it",
    "edge_connectivity": "links whose loss can disconnect it",
    "slem": "disagreement left by a round",
    "gap": "0 = no agreement, 1 = in one round",
    "finite_time": "rounds to exact agreement",
    "mixing_time": "rounds until disagreement is 1/1000",
    "effective_neighbours": "peers averaged in about 10 rounds",
}


def label(name: str) -> str:
    """Return a figure's name in words."""
    return WORDS.get(name, name.replace("_", " "))


def shown(value: Any) -> str:
    """Return a figure's value as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return figure(value) if value is None or isinstance(value, int | float) else str(value)


def meaning(name: str, value: Any) -> str:
    """Return the unit or the meaning of a figure; "" if its name is enough."""
    if name == "gradient_gossip_eigenvalue" and value is not None:
        return "smallest; gradients stable" if topology.stable_for_gradients(value) else "smallest; gradients unstable below -1"
    return "" if value is None else UNITS.get(name, "")
