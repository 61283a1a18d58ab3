"""The pictures of a study's page: dots of the cells with their intervals, and curves over time."""

from __future__ import annotations

import math
from html import escape

import numpy as np

from grapevine.experiments.report.figures import COLOURS, INK, Figure, frame, is_wide, log_axis, short
from grapevine.experiments.results.summary import EXCESS_LOSS
from grapevine.experiments.study.study import Study
from grapevine.experiments.study.tables import titled
from grapevine.experiments.sweep.cells import Measure
from grapevine.experiments.sweep.target import ACCURACY, LOSS

DASHES = ("solid", "dash", "dot")
SYMBOLS = ("circle", "square", "diamond")
CURVES = {
    ACCURACY: ("Accuracy over time", "Test accuracy", "test accuracy"),
    EXCESS_LOSS: ("Excess loss over time", "Test loss minus the test loss at the optimum", "excess loss"),
    LOSS: ("Loss over time", "Test loss", "test loss"),
}
"""Title, explanation and axis of the curves of a figure."""
TARGET = "target"
"""The name of the line at the level of the target."""
MARGIN = 1.3
"""The factor between an end of a logarithmic axis and the value that is the nearest to it."""


def dots(study: Study, panel: tuple[str, ...], measure: Measure) -> Figure | None:
    """Return a picture with a dot and interval per cell; the whiskers stop at the largest and smallest possible value."""
    data: list[Figure] = []
    least, most = measure.least / measure.scale, measure.most / measure.scale
    for number, row in enumerate(study.rows):
        cells = [study.at(panel, row, column) for column in study.columns]
        whole = [
            found if cell and (found := cell.estimate(measure.key)) and found.n == len(cell.runs) else None for cell in cells
        ]
        means = [found.mean / measure.scale if found else None for found in whole]
        halves = [(found.within or 0.0) / measure.scale if found else 0.0 for found in whole]
        up = [min(half, most - (mean or 0.0)) for mean, half in zip(means, halves, strict=True)]
        down = [min(half, (mean or 0.0) - least) for mean, half in zip(means, halves, strict=True)]
        dot: Figure = {"type": "scatter", "mode": "markers", "name": escape(row) or "all runs", "y": means}
        dot["x"] = [escape(column or row) for column in study.columns]
        dot["error_y"] = {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.4}
        symbol = SYMBOLS[number // len(COLOURS) % len(SYMBOLS)]
        dot["marker"] = {"color": COLOURS[number % len(COLOURS)], "size": 9, "symbol": symbol}
        data.append(dot)
    if all(value is None for dot in data for value in dot["y"]):
        return None
    layout = frame("", titled(measure), named=min(len(data), 8))
    layout |= {"scattermode": "group" if any(study.columns) else "overlay", "hovermode": "x"}
    layout["xaxis"] |= {"type": "category"}
    if math.isinf(most) and is_wide(np.array([value for dot in data for value in dot["y"] if value is not None])):
        layout["yaxis"] |= _log(data)
    return {"data": data, "layout": layout}


def _log(data: list[Figure]) -> Figure:
    """Return a logarithmic axis for dots; whiskers that reach 0, which it does not have, are cut at its lower end."""
    places = [
        (mean, mean - down, mean + up)
        for dot in data
        for mean, down, up in zip(dot["y"], dot["error_y"]["arrayminus"], dot["error_y"]["array"], strict=True)
        if mean is not None
    ]
    low = min(below if below > mean / 10 else mean / 2 for mean, below, _ in places) / MARGIN
    for dot in data:
        pairs = zip(dot["y"], dot["error_y"]["arrayminus"], strict=True)
        dot["error_y"]["arrayminus"] = [0.0 if mean is None else min(down, mean - low) for mean, down in pairs]
    return log_axis(low, max(above for *_, above in places) * MARGIN)


def curves(study: Study, panel: tuple[str, ...], column: str, figure: str) -> Figure | None:
    """Return a picture with a line and a band per row, then the target as a dotted line; None if nothing was measured."""
    cells = {row: cell for row in study.rows if (cell := study.at(panel, row, column))}
    lines = {row: cell.curve(figure) for row, cell in cells.items()}
    lines = {row: line for row, line in lines.items() if np.isfinite(line[1]).any()}
    if not lines:
        return None
    drawn = np.concatenate([mean for _, mean, _ in lines.values()])
    drawn = drawn[np.isfinite(drawn)]
    logarithmic = figure != ACCURACY and is_wide(drawn)
    low, high = (0.0, 1.0) if figure == ACCURACY else (0.0 if drawn.min() >= 0 else -math.inf, math.inf)
    low = drawn.min() / MARGIN if logarithmic else low
    data: list[Figure] = []
    for number, row in enumerate(study.rows):
        if row not in lines:
            continue
        times, mean, half = lines[row]
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]
        name = escape(row) or "all runs"
        line: Figure = {"type": "scatter", "mode": "lines", "x": times.tolist(), "legendgroup": name}
        edge = line | {"showlegend": False, "hoverinfo": "skip", "line": {"width": 0, "color": colour}}
        if len(cells[row].runs) > 1:
            data.append(edge | {"y": short(np.clip(mean - half, low, high))})
            data.append(edge | {"y": short(np.clip(mean + half, low, high)), "fill": "tonexty", "fillcolor": f"{colour}26"})
        line |= {"y": short(mean), "name": name, "line": {"color": colour, "width": 2.2, "dash": dash}}
        data.append(line)
    layout = frame("emulated time (s)", CURVES[figure][2], named=min(len(study.rows), 8))
    if figure == ACCURACY:
        layout["yaxis"] |= {"tickformat": ".0%"}
    elif logarithmic:
        layout["yaxis"] |= log_axis(low, drawn.max() * MARGIN)
    elif low == 0:
        layout["yaxis"] |= {"rangemode": "tozero"}
    target = study.cells[0].target
    if target.figure == figure and low <= target.level <= high:
        ends = [float(min(times[0] for times, *_ in lines.values())), float(max(times[-1] for times, *_ in lines.values()))]
        style = {"color": INK, "width": 1.2, "dash": "dot"}
        data.append({"type": "scatter", "mode": "lines", "x": ends, "y": [target.level] * 2, "name": TARGET, "line": style})
    return {"data": data, "layout": layout}
