"""`grapevine sweep`: many runs of one experiment, one table and one report."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grapevine.experiments.cli.source import Commands, add_command, add_experiment, place, settings_of
from grapevine.experiments.config import toml
from grapevine.experiments.exit_status import ExitStatus, worst
from grapevine.experiments.terminal import printable

if TYPE_CHECKING:
    from grapevine.experiments.sweep.cells import CellResult
    from grapevine.experiments.sweep.plan import Sweep
    from grapevine.experiments.sweep.sweep import Attempt, SweepProgress

EXAMPLES = """\
  grapevine sweep fill.toml --out runs/fill --jobs 2

in fill.toml, beside the tables of an experiment:
  [sweep]
  "strategy.fill" = [0.5, 0.7, 0.9]
  network = [{name = "uniform", rate = "5 Mbit/s"}, {name = "lan"}]
  variant = [{label = "p = 4", "strategy.parts" = 4}, {label = "p = 1", "strategy.parts" = 1}]
  seed = [0, 1, 2]
  baseline = "p = 4"            the row of the first axis that all other rows are compared with
  skip_invalid = true           leave out combinations that cannot be built; else they stop the sweep
  target_loss = 0.1             report the time to this loss; else to an accuracy, or to a loss that most reach

  [tune]
  "optimizer.learning_rate" = [0.05, 0.1, 0.2]

The same command again runs the runs that are not complete yet. More: docs/studies.md.
"""


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "sweep", execute, "run the product of the lists of a [sweep] table", EXAMPLES)
    add_experiment(parser)
    parser.add_argument("--out", metavar="DIR", type=place, help="folder for runs, table and report (default: runs/FILE-sweep)")
    parser.add_argument("--jobs", metavar="N", type=_positive, default=1, help="number of runs at a time (default 1)")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def execute(arguments: argparse.Namespace) -> int:
    """Build every run, carry out those that are not complete, write tables and report, and print the failed runs."""
    from grapevine.experiments.study.conclude import buildable, conclude, repeated
    from grapevine.experiments.sweep.plan import read_sweep
    from grapevine.experiments.sweep.sweep import carry_out

    sweep = buildable(read_sweep(Path(arguments.file), settings_of(arguments)), arguments.file)
    out = arguments.out or Path("runs") / f"{Path(arguments.file).stem}-sweep"
    with _Progress(arguments.quiet) as progress:
        outcome = carry_out(sweep, out, arguments.jobs, watch=progress.update)
    found = conclude(sweep, outcome, out, _command(arguments, out), toml.read_text(Path(arguments.file), arguments.file))
    status = outcome.status
    if isinstance(found.trouble, OSError):  # the runs are done, and their results are printed anyway
        problem = f"tables and report could not be written: {found.trouble.strerror or found.trouble}"
        print(printable(f"grapevine sweep: {out}: {problem}; free some space, then repeat the command"), file=sys.stderr)
        status = worst(status, ExitStatus.INCOMPLETE)
    elif found.trouble:
        print(printable(f"the report could not be written: {found.trouble}"), file=sys.stderr)
    if found.cells and repeated(sweep):
        table = *_cell_columns(sweep, found.cells), len(sweep.axes)
    else:
        swept = list(outcome.attempts[0].point.values)
        table = *_columns(swept, found.rows), len(swept) + 1
    _print(*table, found.said, [*outcome.trials, *outcome.attempts], found.files)
    return status


def _command(arguments: argparse.Namespace, out: Path) -> str:
    """Return the command line that repeats the sweep."""
    settings = [part for setting in arguments.settings for part in ("--set", setting)]
    settings += ["--world", arguments.world] if arguments.world else []
    return shlex.join(["grapevine", "sweep", arguments.file, *settings, "--out", str(out)])


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of runs: expected 1 or more")
    return int(text)


class _Progress:
    """Progress on stderr: a line for each run that has ended, and on a terminal one more line that changes in place."""

    def __init__(self, quiet: bool) -> None:
        from rich.live import Live

        from grapevine.experiments.terminal import open_console

        self.quiet = quiet
        self.console = open_console(stderr=True)
        self.live = Live(console=self.console, auto_refresh=False, transient=True) if self.console.is_terminal else None
        self.printed: set[str] = set()
        self.batch: tuple[str, int] = "", 0
        self.line = ""

    def __enter__(self) -> _Progress:
        if self.live and not self.quiet:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live and not self.quiet:
            self.live.stop()

    def update(self, progress: SweepProgress) -> None:
        """Print the runs that have ended since the last call."""
        if self.quiet:
            return
        if self.batch != (progress.phase, progress.runs) or len(progress.attempts) < len(self.printed):
            self.batch = progress.phase, progress.runs
            self.printed.clear()
        for attempt in progress.attempts:
            if attempt.point.name not in self.printed:
                self.printed.add(attempt.point.name)
                reason = f" ({attempt.reason})" if attempt.reason else ""
                phase = f"{progress.phase} " if progress.phase else ""
                left = "" if self.live else _left(progress)
                line = f"{phase}{len(self.printed)}/{progress.runs} {attempt.point.name}: {attempt.state}{reason}{left}"
                self.console.print(line, markup=False, soft_wrap=True)
        if self.live and _line(progress) != self.line:
            self.line = _line(progress)
            self.live.update(self.line, refresh=True)


def _line(progress: SweepProgress) -> str:
    failed = sum(not attempt.done and not attempt.damaged for attempt in progress.attempts)
    damaged = sum(attempt.damaged for attempt in progress.attempts)
    going = ", ".join(point.name for point in progress.running)
    lost = f", {damaged} lost peers" if damaged else ""
    what = f"{progress.runs} trials" if progress.later else f"{progress.runs} runs"
    return f"{len(progress.attempts)} of {what} done, {failed} failed{lost}{_left(progress)}; running {going or 'none'}"


def _left(progress: SweepProgress) -> str:
    from grapevine.experiments.sweep.eta import show_left

    over = progress.left_s is None or (len(progress.attempts) == progress.runs and not progress.later)
    return "" if over or progress.left_s is None else f", about {show_left(progress.left_s)} left"


def _columns(swept: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the titles, and a row for each run: swept values, state, and the figures of the runs, each in one unit."""
    from grapevine.experiments.report.text_table import in_unit, one_unit
    from grapevine.experiments.results.numbers import figure
    from grapevine.experiments.sweep.cells import BYTES

    titles = _short(swept)
    unit, scale = one_unit([row.get("bytes_sent") for row in rows], BYTES)
    figures: dict[str, tuple[str, Callable[[Any], str]]] = {
        "accuracy_mean": ("accuracy\n%", lambda value: "-" if value is None else f"{100 * value:.1f}"),
        "loss_mean": ("loss", figure),
        "bytes_sent": (f"sent\n{unit}", lambda value: in_unit(value, scale)),
        "wall_s": ("real\ns", lambda value: in_unit(value, 1.0, 3)),
        "consensus_distance": ("consensus\ndistance", lambda value: "-" if value is None else f"{value:.2g}"),
    }
    warnings = {
        "peers_lost_unasked": ("peers\nlost", figure),
        "warnings": ("warn-\nings", figure),
        "records_unscored": ("records\nunscored", figure),
        "lateness_p99_ms": ("late p99\nms", figure),
    }
    known = [key for key in figures if any(row.get(key) is not None for row in rows)]
    known = [*(key for key in warnings if any(row.get(key) for row in rows)), *known]
    figures |= warnings
    titles += ["state", *(figures[key][0] for key in known)]
    lines = [
        [*(str(row[key]) for key in swept), row["state"], *(figures[key][1](row.get(key)) for key in known)] for row in rows
    ]
    return titles, lines


def _cell_columns(sweep: Sweep, cells: Sequence[CellResult]) -> tuple[list[str], list[list[str]]]:
    """Return the titles, and a row for each cell: its values, tuned values, number of runs, and means with half intervals."""
    from grapevine.experiments.sweep.cells import measures
    from grapevine.experiments.sweep.tune import plain

    shown = measures(cells)
    keys = list(sweep.tune.candidates[0]) if sweep.tune else []
    tuned = [f"{title.replace('_', ' ')}\ntuned" for title in _short(keys)] + (["trials"] if keys else [])
    titles = [*_short(sweep.axes), *tuned, "runs", *(f"{measure.title}\n{measure.unit}".rstrip() for measure in shown)]
    lines = []
    for cell in cells:
        widened = sweep.tune.widened(cell.tuned) if sweep.tune else []
        chosen = [f"{'widened to ' * (key in widened)}{plain(cell.tuned[key])}" if cell.tuned else "-" for key in keys]
        chosen += [str(len(cell.scores))] if keys else []
        done = f"{len(cell.runs)} of {len(cell.attempts)}" if len(cell.runs) < len(cell.attempts) else str(len(cell.runs))
        lines.append([*(plain(cell.values[axis]) for axis in sweep.axes), *chosen, done, *map(cell.shown, shown)])
    return titles, lines


def _short(keys: Sequence[str]) -> list[str]:
    """Return the last part of each key; the whole key if two last parts are equal."""
    last = [key.rpartition(".")[2] for key in keys]
    return [short if last.count(short) == 1 else key for key, short in zip(keys, last, strict=True)]


def _print(
    titles: Sequence[str],
    lines: Sequence[Sequence[str]],
    words: int,
    said: Sequence[str],
    attempts: Sequence[Attempt],
    files: Sequence[Path],
) -> None:
    """Print the table, the meaning of its marks, the findings in words, the failed runs with reasons, and the files' paths."""
    from grapevine.experiments.report.text_table import print_columns
    from grapevine.experiments.sweep.cells import MARKS
    from grapevine.experiments.terminal import open_console

    console = open_console()
    left_out = print_columns(console, titles, lines, words=words)
    if left_out:
        more = "1 more column does" if left_out == 1 else f"{left_out} more columns do"
        console.print(f"[dim]{more} not fit this terminal: see {files[0]}[/dim]")
    for mark, meaning in MARKS.items():
        if any(cell.endswith(mark) or f"{mark} " in cell for line in lines for cell in line):
            console.print(f"{mark.strip()} {meaning}", markup=False)
    for sentence in said:
        console.print(f"- {sentence}", markup=False)
    for attempt in attempts:
        if not attempt.done:
            console.print(f"{attempt.state}: {attempt.point.name}: {attempt.reason}", style="red", markup=False, soft_wrap=True)
    for file in files:
        console.print(str(file), markup=False, soft_wrap=True)
