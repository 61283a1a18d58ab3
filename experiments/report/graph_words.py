"""The figures of a graph in words: their names, their units, what they say."""

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
    "node_connectivity": "peers to lose before it falls apart",
    "edge_connectivity": "links to lose before it falls apart",
    "slem": "disagreement left after a round, at most",
    "gap": "0 never agrees, 1 at once",
    "finite_time": "rounds to exact agreement",
    "mixing_time": "rounds until disagreement is 1/1000",
    "effective_neighbours": "peers averaged with",
}


def label(name: str) -> str:
    """A figure's name in words."""
    return WORDS.get(name, name.replace("_", " "))


def shown(value: Any) -> str:
    """A figure as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return figure(value) if value is None or isinstance(value, int | float) else str(value)


def meaning(name: str, value: Any) -> str:
    """The unit of a figure, or what it says about the graph; "" where its name says all."""
    if name == "gradient_gossip_eigenvalue" and value is not None:
        return "smallest; gradients stable" if topology.stable_for_gradients(value) else "smallest; gradients unstable below -1"
    return "" if value is None else UNITS.get(name, "")
