"""The pictures of a sweep over topologies: curves of every topology, and dots of measured against predicted values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from grapevine.experiments.report.figures import FAINT, Figure, frame, log_axis, short
from grapevine.experiments.study.connectivity import Connectivity, Panel, Place
from grapevine.experiments.study.ranks import Measure
from grapevine.topology import Schedule, TimeVarying

RAMP = ("#7f1d1d", "#d9722e", "#b59a1f", "#2e9a72", "#2c6fbb", "#3b2a78")
"""Colours of the topologies, from few effective neighbours to many."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
"""Shapes of the dots, one for each network."""
POINTS = 80
WIDE = 8.0
"""Values that differ by this factor or more are drawn on a logarithmic axis."""
LEGEND_PX = 190

Key = dict[str, tuple[str, bool]]
"""Colour of each topology, and whether it changes from round to round; ordered from few effective neighbours to many."""


def key_of(study: Connectivity) -> Key:
    """Return the colours and line styles of the topologies of a study."""
    places = {place.graph: place for panel in study.panels for place in panel.places}
    known = {graph: np.nan_to_num(place.neighbours, nan=-1.0) for graph, place in places.items()}
    order = sorted(known, key=lambda graph: (known[graph], study.graphs.index(graph)))
    shares = np.linspace(0.0, 1.0, len(order))
    return {
        graph: (_mixed(share), isinstance(places[graph].experiments[0].topology, TimeVarying | Schedule))
        for graph, share in zip(order, shares, strict=True)
    }


def curves(study: Connectivity, panel: Panel, what: str, key: Key) -> Figure | None:
    """Return a picture of accuracy or consensus distance, one line per topology; buttons choose steps, time or bytes."""
    first = study.networks[0]
    times = [(network, f", {network}" if network else "") for network in study.networks]
    views = [
        ("steps", first, "steps of each peer", "steps"),
        *(("time_s", network, f"emulated time{named} (s)", f"time{named}") for network, named in times),
        ("bytes", first, "bytes sent by all peers", "bytes"),
    ]
    data: list[Figure] = []
    owner: list[int] = []
    for number, (over, network, _, _) in enumerate(views):
        for place in sorted(panel.on(network), key=lambda place: list(key).index(place.graph)):
            x, y = _mean(place, over, what)
            if not len(x):
                continue
            colour, dashed = key[place.graph]
            line = {"color": colour, "width": 2.0, "dash": "dash" if dashed else "solid"}
            drawn: Figure = {"type": "scatter", "mode": "lines", "x": short(x), "y": short(y), "line": line}
            data.append(drawn | {"name": place.graph, "visible": number == 0})
            owner.append(number)
    if not data:
        return None
    layout = frame(views[0][2], "test accuracy" if what == "accuracy" else "consensus distance", height=430, named=1)
    layout["showlegend"] = True
    layout["legend"] = {"x": 1.01, "xanchor": "left", "y": 1.0, "yanchor": "top", "traceorder": "normal"}
    layout["margin"] |= {"r": LEGEND_PX, "t": 46}
    layout["yaxis"] |= {"tickformat": ".0%"} if what == "accuracy" else _log([v for line in data for v in line["y"]])
    scales = {"steps": {"type": "linear", "exponentformat": "none"}, "time_s": {"type": "log", "exponentformat": "none"}}
    scales["bytes"] = {"type": "log", "exponentformat": "SI"}
    buttons = [(title, "xaxis", scales[over] | {"autorange": True}, label) for over, _, title, label in views]
    layout["updatemenus"] = [_buttons(buttons, owner)]
    return {"data": data, "layout": layout}


def scatter(study: Connectivity, panel: Panel, measure: Measure, key: Key, level: str) -> Figure | None:
    """Return a picture of time, steps or bytes (by buttons) to the target against a figure of the topology.

    Each dot is a topology; each network has a shape.
    """
    first = study.networks[0]
    views = [("time_s", "s", f"time to {level} (s)", "time"), ("steps", "steps", f"steps to {level}", "steps")]
    views.append(("bytes", "B", f"bytes to {level}", "bytes"))
    data: list[Figure] = []
    owner: list[int] = []
    spans: list[Figure] = []
    for number, (over, unit, *_) in enumerate(views):
        ends: list[float] = []
        for place, network in enumerate(study.networks if over == "time_s" else [first]):
            dots = _reached(panel, network, measure, over)
            ends += [end for _, _, mean, half in dots for end in (max(mean - half, 0.1 * mean), mean + half)]
            text = f"{measure.title} %{{x:.3g}}, {level} after %{{y:.4s}} {unit}"
            drawn = [_dots(dots, SYMBOLS[place % len(SYMBOLS)], key, network, text)] if dots else []
            drawn += [_shape(SYMBOLS[place % len(SYMBOLS)], network)] if dots and network and over == "time_s" else []
            data += [trace | {"visible": number == 0} for trace in drawn]
            owner += [number] * len(drawn)
        spans.append(_axis(ends))
    values = [x for trace in data for x in trace["x"] if x is not None]
    if not values:
        return None
    layout = frame(measure.title, views[0][2], height=380, named=1)
    layout["showlegend"] = bool(first)
    layout["legend"] |= {"y": -0.3, "yanchor": "top"}
    layout["margin"] |= {"t": 44, "b": 96 if first else 52}
    layout["xaxis"] |= _axis(values)
    layout["yaxis"] |= spans[0]
    layout["updatemenus"] = [
        _buttons([(title, "yaxis", span, label) for (*_, title, label), span in zip(views, spans, strict=True)], owner)
    ]
    return {"data": data, "layout": layout}


def prediction(study: Connectivity, panel: Panel, key: Key) -> Figure | None:
    """Return a picture of measured against predicted consensus distance on the first network; each dot is a topology."""
    dots = [
        (place, panel.predicted[place.graph], place.consensus.mean, place.consensus.half or 0.0)
        for place in panel.on(study.networks[0])
        if panel.predicted.get(place.graph, 0.0) > 0 and place.consensus.mean > 0
    ]
    if not dots:
        return None
    values = [value for _, x, y, half in dots for value in (x, max(y - half, 0.1 * y), y + half)]
    ends = [min(values) / 1.5, max(values) * 1.5]
    line = {"color": FAINT, "width": 1, "dash": "dash"}
    equal = {"type": "scatter", "mode": "lines", "x": ends, "y": ends, "line": line, "hoverinfo": "skip", "showlegend": False}
    layout = frame("predicted consensus distance", "measured consensus distance")
    layout["showlegend"] = False
    for axis in ("xaxis", "yaxis"):
        layout[axis] |= _log(values)
    return {"data": [equal, _dots(dots, SYMBOLS[0], key, "", "predicted %{x:.3g}, measured %{y:.3g}")], "layout": layout}


def _dots(dots: Sequence[tuple[Place, float, float, float]], symbol: str, key: Key, network: str, hover: str) -> Figure:
    means, halves = [mean for _, _, mean, _ in dots], [half for *_, half in dots]
    error = {
        "type": "data", "symmetric": False, "thickness": 1, "width": 2, "color": "#9aa6b1",
        "array": short(halves), "arrayminus": short([min(half, 0.9 * mean) for mean, half in zip(means, halves, strict=True)]),
    }  # fmt: skip
    return {
        "type": "scatter", "mode": "markers", "x": short([x for _, x, _, _ in dots]), "y": short(means), "error_y": error,
        "text": [", ".join(filter(None, (place.graph, network))) for place, *_ in dots],
        "legendgroup": network, "showlegend": False,
        "marker": {"color": [key[place.graph][0] for place, *_ in dots], "symbol": symbol, "size": 10,
                   "line": {"color": "white", "width": 0.8}},
        "hovertemplate": f"%{{text}}<br>{hover}<extra></extra>",
    }  # fmt: skip


def _reached(panel: Panel, network: str, measure: Measure, over: str) -> list[tuple[Place, float, float, float]]:
    """Return (place, measure, mean, half of the interval) for each topology whose runs all reach the target."""
    dots = []
    for place in panel.on(network):
        found = place.reached(panel.level, over) if panel.level is not None else None
        x = measure.of(panel, place)
        if found is not None and x > 0:
            dots.append((place, x, found.mean, found.within or 0.0))
    return dots


def _shape(symbol: str, network: str) -> Figure:
    """Return a network's entry in the legend: its shape, in grey."""
    marker = {"color": FAINT, "symbol": symbol, "size": 10}
    bare: Figure = {"type": "scatter", "mode": "markers", "x": [None], "y": [None]}
    return bare | {"name": network, "legendgroup": network, "marker": marker}


def _mean(place: Place, over: str, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over the runs at common values of the axis, over the range that all runs have."""
    lines = [(getattr(curve, over), getattr(curve, what)) for curve in place.curves]
    lines = [(x[np.isfinite(y)], y[np.isfinite(y)]) for x, y in lines]
    if any(len(x) < 2 for x, _ in lines):
        return np.empty(0), np.empty(0)
    first, last = max(float(x[0]) for x, _ in lines), min(float(x[-1]) for x, _ in lines)
    if over != "steps":  # a logarithmic axis has no 0
        first = max(first, min(float(x[x > 0][0]) for x, _ in lines))
        grid = np.geomspace(first, last, POINTS)
    else:
        grid = np.linspace(first, last, POINTS)
    values = np.stack([np.interp(grid, x, y) for x, y in lines]).mean(axis=0)
    if what == "consensus":
        values = np.where(values > 0, values, np.nan)  # 0 before the first step, when all models are equal
    return grid, values


def _buttons(views: Sequence[tuple[str, str, Figure, str]], owner: Sequence[int]) -> Figure:
    """Return one button per view (axis title, axis, scale, label); `owner` holds the view of each line."""
    buttons = []
    for number, (title, axis, scale, label) in enumerate(views):
        seen = {"visible": [own == number for own in owner]}
        changed = {f"{axis}.title.text": title} | {f"{axis}.{name}": value for name, value in scale.items()}
        buttons.append({"label": label, "method": "update", "args": [seen, changed]})
    return {
        "type": "buttons", "direction": "right", "buttons": buttons, "showactive": True, "x": 0, "xanchor": "left", "y": 1.02,
        "yanchor": "bottom", "pad": {"t": 0, "b": 2}, "font": {"size": 12}, "bgcolor": "#ffffff", "bordercolor": "#dfe4e8",
    }  # fmt: skip


def _axis(values: Sequence[float]) -> Figure:
    """Return a logarithmic axis if the values differ by the factor `WIDE` or more, else a linear one from 0."""
    if not values:
        return {}
    low, high = min(values), max(values)
    if high >= WIDE * low:
        return _log(values) | {"autorange": False}
    return {"type": "linear", "range": [0.0, 1.06 * high], "tickvals": None, "ticktext": None, "autorange": False}


def _log(values: Sequence[float | None]) -> Figure:
    known = [value for value in values if value is not None and value > 0 and math.isfinite(value)]
    if not known:
        return {}
    low, high = min(known), max(known)
    spare = max(1.1, (high / low) ** 0.06)
    return log_axis(low / spare, high * spare)


def _mixed(share: float) -> str:
    """Return the colour at a share, 0 to 1, of the ramp."""
    at = share * (len(RAMP) - 1)
    i = min(int(at), len(RAMP) - 2)
    one, other = (np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) for colour in RAMP[i : i + 2])
    red, green, blue = np.rint(one + (at - i) * (other - one)).astype(int).tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"
