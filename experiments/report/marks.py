"""What was done to a fleet while it ran, as a report shows it: marks in the curves, and a sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from grapevine.experiments.report.runs import Run
from grapevine.experiments.results.numbers import figure

KINDS = ("script", "poke")
"""The kinds of events that tell of it."""
COLOUR = "#8a6d1d"
MOST_NAMED, LONGEST = 12, 34
"""Marks that bear their names, and how long these may be: more would cover the curves."""

Mark = tuple[float, str]
"""When, and what."""


def marks(runs: Sequence[Run]) -> list[Mark]:
    """What was done to one run; to several runs, what was done to all of them at the same time."""
    each = [
        Counter((float(event["time_s"]), str(event.get("text", ""))) for event in run.result.events if _told(event))
        for run in runs
    ]
    common = each[0]
    for other in each[1:]:
        common &= other
    return sorted(common.elements())


def drawn(runs: Sequence[Run]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Plotly's shapes and annotations: an upright dashed line for each instant, with what happened."""
    at: dict[float, list[str]] = {}
    for time_s, text in marks(runs):
        at.setdefault(time_s, []).append(text)
    line = {"color": COLOUR, "width": 1, "dash": "dash"}
    shapes = [{"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": time_s, "x1": time_s, "line": line} for time_s in at]
    style = {"yref": "paper", "y": 1, "textangle": -90, "showarrow": False, "xanchor": "right", "yanchor": "top"}
    font = {"size": 10, "color": COLOUR}
    names = [{"x": time_s, "text": escape(_short("; ".join(texts))), **style, "font": font} for time_s, texts in at.items()]
    return shapes, names if len(names) <= MOST_NAMED else []


def marks_told(runs: Sequence[Run]) -> str:
    """What the marks are; "" where there are none."""
    return " Dashed, upright: something was done to the fleet (see Events)." if marks(runs) else ""


def story(run: Run) -> str:
    """How much was done to the fleet, and from when till when; "" where nothing was."""
    counts = Counter(str(event["kind"]) for event in run.result.events if _told(event))
    if not counts:
        return ""
    script = f"{counts['script']} {'event' if counts['script'] == 1 else 'events'} of its script" if counts["script"] else ""
    poke = f"{counts['poke']} {'poke' if counts['poke'] == 1 else 'pokes'}" if counts["poke"] else ""
    done = marks([run])
    times = f"at {figure(done[0][0], 's')} ({done[0][1]})"
    if len(done) > 1:
        times = f"from {figure(done[0][0], 's')} ({done[0][1]}) to {figure(done[-1][0], 's')} ({done[-1][1]})"
    return f"While it ran, {' and '.join(part for part in (script, poke) if part)} changed the fleet, {times}. "


def _told(event: Mapping[str, Any]) -> bool:
    return event.get("kind") in KINDS and isinstance(event.get("time_s"), int | float)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
