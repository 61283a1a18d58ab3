"""Curves of a run: the figures of its whole fleet, record by record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from grapevine.experiments.results.recorder import FLEET
from grapevine.experiments.results.result import Result
from grapevine.experiments.results.summary import EXCESS_LOSS, LEAST_LOSS

LAST = 0.2
"""The share of a run's steps, at its end, over which the consensus distance is averaged."""


class Reached(NamedTuple):
    """The place on an axis at which a level was reached, and its uncertainty."""

    value: float
    """The place of the first record at which the mean had reached the level."""
    grain: float
    """Distance to the previous record: the level was reached between the two.  0 at the first record of all."""


def first_reached(line: Sequence[tuple[float, float]], level: float, falls: bool = False) -> Reached | None:
    """Return where a line of (place on an axis, mean), record by record, first is at `level` or above; None if it never is.

    With `falls`, as for a loss: at `level` or below. Tables, pages, tuning, studies of connectivity and `summary.json` all use
    this definition of "time to an accuracy".
    """
    before: float | None = None
    for place, mean in line:
        if (mean <= level) if falls else (mean >= level):
            return Reached(place, 0.0 if before is None else place - before)
        before = place
    return None


def over_time(result: Result, name: str) -> list[tuple[float, float]]:
    """Return (emulated seconds, value) of a figure of the whole fleet, record by record."""
    import pyarrow.compute as pc

    table = result.table("metrics.parquet")
    fleet = table.filter(pc.and_(pc.equal(table["name"], name), pc.equal(table["peer"], FLEET)))
    return sorted(zip(fleet["time_s"].to_pylist(), fleet["value"].to_pylist(), strict=True))


def fleet_line(result: Result, figure: str) -> list[tuple[float, float]]:
    """Return the same as `over_time`, also of the excess loss, which no record holds; [] if it is not known."""
    if figure != EXCESS_LOSS:
        return over_time(result, figure)
    least = result.summary.get(LEAST_LOSS)
    return [] if least is None else [(time_s, loss - least) for time_s, loss in over_time(result, "loss_mean")]


class Curve(NamedTuple):
    """The fleet's figures in one run, record by record: float64 arrays of equal length."""

    steps: np.ndarray
    """Mean over the peers."""
    time_s: np.ndarray
    bytes: np.ndarray
    accuracy: np.ndarray
    """Mean over the peers; nan for a task without accuracy."""
    consensus: np.ndarray

    def reached(self, level: float, over: str) -> Reached | None:
        """Return the place on the axis `over` of the first record whose accuracy is at least `level`; None if there is none."""
        return first_reached(list(zip(getattr(self, over).tolist(), self.accuracy.tolist(), strict=True)), level)

    def settled(self, values: np.ndarray) -> float:
        """Return the mean of `values`, one for each record, over the last fifth of the steps."""
        late = self.steps >= (1.0 - LAST) * self.steps[-1]
        return float(values[late].mean())


def curve_of(result: Result) -> Curve:
    """Return the fleet's figures of a run in order of time, without records that lack the consensus distance."""
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
