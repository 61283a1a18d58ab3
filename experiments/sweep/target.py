"""The target of a sweep: the level of accuracy or loss of which the tables report the time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, Context
from typing import NamedTuple

from grapevine.experiments.results.curves import Reached, first_reached, fleet_line
from grapevine.experiments.results.result import Result
from grapevine.experiments.results.summary import EXCESS_LOSS, LEAST_LOSS

ACCURACY, LOSS = "accuracy_mean", "loss_mean"
REACHED_BY = 2 / 3
"""The level that a sweep chooses itself is the lowest loss that at least this share of the cells reaches in every run."""


class Target(NamedTuple):
    """A level of a figure of the whole fleet, mean over the peers."""

    figure: str
    """`ACCURACY`, `LOSS` or `EXCESS_LOSS`."""
    level: float
    """nan if there is no level that enough cells reach."""
    chosen: bool = False
    """Whether the sweep chose the level from its runs."""

    @property
    def words(self) -> str:
        """The level as text: "90 %", "a loss of 0.05"."""
        if self.figure == ACCURACY:
            return f"{100 * self.level:g} %"
        return f"{'an excess loss' if self.figure == EXCESS_LOSS else 'a loss'} of {self.level:g}"

    def reached(self, result: Result) -> Reached | None:
        """Return when a run first reached the level; None if it never did."""
        falls = self.figure != ACCURACY
        return first_reached(fleet_line(result, self.figure), self.level, falls)


def target_of(accuracy: float, loss: float | None, cells: Sequence[Sequence[Result]]) -> Target:
    """Return the target of a sweep from the complete runs of its cells.

    It is the given `loss`, or else the given `accuracy`; for a task without accuracy the lowest loss, rounded up to two digits,
    that two thirds of the cells reach in every run.  A loss is the excess over that of the optimum if all runs know it.
    """
    runs = [result for cell in cells for result in cell]
    excess = bool(runs) and all(result.summary.get(LEAST_LOSS) is not None for result in runs)
    if loss is not None:
        return Target(EXCESS_LOSS if excess else LOSS, loss)
    if not runs or any(result.summary.get(ACCURACY) is not None for result in runs):
        return Target(ACCURACY, accuracy)
    figure = EXCESS_LOSS if excess else LOSS
    lines = [[_known(result, figure) for result in cell] for cell in cells if cell]
    lowest = sorted(max(min(line, default=math.inf) for line in cell) for cell in lines)
    level = lowest[math.ceil(REACHED_BY * len(lowest)) - 1]
    start = max((line[0] for cell in lines for line in cell if line), default=-math.inf)
    if level >= start:  # it is no better than a start
        return Target(figure, math.nan, chosen=True)
    return Target(figure, float(Context(prec=2, rounding=ROUND_CEILING).create_decimal(repr(level))), chosen=True)


def _known(result: Result, figure: str) -> list[float]:
    return [value for _, value in fleet_line(result, figure) if math.isfinite(value)]
