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
    """Return a few lines for a person: the run's configuration, why it ended, its results, and the path of the report."""
    from rich.text import Text

    text = Text()
    ending, style = ("done", "bold green") if summary["completed"] else ("incomplete", "bold red")
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
    shown = {key: figure(summary.get(key)) for key in summary if isinstance(summary.get(key), int | float | None)}
    topology, world, strategy = (summary[key] or "-" for key in ("topology", "world", "strategy"))
    yield "peers", f"{shown['peers']} on {topology} ({world} world), strategy {strategy}"
    if summary["emulated_s"] is None:  # the run ended before its first step
        return
    yield "time", f"{shown['emulated_s']} s emulated, {shown['wall_s']} s on the wall clock"
    if summary["accuracy_mean"] is not None:
        mean, low, high, of_mean = (percent(summary[f"accuracy_{which}"]) for which in ("mean", "min", "max", "of_mean"))
        yield "accuracy", f"{mean} on average ({low} to {high}), of the mean model {of_mean}"
    if summary.get("validation_accuracy_mean") is not None:
        mean, of_mean = (percent(summary[f"validation_accuracy_{which}"]) for which in ("mean", "of_mean"))
        yield "validation", f"{mean} on average, of the mean model {of_mean}"
    reached = {level: time_s for level, time_s in summary["time_to_accuracy_s"].items() if time_s is not None}
    if reached:
        levels = ", ".join(f"{100 * float(level):.0f} % at {figure(time_s)} s" for level, time_s in reached.items())
        every = "" if summary.get("record_every_s") is None else f" (a record every {shown['record_every_s']} s)"
        yield "reached", f"{levels}{every}"
    above = "" if summary.get("excess_loss") is None else f" ({shown['excess_loss']} above that of the optimum)"
    yield "loss", f"{shown['loss_mean']}{above}, consensus distance {shown['consensus_distance']}"
    stale = "" if summary["staleness_steps_mean"] is None else f", staleness {shown['staleness_steps_mean']} steps"
    yield "steps", f"{shown['steps_total']} in all, {shown['steps_per_wall_s']} per second{stale}"
    yield "sent", f"{show_bytes(summary['bytes_sent'] or 0)} in {shown['messages_sent']} messages"
    present = [count for _, count in summary.get("members") or []]
    if len(present) > 1:
        absent = peers_text(summary.get("peers_absent") or [])
        yield "members", f"{min(present)} to {max(present)}, {present[-1]} at the end; absent then: {absent}"
    unasked = summary.get("peers_lost_unasked")
    yield "lost", peers_text(summary["peers_lost"]) + (f"; the file did not ask for {peers_text(unasked)}" if unasked else "")
    if summary.get("wrapped"):
        counts = ", ".join(f"{what} {count:,}" for what, count in (summary.get("altered") or {}).items())
        yield "wrapped", f"{peers_text(summary['wrapped'])}; {counts or 'nothing altered'}"
    if shown["lateness_p99_ms"] != "-":
        yield "lateness", f"{shown['lateness_p99_ms']} ms (99th percentile)"
    if summary.get("network_backend") == "kernel":
        yield "network", "carried by the kernel, each peer in a namespace of its own"
    known = (("rates", percent(summary.get("rate_error_median"))), ("delays", shown.get("delay_error_median_ms", "-") + " ms"))
    off = [f"{what} off by {error}" for what, error in known if not error.startswith("-")]
    if off:
        yield "links", f"{', '.join(off)} (median)"
    yield from (("warning", warning) for warning in summary.get("warnings") or ())


def _hang(line: str) -> str:
    """Wrap a line to the width of the terminal, with further lines indented below the first."""
    width = max(40, shutil.get_terminal_size().columns - MARGIN - 1)
    return ("\n" + " " * MARGIN).join(textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False))
