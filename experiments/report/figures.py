"""The pictures of a report, as plain plotly figures: metrics over time, and measured against asked rates and delays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from grapevine.experiments.report.marks import drawn
from grapevine.experiments.report.runs import Line, Run, over_peers, quantiles_over
from grapevine.experiments.results.result import LinkFigures, median
from grapevine.netem.units import show_rate

Figure = dict[str, Any]
Point = tuple[LinkFigures, float, float, float]
"""A link with three values in one unit: asked, measured, and the largest value that it can reach when others are idle."""
COLOURS = ("#2c6fbb", "#d9722e", "#2e9a72", "#b8437f", "#7a5cc0", "#9a7b1f", "#3aa3bd", "#6d7480")
INK, FAINT, GRID, LOST = "#22303c", "#71808e", "#e6eaee", "#c0392b"
MOST_PEERS, MOST_POINTS, MOST_NAMED = 64, 400, 8
CROWD = 200
"""Number of peers above which quantiles are drawn instead of one line per peer."""
MOST_DOTS = 3000
"""The most links drawn in one picture of measured against asked values."""


def curves(runs: Sequence[Run], metric: str | None, fleet: str | None, title: str, kind: str = "") -> Figure | None:
    """Return a picture of a metric over emulated time, or None if nothing was measured.

    One run: a thin line for each peer and a thick one for the mean; above `CROWD` peers the quantiles (lowest, 5 %, median,
    95 %, highest). Several runs: the means, with bands from the lowest to the highest peer. `metric` names the metric of
    each peer, `fleet` that of the whole fleet; `kind`: "share" for 0 to 1, "bytes", "log" for a logarithmic axis.
    """
    data: list[Figure] = []
    shown: list[np.ndarray] = []
    alone = len(runs) == 1
    thin = _quantiles if crowded(runs) else _thin
    for run in runs:
        peers = run.peers(metric) if metric else {}
        mean = run.mean(metric or "", fleet)
        data += thin(run, metric or "", peers) if alone else _band(run, metric) if len(runs) <= MOST_NAMED else []
        if mean is not None:
            name = run.label if not alone else "mean of the peers" if metric else title
            data.append(_line(mean, name, run.colour, 2.8, run.dash, showlegend=True))
        shown += [values for _, values in peers.values()] if len(peers) <= CROWD else [run.stack(metric or "")[1].ravel()]
        shown += [mean[1]] if mean is not None else []
    values = np.concatenate(shown) if shown else np.empty(0)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return None
    layout = frame("emulated time (s)", title, named=1 if alone else len(runs))
    shapes, layout["annotations"] = drawn(runs)
    layout["shapes"] = [*shapes, *(_losses(runs[0]) if alone else [])]
    layout["yaxis"] |= _scale(values, kind)
    if layout["yaxis"].get("type") == "log":  # a logarithmic axis has no 0
        for line in data:
            line["y"] = [value if value is not None and value > 0 else None for value in line["y"]]
    layout["showlegend"] &= metric is not None or not alone
    return {"data": data, "layout": layout}


def rates(runs: Sequence[Run]) -> Figure | None:
    """Return a picture of the measured rate of every shaped link against its fair share; None if no rate was measured.

    A bar reaches from the fair share to the rate that the link has when no other link uses its segments.
    """

    def pick(run: Run, link: LinkFigures) -> tuple[float, float, float]:
        fair, alone = run.shares[link[:2]]
        return fair, link.rate_measured_bytes_per_s, alone

    return _asked_measured(runs, "rate", "Mbit/s", pick, 8e-6)


def delays(runs: Sequence[Run]) -> Figure | None:
    """Return a picture of the measured against the asked delay of every link; None if no delay was measured."""

    def pick(_run: Run, link: LinkFigures) -> tuple[float, float, float]:
        return link.delay_asked_s, link.delay_measured_s, link.delay_asked_s

    return _asked_measured(runs, "one-way delay", "ms", pick, 1e3)


def shares_lines(runs: Sequence[Run]) -> bool:
    """Return whether any link shares a segment with other links, so that it has a higher rate when they are idle."""
    return any(share.alone_bytes_per_s > share.fair_bytes_per_s for run in runs for share in run.shares.values())


def unshaped(runs: Sequence[Run]) -> str:
    """Return a sentence on the links without a rate limit and their measured rate; "" if there are none."""
    links = [link for run in runs for link in run.links if run.shares[link[:2]].alone_bytes_per_s == math.inf]
    if not links:
        return ""
    known = [link.rate_measured_bytes_per_s for link in links if math.isfinite(link.rate_measured_bytes_per_s)]
    measured = f"; measured: {show_rate(median(known))} (median)" if known else ""
    return f"{count(len(links), 'directed link')} had no rate limit (unshaped){measured}."


def crowded(runs: Sequence[Run]) -> bool:
    """Return whether there is one run only and it has more than `CROWD` peers."""
    return len(runs) == 1 and int(runs[0].result.summary["peers"] or 0) > CROWD


def _quantiles(run: Run, metric: str, peers: Mapping[int, Line]) -> list[Figure]:
    """Return bands that hold all peers and nine tenths of them, and the line of the median."""
    if len(peers) < 2:
        return []
    time_s, stacked = run.stack(metric)
    known = np.isfinite(stacked).any(axis=0)
    time_s, stacked = time_s[known], np.where(np.isfinite(stacked), stacked, np.nan)[:, known]
    lowest, low, middle, high, highest = quantiles_over(stacked)
    data: list[Figure] = []
    for name, below, above, alpha in (("lowest to highest", lowest, highest, 0.12), ("5 % to 95 %", low, high, 0.28)):
        colour = _alpha(run.colour, alpha)
        bare: Figure = {"legendgroup": name}
        data.append(_line((time_s, below), f"{name[: name.index(' to')]}", colour, 0.5, showlegend=False, **bare))
        upper = _line((time_s, above), name, colour, 0.5, showlegend=True, **bare)
        data.append(upper | {"fill": "tonexty", "fillcolor": colour})
    data.append(_line((time_s, middle), "median", run.colour, 1.2, "dot", showlegend=True))
    return data


def _thin(run: Run, _metric: str, peers: Mapping[int, Line]) -> list[Figure]:
    places = run.places() or []
    chosen = sorted(peers)
    if len(chosen) > MOST_PEERS:
        chosen = [chosen[at] for at in np.linspace(0, len(chosen) - 1, MOST_PEERS).astype(int)]
    colour = _alpha(run.colour, 0.45 if len(chosen) <= 16 else 0.25)
    data = []
    for peer in chosen:
        name = f"peer {peer}" + (f", {escape(places[peer])}" if peer < len(places) else "")
        first = peer == chosen[0]  # one legend entry for all peers
        data.append(_line(peers[peer], name, colour, 1.0, showlegend=False, legendgroup="peers"))
        if first:
            data.append(
                _line((np.array([np.nan, np.nan]),) * 2, "each peer", colour, 1.0, showlegend=True, legendgroup="peers")
            )
    return data


def _band(run: Run, metric: str | None) -> list[Figure]:
    """Return a band from the lowest to the highest peer."""
    if metric is None or len(run.peers(metric)) < 2:
        return []
    time_s, stacked = run.stack(metric)
    low, high = over_peers(np.nanmin, stacked), over_peers(np.nanmax, stacked)
    known = np.isfinite(low)
    edge: Figure = {"hoverinfo": "skip", "showlegend": False, "legendgroup": escape(run.label)}
    lower = _line((time_s[known], low[known]), run.label, "rgba(0,0,0,0)", 0.0, **edge)
    upper = _line((time_s[known], high[known]), run.label, "rgba(0,0,0,0)", 0.0, **edge)
    return [lower, upper | {"fill": "tonexty", "fillcolor": _alpha(run.colour, 0.13)}]


def _line(line: Line, name: str, colour: str, width: float, dash: str = "solid", **more: Any) -> Figure:
    time_s, values = line
    if len(time_s) > MOST_POINTS:
        chosen = np.linspace(0, len(time_s) - 1, MOST_POINTS).astype(int)
        time_s, values = time_s[chosen], values[chosen]
    mode = "lines" if len(time_s) > 1 else "lines+markers"  # a single measurement needs a marker to be visible
    drawn = {"color": colour, "width": width, "dash": dash}
    return {"type": "scatter", "mode": mode, "x": short(time_s), "y": short(values), "name": escape(name), "line": drawn} | more


def _losses(run: Run) -> list[Figure]:
    """Return a vertical dotted line at each time at which a peer was lost."""
    times = [event.get("time_s") for event in run.result.events if event.get("kind") == "lost"]
    line = {"color": LOST, "width": 1, "dash": "dot"}
    return [
        {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": time_s, "x1": time_s, "line": line}
        for time_s in times
        if time_s is not None
    ]


def _scale(values: np.ndarray, kind: str) -> Figure:
    if kind == "share":
        return {"tickformat": ".0%", "range": [0, 1.02]}
    positive = values[values > 0]
    if len(positive) and (kind == "log" or (is_wide(values) and kind != "bytes")):
        return log_axis(float(positive.min()) / 1.3, float(positive.max()) * 1.3)
    axis: Figure = {"rangemode": "tozero"} if values.min() >= 0 else {}
    return axis | ({"tickformat": "~s", "ticksuffix": "B"} if kind == "bytes" else {})


def is_wide(values: np.ndarray) -> bool:
    """Return whether values are all positive and span more than a factor of 10: a linear axis would flatten the small ones."""
    return len(values) > 0 and bool(values.min() > 0 and values.max() > 10 * values.min())


def log_axis(low: float, high: float) -> Figure:
    """Return a logarithmic axis from low to high, with ticks as plain numbers: 0.5, 1, 2, 5, 10."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    apart = max(1, (last - first) // 8)
    digits = (1,) if last - first > 4 else (1, 3) if last - first > 2 else (1, 2, 5) if high > 10 * low else (1, 2, 3, 4, 5, 7)
    ticks = [digit * 10.0**power for power in range(first, last + 1, apart) for digit in digits]
    ticks = [tick for tick in ticks if low <= tick <= high]
    text = [f"{tick:g}" for tick in ticks]
    return {"type": "log", "range": [math.log10(low), math.log10(high)], "tickvals": ticks, "ticktext": text}


def _asked_measured(
    runs: Sequence[Run], what: str, unit: str, pick: Callable[[Run, LinkFigures], tuple[float, float, float]], scale: float
) -> Figure | None:
    """Return a picture of measured against asked values; `pick` returns the three values of a `Point` of a link."""
    data: list[Figure] = []
    every: list[float] = []
    for run in runs:
        picked = [(link, pick(run, link)) for link in run.links]
        points = [
            (link, asked * scale, measured * scale, most * scale)
            for link, (asked, measured, most) in picked
            if math.isfinite(asked + measured + most)
        ]
        if what == "rate":
            points = [point for point in points if point[1] > 0 and point[2] > 0]
        every += [value for point in points for value in point[1:]]
        points = _some(points)
        text = [f"{link.source} → {link.target}" for link, *_ in points]
        bars = [most - asked for _, asked, _, most in points]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": short([p[1] for p in points]),
                "y": short([p[2] for p in points]),
                "text": text,
                "name": escape(run.label) if len(runs) > 1 else "a link",
                "marker": {"color": _alpha(run.colour, 0.6), "size": 8},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": short(bars),
                    "arrayminus": [0.0] * len(bars),
                    "visible": any(bar > 0 for bar in bars),
                    "color": _alpha(run.colour, 0.35),
                    "thickness": 1,
                    "width": 0,
                },
                "hovertemplate": "%{text}<br>asked %{x:.4g}, measured %{y:.4g} " + unit + "<extra></extra>",
            }
        )
    if not every:
        return None
    logarithmic = what == "rate"
    ends = [min(every) / 1.5, max(every) * 1.5] if logarithmic else [0.0, max(every) * 1.08 or 1.0]
    line = {"color": FAINT, "width": 1, "dash": "dash"}
    equal = {"type": "scatter", "mode": "lines", "x": ends, "y": ends, "name": "measured = asked", "line": line}
    equal["hoverinfo"] = "skip"
    layout = frame(f"asked {what} ({unit})", f"measured {what} ({unit})", named=len(runs))
    axis = log_axis(*ends) if logarithmic else {"range": ends}
    layout["xaxis"] |= axis
    layout["yaxis"] |= axis
    return {"data": [equal, *data], "layout": layout}


def sample_note(runs: Sequence[Run]) -> str:
    """Return a sentence that only some links are drawn; "" if all are."""
    most = max((len(run.links) for run in runs), default=0)
    return f"Of {most:,} links {MOST_DOTS:,} are drawn, among them those with the largest errors. " if most > MOST_DOTS else ""


def _some(points: list[Point]) -> list[Point]:
    """Return at most `MOST_DOTS` points in their order: a third with the largest errors, and an even choice of the others."""
    if len(points) <= MOST_DOTS:
        return points
    off = np.array([max(asked - measured, measured - most, 0.0) for _, asked, measured, most in points])
    chosen = set(np.argsort(-off, kind="stable")[: MOST_DOTS // 3].tolist())
    others = [at for at in range(len(points)) if at not in chosen]
    chosen |= {others[at] for at in np.linspace(0, len(others) - 1, MOST_DOTS - len(chosen)).astype(int).tolist()}
    return [points[at] for at in sorted(chosen)]


def frame(x: str, y: str, height: int = 360, named: int = 1) -> Figure:
    """Return the layout that all pictures share; `x` and `y` name the axes, `named` is the number of runs in the legend."""
    legend = named <= MOST_NAMED
    axis = {
        "gridcolor": GRID,
        "linecolor": "#b9c2ca",
        "zeroline": False,
        "showline": True,
        "automargin": True,
        "ticks": "outside",
        "tickcolor": "#b9c2ca",
        "ticklen": 4,
    }
    return {
        "height": height + (20 * (named // 2) if legend else 0),
        "showlegend": legend,
        "margin": {"l": 64, "r": 18, "t": 34, "b": 52},
        "hovermode": "closest",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": INK},
        "xaxis": {**axis, "title": {"text": x}},
        "yaxis": {**axis, "title": {"text": y}},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left", "traceorder": "normal"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#a9b4be", "activecolor": INK},
    }


def _alpha(colour: str, alpha: float) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def short(values: Iterable[float]) -> list[float | None]:
    """Round values to five significant digits; a value that is not finite becomes None, a gap in the line."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]


def count(number: int, noun: str) -> str:
    """(3, "peer") -> "3 peers"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
