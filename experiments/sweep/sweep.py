"""Carries out a sweep: the trials of the tuning, then the measured runs, each in its own process and folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from grapevine.experiments.config.errors import ConfigError, config_error
from grapevine.experiments.exit_status import ExitStatus, worst
from grapevine.experiments.results.result import Result
from grapevine.experiments.sweep.plan import Cell, Point, Sweep
from grapevine.experiments.sweep.runs import Attempt, Command, Floor, HereFloor, SweepProgress, grapevine_run, is_complete
from grapevine.experiments.sweep.tune import Score, best, score_of
from grapevine.experiments.worlds.interrupt import Interrupt

__all__ = ["Attempt", "SweepOutcome", "SweepProgress", "carry_out", "carry_out_trials", "is_complete", "run_sweep"]

TUNING = "tuning"
"""The folder of the trials, inside the sweep's."""
PAUSE_S = 0.02


@dataclass(frozen=True)
class SweepOutcome:
    """The runs of a sweep after it has ended."""

    attempts: list[Attempt]
    """The attempt of each measured run, in the order of the plan."""
    trials: list[Attempt]
    """The attempt of each trial, in the order of `cells`."""
    scores: list[list[Score | None]]
    """The scores of each cell's trials; None for one that was not completed, or that lost peers no event had killed."""
    status: ExitStatus
    """The worst status of all runs."""
    cells: tuple[Cell, ...]
    """The cells of the sweep, with the trials that widened lists."""


def carry_out(
    sweep: Sweep,
    out: Path,
    jobs: int = 1,
    command: Command | None = grapevine_run,
    watch: Callable[[SweepProgress], None] = lambda progress: None,
) -> SweepOutcome:
    """Carry out the trials (under `out/tuning`), then the measured runs (under `out`), as `run_sweep` does.

    A sweep with parts that no other process can read is carried out in this process, one run after the other; raises
    ConfigError if `jobs` is above 1 then.
    """
    command = None if _here(sweep, jobs) else command
    _claim(out)
    tuning = _Tuning(sweep, out / TUNING)
    tuning.carry_out(jobs, command, watch)
    points: list[Point] = []
    hopeless: dict[str, Attempt] = {}
    interrupted = tuning.status is ExitStatus.INTERRUPTED
    for cell, found in zip(tuning.cells, tuning.scores, strict=True):
        chosen = best(found) if sweep.tune else None
        points += cell.settled(chosen) if chosen is not None else cell.points
        if sweep.tune and (chosen is None or interrupted):
            reason = "interrupted before it began" if interrupted else f"none of its {len(found)} trials was completed"
            hopeless |= {point.name: Attempt(point, "not run", reason) for point in points[-len(cell.points) :]}
    attempts, second = run_sweep([point for point in points if point.name not in hopeless], out, jobs, command, watch)
    measured = {attempt.point.name: attempt for attempt in attempts} | hopeless
    status = worst(tuning.status, second, ExitStatus.INCOMPLETE if hopeless else ExitStatus.DONE)
    trials = [tuning.outcomes[trial.name] for cell in tuning.cells for trial in cell.trials]
    return SweepOutcome([measured[point.name] for point in points], trials, tuning.scores, status, tuning.cells)


def carry_out_trials(
    sweep: Sweep, out: Path, jobs: int = 1, watch: Callable[[SweepProgress], None] = lambda progress: None
) -> SweepOutcome:
    """Carry out only the trials, under the folder `out`."""
    tuning = _Tuning(sweep, out)
    tuning.carry_out(jobs, None if _here(sweep, jobs) else grapevine_run, watch)
    trials = [tuning.outcomes[trial.name] for cell in tuning.cells for trial in cell.trials]
    idle = [Attempt(point, "not run") for point in sweep.points]
    return SweepOutcome(idle, trials, tuning.scores, tuning.status, tuning.cells)


def _here(sweep: Sweep, jobs: int) -> bool:
    """Return whether the runs must be carried out in this process, because no other process could read them."""
    alone = [(key, point.experiment) for point in [*sweep.points, *sweep.trials] for key in point.experiment.here_alone()]
    if alone and jobs > 1:
        key, experiment = alone[0]
        given = getattr(experiment, key)
        cls = type(given[0] if isinstance(given, tuple) else given)
        part = f"the {key} {cls.__module__}.{cls.__qualname__}"
        problem = f"{jobs} runs at a time need their own processes, and these cannot read {part}"
        cure = "define its class at the top level of a module (such as mine.py) and import it, or set jobs = 1: then all runs "
        raise ConfigError(key="jobs", value=jobs, problem=problem, cure=f"{cure}are carried out in this process")
    return bool(alone)


class _Tuning:
    """The trials of a sweep: those of the file, then those that widen lists whose best value is at an end."""

    def __init__(self, sweep: Sweep, folder: Path) -> None:
        self.sweep = sweep
        self.folder = folder
        self.cells = sweep.cells
        self.outcomes: dict[str, Attempt] = {}
        self.scores: list[list[Score | None]] = [[] for _ in sweep.cells]
        self.status = ExitStatus.DONE

    def carry_out(self, jobs: int, command: Command | None, watch: Callable[[SweepProgress], None]) -> None:
        """Run all trials; widen lists and run more, until no best value is at an end, or no wider list is allowed."""
        trials, phase = self.sweep.trials, "tuning"
        while trials:
            attempts, status = run_sweep(trials, self.folder, jobs, command, watch, self.sweep.points, phase)
            self.status = worst(self.status, status)
            self.outcomes |= {attempt.point.name: attempt for attempt in attempts}
            self.scores = [[self._score(self.outcomes[trial.name]) for trial in cell.trials] for cell in self.cells]
            if status is ExitStatus.INTERRUPTED:
                return
            before = {trial.name for cell in self.cells for trial in cell.trials}
            self.cells = tuple(self._widened(*pair) for pair in zip(self.cells, self.scores, strict=True))
            trials = [trial for cell in self.cells for trial in cell.trials if trial.name not in before]
            phase = "widening"

    def _widened(self, cell: Cell, scores: Sequence[Score | None]) -> Cell:
        """Return a cell with its next trials; the same cell if its best value is at no end, or a field allows no next value."""
        chosen, tune = best(scores), self.sweep.tune
        if chosen is None or tune is None:
            return cell
        tried = [trial.tuned for trial in cell.trials]
        for candidate in tune.wider(tried[chosen], tried):
            with suppress(ConfigError):
                cell = cell.widened(candidate)
        return cell

    def _score(self, trial: Attempt) -> Score | None:
        if not trial.done:
            return None
        try:
            result = Result.read(self.folder / trial.point.name)
        except ValueError:  # a damaged folder has no score
            return None
        try:
            return score_of(result, self.sweep.target)
        except ValueError as error:
            raise config_error(error) from None


def run_sweep(
    points: Sequence[Point],
    out: Path,
    jobs: int = 1,
    command: Command | None = grapevine_run,
    watch: Callable[[SweepProgress], None] = lambda progress: None,
    later: Sequence[Point] = (),
    phase: str = "",
) -> tuple[list[Attempt], ExitStatus]:
    """Carry out all points that are not complete yet, `jobs` at a time, under the folder `out`; a failure does not stop others.

    Each point has `out/NAME` (its run folder), `out/inputs/NAME.toml` and `out/logs/NAME.log`. `watch` is called with the
    progress, `later` runs included, about 50 times a second. Ctrl-C ends the running runs and keeps the complete ones.
    Without a `command` the runs are carried out in this process, one after the other.
    Returns the attempt of each point, in their order, and the worst exit status.
    """
    _claim(out)
    floor: Floor | HereFloor = HereFloor(points, out, later, phase)
    if command is not None:
        floor = Floor(points, out, jobs, command, later, phase)
    with Interrupt() as interrupt:
        floor.on_interrupt = interrupt.ask
        try:
            while floor.step() and not interrupt.requested:
                watch(floor.progress())
                time.sleep(PAUSE_S)
        finally:
            floor.stop()
    watch(floor.progress())
    attempts = [floor.attempts.get(point.name, Attempt(point, "not run", "interrupted before it began")) for point in points]
    return attempts, ExitStatus.INTERRUPTED if interrupt.requested else worst(*map(_status, attempts))


def _status(attempt: Attempt) -> ExitStatus:
    return ExitStatus.DONE if attempt.done else ExitStatus.LOST if attempt.damaged else ExitStatus.INCOMPLETE


def _claim(out: Path) -> None:
    """Make the sweep's folder; raise ConfigError for a file, the folder of a run, or a folder that cannot be written."""
    try:
        if out.is_file():
            raise ConfigError(str(out), problem="is a file, and a sweep needs a folder", cure="give another --out")
        if (out / "manifest.json").exists():
            raise ConfigError(str(out), problem="is the folder of a single run", cure="give another --out")
        for part in ("inputs", "logs"):
            (out / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot be used for a sweep ({(error.strerror or str(error)).lower()})"
        raise ConfigError(str(out), problem=problem, cure="give another --out") from None
