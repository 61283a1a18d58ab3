"""The scoring of a live fleet: records for the evaluator, records kept for later, and records that the launcher scores.

The evaluator has the lowest priority, so it falls behind when the peers need the machine. A snapshot for which it has no time
is kept until training is over, and so is one that it has not answered. So every record is scored from the weights at its own
instant, even if late.
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
"""The evaluator has at most this many snapshots without an answer."""
KEPT_LIMIT_BYTES = 1 << 30
"""At most this many bytes of weights are kept on disk, and never more than half of the free space there."""


class Kept:
    """Weights on disk, in a file without a name: it disappears after any end of the launcher."""

    def __init__(self, limit_bytes: int = KEPT_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._file: IO[bytes] | None = None
        self._places: dict[int, tuple[int, tuple[int, ...]]] = {}  # record index -> where it begins, shape
        self._end = 0
        self._free: list[tuple[int, int]] = []  # gaps: start, bytes

    def __contains__(self, index: int) -> bool:
        return index in self._places

    def put(self, index: int, weights: np.ndarray) -> bool:
        """Keep the weights of a record, float32 [k, size]; return False if there is no room for them."""
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
        except OSError:  # the disk has less room than it reported
            return False
        self._places[index] = start, weights.shape
        return True

    def get(self, index: int) -> np.ndarray:
        """Return the weights of a kept record.  Raises OSError or ValueError if they cannot be read from the disk."""
        assert self._file is not None
        start, shape = self._places[index]
        self._file.seek(start)
        return np.frombuffer(self._file.read(4 * int(np.prod(shape))), np.float32).reshape(shape)

    def drop(self, index: int) -> None:
        """Free the room of a record."""
        if index in self._places:
            start, shape = self._places.pop(index)
            self._free.append((start, 4 * int(np.prod(shape))))

    def _room(self, size_bytes: int) -> int | None:
        """Return the start of the first gap that is large enough, or the end of the file; None beyond the limit."""
        for at, (start, gap_bytes) in enumerate(self._free):
            if gap_bytes >= size_bytes:
                del self._free[at]
                return start
        if self._end + size_bytes > self._limit_bytes:
            return None
        start, self._end = self._end, self._end + size_bytes
        return start


class Scoring:
    """The records without scores, and where their weights are."""

    def __init__(self, silence_s: float, setup_s: float) -> None:
        self.snapshots: Snapshots | None = None
        """Set when the run has made its files."""
        self.kept = Kept()
        self.due: dict[int, Evaluate] = {}
        self.given: set[int] = set()
        """Indices of the due records that the evaluator has and has not answered."""
        self._silence_s, self._setup_s = silence_s, setup_s

    def take(self, task: Evaluate, evaluator: Child | None) -> None:
        """Give a complete record to the evaluator, or keep its weights before they are overwritten."""
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
        """Note an answer of the evaluator; a record that it could not score in time stays due."""
        self.given.discard(index)
        if scored:
            self.due.pop(index, None)
            self.kept.drop(index)

    def take_back(self) -> None:
        """Keep the records that a lost evaluator has not answered."""
        for index in self.given:
            self._keep(index)
        self.given.clear()

    def is_silent(self, evaluator: Child, now_s: float) -> bool:
        """Whether the evaluator gives no sign of life; times are seconds of the launcher's attention (`Attention.s`).

        Before its first message, it may take as long as the set-up of any process.
        """
        return now_s - evaluator.heard_s > (self._silence_s if evaluator.heard_s else self._setup_s)

    def left(self) -> Iterator[tuple[Evaluate, np.ndarray | None]]:
        """Yield each record still due, the final one first, with its weights (float32 [k, size]; None if there was no room)."""
        order = sorted(self.due, key=lambda index: (index != FINAL, index))
        for task in [self.due.pop(index) for index in order]:
            yield task, self._weights(task)

    def _keep(self, index: int) -> None:
        if index == FINAL or index in self.kept or self.snapshots is None:
            return  # final weights are not overwritten
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
