"""Pictures of links for fleets with too many peers to draw each: regions, or a histogram."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from html import escape

import numpy as np

from grapevine.experiments.report.figures import Figure, count, frame, short
from grapevine.experiments.report.graph import dots, edges, graph_frame, scale_bar
from grapevine.experiments.report.runs import Run
from grapevine.netem.units import show_bytes

BARS = 40


def graph_of_many(run: Run, height: int = 440) -> Figure | None:
    """Return a picture of the regions and the bytes between them; without regions, a histogram of the bytes per link."""
    if not run.links:
        return None
    places = run.places()
    if places is None or len(set(places)) < 2:
        return _histogram(run, height)
    return _regions(run, places, height)


def caption_of_many(run: Run) -> str:
    """Return the sentence that explains the picture of `graph_of_many`."""
    places = run.places()
    links = len({frozenset(link[:2]) for link in run.links})
    if places is None or len(set(places)) < 2:
        return f"The number of links by the bytes that they carried, both directions together; {links:,} links in all."
    return (
        f"Each dot is a region with all its peers, each line the sum of all links between two regions; {links:,} links in all. "
        "Wide, dark lines carried many bytes. Point at a line or a dot for its figures."
    )


def _regions(run: Run, places: list[str], height: int) -> Figure:
    names = sorted(set(places))
    index = {name: number for number, name in enumerate(names)}
    carried: dict[tuple[int, int], int] = {}
    links: dict[tuple[int, int], int] = {}
    for link in run.links:
        ends = index[places[link.source]], index[places[link.target]]
        pair = min(ends), max(ends)
        carried[pair] = carried.get(pair, 0) + link.bytes
        links[pair] = links.get(pair, 0) + 1
    between = {pair: size for pair, size in carried.items() if pair[0] != pair[1]}
    angles = {number: 2 * math.pi * number / len(names) for number in range(len(names))}
    at = {number: np.array([math.cos(angle), math.sin(angle)]) for number, angle in angles.items()}
    most = max([*between.values(), 1])
    data = edges(between, most, at) if between else []
    if between:
        middle = [at[a] + 0.42 * (at[b] - at[a]) for a, b in between]  # off the middle, where lines across the circle cross
        texts = [_hover_text(f"{names[a]} - {names[b]}", size, links[a, b]) for (a, b), size in between.items()]
        data.append(dots(middle, texts))
        data.append(scale_bar(most))
    own = [_hover_text(f"within {name}", carried.get((i, i), 0), links.get((i, i), 0)) for i, name in enumerate(names)]
    data.append(_dots_of_regions(names, at, {name: places.count(name) for name in names}, own))
    return {"data": data, "layout": graph_frame(height)}


def _hover_text(name: str, size: int, links: int) -> str:
    return f"<b>{escape(name)}</b>  {show_bytes(size)} over {count(links, 'directed link')}"


def _dots_of_regions(names: list[str], at: Mapping[int, np.ndarray], peers: Mapping[str, int], own: list[str]) -> Figure:
    most = max(peers.values())
    return {
        "type": "scatter",
        "mode": "markers+text",
        "x": short(at[number][0] for number in range(len(names))),
        "y": short(at[number][1] for number in range(len(names))),
        "text": [f"{escape(name)} ({peers[name]:,})" for name in names],
        "textposition": ["top center" if at[number][1] >= 0 else "bottom center" for number in range(len(names))],
        "hovertext": [f"{count(peers[name], 'peer')}<br>{text}" for name, text in zip(names, own, strict=True)],
        "hoverinfo": "text",
        "cliponaxis": False,
        "marker": {"color": "#22303c", "size": [10 + 20 * math.sqrt(peers[name] / most) for name in names]},
        "showlegend": False,
    }


def _histogram(run: Run, height: int) -> Figure:
    source, target, size = (np.array([link[column] for link in run.links], dtype=np.int64) for column in (0, 1, 2))
    low, high = np.minimum(source, target), np.maximum(source, target)
    _, pair = np.unique(low * (int(high.max()) + 1) + high, return_inverse=True)
    carried = np.bincount(pair, weights=size)
    tall, edges_at = np.histogram(carried, np.linspace(0.0, max(float(carried.max()), 1.0), BARS + 1))
    layout = frame("bytes on a link, both directions", "links", height=height, named=0)
    layout["xaxis"] |= {"tickformat": "~s", "ticksuffix": "B"}
    layout["yaxis"] |= {"rangemode": "tozero"}
    layout["bargap"] = 0.04
    text = [f"{show_bytes(float(a))} to {show_bytes(float(b))}" for a, b in itertools.pairwise(edges_at)]
    bars = {
        "type": "bar",
        "x": short((edges_at[:-1] + edges_at[1:]) / 2),
        "y": tall.tolist(),
        "text": text,
        "textposition": "none",
        "hovertemplate": "%{y:,} links carried %{text}<extra></extra>",
        "marker": {"color": run.colour},
        "showlegend": False,
    }
    return {"data": [bars], "layout": layout}
