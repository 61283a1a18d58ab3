"""`grapevine sweep`: many runs of one experiment, one table and one report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.commands.source import Commands, add_command, add_experiment, settings_of

if TYPE_CHECKING:
    from experiments.sweep import Attempt, Standing

EXAMPLES = """\
  grapevine sweep fill.toml --out runs/fill --jobs 2

in fill.toml, besides what an experiment has:
  [sweep]
  "strategy.fill" = [0.5, 0.7, 0.9]
  "network.rate" = ["5 Mbit/s", "50 Mbit/s"]
  seed = [0, 1, 2]

The same command again runs what is not complete yet.
"""


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "sweep", execute, "run the product of the lists of a [sweep] table", EXAMPLES)
    add_experiment(parser)
    parser.add_argument("--out", metavar="DIR", type=Path, help="for runs, table and report (default: runs/FILE-sweep)")
    parser.add_argument("--jobs", metavar="N", type=_positive, default=1, help="runs at a time (default 1)")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def execute(arguments: argparse.Namespace) -> int:
    """Run what is not complete, write table and report, and say which runs failed."""
    from experiments.sweep import run_sweep
    from experiments.sweep_plan import read_sweep
    from experiments.sweep_table import rows_of, write_comparison, write_table

    points = read_sweep(Path(arguments.file), settings_of(arguments))
    out = arguments.out or Path("runs") / f"{Path(arguments.file).stem}-sweep"
    with _Progress(arguments.quiet) as progress:
        attempts, status = run_sweep(points, out, arguments.jobs, watch=progress.update)
    rows = rows_of(attempts, out)
    files = write_table(rows, out)
    try:
        page = write_comparison(attempts, out)
    except ValueError as error:
        page = None
        print(f"no report: {error}", file=sys.stderr)
    _print(attempts, rows, [*files, *([page] if page else [])])
    return status


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of runs: expected 1 or more")
    return int(text)


class _Progress:
    """One line on a terminal that is written anew; a line for each run that ended elsewhere."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        self.quiet = quiet
        self.console = Console(stderr=True, highlight=False)
        self.live = Live(console=self.console, auto_refresh=False, transient=True) if self.console.is_terminal else None
        self.told: set[str] = set()
        self.line = ""

    def __enter__(self) -> _Progress:
        if self.live and not self.quiet:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live and not self.quiet:
            self.live.stop()

    def update(self, standing: Standing) -> None:
        """Tell what is new."""
        if self.quiet:
            return
        for attempt in standing.attempts:
            if attempt.point.name not in self.told:
                self.told.add(attempt.point.name)
                reason = f" ({attempt.reason})" if attempt.reason else ""
                line = f"{len(self.told)}/{standing.runs} {attempt.point.name}: {attempt.state}{reason}"
                self.console.print(line, markup=False)
        if self.live and _line(standing) != self.line:
            self.line = _line(standing)
            self.live.update(self.line, refresh=True)


def _line(standing: Standing) -> str:
    from netem.units import show_duration

    failed = sum(not attempt.done for attempt in standing.attempts)
    left = "" if standing.left_s is None else f", about {show_duration(round(standing.left_s) * 1_000_000_000)} left"
    going = ", ".join(point.name for point in standing.running)
    return f"{len(standing.attempts)} of {standing.runs} runs done, {failed} failed{left}; running {going or 'none'}"


BYTES = (("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12))


def _columns(swept: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Titles, and a line for each run: what was swept, how it ended, and the figures that any run has, each in one unit."""
    from experiments.summary import figure
    from experiments.terminal_table import in_unit, one_unit

    last = [key.rpartition(".")[2] for key in swept]
    titles = [short if last.count(short) == 1 else key for key, short in zip(swept, last, strict=True)]
    unit, scale = one_unit([row.get("bytes_sent") for row in rows], BYTES)
    figures = {
        "accuracy_mean": ("accuracy\n%", lambda value: "-" if value is None else f"{100 * value:.1f}"),
        "loss_mean": ("loss", figure),
        "bytes_sent": (f"sent\n{unit}", lambda value: in_unit(value, scale)),
        "wall_s": ("real\ns", lambda value: in_unit(value, 1.0, 3)),
        "consensus_distance": ("consensus\ndistance", lambda value: "-" if value is None else f"{value:.2g}"),
    }
    known = [key for key in figures if any(row.get(key) is not None for row in rows)]
    titles += ["state", *(figures[key][0] for key in known)]
    lines = [
        [*(str(row[key]) for key in swept), row["state"], *(figures[key][1](row.get(key)) for key in known)] for row in rows
    ]
    return titles, lines


def _print(attempts: Sequence[Attempt], rows: Sequence[Mapping[str, Any]], files: Sequence[Path]) -> None:
    """The table in short, what failed and why, and where all of it is."""
    from rich.console import Console

    from experiments.terminal_table import print_columns

    console = Console(highlight=False)
    swept = list(attempts[0].point.values)
    left_out = print_columns(console, *_columns(swept, rows), words=len(swept) + 1)
    if left_out:
        more = "1 more column does" if left_out == 1 else f"{left_out} more columns do"
        console.print(f"[dim]{more} not fit this terminal: see table.csv[/dim]")
    for attempt in attempts:
        if not attempt.done:
            console.print(f"{attempt.state}: {attempt.point.name}: {attempt.reason}", style="red", markup=False)
    for file in files:
        console.print(str(file), markup=False)
