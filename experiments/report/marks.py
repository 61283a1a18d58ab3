"""Events of the experiment file and pokes, as a report shows them: marks in the curves, and a sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from grapevine.experiments.report.runs import Run
from grapevine.experiments.results.numbers import figure

KINDS = ("script", "poke", "join", "leave")
"""The kinds of lines in `events.jsonl` that become marks."""
ASKED = (" joins", " leaves")
"""The ends of a script's or a poke's text after which an event "join" or "leave" follows, which becomes the mark instead."""
COLOUR = "#8a6d1d"
MOST_NAMED, LONGEST = 12, 34
"""The most marks that are drawn with their text, and its largest length: more text covers the curves."""

Mark = tuple[float, str]
"""Time in seconds and text of an event."""


def marks(runs: Sequence[Run]) -> list[Mark]:
    """Return the events of one run; for several runs the events that all of them have at the same time."""
    each = [Counter((float(event["time_s"]), _text(event)) for event in run.result.events if _is_mark(event)) for run in runs]
    common = each[0]
    for other in each[1:]:
        common &= other
    return sorted(common.elements())


def drawn(runs: Sequence[Run]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return plotly's shapes and annotations: a vertical dashed line at each instant, with the text of its events."""
    at: dict[float, list[str]] = {}
    for time_s, text in marks(runs):
        at.setdefault(time_s, []).append(text)
    line = {"color": COLOUR, "width": 1, "dash": "dash"}
    shapes = [{"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": time_s, "x1": time_s, "line": line} for time_s in at]
    style = {"yref": "paper", "y": 1, "textangle": -90, "showarrow": False, "xanchor": "right", "yanchor": "top"}
    font = {"size": 10, "color": COLOUR}
    names = [{"x": time_s, "text": escape(_short("; ".join(texts))), **style, "font": font} for time_s, texts in at.items()]
    return shapes, names if len(names) <= MOST_NAMED else []


def marks_note(runs: Sequence[Run]) -> str:
    """Return the sentence that explains the marks; "" if there are none."""
    return " Vertical dashed lines: events that changed the fleet (see Events)." if marks(runs) else ""


def story(run: Run) -> str:
    """Return a sentence with the number of events and pokes and their times; "" if there were none."""
    counts = Counter(str(event["kind"]) for event in run.result.events if _is_mark(event))
    if not counts:
        return ""
    script = f"{counts['script']} {'event' if counts['script'] == 1 else 'events'} of its file" if counts["script"] else ""
    poke = f"{counts['poke']} {'poke' if counts['poke'] == 1 else 'pokes'}" if counts["poke"] else ""
    joined = f"{counts['join']} {'peer' if counts['join'] == 1 else 'peers'} that joined" if counts["join"] else ""
    left = f"{counts['leave']} {'peer' if counts['leave'] == 1 else 'peers'} that left" if counts["leave"] else ""
    done = marks([run])
    times = f"at {figure(done[0][0], 's')} ({done[0][1]})"
    if len(done) > 1:
        times = f"from {figure(done[0][0], 's')} ({done[0][1]}) to {figure(done[-1][0], 's')} ({done[-1][1]})"
    return f"During the run, {' and '.join(part for part in (script, poke, joined, left) if part)} changed the fleet, {times}. "


def _text(event: Mapping[str, Any]) -> str:
    words = {"join": "joins", "leave": "leaves"}.get(str(event["kind"]))
    return f"peer {event.get('peer')} {words}" if words else str(event.get("text", ""))


def _is_mark(event: Mapping[str, Any]) -> bool:
    if event.get("kind") in ("script", "poke") and str(event.get("text", "")).endswith(ASKED):
        return False
    return event.get("kind") in KINDS and isinstance(event.get("time_s"), int | float)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
