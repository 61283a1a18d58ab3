"""The graph of a run's report: peers as dots, links as lines, wider and darker the more bytes they carried."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape

import networkx as nx
import numpy as np

from grapevine.experiments.report.figures import COLOURS, INK, LOST, Figure, count, frame, short
from grapevine.experiments.report.runs import Run
from grapevine.experiments.results.result import LinkFigures
from grapevine.netem.units import show_bytes, show_duration, show_rate

RAMP = ("#c9dcf0", "#93bde3", "#5b99d1", "#2c6fbb", "#1b4a85", "#0e2a52")
SHAPES = ("circle", "square", "diamond")
MOST_LABELLED, MOST_LINKS = 24, 600


def graph(run: Run, height: int = 600) -> Figure | None:
    """Return a picture of the graph: links wider and darker the more bytes both directions carried, peers by region."""
    if not run.links:
        return None
    pairs = busiest(run)
    carried = {pair: sum(link.bytes for link in links) for pair, links in pairs.items()}
    most = max(max(carried.values()), 1)
    at = _positions(pairs, int(run.result.summary["peers"] or 0))
    data = edges(carried, most, at)
    middle = {pair: (at[pair[0]] + at[pair[1]]) / 2 for pair in pairs}
    data.append(dots(middle.values(), ["<br>".join(_hover_text(run, link) for link in links) for links in pairs.values()]))
    data.append(scale_bar(most))
    data += _nodes(run, at)
    return {"data": data, "layout": graph_frame(height)}


def graph_frame(height: int) -> Figure:
    """Return the layout that drawn graphs share: no axes."""
    bare = {"visible": False, "fixedrange": True}
    layout = frame("", "", height=height) | {"xaxis": dict(bare), "yaxis": {**bare, "scaleanchor": "x"}}
    layout["legend"] = {"orientation": "h", "y": -0.02, "yanchor": "top", "x": 0.5, "xanchor": "center"}
    layout["margin"] = {"l": 60, "r": 10, "t": 10, "b": 40}  # the names of the outermost regions need room
    return layout


def busiest(run: Run) -> dict[tuple[int, int], list[LinkFigures]]:
    """Return both directions of every link; of more than `MOST_LINKS` links those that carried the most bytes."""
    pairs: dict[tuple[int, int], list[LinkFigures]] = {}
    for link in run.links:
        pairs.setdefault((min(link[:2]), max(link[:2])), []).append(link)
    order = sorted(pairs, key=lambda pair: (-sum(link.bytes for link in pairs[pair]), pair))
    return {pair: pairs[pair] for pair in order[:MOST_LINKS]}


def _positions(pairs: Iterable[tuple[int, int]], peers: int) -> dict[int, np.ndarray]:
    """Return the place of each peer in the drawing, the same for the same graph."""
    drawn = nx.Graph()
    drawn.add_nodes_from(range(peers))
    drawn.add_edges_from(sorted(pairs))
    small = 2 < len(drawn) <= 150 and nx.is_connected(drawn)
    start = nx.circular_layout(drawn)
    places: dict[int, np.ndarray] = nx.kamada_kawai_layout(drawn, pos=start) if small else start
    return places


def edges(carried: Mapping[tuple[int, int], int], most: int, at: Mapping[int, np.ndarray]) -> list[Figure]:
    """Return the lines of the links, one trace per shade: thousands of links are then drawn as fast as ten."""
    shades: dict[int, list[tuple[int, int]]] = {}
    for pair, size in carried.items():
        shades.setdefault(math.ceil(size / most * len(RAMP)), []).append(pair)
    data = []
    for shade, pairs in sorted(shades.items()):
        x, y = ([part for a, b in pairs for part in (at[a][axis], at[b][axis], math.nan)] for axis in (0, 1))
        width = 0.8 + shade / len(RAMP) * min(6.0, 30 / math.sqrt(len(carried)))
        line = {"color": RAMP[shade - 1] if shade else "#d5d9dd", "width": width}
        line |= {} if shade else {"dash": "dot"}
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": short(x),
                "y": short(y),
                "line": line,
                "opacity": 1.0 if len(carried) < 150 else 0.6,
                "hoverinfo": "skip",
                "showlegend": False,
            }
        )
    return data


def _hover_text(run: Run, link: LinkFigures) -> str:
    """Return the text that appears at the pointer for one direction of a link."""
    fair, alone = (_or_unknown(rate, show_rate) for rate in run.shares[link[:2]])
    asked = alone if fair == alone else f"{fair} (a fair share) to {alone} (alone)"
    rate = f"{_or_unknown(link.rate_measured_bytes_per_s, show_rate)} of {asked}"
    delay = f"{_or_unknown(link.delay_measured_s, _show_s)} of {_or_unknown(link.delay_asked_s, _show_s)}"
    sent = f"<b>{link.source} → {link.target}</b>  {show_bytes(link.bytes)} in {count(link.messages, 'message')}"
    return f"{sent}<br>rate {rate} asked, delay {delay} asked"


def dots(places: Iterable[np.ndarray], texts: Sequence[str]) -> Figure:
    """Return an invisible dot in the middle of each link, which shows its text at the pointer."""
    x, y = np.array(list(places)).T
    return {
        "type": "scatter",
        "mode": "markers",
        "x": short(x),
        "y": short(y),
        "text": texts,
        "hoverinfo": "text",
        "marker": {"size": 14, "opacity": 0},
        "showlegend": False,
    }


def scale_bar(most: int) -> Figure:
    """Return the legend of the shades, in bytes."""
    ticks = [most * share for share in (0, 0.25, 0.5, 0.75, 1)]
    bar = {
        "title": {"text": "bytes, both directions", "side": "right"},
        "tickvals": ticks,
        "ticktext": [show_bytes(t) for t in ticks],
        "x": 1.1,
        "thickness": 10,
        "len": 0.6,
        "outlinewidth": 0,
    }
    scale = [[i / (len(RAMP) - 1), colour] for i, colour in enumerate(RAMP)]
    marker = {"color": [0, most], "cmin": 0, "cmax": most, "colorscale": scale, "colorbar": bar, "showscale": True}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [None, None],
        "y": [None, None],
        "marker": marker,
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _nodes(run: Run, at: Mapping[int, np.ndarray]) -> list[Figure]:
    """Return the dots of the peers: a colour (and, above seven, a shape) for each region, hollow for a lost peer."""
    places = run.places() or [""] * (max(at) + 1)
    lost = set(run.result.summary["peers_lost"] or [])
    groups: dict[str, list[int]] = {}
    for peer in sorted(at):
        groups.setdefault("lost" if peer in lost else places[peer], []).append(peer)
    looks = itertools.cycle((colour, shape) for shape in SHAPES for colour in COLOURS[1:])
    styles = {place: next(looks) if place else (INK, SHAPES[0]) for place in dict.fromkeys(places)}
    styles["lost"] = ("#ffffff", SHAPES[0])
    data = [_group(group, peers, at, places, styles[group]) for group, peers in sorted(groups.items())]
    if len(at) <= MOST_LABELLED:
        data.append(_labels(at, places))
    return data


def _group(
    group: str, peers: Sequence[int], at: Mapping[int, np.ndarray], places: Sequence[str], style: tuple[str, str]
) -> Figure:
    size = 26 if len(at) <= 24 else 20 if len(at) <= 64 else 9 if len(at) <= 250 else 4
    edge, ink = (LOST, LOST) if group == "lost" else ("#ffffff", "#ffffff")
    x, y = np.array([at[peer] for peer in peers]).T
    return {
        "type": "scatter",
        "mode": "markers+text" if size > 9 else "markers",
        "x": short(x),
        "y": short(y),
        "text": [str(peer) for peer in peers],
        "textfont": {"color": ink, "size": 12 if size > 20 else 10},
        "hovertext": [escape(", ".join(filter(None, (f"peer {peer}", places[peer])))) for peer in peers],
        "hoverinfo": "text",
        "marker": {"size": size, "color": style[0], "symbol": style[1], "line": {"color": edge, "width": 2 if size > 4 else 0}},
        "name": escape(group),
        "showlegend": bool(group),
    }


def _labels(at: Mapping[int, np.ndarray], places: Sequence[str]) -> Figure:
    """Return the names of the regions, written beside their peers on the side away from the middle."""
    x, y = np.array([at[peer] for peer in sorted(at)]).T
    middle = np.mean(list(at.values()), axis=0)
    return {
        "type": "scatter",
        "mode": "markers+text",
        "x": short(x),
        "y": short(y),
        "text": [escape(places[peer]) for peer in sorted(at)],
        "textposition": [_side(*(at[peer] - middle)) for peer in sorted(at)],
        "cliponaxis": False,
        "textfont": {"color": INK, "size": 11, "shadow": ", ".join(["0 0 3px #fff"] * 4)},
        "marker": {"size": 26, "opacity": 0},
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _side(x: float, y: float) -> str:
    if abs(x) > 2 * abs(y):
        return "middle right" if x > 0 else "middle left"
    return "top center" if y > 0 else "bottom center"


def _or_unknown(value: float, show: Callable[[float], str]) -> str:
    return "unknown" if math.isnan(value) else "unshaped" if value == math.inf else show(value)


def _show_s(delay_s: float) -> str:
    return show_duration(round(1e9 * delay_s))
