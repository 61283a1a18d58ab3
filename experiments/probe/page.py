"""The page of a probe: pictures of each link's measured figures against the asked ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from grapevine.experiments.report.figures import COLOURS, FAINT, Figure, frame
from grapevine.experiments.report.html import write_page

Row = Mapping[str, Any]

PICTURES = (
    ("rates", "Rate of a link alone", "Mbit/s", "rate_model_bytes_per_s", "rate_got_bytes_per_s", 8e-6,
     "Large messages without a pause, while no other link of either peer, nor of a cable, is in use. For links that vary, the "
     "asked rate is the one of their model in virtual time."),
    ("shares", "Rates when all links are busy at once", "Mbit/s", "share_asked_bytes_per_s", "share_got_bytes_per_s", 8e-6,
     "Asked: max-min fair over uplinks, downlinks and cables."),
    ("transfers", "Mean time of one message at a time", "ms", "transfer_model_s", "transfer_got_s", 1e3,
     "Asked: the time of the same messages by the link's model, with its losses and windows, in virtual time."),
)  # fmt: skip


def write_probe(name: str, rows: Sequence[Row], out: Path) -> None:
    """Write one self-contained page about the rows of `probe`; raises ValueError if it cannot be written."""
    figures: dict[str, Figure] = {}
    sections = []
    for key, title, unit, asked, got, scale, how in PICTURES:
        points = [(row, row[asked] * scale, row[got] * scale) for row in rows if math.isfinite(row[asked] + row[got])]
        if points:
            figures[key] = _against(points, unit)
            sections.append(_section(key, title, how))
    figures["delays"] = _delays([row for row in rows if math.isfinite(row["delay_got_s"])])
    how = "Small messages one by one: the median, and the range of the middle 90 %. Asked: the same messages by the model."
    sections.append(_section("delays", "One-way delay of each link", how))
    head = f"{len(rows)} directed links of {escape(name)}, measured without training, by the peers' own sockets and threads."
    content = f'<p class="told">{head} {escape(verdict(rows))}</p>\n<div class="grid">{"".join(sections)}</div>'
    write_page(out, f"{name}: probe", content, figures)


def verdict(rows: Sequence[Row]) -> str:
    """Return the worst link's errors in a sentence, with the cure if the machine is too slow."""
    found = {key: [abs(row.get(key, math.nan)) for row in rows] for key in ERRORS}
    worst = {key: max(filter(math.isfinite, values), default=math.nan) for key, values in found.items()}
    late_ms = max(filter(math.isfinite, (1e3 * row.get("delay_late_p99_s", math.nan) for row in rows)), default=math.nan)
    parts = [f"{quantity} {100 * worst[key]:.1f} %" for key, quantity in ERRORS.items() if math.isfinite(worst[key])]
    text = f"At worst off by: {', '.join(parts)}." if parts else ""
    if math.isfinite(late_ms):
        text += f" The 99th percentile of the small messages' delays was up to {late_ms:.2f} ms late."
        if late_ms > LATE_MS:
            text += " This machine is too slow or too busy: raise world.dilation, or use fewer peers."
    alone = sum(math.isfinite(row["delay_got_s"]) for row in rows)
    if alone < len(rows):
        text += f" {alone} of the {len(rows)} links, evenly chosen, were measured alone: all of them would take too long."
    return text.strip()


ERRORS = {"rate_error": "rate", "share_error": "share", "transfer_error": "time of a message"}
LATE_MS = 5.0


def _section(key: str, title: str, how: str) -> str:
    return (
        f'<section class="card"><h2>{escape(title)}</h2><p class="how">{escape(how)}</p>'
        f'<div id="{key}" style="height: 380px"></div></section>'
    )


def _against(points: Sequence[tuple[Row, float, float]], unit: str) -> Figure:
    """Return a figure of measured against asked values, one dot a link, with the line of equality."""
    values = [value for _, *pair in points for value in pair]
    low, high = 0.9 * min(values), 1.1 * max(values)
    layout = frame(f"asked ({unit})", f"got ({unit})", named=1)
    layout["showlegend"] = False
    if high > 20 * low > 0:
        layout["xaxis"] |= {"type": "log"}
        layout["yaxis"] |= {"type": "log"}
    text = [_name(row) for row, _, _ in points]
    marker = {"color": COLOURS[0], "size": 8, "opacity": 0.6}
    dots = {"x": [p[1] for p in points], "y": [p[2] for p in points], "text": text, "mode": "markers", "marker": marker}
    equal = {"x": [low, high], "y": [low, high], "mode": "lines", "line": {"color": FAINT, "width": 1, "dash": "dot"}}
    return {"data": [{"type": "scatter", "hoverinfo": "skip", **equal}, {"type": "scatter", **dots}], "layout": layout}


def _delays(rows: Sequence[Row]) -> Figure:
    """Return a figure of each link's median delay and range from 5 % to 95 %, asked and measured."""
    layout = frame("link", "one-way delay (ms)", named=2)
    names = [_name(row) for row in rows]
    layout["xaxis"] |= {"type": "category", "showticklabels": len(rows) <= 24}
    layout["yaxis"] |= {"rangemode": "tozero"}
    data = []
    for kind, colour in (("model", COLOURS[1]), ("got", COLOURS[0])):
        middle = [1e3 * row[f"delay_{kind}_s"] for row in rows]
        above = [_or_none(1e3 * row[f"delay_{kind}_p95_s"] - y) for row, y in zip(rows, middle, strict=True)]
        below = [_or_none(y - 1e3 * row[f"delay_{kind}_p05_s"]) for row, y in zip(rows, middle, strict=True)]
        bars = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1, "width": 3}
        marker = {"color": colour, "size": 8, "opacity": 0.7, "symbol": "line-ew-open" if kind == "model" else "circle"}
        name = "asked" if kind == "model" else "got"
        data.append(
            {"type": "scatter", "mode": "markers", "x": names, "y": middle, "name": name, "error_y": bars, "marker": marker}
        )
    return {"data": data, "layout": layout}


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _name(row: Row) -> str:
    return f"{row['source']} → {row['target']}"
