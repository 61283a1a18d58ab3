"""The scores of a live fleet: what the evaluator is given, what is kept for later, and what the launcher scores by itself.

The evaluator has the lowest priority, so that it falls behind where the peers need the machine. A snapshot that it has no time
for is kept until training is over; so is what it was given and has not answered. Every record is thus scored from
the weights at its own instant, however late.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from typing import IO

import numpy as np

from grapevine.experiments.worlds.peer_report import FINAL
from grapevine.experiments.worlds.processes.forkserver import Child
from grapevine.experiments.worlds.processes.snapshots import Snapshots
from grapevine.experiments.worlds.scoring import Evaluate

AT_A_TIME = 2
"""Snapshots that the evaluator is given before it has answered."""
KEPT_LIMIT_BYTES = 1 << 30
"""Weights that are kept on disk at most; and never more than half of what is free there."""


class Kept:
    """Weights on disk, in a file without a name: nothing of it is left behind, however the launcher ends."""

    def __init__(self, limit_bytes: int = KEPT_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._file: IO[bytes] | None = None
        self._places: dict[int, tuple[int, tuple[int, ...]]] = {}  # record index -> where it begins, shape
        self._end = 0
        self._free: list[tuple[int, int]] = []  # where, how many bytes

    def __contains__(self, index: int) -> bool:
        return index in self._places

    def put(self, index: int, weights: np.ndarray) -> bool:
        """Keep the weights of a record, float32 [k, size]; False where there is no room for them."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the run
                self._limit_bytes = min(self._limit_bytes, shutil.disk_usage(tempfile.gettempdir()).free // 2)
            start = self._room(weights.nbytes)
            if start is None:
                return False
            self._file.seek(start)
            self._file.write(np.ascontiguousarray(weights, np.float32).data)
            self._file.flush()
        except OSError:  # the disk has less room than it said
            return False
        self._places[index] = start, weights.shape
        return True

    def get(self, index: int) -> np.ndarray:
        """The weights of a record that is kept; OSError or ValueError where the disk does not give them back."""
        assert self._file is not None
        start, shape = self._places[index]
        self._file.seek(start)
        return np.frombuffer(self._file.read(4 * int(np.prod(shape))), np.float32).reshape(shape)

    def drop(self, index: int) -> None:
        """Make room again."""
        if index in self._places:
            start, shape = self._places.pop(index)
            self._free.append((start, 4 * int(np.prod(shape))))

    def _room(self, size_bytes: int) -> int | None:
        """Where so many bytes fit: the first gap that is large enough, or the end of the file."""
        for at, (start, gap_bytes) in enumerate(self._free):
            if gap_bytes >= size_bytes:
                del self._free[at]
                return start
        if self._end + size_bytes > self._limit_bytes:
            return None
        start, self._end = self._end, self._end + size_bytes
        return start


class Scoring:
    """Which records have no scores yet, and where their weights are."""

    def __init__(self, silence_s: float, setup_s: float) -> None:
        self.snapshots: Snapshots | None = None
        """Set once the run has made its files."""
        self.kept = Kept()
        self.due: dict[int, Evaluate] = {}
        self.given: set[int] = set()
        """Which of them the evaluator has and has not answered."""
        self._silence_s, self._setup_s = silence_s, setup_s

    def take(self, task: Evaluate, evaluator: Child | None) -> None:
        """A record is complete: give it to the evaluator, or keep its weights before they are written over."""
        for index in self.given:  # it is behind
            self._keep(index)
        self.due[task.index] = task
        free = len(self.given) < AT_A_TIME or task.index == FINAL
        if evaluator is not None and evaluator.alive and free:
            self.given.add(task.index)
            evaluator.say(task)
        else:
            self._keep(task.index)

    def answered(self, index: int, scored: bool) -> None:
        """The evaluator has answered; what it came too late for stays due."""
        self.given.discard(index)
        if scored:
            self.due.pop(index, None)
            self.kept.drop(index)

    def take_back(self) -> None:
        """The evaluator is gone: keep what it has not answered."""
        for index in self.given:
            self._keep(index)
        self.given.clear()

    def is_silent(self, evaluator: Child, now_s: float) -> bool:
        """Whether the evaluator gives no sign of life; times are those of the launcher's attention (`Attention.s`).

        One that has said nothing yet may take as long as any process to be set up.
        """
        return now_s - evaluator.heard_s > (self._silence_s if evaluator.heard_s else self._setup_s)

    def left(self) -> Iterator[tuple[Evaluate, np.ndarray | None]]:
        """What is still due, the end first, with its weights (float32 [k, size]; None where there was no room for them)."""
        order = sorted(self.due, key=lambda index: (index != FINAL, index))
        for task in [self.due.pop(index) for index in order]:
            yield task, self._weights(task)

    def _keep(self, index: int) -> None:
        if index == FINAL or index in self.kept or self.snapshots is None:
            return  # the last weights stay where they are
        weights = self.snapshots.read(index, self.due[index].peers)
        if weights is not None:
            self.kept.put(index, weights)

    def _weights(self, task: Evaluate) -> np.ndarray | None:
        if task.index not in self.kept:
            return None if self.snapshots is None else self.snapshots.read(task.index, task.peers)
        try:
            return self.kept.get(task.index)
        except (OSError, ValueError):
            return None
