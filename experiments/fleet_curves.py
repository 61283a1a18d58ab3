"""What a run recorded of its whole fleet, record by record."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from experiments.record import FLEET
from experiments.result import Result

LAST = 0.2
"""The share of a run's steps, at its end, over which the consensus distance is averaged."""


class Curve(NamedTuple):
    """What was measured of the fleet in one run, record by record: float64 arrays of equal length."""

    steps: np.ndarray
    """Mean over the peers."""
    time_s: np.ndarray
    bytes: np.ndarray
    accuracy: np.ndarray
    """Mean over the peers; nan for a task that has none."""
    consensus: np.ndarray

    def reached(self, level: float, over: str) -> float:
        """Where on the axis `over` the accuracy first is `level`, on a straight line between records; infinite if never."""
        axis = getattr(self, over)
        at = np.flatnonzero(self.accuracy >= level)
        if not len(at):
            return math.inf
        i = int(at[0])
        if i == 0:
            return float(axis[0])
        share = (level - self.accuracy[i - 1]) / (self.accuracy[i] - self.accuracy[i - 1])
        return float(axis[i - 1] + share * (axis[i] - axis[i - 1]))

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
