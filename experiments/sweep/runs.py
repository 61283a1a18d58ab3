"""The single runs of a sweep: each in its own process and folder, with its state and result."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grapevine.experiments.config.experiment import Experiment
from grapevine.experiments.config.fields import read_struct
from grapevine.experiments.config.overrides import FROM, is_reference
from grapevine.experiments.config.own_parts import reference_of
from grapevine.experiments.exit_status import ExitStatus
from grapevine.experiments.results.numbers import peers_text
from grapevine.experiments.results.result import Result
from grapevine.experiments.run import run_experiment
from grapevine.experiments.sweep.eta import left_s
from grapevine.experiments.sweep.plan import Point
from grapevine.experiments.worlds.interrupt import signal_name

LOST_PEERS = "lost peers"
PATIENCE_S = 10.0
"""The time in which runs may complete their folders after an interrupt, before they are killed."""
_PR_SET_PDEATHSIG = 1

Command = Callable[[Path, Path], Sequence[str]]
"""(experiment file, run folder) -> the command to execute."""


@dataclass(frozen=True)
class Attempt:
    """The result of one point of a sweep."""

    point: Point
    state: str
    """"completed", "skipped" (it was complete before), "lost peers" (complete, but lost peers that no event of the file
    killed), "failed", "interrupted" or "not run"."""
    reason: str = ""
    wall_s: float = 0.0

    @property
    def done(self) -> bool:
        """Whether its folder holds a complete and undamaged run of exactly this experiment."""
        return self.state in ("completed", "skipped")

    @property
    def damaged(self) -> bool:
        """Whether its folder holds a complete run that lost peers which no event of the file killed: its figures enter no mean,
        and the next call of the sweep runs it again."""
        return self.state == LOST_PEERS


@dataclass(frozen=True)
class SweepProgress:
    """The progress of a sweep."""

    runs: int
    attempts: tuple[Attempt, ...]
    running: tuple[Point, ...]
    left_s: float | None
    """The estimated seconds until the end, from the runs so far; None before the first has ended."""
    later: int = 0
    """The number of runs that come after these: the measured runs, during the tuning."""
    phase: str = ""
    """The purpose of these runs: "tuning" or "widening"; "" = they are the measured runs."""


def grapevine_run(file: Path, folder: Path) -> list[str]:
    """Return the command of one run, in its own process, so that a crash ends only this run."""
    return [sys.executable, "-P", "-m", "grapevine", "run", str(file), "--out", str(folder), "--quiet"]


def is_complete(folder: Path, experiment: Experiment) -> bool:
    """Return whether a folder holds a complete run of exactly this experiment that lost no peer except by events."""
    return _ending(folder, experiment) is ExitStatus.DONE


def _ending(folder: Path, experiment: Experiment) -> ExitStatus:
    """Return the exit status of the run in a folder; INCOMPLETE if it has no complete run of exactly this experiment."""
    try:
        result = Result.read(folder)
        if not result.summary.get("completed") or not _is_of(result, experiment):
            return ExitStatus.INCOMPLETE
        result.check()
        code, before = experiment.code(), result.manifest.get("code") or {}
        if code != before or None in code.values():  # a user's own part has changed, or may have changed
            return ExitStatus.INCOMPLETE
    except (ValueError, OSError):
        return ExitStatus.INCOMPLETE
    unasked = result.summary.get("peers_lost_unasked")
    if unasked is None:  # written by an older version, without this key: run it again
        return ExitStatus.INCOMPLETE
    return ExitStatus.LOST if unasked else ExitStatus.DONE


def _is_of(result: Result, experiment: Experiment) -> bool:
    """Return whether a run was of exactly this experiment. Raises ValueError if its folder is damaged.

    No module is imported, because a folder may come from an unknown source; the experiment itself has the classes.
    """
    before = dict(result.experiment_document)
    for key, value in before.items():
        if isinstance(value, list):
            now = [*getattr(experiment, key, ()), *[None] * len(value)]
            before[key] = [_known_part(table, part) for table, part in zip(value, now, strict=False)]
        else:
            before[key] = _known_part(value, getattr(experiment, key, None))
    return Experiment.from_document(before) == experiment


def _known_part(table: Any, now: Any) -> Any:
    """Return the user's own part that a table describes, if it has the class of the part `now`; an empty table for another
    class; and a table that names no class unchanged."""
    if not isinstance(table, dict) or not is_reference(table.get("name")):
        return table
    if table["name"] != reference_of(type(now)):
        return {}
    fields = {name: value for name, value in table.items() if name not in ("name", FROM)}
    return read_struct(type(now), fields, "", table["name"], limits=False)


class _Floor:
    """The waiting runs, and the attempts of the ended ones; runs that are complete already are skipped."""

    def __init__(self, points: Sequence[Point], out: Path, later: Sequence[Point], phase: str) -> None:
        self.runs = len(points)
        self.phase = phase
        self.later = later
        self.out = out
        self.attempts: dict[str, Attempt] = {}
        self.waiting: deque[Point] = deque()
        self.on_interrupt: Callable[[], None] = lambda: None
        """Called when a run in this process has received an interrupt."""
        for point in points:
            if is_complete(out / point.name, point.experiment):
                wall_s = Result.read(out / point.name).summary.get("wall_s") or 0.0
                self.attempts[point.name] = Attempt(point, "skipped", "complete already", wall_s)
            else:
                self.waiting.append(point)

    def _progress(self, running: Sequence[tuple[Point, float]], jobs: int) -> SweepProgress:
        """Return the progress; `running` holds each running point and its start (s, monotonic)."""
        done = [(attempt.point.experiment.peers, attempt.wall_s) for attempt in self.attempts.values() if attempt.done]
        spent = [(point.experiment.peers, time.monotonic() - began_s) for point, began_s in running]
        waiting = [point.experiment.peers for point in (*self.waiting, *self.later)]
        left = left_s(done, waiting, spent, jobs)
        going = tuple(point for point, _ in running)
        return SweepProgress(self.runs, tuple(self.attempts.values()), going, left, len(self.later), self.phase)

    def _write_input(self, point: Point) -> Path:
        file = self.out / "inputs" / f"{point.name}.toml"
        file.write_text(point.experiment.to_toml(), encoding="utf-8")
        return file


class HereFloor(_Floor):
    """Runs in this process, one after the other."""

    def __init__(self, points: Sequence[Point], out: Path, later: Sequence[Point], phase: str) -> None:
        super().__init__(points, out, later, phase)
        self.next: Point | None = None

    def step(self) -> bool:
        """Carry out the run that the last step announced, and announce the next; return False when none is left."""
        if self.next is not None:
            self.attempts[self.next.name] = self._carry_out(self.next)
        self.next = self.waiting.popleft() if self.waiting else None
        return self.next is not None

    def progress(self) -> SweepProgress:
        return self._progress([(self.next, time.monotonic())] if self.next else [], 1)

    def stop(self) -> None:
        """There is nothing to stop: no run is outside this call."""

    def _carry_out(self, point: Point) -> Attempt:
        began_s = time.monotonic()
        try:
            self._write_input(point)
            result, status = run_experiment(point.experiment, self.out / point.name, quiet=True)
        except Exception as error:  # noqa: BLE001 - a user's own part may raise anything while the fleet is built
            reason = str(error) if isinstance(error, ValueError) else traceback.format_exception_only(error)[-1].strip()
            return Attempt(point, "failed", reason)
        except KeyboardInterrupt:
            self.on_interrupt()
            return Attempt(point, "interrupted", "interrupted")
        wall_s = time.monotonic() - began_s
        if status is ExitStatus.DONE:
            return Attempt(point, "completed", "", wall_s)
        if status is ExitStatus.LOST:
            return Attempt(point, LOST_PEERS, _losses(result), wall_s)
        if status is ExitStatus.INTERRUPTED:
            self.on_interrupt()
            return Attempt(point, "interrupted", "interrupted", wall_s)
        return Attempt(point, "failed", str(result.summary.get("reason")), wall_s)


class Floor(_Floor):
    """Runs in their own processes, several at a time."""

    def __init__(
        self, points: Sequence[Point], out: Path, jobs: int, command: Command, later: Sequence[Point], phase: str
    ) -> None:
        super().__init__(points, out, later, phase)
        self.jobs = jobs
        self.command = command
        self.running: dict[str, tuple[Point, subprocess.Popen[bytes], float]] = {}

    def step(self) -> bool:
        """Collect the runs that have ended and start new ones, up to `jobs`; return False when none is left."""
        for point, child, began_s in list(self.running.values()):
            if child.poll() is not None:
                del self.running[point.name]
                self.attempts[point.name] = self._ended(point, child.returncode, time.monotonic() - began_s)
        while self.waiting and len(self.running) < self.jobs:
            point = self.waiting.popleft()
            try:
                self._start(point)
            except OSError as error:
                self.attempts[point.name] = Attempt(point, "failed", f"{self.out}: {error.strerror or error}")
        return bool(self.running)

    def progress(self) -> SweepProgress:
        return self._progress([(point, began_s) for point, _, began_s in self.running.values()], self.jobs)

    def stop(self) -> None:
        """End the running runs: interrupt them, so that their folders become complete, and kill those that take too long."""
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
            ended = self._ended(point, child.returncode, time.monotonic() - began_s)
            over = ended.done or ended.damaged
            self.attempts[point.name] = ended if over else replace(ended, state="interrupted", reason="interrupted")
        self.running.clear()

    def _start(self, point: Point) -> None:
        command = list(self.command(self._write_input(point), self.out / point.name))
        with open(self._log(point), "wb") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**_threads(self.jobs), **os.environ, "PYTHONUNBUFFERED": "1"},  # so that the log has the last line
                start_new_session=True,  # Ctrl-C reaches only the sweep, which then interrupts each run once
                preexec_fn=_end_with(os.getpid()),
            )
        self.running[point.name] = (point, child, time.monotonic())

    def _ended(self, point: Point, status: int, wall_s: float) -> Attempt:
        folder = self.out / point.name
        ending = _ending(folder, point.experiment) if status in (ExitStatus.DONE, ExitStatus.LOST) else ExitStatus.INCOMPLETE
        if ending is ExitStatus.DONE:
            return Attempt(point, "completed", "", wall_s)
        if ending is ExitStatus.LOST:
            return Attempt(point, LOST_PEERS, _losses(Result.read(folder)), wall_s)
        return Attempt(point, "failed", self._reason(point, status), wall_s)

    def _reason(self, point: Point, status: int) -> str:
        """Return why a run did not complete: the reason in its summary, else its exit status and the last line of its log."""
        if status in (ExitStatus.INCOMPLETE, ExitStatus.INTERRUPTED):
            with suppress(ValueError):
                return str(Result.read(self.out / point.name).summary.get("reason"))
        words = self._log(point).read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(words) if line.strip()), "no output")
        ending = f"ended by {signal_name(-status)}" if status < 0 else f"exit status {status}"
        return f"{ending}: {last}"

    def _log(self, point: Point) -> Path:
        return self.out / "logs" / f"{point.name}.log"


def _losses(result: Result) -> str:
    """Return in words the peers that a run lost and no event of its file killed, with the reasons."""
    unasked = set(result.summary["peers_lost_unasked"])
    events = [event for event in result.events if event.get("kind") == "lost" and event.get("peer") in unasked]
    causes = "; ".join(f"peer {event['peer']} at {event.get('time_s') or 0.0:.3g} s: {event.get('text')}" for event in events)
    return f"lost {peers_text(sorted(unasked))}, which no event of the file killed{f' ({causes})' if causes else ''}"


def _threads(jobs: int) -> dict[str, str]:
    """Return the environment that gives each of several runs one thread, because they share the cores."""
    return {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} if jobs > 1 else {}


def _end_with(parent: int) -> Callable[[], None]:
    """Return a function for the child process that lets the kernel interrupt it when the sweep's process ends."""
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:
            os._exit(1)

    return prepare
