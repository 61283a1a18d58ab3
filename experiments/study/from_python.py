"""`sweep` and `tune`: many runs of one experiment, from Python; like `grapevine sweep` with a file."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from grapevine.experiments.config import toml
from grapevine.experiments.config.errors import ConfigError, nearest, show_value
from grapevine.experiments.config.experiment import Experiment
from grapevine.experiments.config.menus import MENUS, name_of
from grapevine.experiments.exit_status import ExitStatus
from grapevine.experiments.results.numbers import figure, percent, plural
from grapevine.experiments.study.conclude import Findings, buildable, conclude
from grapevine.experiments.sweep.axes import BASELINE, SEED, SKIP_INVALID, TARGET_LOSS
from grapevine.experiments.sweep.cells import CellResult, Measure, best_cell, cell_rows, cells_of, measures, trial_rows
from grapevine.experiments.sweep.plan import Sweep, plan_sweep
from grapevine.experiments.sweep.sweep import Attempt, SweepOutcome, carry_out, carry_out_trials
from grapevine.experiments.sweep.tune import DEFAULT_SEED, TARGET, best, plain

if TYPE_CHECKING:
    import pandas

Lists = Mapping[str, Iterable[Any]]
"""Dotted key -> the values that it takes: plain ones as in a file, or parts (`{"strategy": [Slices(), DPSGD()]}`)."""


def sweep(  # noqa: PLR0913 - one keyword an option
    experiment: Experiment,
    axes: Lists,
    *,
    seeds: Iterable[int] | None = None,
    tune: Mapping[str, Any] | None = None,
    baseline: str = "",
    skip_invalid: bool = False,
    target_loss: float | None = None,
    jobs: int = 1,
    out: str | Path | None = None,
) -> SweepResult:
    """Run every combination of the values of `axes`, each with every seed, and return the results.

    `axes` are those of a `[sweep]` table: dotted keys such as "network.delay", or the name of a part, and lists of plain values
    or of parts; a list of dictionaries with a "label" sets several keys at once.  `tune` holds the lists of a `[tune]` table,
    `baseline`, `skip_invalid` and `target_loss` are the options of a `[sweep]` table. Runs that are complete in the folder
    `out` (default runs/<name>-sweep) are not repeated, except those with an own part whose source has changed. `jobs` runs go
    at a time.

    Each run is a process of its own, which imports own parts by module and class. If a part cannot be imported (a class of a
    notebook or of the script itself, a networkx graph, data in memory), all runs are carried out in this process, one after
    the other.

    Raises ConfigError, before anything starts, if a run cannot be built, and if `jobs` is above 1 but the runs must stay in
    this process.
    """
    options: dict[str, Any] = {BASELINE: baseline} if baseline else {}
    options |= {SKIP_INVALID: True} if skip_invalid else {}
    options |= {} if target_loss is None else {TARGET_LOSS: target_loss}
    swept = {**_lists(axes), **({SEED: _list(seeds)} if seeds is not None else {})}
    if not swept:
        raise ConfigError(
            "sweep()", "axes", problem="is empty", cure='give lists, such as {"strategy.name": ["solo", "d-psgd"]}'
        )
    document = {**experiment.settings(), "sweep": {**swept, **options}}
    if tune is not None:
        document["tune"] = _candidates(tune)
    planned = buildable(plan_sweep(document, "sweep()", Path(), {}), "sweep()")
    folder = _folder(out, experiment, "sweep")
    outcome = carry_out(planned, folder, _positive(jobs))
    found = conclude(planned, outcome, folder, f"sweep(..., out={str(folder)!r}) in {_program()}", _text(experiment, document))
    return SweepResult(folder, planned, outcome, found)


def tune(
    experiment: Experiment,
    candidates: Lists,
    *,
    seed: int = DEFAULT_SEED,
    target: float | None = None,
    jobs: int = 1,
    out: str | Path | None = None,
) -> TuneResult:
    """Try all combinations of the `candidates` ({"optimizer.learning_rate": [0.1, 0.2]}) on an experiment; the best is `.best`.

    The best is the first to reach the mean validation accuracy `target` (default: stop.accuracy, or 0.9), as with a `[tune]`
    table; lists whose best value is at an end are widened. All trials run on `seed`, which must not be the experiment's.
    Folder, processes and errors are those of `sweep`.
    """
    given = {**_candidates(candidates), SEED: seed, **({} if target is None else {TARGET: target})}
    document = {**experiment.settings(), "sweep": {SEED: [experiment.seed]}, "tune": given}
    planned = buildable(plan_sweep(document, "tune()", Path(), {}), "tune()")
    folder = _folder(out, experiment, "tuning")
    return TuneResult(folder, planned, carry_out_trials(planned, folder, _positive(jobs)))


@dataclass(frozen=True)
class SweepResult:
    """The results of a sweep: its cells with intervals, its tables, its runs and its folder."""

    folder: Path
    sweep: Sweep
    outcome: SweepOutcome
    findings: Findings

    @property
    def status(self) -> ExitStatus:
        """The status of the worst run, as the exit status of `grapevine sweep`."""
        return self.outcome.status

    @property
    def cells(self) -> list[CellResult]:
        """One cell per combination without the seed: `.values`, `.estimate("accuracy_mean")` (mean, half of the 95 % interval,
        n), `.results`, `.tuned`."""
        return self.findings.cells

    @property
    def attempts(self) -> list[Attempt]:
        """The outcome of each measured run: `.point`, `.state`, `.reason`."""
        return self.outcome.attempts

    @property
    def trials(self) -> list[Attempt]:
        """The outcome of each trial: `.point`, `.state`, `.reason`."""
        return self.outcome.trials

    @property
    def page(self) -> Path | None:
        """The page with tables and pictures; None if no run was completed."""
        return next((file for file in self.findings.files if file.suffix == ".html"), None)

    @cached_property
    def table(self) -> pandas.DataFrame:
        """One row per measured run: its state, its swept and tuned values, and every figure of its summary."""
        import pandas

        return pandas.DataFrame(self.findings.rows)

    @cached_property
    def cell_table(self) -> pandas.DataFrame:
        """One row per cell: its swept values, n, and `FIGURE.mean` and `FIGURE.half` of every figure, as in `cells.csv`."""
        import pandas

        return pandas.DataFrame(cell_rows(self.sweep, self.cells))

    def cell(self, values: Mapping[str, Any] | None = None, **more: Any) -> CellResult:
        """Return the cell in which these axes have these values: `result.cell(strategy="slices")`; raises KeyError if there
        is none, or more than one."""
        wanted = {**(values or {}), **more}
        found = [cell for cell in self.cells if all(cell.values.get(axis) == value for axis, value in wanted.items())]
        if len(found) != 1:
            known = "; ".join(show_value(dict(cell.values)) for cell in self.cells[:20])
            raise KeyError(f"{len(found)} cells have {show_value(wanted)}; the cells are: {known}")
        return found[0]

    def __repr__(self) -> str:
        """Describe the sweep, its runs, its best cell and its page or folder on one line; `print` shows all cells."""
        name = self.sweep.points[0].experiment.name
        states = Counter(attempt.state for attempt in self.attempts)
        runs = ", ".join(f"{count} {state}" for state, count in states.items())
        cells = plural(len(self.sweep.cells), "cell")
        leading = best_cell(self.cells)
        lead = f"; best: {leading.place}{leading.main()}" if leading and len(self.cells) > 1 else ""
        where = self.page or self.folder
        return f"<SweepResult {name}: {plural(len(self.attempts), 'run')} ({runs}) in {cells}{lead}; {where}>"

    def __str__(self) -> str:
        """Return a table with a row per cell."""
        titles, lines = self._shown()
        columns = list(zip(titles, *lines, strict=True))
        wide = [max(map(len, column)) for column in columns]
        rows = (
            "  ".join(text.ljust(width) for text, width in zip(row, wide, strict=True)).rstrip() for row in (titles, *lines)
        )
        return "\n".join([*rows, str(self.page or self.folder)])

    def _repr_html_(self) -> str:
        titles, lines = self._shown()
        head = "".join(f"<th>{escape(title)}</th>" for title in titles)
        body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in line) + "</tr>" for line in lines)
        return f"<table><tr>{head}</tr>{body}</table><p>{escape(str(self.page or self.folder))}</p>"

    def _shown(self) -> tuple[list[str], list[list[str]]]:
        """Return the titles, and a line for each cell: its values, its number of runs and their results."""
        shown: list[Measure] = measures(self.cells)
        titles = [*self.sweep.axes, "runs", *(f"{measure.title} ({measure.unit})".replace(" ()", "") for measure in shown)]
        lines = []
        for cell in self.cells:
            done = f"{len(cell.runs)} of {len(cell.attempts)}" if len(cell.runs) < len(cell.attempts) else str(len(cell.runs))
            lines.append([*(plain(cell.values[axis]) for axis in self.sweep.axes), done, *map(cell.shown, shown)])
        return titles, lines


@dataclass(frozen=True)
class TuneResult:
    """The results of a tuning: the best candidate, and the results of all."""

    folder: Path
    sweep: Sweep
    outcome: SweepOutcome

    @property
    def best(self) -> Experiment:
        """The experiment with the best candidate, on its own seed; raises ValueError if no trial was completed."""
        return self.outcome.cells[0].settled(self._place)[0].experiment

    @property
    def chosen(self) -> dict[str, Any]:
        """The best candidate, "table.key" -> value; raises ValueError if no trial was completed."""
        return dict(self.outcome.cells[0].trials[self._place].tuned)

    @property
    def trials(self) -> list[Attempt]:
        """The outcome of each trial: `.point`, `.state`, `.reason`."""
        return self.outcome.trials

    @cached_property
    def table(self) -> pandas.DataFrame:
        """One row per trial: its values, `reached_s`, `accuracy`, `loss`, whether it `widened` a list and was `chosen`."""
        import pandas

        return pandas.DataFrame(trial_rows(self.sweep, cells_of(self.sweep, self.outcome, self.folder), self.outcome.trials))

    def __repr__(self) -> str:
        """Describe the tuning, its best candidate and the score of that on one line."""
        name, place = self.sweep.points[0].experiment.name, best(self.outcome.scores[0])
        if place is None:
            return f"<TuneResult {name}: none of {plural(len(self.trials), 'trial')} was completed; {self.folder}>"
        score = self.outcome.scores[0][place]
        assert score is not None
        found = f"loss {figure(score.loss)}" if score.accuracy is None else f"validation accuracy {percent(score.accuracy)}"
        chosen = ", ".join(f"{key} = {plain(value)}" for key, value in self.chosen.items())
        return f"<TuneResult {name}: {chosen} ({found}), best of {plural(len(self.trials), 'trial')}; {self.folder}>"

    @property
    def _place(self) -> int:
        place = best(self.outcome.scores[0])
        if place is None:
            reasons = "; ".join(dict.fromkeys(attempt.reason or attempt.state for attempt in self.outcome.trials))
            raise ValueError(f"none of the {len(self.outcome.trials)} trials was completed: {reasons}")
        return place


def _lists(given: Lists) -> dict[str, list[Any]]:
    if not isinstance(given, Mapping):
        problem = f"{type(given).__name__} is not a dictionary"
        raise ConfigError("sweep()", "axes", problem=problem, cure='write {"strategy.name": ["solo", "d-psgd"]}')
    lists = {key: _list(values) for key, values in given.items()}
    for key, values in lists.items():
        parts = [value for value in values if isinstance(value, msgspec.Struct)] if isinstance(values, list) else []
        if parts and key not in MENUS:
            close = nearest(key, MENUS)
            cure = f"did you mean {close}? " if close else ""
            cure += f"an axis of parts is one of: {', '.join(MENUS)}"
            raise ConfigError("sweep()", key, None, "no part of an experiment has this name", cure)
    return lists


def _list(values: Iterable[Any]) -> Any:
    """Return values as the list that a file would hold; anything else is returned unchanged, and the plan refuses it."""
    if isinstance(values, str | Mapping | msgspec.Struct) or not isinstance(values, Iterable):
        return values
    return [
        value.item() if isinstance(value, np.generic) else list(value) if isinstance(value, tuple) else value
        for value in values
    ]


def _candidates(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a `[tune]` table, with parts as tables."""
    found: dict[str, Any] = {}
    for key, values in given.items():
        found[key] = values if key in (SEED, TARGET) else _list(values)
        if key in MENUS and isinstance(found[key], list):
            found[key] = [value if isinstance(value, Mapping) else _table(key, value) for value in found[key]]
    return found


def _table(key: str, part: Any) -> dict[str, Any]:
    table = MENUS[key].table(part)
    if table is None:
        cure = "define its class at the top level of a module, or sweep over it"
        raise ConfigError("tune()", f"tune.{key}", problem=f"{name_of(part)} cannot be written down", cure=cure)
    return table


def _positive(jobs: int) -> int:
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise ConfigError("sweep()", "jobs", jobs, f"{jobs!r} is not a number of runs", "give 1 or more")
    return jobs


def _folder(out: str | Path | None, experiment: Experiment, what: str) -> Path:
    return Path("runs") / f"{experiment.name}-{what}" if out is None else Path(out)


def _program() -> str:
    """Return the file of the running program, for messages."""
    main = getattr(sys.modules["__main__"], "__file__", None)
    return "a notebook or a prompt" if main is None else main


def _text(experiment: Experiment, document: Mapping[str, Any]) -> str:
    """Return the sweep as the text of a file, for its page; parts that no file can hold are written as their names."""
    kinds = [table for table in ("sweep", "tune") if table in document]
    tables = {table: {key: _shown_value(value) for key, value in document[table].items()} for table in kinds}
    return f"{experiment.to_toml()}\n{toml.dump(tables)}"


def _shown_value(value: Any) -> Any:
    """Return a value as text for the file on the page; a part from Python is shown by its name."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_shown_value(part) for part in value]
    if isinstance(value, Mapping):
        return {key: _shown_value(part) for key, part in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else name_of(value)
