"""Cells of a sweep: the runs that differ in the seed alone, combined to means with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from grapevine.experiments.report.text_table import in_unit, one_unit
from grapevine.experiments.results.curves import first_reached, over_time
from grapevine.experiments.results.result import Result
from grapevine.experiments.sweep.plan import Sweep
from grapevine.experiments.sweep.sweep import Attempt, SweepOutcome
from grapevine.experiments.sweep.tune import Score, best, plain

LEVEL = 0.95
WARNING_FIGURES = ("warnings", "records_unscored", "lateness_p99_ms")
"""Figures that cast doubt on others; they have a column only if a run has them."""
LEFT_OUT = " *"
"""The mark of a cell's figures if runs were left out because they lost peers that no event of the file killed."""
COARSE = " †"
"""The mark of an interval that is the time between two records, because the runs differ by less."""
MARKS = {
    LEFT_OUT: "without the runs that lost peers which no event of the file killed",
    COARSE: "exact to the time between two records only: the runs differ by less",
}
GRID_POINTS = 200
BYTES = (("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12))


class Estimate(NamedTuple):
    """The mean of a figure over the runs of a cell, and its uncertainty."""

    mean: float
    half: float | None
    """Half the width of the 95 % interval of Student's t; None for fewer than two runs."""
    n: int
    """The number of runs that have the figure."""
    grain: float = 0.0
    """The resolution of a single value, such as the time between two records; 0 = the value is exact."""

    @property
    def coarse(self) -> bool:
        """Whether the interval of the runs is smaller than the resolution of a single value."""
        return self.grain > (self.half or 0.0)

    @property
    def within(self) -> float | None:
        """The uncertainty of the mean: half the interval, or the resolution of a value if that is more."""
        return self.grain if self.coarse else self.half


class Measure(NamedTuple):
    """A figure by which cells are compared."""

    key: str
    title: str
    unit: str
    scale: float
    """The shown value is the value divided by this."""


@dataclass(frozen=True)
class CellResult:
    """One cell after its runs."""

    values: Mapping[str, Any]
    """Axis -> chosen value."""
    attempts: tuple[Attempt, ...]
    folders: tuple[Path, ...]
    """The folders of the complete runs that lost no peer except by events; all figures are of these runs."""
    target: float
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

    def accuracy(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the mean accuracy over time: times [k], mean over the runs [k], half interval [k] (nan for a single run)."""
        lines = [over_time(result, "accuracy_mean") for result in self.results]
        lines = [line for line in lines if line]
        if not lines:
            return np.empty(0), np.empty(0), np.empty(0)
        ends = min(line[-1][0] for line in lines)  # after this time the mean would be over fewer runs
        times = np.unique([time_s for line in lines for time_s, _ in line if time_s <= ends])
        times = np.linspace(times[0], times[-1], GRID_POINTS) if len(times) > GRID_POINTS else times
        stacked = np.stack([np.interp(times, *np.array(line).T) for line in lines])
        if len(lines) < 2:
            return times, stacked[0], np.full(len(times), np.nan)
        half = _quantile(len(lines)) * stacked.std(axis=0, ddof=1) / math.sqrt(len(lines))
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
        return interval(found, measure.scale)


def cells_of(sweep: Sweep, outcome: SweepOutcome, out: Path) -> list[CellResult]:
    """Return the cells of a sweep that was carried out under `out`, in the order of the plan."""
    attempts = {attempt.point.name: attempt for attempt in outcome.attempts}
    cells = []
    for cell, scores in zip(outcome.cells, outcome.scores, strict=True):
        own = tuple(attempts[point.name] for point in cell.points)
        folders = tuple(out / attempt.point.name for attempt in own if attempt.done)
        chosen = best(scores)
        tuned = cell.trials[chosen].tuned if chosen is not None else {}
        tried = tuple(trial.tuned for trial in cell.trials)
        cells.append(CellResult(cell.values, own, folders, sweep.target, tuned, tuple(scores), tried, _lost_unasked(own, out)))
    return cells


def _lost_unasked(attempts: Sequence[Attempt], out: Path) -> int:
    damaged = [out / attempt.point.name for attempt in attempts if attempt.damaged]
    return sum(len(Result.read(folder).summary["peers_lost_unasked"]) for folder in damaged)


def figures_of(result: Result, target: float) -> dict[str, float]:
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
    if (reached := first_reached(over_time(result, "accuracy_mean"), target)) is not None:
        figures |= {"time_to_target_s": reached.value, "time_to_target_s.grain": reached.grain}
    return figures


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the mean of independent values and its 95 % interval by Student's t: +- t(n - 1) s / sqrt(n)."""
    n = len(values)
    if not n:
        return None
    half = _quantile(n) * float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else None
    return Estimate(float(np.mean(values)), half, n)


def measures(cells: Sequence[CellResult], target: float) -> list[Measure]:
    """Return the figures of the cells that get a column, each in one unit."""
    known = {key for cell in cells for run in cell.runs for key in run}
    sent, scale = one_unit([found.mean for cell in cells if (found := cell.estimate("bytes_sent"))], BYTES)
    listed = [
        Measure("time_to_target_s", f"time to {100 * target:g} %", "s", 1.0),
        Measure("accuracy_mean", "accuracy", "%", 0.01),
        Measure("accuracy_spread", "spread between peers", "points", 0.01),
        Measure("loss_mean", "loss", "", 1.0),
        Measure("consensus_distance", "consensus distance", "", 1.0),
        Measure("bytes_sent", "sent", sent, scale),
        Measure("steps_total", "steps", "", 1.0),
        Measure("warnings", "warnings", "a run", 1.0),
        Measure("records_unscored", "records without scores", "a run", 1.0),
        Measure("lateness_p99_ms", "late (99th percentile)", "ms", 1.0),
    ]
    idle = {key for key in WARNING_FIGURES if not any(run.get(key) for cell in cells for run in cell.runs)}
    with_accuracy = "accuracy_mean" in known
    hidden = idle | ({"loss_mean", "consensus_distance"} if with_accuracy else {"time_to_target_s"})
    return [m for m in listed if m.key not in hidden and (m.key in known or (m.key == "time_to_target_s" and with_accuracy))]


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


def interval(found: Estimate, scale: float = 1.0) -> str:
    """Return "82.1 ± 0.9", with two figures of the interval; "12 ± 1 †" if the resolution of a value is only 1."""
    if found.coarse:
        return f"{in_unit(found.mean / scale, 1.0)} ± {in_unit(found.grain / scale, 1.0)}{COARSE}"
    mean, half = found.mean / scale, None if found.half is None else found.half / scale
    if not math.isfinite(mean):
        return "-"
    if half is None or not math.isfinite(half):
        return in_unit(mean, 1.0)
    if half < 1e-9 * abs(mean) or not half:
        return f"{in_unit(mean, 1.0)} ± 0"
    show = _decimals(mean, half)
    return f"{show(mean)} ± {show(half)}"


def _decimals(mean: float, half: float) -> Callable[[float], str]:
    """Return a function that formats with two figures of the interval, and never more than four of the mean."""
    decimals = max(0, 1 - math.floor(math.log10(half)))
    most = max(0, 3 - math.floor(math.log10(abs(mean)))) if mean else decimals
    return lambda value: f"{value:,.{min(decimals, most, 6)}f}"


def _quantile(n: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 0.5 + LEVEL / 2))
