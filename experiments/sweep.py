"""Many runs of one experiment: the product of the lists in its `[sweep]` table, each in a process and a folder of its own."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from experiments.config import Experiment
from experiments.config_errors import ConfigError
from experiments.interrupt import Interrupt
from experiments.result import Result
from experiments.sweep_plan import Point, Sweep
from experiments.sweep_time import left_s
from experiments.sweep_tune import Score, best, score_of

TUNING = "tuning"
"""The folder of the trials, inside the sweep's."""
PAUSE_S = 0.02
PATIENCE_S = 10.0
"""How long runs may take to end in good order after an interrupt."""
_PR_SET_PDEATHSIG = 1

Command = Callable[[Path, Path], Sequence[str]]
"""(experiment file, run folder) -> what to execute."""


@dataclass(frozen=True)
class Attempt:
    """What became of one point of a sweep."""

    point: Point
    state: str
    """"completed", "skipped" (it was complete before), "failed", "interrupted" or "not run"."""
    reason: str = ""
    wall_s: float = 0.0

    @property
    def done(self) -> bool:
        """Whether its folder holds a complete run of just this experiment."""
        return self.state in ("completed", "skipped")


@dataclass(frozen=True)
class Standing:
    """How far a sweep is."""

    runs: int
    attempts: tuple[Attempt, ...]
    running: tuple[Point, ...]
    left_s: float | None
    """Seconds until all is done, as far as the runs so far tell; None before the first."""
    later: int = 0
    """Runs that come after these: those that are measured, while it is tuned."""


def grapevine_run(file: Path, folder: Path) -> list[str]:
    """The command of one run: a process of its own, so that nothing is shared and a crash ends one run alone."""
    return [sys.executable, "-m", "experiments", "run", str(file), "--out", str(folder), "--quiet"]


@dataclass(frozen=True)
class Carried:
    """What became of a sweep."""

    attempts: list[Attempt]
    """Of each measured run, in the order of the plan."""
    trials: list[Attempt]
    """Of each run of the tuning, in the order of the plan."""
    scores: list[list[Score | None]]
    """Of each cell's trials; None for one that was not completed."""
    status: int
    """0 all complete, 1 some not, 130 interrupted."""


def carry_out(
    sweep: Sweep,
    out: Path,
    jobs: int = 1,
    command: Command = grapevine_run,
    watch: Callable[[Standing], None] = lambda standing: None,
) -> Carried:
    """Tune what is to be tuned (under `out/tuning`), then run what is measured (under `out`), as `run_sweep` does."""
    _claim(out)
    trials, status = run_sweep(sweep.trials, out / TUNING, jobs, command, watch, sweep.points) if sweep.tune else ([], 0)
    outcomes = {trial.point.name: trial for trial in trials}
    scores = [[_score(outcomes[trial.name], out / TUNING, sweep.target) for trial in cell.trials] for cell in sweep.cells]
    points: list[Point] = []
    hopeless: dict[str, Attempt] = {}
    for cell, found in zip(sweep.cells, scores, strict=True):
        chosen = best(found) if sweep.tune else None
        points += cell.settled(chosen) if chosen is not None else cell.points
        if sweep.tune and (chosen is None or status == 130):
            reason = "interrupted before it began" if status == 130 else f"none of its {len(found)} trials was completed"
            hopeless |= {point.name: Attempt(point, "not run", reason) for point in points[-len(cell.points) :]}
    attempts, second = run_sweep([point for point in points if point.name not in hopeless], out, jobs, command, watch)
    measured = {attempt.point.name: attempt for attempt in attempts} | hopeless
    return Carried([measured[point.name] for point in points], trials, scores, max(status, second, 1 if hopeless else 0))


def _score(trial: Attempt, folder: Path, target: float) -> Score | None:
    try:
        return score_of(Result.read(folder / trial.point.name), target) if trial.done else None
    except ValueError:  # a damaged folder tells nothing
        return None


def run_sweep(
    points: Sequence[Point],
    out: Path,
    jobs: int = 1,
    command: Command = grapevine_run,
    watch: Callable[[Standing], None] = lambda standing: None,
    later: Sequence[Point] = (),
) -> tuple[list[Attempt], int]:
    """Carry out all points that are not complete yet, `jobs` at a time, under the folder `out`; one that fails stops no other.

    Each point has `out/NAME` (its run folder), `out/inputs/NAME.toml` and `out/logs/NAME.log`. `watch` is told whenever
    something changes, and every so often in between; it is told of the `later` runs too. Ctrl-C ends the runs that are going
    and leaves what is done.
    Returns what became of each point, in their order, and the exit status: 0 all complete, 1 some not, 130 interrupted.
    """
    _claim(out)
    floor = _Floor(points, out, jobs, command, later)
    with Interrupt() as interrupt:
        try:
            while floor.step() and not interrupt.requested:
                watch(floor.standing())
                time.sleep(PAUSE_S)
        finally:
            floor.stop()
    watch(floor.standing())
    attempts = [floor.attempts.get(point.name, Attempt(point, "not run", "interrupted before it began")) for point in points]
    status = 130 if interrupt.requested else 0 if all(attempt.done for attempt in attempts) else 1
    return attempts, status


def is_complete(folder: Path, experiment: Experiment) -> bool:
    """Whether a folder holds a complete run of exactly this experiment."""
    try:
        result = Result.read(folder)
        return bool(result.summary.get("completed")) and Experiment.parse(result.experiment_toml) == experiment
    except (ValueError, OSError):
        return False


class _Floor:
    """The runs that wait, the runs that go, and what became of the others."""

    def __init__(self, points: Sequence[Point], out: Path, jobs: int, command: Command, later: Sequence[Point] = ()) -> None:
        self.runs = len(points)
        self.later = later
        self.out = out
        self.jobs = jobs
        self.command = command
        self.attempts: dict[str, Attempt] = {}
        self.running: dict[str, tuple[Point, subprocess.Popen[bytes], float]] = {}
        self.waiting: deque[Point] = deque()
        for point in points:
            if is_complete(out / point.name, point.experiment):
                wall_s = Result.read(out / point.name).summary.get("wall_s") or 0.0
                self.attempts[point.name] = Attempt(point, "skipped", "complete already", wall_s)
            else:
                self.waiting.append(point)

    def step(self) -> bool:
        """Note which runs have ended, start as many as there is room for; False when nothing is left."""
        for point, child, began_s in list(self.running.values()):
            if child.poll() is not None:
                del self.running[point.name]
                self.attempts[point.name] = self._ended(point, child.returncode, time.monotonic() - began_s)
        while self.waiting and len(self.running) < self.jobs:
            self._start(self.waiting.popleft())
        return bool(self.running)

    def standing(self) -> Standing:
        done = [(attempt.point.experiment.peers, attempt.wall_s) for attempt in self.attempts.values() if attempt.done]
        running = [(point.experiment.peers, time.monotonic() - began_s) for point, _, began_s in self.running.values()]
        waiting = [point.experiment.peers for point in (*self.waiting, *self.later)]
        going = tuple(point for point, _, _ in self.running.values())
        left = left_s(done, waiting, running, self.jobs)
        return Standing(self.runs, tuple(self.attempts.values()), going, left, len(self.later))

    def stop(self) -> None:
        """End what still runs: asked first, so that run folders become complete, and killed when that takes too long."""
        for _, child, _ in self.running.values():
            with suppress(ProcessLookupError):
                child.send_signal(signal.SIGINT)
        until_s = time.monotonic() + PATIENCE_S
        for point, child, began_s in self.running.values():
            try:
                child.wait(max(0.0, until_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            complete = child.returncode == 0 and is_complete(self.out / point.name, point.experiment)
            state, reason = ("completed", "") if complete else ("interrupted", "interrupted")
            self.attempts[point.name] = Attempt(point, state, reason, time.monotonic() - began_s)
        self.running.clear()

    def _start(self, point: Point) -> None:
        file = self.out / "inputs" / f"{point.name}.toml"
        file.write_text(point.experiment.to_toml(), encoding="utf-8")
        command = list(self.command(file, self.out / point.name))
        with open(self._log(point), "wb") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**_threads(self.jobs), **os.environ, "PYTHONUNBUFFERED": "1"},  # so that the log's last line is its last
                start_new_session=True,  # Ctrl-C reaches the sweep alone, which then asks each run once
                preexec_fn=_end_with(os.getpid()),
            )
        self.running[point.name] = (point, child, time.monotonic())

    def _ended(self, point: Point, status: int, wall_s: float) -> Attempt:
        if status == 0 and is_complete(self.out / point.name, point.experiment):
            return Attempt(point, "completed", "", wall_s)
        return Attempt(point, "failed", self._reason(point, status), wall_s)

    def _reason(self, point: Point, status: int) -> str:
        """Why a run did not complete: its summary says so where it got that far, else its last words."""
        if status in (1, 130):
            with suppress(ValueError):
                return str(Result.read(self.out / point.name).summary.get("reason"))
        words = self._log(point).read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(words) if line.strip()), "no output")
        ending = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return f"{ending}: {last}"

    def _log(self, point: Point) -> Path:
        return self.out / "logs" / f"{point.name}.log"


def _claim(out: Path) -> None:
    """Make the sweep's folder; a run's own folder is refused."""
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


def _threads(jobs: int) -> dict[str, str]:
    """Several runs share the cores: more than one thread each would have them wait for one another."""
    return {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} if jobs > 1 else {}


def _end_with(parent: int) -> Callable[[], None]:
    """Called in the child: it is interrupted when the sweep dies, however that comes about."""
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:
            os._exit(1)

    return prepare
