"""A graph on one page: its picture and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import msgspec
import networkx as nx

from experiments.report_style import PAGE, SCRIPT
from experiments.summary import figure

MOST_NAMED = 64
"""Peers up to which each dot bears its number."""


def write_page(title: str, graph: nx.Graph, figures: Mapping[str, Any], out: Path) -> None:
    """Write one self-contained HTML page; raises ValueError where it cannot be written."""
    from plotly.offline import get_plotlyjs

    rows = "".join(
        f"<tr><td>{escape(label(name))}</td><td>{escape(shown(value))}</td><td>{escape(meaning(name, value))}</td></tr>"
        for name, value in figures.items()
    )
    content = (
        '<div class="grid"><section class="card"><h2>Graph</h2>'
        '<div class="plot" id="graph" style="height:560px"></div></section>'
        f'<section class="card"><h2>Figures</h2><table>{rows}</table></section></div>'
    )
    data = msgspec.json.encode({"graph": _picture(graph)}).decode().replace("</", "<\\/")
    script = f"<script>{get_plotlyjs()}</script>\n<script>const figures = {data};\n{SCRIPT}</script>"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(PAGE.substitute(title=escape(title), content=content, script=script), encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{out}: the page cannot be written ({error.strerror}); give another place") from None


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
STABLE_DOWN_TO = -1.0
_ROUND_OFF = 1e-6


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
        stable = value >= STABLE_DOWN_TO - _ROUND_OFF
        return "smallest; gradients stable" if stable else "smallest; gradients unstable below -1"
    return "" if value is None else UNITS.get(name, "")


def _picture(graph: nx.Graph) -> dict[str, Any]:
    """Peers as dots, links as lines; the same picture for the same graph."""
    start = nx.circular_layout(graph)
    at = nx.kamada_kawai_layout(graph, pos=start) if 2 < len(graph) <= 150 and nx.is_connected(graph) else start
    ends = {axis: [part for a, b in graph.edges for part in (float(at[a][axis]), float(at[b][axis]), None)] for axis in (0, 1)}
    line = {"color": "#93bde3", "width": 1.5}
    lines = {"type": "scatter", "mode": "lines", "x": ends[0], "y": ends[1], "hoverinfo": "skip", "line": line}
    named = len(graph) <= MOST_NAMED
    dots = {
        "type": "scatter",
        "mode": "markers+text" if named else "markers",
        "x": [float(at[peer][0]) for peer in graph],
        "y": [float(at[peer][1]) for peer in graph],
        "text": [str(peer) for peer in graph],
        "hovertext": [f"peer {peer}, {graph.degree[peer]} neighbours" for peer in graph],
        "hoverinfo": "text",
        "textfont": {"color": "#ffffff", "size": 11},
        "marker": {"size": 22 if named else 8, "color": "#22303c", "line": {"color": "#ffffff", "width": 1.5}},
    }
    axis = {"visible": False, "fixedrange": True}
    layout = {
        "showlegend": False,
        "xaxis": axis,
        "yaxis": {**axis, "scaleanchor": "x"},
        "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
        "hovermode": "closest",
    }
    return {"data": [lines, dots], "layout": layout}
