"""Means over the runs of a cell, with intervals, as numbers and as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from grapevine.experiments.report.text_table import in_unit

LEVEL = 0.95
COARSE = " †"
"""The mark of an interval that is the time between two records, because the runs differ by less."""


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


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the mean of independent values and its 95 % interval by Student's t: +- t(n - 1) s / sqrt(n)."""
    n = len(values)
    if not n:
        return None
    half = quantile(n) * float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else None
    return Estimate(float(np.mean(values)), half, n)


def interval(found: Estimate, scale: float = 1.0, least: float = -math.inf, most: float = math.inf) -> str:
    """Return "82.1 ± 0.9", with two figures of the interval; "12 ± 1 †" if the resolution of a value is only 1.

    An interval beyond the possible values, `least` to `most`, is cut there and given by its ends: "4 (0 to 15)".
    """
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
    if mean - half < least / scale or mean + half > most / scale:
        return f"{show(mean)} ({show(max(mean - half, least / scale))} to {show(min(mean + half, most / scale))})"
    return f"{show(mean)} ± {show(half)}"


def _decimals(mean: float, half: float) -> Callable[[float], str]:
    """Return a function that formats with two figures of the interval, and never more than four of the mean."""
    decimals = max(0, 1 - math.floor(math.log10(half)))
    most = max(0, 3 - math.floor(math.log10(abs(mean)))) if mean else decimals
    return lambda value: f"{value:,.{min(decimals, most, 6)}f}"


def quantile(n: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 0.5 + LEVEL / 2))
