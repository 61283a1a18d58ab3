"""What a sweep left behind, put together: its cells with intervals, the tables as files, and the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grapevine.experiments.config.errors import ConfigError
from grapevine.experiments.results.numbers import plural
from grapevine.experiments.study.page import write_study
from grapevine.experiments.study.study import Study
from grapevine.experiments.sweep import table
from grapevine.experiments.sweep.cells import CellResult, cell_rows, cells_of, trial_rows
from grapevine.experiments.sweep.forecast import invalid_cells, without
from grapevine.experiments.sweep.plan import Sweep
from grapevine.experiments.sweep.sweep import SweepOutcome


@dataclass
class Findings:
    """What came of a sweep."""

    rows: list[dict[str, Any]]
    """One a measured run."""
    cells: list[CellResult] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    """Tables and page, those to look at first in front."""
    said: list[str] = field(default_factory=list)
    """What the page says in words."""
    trouble: Exception | None = None
    """Why files are missing: a ValueError where nothing could be drawn, an OSError where the disk is full."""


def buildable(sweep: Sweep, source: str) -> Sweep:
    """The sweep, less the combinations that cannot be built where it says so; ConfigError that lists them elsewhere."""
    invalid = invalid_cells(sweep)
    if not invalid or (sweep.options.skip_invalid and len(invalid) < len(sweep.cells)):
        return without(sweep, invalid)
    count = f"{len(invalid)} of {plural(len(sweep.cells), 'combination')} cannot be built, and nothing was started"
    listed = "".join(f"\n  {each}" for each in invalid.values())
    cure = f"take them out, or write skip_invalid = true below [sweep] to leave them out:{listed}"
    raise ConfigError(
        source, "sweep", problem=count, cure=cure if len(invalid) < len(sweep.cells) else f"mend the file:{listed}"
    )


def repeated(sweep: Sweep) -> bool:
    """Whether cells are what is to be looked at: they have several runs each, or were tuned."""
    return sweep.tune is not None or len(sweep.cells) < len(sweep.points)


def conclude(sweep: Sweep, outcome: SweepOutcome, out: Path, command: str, text: str) -> Findings:
    """Write the tables and the page of a sweep that was carried out under `out`.

    `command` is what made it, and `text` the file that it was made from, both for the page.
    """
    found = Findings(table.rows_of(outcome.attempts, out))
    try:
        found.files = table.write_table(found.rows, out)
        found.cells = cells_of(sweep, outcome, out)
        if repeated(sweep):
            found.files = [*table.write_table(cell_rows(sweep, found.cells), out, "cells"), *found.files]
        if sweep.tune:
            found.files += table.write_table(trial_rows(sweep, found.cells, outcome.trials), out, "tuning")
        pages, found.said = _write_page(sweep, found.cells, outcome, out, command, text)
        found.files += pages
    except (ValueError, OSError) as error:
        found.trouble = error
    found.said += [f"left out, as the file says: {each}" for each in sweep.left_out]
    return found


def _write_page(
    sweep: Sweep, cells: list[CellResult], outcome: SweepOutcome, out: Path, command: str, text: str
) -> tuple[list[Path], list[str]]:
    """`report.html`: the cells where they are what is to be looked at, else all complete runs on top of each other.

    The files, and what they say in words.
    """
    if not repeated(sweep):
        page = table.write_comparison(outcome.attempts, out)
        return [page] if page else [], []
    if not any(attempt.done for attempt in outcome.attempts):
        return [], []
    name = sweep.points[0].experiment.name
    return write_study(Study(name, sweep, cells, command, text), out / "report.html")
