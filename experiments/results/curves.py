"""What a run recorded of its whole fleet, record by record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from grapevine.experiments.results.recorder import FLEET
from grapevine.experiments.results.result import Result

LAST = 0.2
"""The share of a run's steps, at its end, over which the consensus distance is averaged."""


class Reached(NamedTuple):
    """Where on an axis a level was reached, and how exactly that is known."""

    value: float
    """At the first record at which the mean was at the level or above."""
    grain: float
    """How much later that is than the record before: somewhere in between it was reached.  0 at the first record of all."""


def first_reached(line: Sequence[tuple[float, float]], level: float) -> Reached | None:
    """Where a line of (place on an axis, mean), record by record, first is at `level` or above; None where it never is.

    The only definition of "time to an accuracy" there is: of tables, pages, tuning, studies of connectivity and `summary.json`.
    """
    before: float | None = None
    for place, mean in line:
        if mean >= level:
            return Reached(place, 0.0 if before is None else place - before)
        before = place
    return None


def over_time(result: Result, name: str) -> list[tuple[float, float]]:
    """(emulated seconds, value) of a figure of the whole fleet, record by record."""
    import pyarrow.compute as pc

    table = result.table("metrics.parquet")
    fleet = table.filter(pc.and_(pc.equal(table["name"], name), pc.equal(table["peer"], FLEET)))
    return sorted(zip(fleet["time_s"].to_pylist(), fleet["value"].to_pylist(), strict=True))


class Curve(NamedTuple):
    """What was measured of the fleet in one run, record by record: float64 arrays of equal length."""

    steps: np.ndarray
    """Mean over the peers."""
    time_s: np.ndarray
    bytes: np.ndarray
    accuracy: np.ndarray
    """Mean over the peers; nan for a task that has none."""
    consensus: np.ndarray

    def reached(self, level: float, over: str) -> Reached | None:
        """Where on the axis `over` the accuracy is `level` or more at the first record; None if never."""
        return first_reached(list(zip(getattr(self, over).tolist(), self.accuracy.tolist(), strict=True)), level)

    def settled(self, values: np.ndarray) -> float:
        """The mean of one value a record over the last fifth of the steps."""
        late = self.steps >= (1.0 - LAST) * self.steps[-1]
        return float(values[late].mean())


def curve_of(result: Result) -> Curve:
    """What a run recorded of its fleet, in order of time; without records of length 0."""
    import pyarrow.compute as pc

    table = result.table("metrics.parquet")
    table = table.filter(pc.equal(table["peer"], FLEET))
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in ("time_s", "step", "name", "value")}
    times = np.unique(columns["time_s"])
    lines = {}
    for name in ("consensus_distance", "bytes_sent", "accuracy_mean"):
        chosen = columns["name"] == name
        lines[name] = np.full(len(times), np.nan)
        lines[name][np.searchsorted(times, columns["time_s"][chosen])] = columns["value"][chosen]
    steps = np.zeros(len(times))
    steps[np.searchsorted(times, columns["time_s"])] = columns["step"]
    known = np.isfinite(lines["consensus_distance"])
    curve = Curve(steps, times, lines["bytes_sent"], lines["accuracy_mean"], lines["consensus_distance"])
    return Curve(*(line[known] for line in curve))
