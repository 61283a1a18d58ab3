"""`grapevine check`: validate an experiment, or each run of a sweep, and estimate sizes, times and binding links."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grapevine.experiments.cli.source import Commands, add_command, add_experiment, errors_from, read_experiment, settings_of
from grapevine.experiments.exit_status import ExitStatus

if TYPE_CHECKING:
    from rich.table import Table

    from grapevine.experiments.fleet import Fleet
    from grapevine.experiments.forecast import Forecast
    from grapevine.experiments.sweep.forecast import Invalid
    from grapevine.experiments.sweep.plan import Sweep

EXAMPLES = """\
  grapevine check ring.toml
  grapevine check ring.toml --set peers=64 --set topology.name=hypercube
  grapevine check fill.toml         a file with a [sweep] table: its runs, those that cannot be built, the estimated time
"""
SHOWN = 8
"""The number of links listed: those with the longest transfers."""


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "check", execute, "validate an experiment and estimate its run", EXAMPLES)
    add_experiment(parser)
    parser.add_argument("--json", action="store_true", help="the same figures as JSON")


def execute(arguments: argparse.Namespace) -> int:
    """Print the forecast; of a sweep the runs that cannot be built, and the estimated time of all."""
    from grapevine.experiments.config import toml

    path = Path(arguments.file)
    if "sweep" in toml.read_document(path, str(path)):
        return _check_sweep(arguments, path)
    experiment = read_experiment(arguments)
    with errors_from(arguments):
        from grapevine.experiments.faults import located
        from grapevine.experiments.fleet import build
        from grapevine.experiments.forecast import forecast
        from grapevine.experiments.graph import mixing_rule

        fleet = build(experiment)
        estimate = located(experiment, "", lambda: forecast(fleet))
    from grapevine import topology

    mixing = {name: value for name, value in fleet.figures.as_dict().items() if value is not None and name != "max_degree"}
    graph = {**topology.analyse(fleet.first_graph).as_dict(), "rule": mixing_rule(experiment), **mixing}
    if arguments.json:
        from grapevine.experiments.results.summary import clean

        links = [link._asdict() for link in estimate.links]
        script = [{"time_s": event.at_ns / 1e9, "what": event.describe()} for event in fleet.script]
        print(json.dumps(clean({"graph": graph, **asdict(estimate), "links": links, "script": script}), indent=2))
        return 0
    _print(fleet, estimate, graph)
    return 0


def _check_sweep(arguments: argparse.Namespace, path: Path) -> int:
    """Build every run, without starting any, and print the estimate."""
    from grapevine.experiments.sweep.forecast import Timing, invalid_cells, no_solo
    from grapevine.experiments.sweep.plan import read_sweep

    sweep = read_sweep(path, settings_of(arguments))
    timing, seconds = Timing(), list[float]()
    invalid = invalid_cells(
        sweep, lambda cell, fleet: seconds.append(timing.run_s(fleet) * (len(cell.points) + len(cell.trials)))
    )
    warnings = [warning for warning in (no_solo(sweep),) if warning]
    if arguments.json:
        report = {
            "cells": len(sweep.cells), "runs": len(sweep.points), "trials": len(sweep.trials), "estimated_s": sum(seconds),
            "invalid": [asdict(each) for each in invalid.values()], "skip_invalid": sweep.options.skip_invalid,
            "warnings": warnings,
        }  # fmt: skip
        print(json.dumps(report, indent=2))
    else:
        _print_sweep(sweep, list(invalid.values()), sum(seconds), warnings)
    return ExitStatus.BAD_INPUT if invalid and not sweep.options.skip_invalid else ExitStatus.DONE


def _print_sweep(sweep: Sweep, invalid: list[Invalid], seconds: float, warnings: list[str]) -> None:
    from rich.console import Console

    from grapevine.experiments.results.numbers import plural
    from grapevine.experiments.sweep.eta import show_left

    console = Console(highlight=False, soft_wrap=True)
    runs, cells = len(sweep.points), len(sweep.cells)
    trials = f", after {plural(len(sweep.trials), 'trial')}" if sweep.trials else ""
    console.print(f"{plural(cells, 'combination')}, {plural(runs, 'run')}{trials}", markup=False)
    shorter = any(point.experiment.stop.accuracy for point in sweep.points)
    least = "; longer if lists are widened" if sweep.trials else ""
    less = "; less if an accuracy ends runs early" if shorter else ""
    how = "one run at a time, measured with a few steps of some runs on this machine"
    console.print(f"estimated: {show_left(seconds)} ({how}{less}{least})", markup=False)
    if invalid:
        effect = "stop the sweep; remove them, or write skip_invalid = true below [sweep] to leave them out"
        effect = "are left out (skip_invalid = true)" if sweep.options.skip_invalid else effect
        count = sum(each.runs for each in invalid)
        sentence = f"{plural(len(invalid), 'combination')} ({plural(count, 'run')}) cannot be built and {effect}:"
        console.print(sentence, style="bold red", markup=False)
        for each in invalid:
            console.print(f"  {each}", markup=False)
    else:
        console.print("all runs can be built", markup=False)
    for warning in warnings:
        console.print("[bold yellow]warning[/bold yellow]", end=" ")
        console.print(warning, markup=False)


def _print(fleet: Fleet, estimate: Forecast, graph: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from grapevine.experiments.terminal import open_console

    console = open_console()
    console.print(f"[bold]{escape(fleet.experiment.name)}[/bold]: is valid and can be run")
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    for title, line in _lines(fleet, estimate, graph):
        table.add_row(f"  {title}", line)
    console.print(table)
    if any(math.isfinite(link.rate_bytes_per_s) or link.delay_ns for link in estimate.links):
        binding = sum(link.binds for link in estimate.links)
        console.print(f"  {binding} of {len(estimate.links)} links bind (a whole model takes longer than a step)")
        console.print(_links(estimate))
    for title, line in _script(fleet):
        console.print(f"  [dim]{title}[/dim] {line}")
    for warning in estimate.warnings:
        console.print(f"[bold yellow]warning[/bold yellow] {warning}")


def _lines(fleet: Fleet, estimate: Forecast, graph: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from grapevine.experiments.config.menus import name_of
    from grapevine.experiments.results.numbers import figure, peers_text
    from grapevine.netem.units import show_bytes, show_duration

    experiment = fleet.experiment
    keys = ("strategy", "topology", "network", "devices", "task", "world")
    yield "parts", ", ".join(f"{key} {name_of(getattr(experiment, key))}" for key in keys)
    degree = _span(graph["min_degree"], graph["max_degree"])
    yield "graph", (f"{graph['nodes']:,} peers, {graph['edges']:,} edges, degree {degree}, "
                    f"diameter {figure(graph['diameter'])}, connectivity {figure(graph['node_connectivity'])}")  # fmt: skip
    if fleet.rounds is not None:
        yield "rounds", _rounds(graph)
    yield "mixing", (f"spectral gap {figure(graph['gap'])}, second eigenvalue {figure(graph['slem'])}, "
                     f"disagreement down to 1/1000 in {figure(graph['mixing_time'])} rounds")  # fmt: skip
    yield "model", f"{estimate.parameters:,} parameters, {show_bytes(estimate.model_bytes)} as {name_of(experiment.codec)}"
    if fleet.spaces:
        yield "spaces", ", ".join(f"{space.name} ({space.size:,} x {space.dtype})" for space in fleet.spaces)
    for wrapper in experiment.wrappers:
        yield "wrapper", f"{name_of(wrapper)} at {peers_text(wrapper.among(experiment.peers))}"
    samples = fleet.problem.samples
    yield "samples", f"{sum(samples):,} in all, {_span(min(samples), max(samples))} a peer"
    step = _span(show_duration(round(min(estimate.step_ns))), show_duration(round(max(estimate.step_ns))))
    step = f"at least {step}" if estimate.at_least else step
    waits = estimate.round_ns > max(estimate.step_ns)
    wait = f", {show_duration(round(estimate.round_ns))} with the messages that it waits for" if waits else ""
    yield "step", f"{step} to compute (a gradient takes {show_duration(round(estimate.gradient_ns))} on this machine){wait}"
    sent = _span(show_bytes(min(estimate.sent_bytes)), show_bytes(max(estimate.sent_bytes)))
    yield "sent", f"about {sent} by a peer in a step"
    yield "duration", _duration(fleet, estimate)


def _rounds(graph: dict[str, Any]) -> str:
    """Return a schedule's figures on one line."""
    from grapevine.experiments.results.numbers import figure

    if "period" not in graph:  # the graph is the same in all rounds
        return f"links go one way, {figure(graph['messages_per_round'])} messages in each round; the graph has both directions"
    ends = f"exact agreement after {graph['finite_time']}" if graph.get("finite_time") else "agreement in the long run"
    period = f"{graph['period']} that repeat" if graph.get("period") else "all different"
    return f"{period}, {figure(graph['messages_per_round'])} messages in each, {ends}; the graph has the links of all rounds"


def _script(fleet: Fleet) -> Iterator[tuple[str, str]]:
    """Yield the events of the run, with their times."""
    from grapevine.netem.units import show_duration

    events = fleet.script
    wide = max((len(show_duration(event.at_ns)) for event in events), default=0)
    for event in events:
        yield f"at {show_duration(event.at_ns):>{wide}}", event.describe()


def _duration(fleet: Fleet, estimate: Forecast) -> str:
    from grapevine.netem.units import show_duration

    stop = fleet.experiment.stop
    about = "at least" if estimate.at_least and stop.steps else "about"
    emulated_ns = round(estimate.emulated_ns)
    emulated = f"{about} {show_duration(emulated_ns)} emulated" if estimate.emulated_ns else "unknown emulated time"
    limits = [f"time {stop.time}" if stop.time else "", f"{stop.steps} steps" if stop.steps else ""]
    limits += [f"validation accuracy {stop.accuracy:g}" if stop.accuracy else ""]
    real = "as fast as this machine" if estimate.wall_ns is None else f"{show_duration(round(estimate.wall_ns))} in real time"
    return f"{emulated}, {real}; stops at {' or '.join(limit for limit in limits if limit)}"


def _links(estimate: Forecast) -> Table:
    """Return a table of the links with the longest transfers of a model."""
    from rich.table import Table

    from grapevine.netem.units import show_duration, show_rate

    table = Table(box=None, padding=(0, 0, 0, 4))
    for column in ("link", "rate left", "delay", "whole model", ""):
        table.add_column(column, justify="left" if column in ("link", "") else "right")
    slowest = sorted(estimate.links, key=lambda link: -link.transfer_ns)
    for link in slowest[:SHOWN]:
        figures = show_rate(link.rate_bytes_per_s), show_duration(link.delay_ns), show_duration(round(link.transfer_ns))
        table.add_row(f"{link.source} -> {link.target}", *figures, "binds" if link.binds else "")
    if len(estimate.links) > SHOWN:
        faster = "faster" if slowest[SHOWN].transfer_ns < slowest[SHOWN - 1].transfer_ns else "more"
        table.add_row(f"and {len(estimate.links) - SHOWN:,} {faster}", "", "", "", "")
    return table


def _span(low: Any, high: Any) -> str:
    return f"{low}" if low == high else f"{low} to {high}"
