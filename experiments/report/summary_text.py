"""A run's summary as lines for a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grapevine.experiments.results.numbers import figure, peers_text, percent
from grapevine.netem.units import show_bytes

if TYPE_CHECKING:
    from rich.text import Text

MARGIN = 13


def describe(summary: Mapping[str, Any], report: Path | None = None) -> Text:
    """A few lines a person can read on what ran, why it ended, what came of it, and where the report lies."""
    from rich.text import Text

    text = Text()
    ending, style = ("done", "bold green") if summary["completed"] else ("ended early", "bold red")
    if summary["completed"] and summary.get("peers_lost_unasked"):
        ending, style = "done, but peers were lost", "bold yellow"
    text.append(f"{summary['name']}: ", style="bold")
    text.append(ending, style=style)
    text.append(f" ({summary['reason']})\n")
    for title, line in _lines(summary):
        text.append(f"  {title:<11}", style="bold yellow" if title == "warning" else "dim").append(f"{_hang(line)}\n")
    if report is not None:
        text.append("  report     ", style="dim").append(str(report), style="bold").append("\n")
    text.rstrip()
    return text


def _lines(summary: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    told = {key: figure(summary.get(key)) for key in summary if isinstance(summary.get(key), int | float | None)}
    topology, world, strategy = (summary[key] or "-" for key in ("topology", "world", "strategy"))
    yield "peers", f"{told['peers']} on {topology} ({world} world), strategy {strategy}"
    if summary["emulated_s"] is None:  # it never came to anything
        return
    yield "time", f"{told['emulated_s']} s emulated, {told['wall_s']} s on the wall clock"
    if summary["accuracy_mean"] is not None:
        mean, low, high, of_mean = (percent(summary[f"accuracy_{which}"]) for which in ("mean", "min", "max", "of_mean"))
        yield "accuracy", f"{mean} on average ({low} to {high}), of the mean model {of_mean}"
    if summary.get("validation_accuracy_mean") is not None:
        mean, of_mean = (percent(summary[f"validation_accuracy_{which}"]) for which in ("mean", "of_mean"))
        yield "validation", f"{mean} on average, of the mean model {of_mean}"
    reached = {level: time_s for level, time_s in summary["time_to_accuracy_s"].items() if time_s is not None}
    if reached:
        levels = ", ".join(f"{100 * float(level):.0f} % at {figure(time_s)} s" for level, time_s in reached.items())
        every = "" if summary.get("record_every_s") is None else f" (a record every {told['record_every_s']} s)"
        yield "reached", f"{levels}{every}"
    yield "loss", f"{told['loss_mean']}, consensus distance {told['consensus_distance']}"
    stale = "" if summary["staleness_steps_mean"] is None else f", staleness {told['staleness_steps_mean']} steps"
    yield "steps", f"{told['steps_total']} in all, {told['steps_per_wall_s']} per second{stale}"
    yield "sent", f"{show_bytes(summary['bytes_sent'] or 0)} in {told['messages_sent']} messages"
    unasked = summary.get("peers_lost_unasked")
    yield "lost", peers_text(summary["peers_lost"]) + (f"; the file did not ask for {peers_text(unasked)}" if unasked else "")
    if summary.get("wrapped"):
        counts = ", ".join(f"{what} {count:,}" for what, count in (summary.get("altered") or {}).items())
        yield "wrapped", f"{peers_text(summary['wrapped'])}; {counts or 'nothing altered'}"
    if told["lateness_p99_ms"] != "-":
        yield "lateness", f"{told['lateness_p99_ms']} ms (99th percentile)"
    if summary.get("network_backend") == "kernel":
        yield "network", "carried by the kernel, each peer in a namespace of its own"
    known = (("rates", percent(summary.get("rate_error_median"))), ("delays", told.get("delay_error_median_ms", "-") + " ms"))
    off = [f"{what} off by {error}" for what, error in known if not error.startswith("-")]
    if off:
        yield "links", f"{', '.join(off)} (median)"
    yield from (("warning", warning) for warning in summary.get("warnings") or ())


def _hang(line: str) -> str:
    """Broken to the width of the terminal, further lines below the first."""
    width = max(40, shutil.get_terminal_size().columns - MARGIN - 1)
    return ("\n" + " " * MARGIN).join(textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False))
