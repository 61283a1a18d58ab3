"""Cells of a sweep: the runs that differ in the seed alone, combined to means with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from grapevine.experiments.report.text_table import one_unit
from grapevine.experiments.results.curves import fleet_line
from grapevine.experiments.results.result import Result
from grapevine.experiments.results.summary import EXCESS_LOSS
from grapevine.experiments.sweep.estimate import COARSE, Estimate, estimate, interval, quantile
from grapevine.experiments.sweep.plan import Sweep
from grapevine.experiments.sweep.sweep import Attempt, SweepOutcome
from grapevine.experiments.sweep.target import ACCURACY, LOSS, Target, target_of
from grapevine.experiments.sweep.tune import Score, best, plain

MAIN = (ACCURACY, EXCESS_LOSS, LOSS)
"""The main figure of a cell is the first of these that it has."""
WARNING_FIGURES = ("warnings", "records_unscored", "lateness_p99_ms")
"""Figures that cast doubt on others; they have a column only if a run has them."""
LEFT_OUT = " *"
"""The mark of a cell's figures if runs were left out because they lost peers that no event of the file killed."""
MARKS = {
    LEFT_OUT: "without the runs that lost peers which no event of the file killed",
    COARSE: "exact to the time between two records only: the runs differ by less",
}
GRID_POINTS = 200
BYTES = (("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12))


class Measure(NamedTuple):
    """A figure by which cells are compared."""

    key: str
    title: str
    unit: str
    scale: float
    """The shown value is the value divided by this."""
    least: float = 0.0
    """The smallest possible value."""
    most: float = math.inf
    """The largest possible value."""


@dataclass(frozen=True)
class CellResult:
    """One cell after its runs."""

    values: Mapping[str, Any]
    """Axis -> chosen value."""
    attempts: tuple[Attempt, ...]
    folders: tuple[Path, ...]
    """The folders of the complete runs that lost no peer except by events; all figures are of these runs."""
    target: Target
    tuned: Mapping[str, Any]
    """The tuned values; empty if nothing is tuned, or no trial was completed."""
    scores: tuple[Score | None, ...]
    """The scores of its trials."""
    tried: tuple[Mapping[str, Any], ...] = ()
    """The values that each trial tried."""
    lost_unasked: int = 0
    """The number of peers that its damaged runs lost and no event had killed."""

    @cached_property
    def results(self) -> list[Result]:
        """The complete runs."""
        return [Result.read(folder) for folder in self.folders]

    @cached_property
    def runs(self) -> list[dict[str, float]]:
        """The figures of each complete run: those of its summary, and those derived from them."""
        return [figures_of(result, self.target) for result in self.results]

    @property
    def damaged(self) -> list[Attempt]:
        """The complete runs that lost peers which no event of the file killed."""
        return [attempt for attempt in self.attempts if attempt.damaged]

    def estimate(self, key: str) -> Estimate | None:
        """Return mean and interval of a figure over the runs; None if no run has it."""
        found = estimate([run[key] for run in self.runs if key in run])
        grain = max((run.get(f"{key}.grain", 0.0) for run in self.runs), default=0.0)
        return found._replace(grain=grain) if found else None

    def ahead_of(self, other: CellResult, key: str) -> Estimate | None:
        """Return the mean difference, other minus this, over the seeds that both have; None if a run lacks the figure.

        Runs of the same seed share their random numbers (partition, initial weights, jitter), so that their difference varies
        less than the runs do: the interval is that of the differences.
        """
        own, others = ({run["seed"]: run for run in cell.runs if "seed" in run} for cell in (self, other))
        pairs = [(own[seed], others[seed]) for seed in own if seed in others]
        if not pairs or any(key not in run for pair in pairs for run in pair):
            return None
        found = estimate([theirs[key] - mine[key] for mine, theirs in pairs])
        grain = max(run.get(f"{key}.grain", 0.0) for pair in pairs for run in pair)
        return found._replace(grain=grain) if found else None

    def curve(self, figure: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a figure of the fleet over time: times [k], mean over the runs [k], half interval [k] (nan for one run)."""
        lines = [fleet_line(result, figure) for result in self.results]
        lines = [line for line in lines if line]
        if not lines:
            return np.empty(0), np.empty(0), np.empty(0)
        ends = min(line[-1][0] for line in lines)  # after this time the mean would be over fewer runs
        times = np.unique([time_s for line in lines for time_s, _ in line if time_s <= ends])
        times = np.linspace(times[0], times[-1], GRID_POINTS) if len(times) > GRID_POINTS else times
        stacked = np.stack([np.interp(times, *np.array(line).T) for line in lines])
        if len(lines) < 2:
            return times, stacked[0], np.full(len(times), np.nan)
        half = quantile(len(lines)) * stacked.std(axis=0, ddof=1) / math.sqrt(len(lines))
        return times, stacked.mean(axis=0), half

    def shown(self, measure: Measure) -> str:
        """Return a figure as tables show it: "82.1 ± 0.9"; for a target that not all runs reach, "2 of 3".

        A mark follows if runs that lost peers were left out.
        """
        return self._shown(measure) + (LEFT_OUT if self.damaged else "")

    def _shown(self, measure: Measure) -> str:
        found, n = self.estimate(measure.key), len(self.runs)
        if found is None:
            return f"0 of {n}" if measure.key == "time_to_target_s" and n else "-"
        if measure.key == "time_to_target_s" and found.n < n:
            return f"{found.n} of {n}"
        return interval(found, measure.scale, measure.least, measure.most)

    def __repr__(self) -> str:
        """Describe the cell, its number of runs and their main figure on one line."""
        return f"<CellResult {self.place}: {len(self.folders)} of {len(self.attempts)} runs{self.main()}>"

    @property
    def place(self) -> str:
        """The chosen values as text: "strategy slices, network lan"."""
        return ", ".join(f"{axis} {plain(value)}" for axis, value in self.values.items()) or "all"

    def main(self) -> str:
        """Return the main figure as text: ", accuracy 92.1 ± 0.4 %"; "" without one, or if the folders are gone."""
        found = _main([self])
        return f", {found.title} {self.shown(found)} {found.unit}".rstrip() if found else ""


def cells_of(sweep: Sweep, outcome: SweepOutcome, out: Path) -> list[CellResult]:
    """Return the cells of a sweep that was carried out under `out`, in the order of the plan."""
    attempts = {attempt.point.name: attempt for attempt in outcome.attempts}
    groups = [tuple(attempts[point.name] for point in cell.points) for cell in outcome.cells]
    places = [tuple(out / attempt.point.name for attempt in own if attempt.done) for own in groups]
    runs = [[Result.read(folder) for folder in folders] for folders in places]
    target = target_of(sweep.target, sweep.options.target_loss, runs)
    cells = []
    for cell, scores, own, folders in zip(outcome.cells, outcome.scores, groups, places, strict=True):
        chosen = best(scores)
        tuned = cell.trials[chosen].tuned if chosen is not None else {}
        tried = tuple(trial.tuned for trial in cell.trials)
        cells.append(CellResult(cell.values, own, folders, target, tuned, tuple(scores), tried, _lost_unasked(own, out)))
    return cells


def _lost_unasked(attempts: Sequence[Attempt], out: Path) -> int:
    damaged = [out / attempt.point.name for attempt in attempts if attempt.damaged]
    return sum(len(Result.read(folder).summary["peers_lost_unasked"]) for folder in damaged)


def figures_of(result: Result, target: Target) -> dict[str, float]:
    """Return every number of a run's summary, the numbers of warnings and lost peers, the first time at `target`, and the
    spread of the peers' accuracies.

    `KEY.grain` is the resolution of KEY, if KEY is not exact.
    """
    summary = result.summary
    figures = {key: float(value) for key, value in summary.items() if isinstance(value, int | float)}
    figures.pop("completed", None)
    figures |= {key: float(len(summary.get(key) or ())) for key in ("warnings", "peers_lost")}
    if summary.get("accuracy_max") is not None and summary.get("accuracy_min") is not None:
        figures["accuracy_spread"] = summary["accuracy_max"] - summary["accuracy_min"]
    if (reached := target.reached(result)) is not None:
        figures |= {"time_to_target_s": reached.value, "time_to_target_s.grain": reached.grain}
    return figures


def measures(cells: Sequence[CellResult]) -> list[Measure]:
    """Return the figures of the cells that get a column, each in one unit."""
    if not cells:
        return []
    target = cells[0].target
    known = {key for cell in cells for run in cell.runs for key in run}
    sent, scale = one_unit([found.mean for cell in cells if (found := cell.estimate("bytes_sent"))], BYTES)
    listed = [
        Measure("time_to_target_s", f"time to {target.words}", "s", 1.0),
        Measure(ACCURACY, "accuracy", "%", 0.01, most=1.0),
        Measure("accuracy_spread", "spread between peers", "points", 0.01, most=1.0),
        Measure(EXCESS_LOSS, "excess loss", "", 1.0, _least(cells, EXCESS_LOSS)),
        Measure(LOSS, "loss", "", 1.0, _least(cells, LOSS)),
        Measure("consensus_distance", "consensus distance", "", 1.0),
        Measure("bytes_sent", "sent", sent, scale),
        Measure("steps_total", "steps", "", 1.0),
        Measure("warnings", "warnings", "a run", 1.0),
        Measure("records_unscored", "records without scores", "a run", 1.0),
        Measure("lateness_p99_ms", "late (99th percentile)", "ms", 1.0),
    ]
    idle = {key for key in WARNING_FIGURES if not any(run.get(key) for cell in cells for run in cell.runs)}
    with_accuracy, aimed_at = ACCURACY in known, target.figure
    hidden = idle | ({EXCESS_LOSS, LOSS} - {aimed_at}) | ({"consensus_distance"} if with_accuracy else set())
    timed = not math.isnan(target.level) and aimed_at in known
    return [m for m in listed if m.key not in hidden and (m.key in known or (m.key == "time_to_target_s" and timed))]


def _least(cells: Sequence[CellResult], key: str) -> float:
    """Return the smallest possible value of a loss: 0, or -inf if a run has a negative one."""
    return -math.inf if any(run.get(key, 0.0) < 0 for cell in cells for run in cell.runs) else 0.0


def _main(cells: Sequence[CellResult]) -> Measure | None:
    with suppress(ValueError):  # the folders are gone
        return next((measure for measure in measures(cells) if measure.key in MAIN), None)
    return None


def best_cell(cells: Sequence[CellResult]) -> CellResult | None:
    """Return the cell of the highest mean accuracy or, for a task without accuracy, the lowest mean loss; None without any."""
    if (main := _main(cells)) is None:
        return None
    means = [(found.mean, place) for place, cell in enumerate(cells) if (found := cell.estimate(main.key))]
    sign = -1.0 if main.key == ACCURACY else 1.0
    return cells[min(means, key=lambda each: sign * each[0])[1]]


def cell_rows(sweep: Sweep, cells: Sequence[CellResult]) -> list[dict[str, Any]]:
    """Return a row for each cell: chosen and tuned values, and for every figure the mean and half the interval."""
    keys = sorted({key for cell in cells for run in cell.runs for key in run if not key.endswith(".grain")} - {"seed"})
    rows = []
    for cell in cells:
        row: dict[str, Any] = {axis: plain(cell.values[axis]) for axis in sweep.axes} | {"n": len(cell.runs)}
        row |= {"runs_damaged": len(cell.damaged), "peers_lost_unasked": cell.lost_unasked}
        row |= {"runs_missing": sum(not (a.done or a.damaged) for a in cell.attempts)}
        if sweep.tune:
            row |= {f"tuned.{key}": cell.tuned.get(key) for key in sweep.tune.candidates[0]}
            row |= {"trials": len(cell.scores), "widened": sum(bool(sweep.tune.widened(each)) for each in cell.tried)}
            row["at_an_end"] = bool(cell.tuned) and bool(sweep.tune.at_an_end(cell.tuned, cell.tried))
        for key in keys:
            found = cell.estimate(key)
            row |= {f"{key}.mean": found.mean if found else None, f"{key}.half": found.half if found else None}
        reached = cell.estimate("time_to_target_s")
        row["time_to_target_s.n"] = reached.n if reached else 0
        row["time_to_target_s.grain"] = reached.grain if reached else None
        row |= {"target": None if math.isnan(cell.target.level) else cell.target.level, "target_of": cell.target.figure}
        late = [run["lateness_p99_ms"] for run in cell.runs if "lateness_p99_ms" in run]
        row["lateness_p99_ms.max"] = max(late, default=None)
        rows.append(row)
    return rows


def trial_rows(sweep: Sweep, cells: Sequence[CellResult], trials: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Return a row for each trial: its values, its score, whether it widened a list, and whether it was chosen."""
    rows, left = [], iter(trials)
    for cell in cells:
        chosen = best(cell.scores)
        for place, score in enumerate(cell.scores):
            attempt = next(left)
            figures = score._asdict() if score else dict.fromkeys(Score._fields)
            row: dict[str, Any] = {"run": attempt.point.name, "state": attempt.state, "reason": attempt.reason}
            row |= {axis: plain(cell.values[axis]) for axis in sweep.axes} | dict(attempt.point.tuned)
            widened = sweep.tune is not None and bool(sweep.tune.widened(attempt.point.tuned))
            rows.append({**row, **figures, "widened": widened, "chosen": place == chosen})
    return rows
