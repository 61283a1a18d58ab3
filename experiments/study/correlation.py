"""Rank correlation with an interval: how well one figure predicts the order of another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

QUANTILE = 1.959963984540054
"""The 97.5 % quantile of the normal distribution, for intervals of 95 %."""
FEWEST = 5
"""The smallest number of pairs for which an interval is given."""


class Correlation(NamedTuple):
    """Spearman's rank correlation and its 95 % interval."""

    rho: float
    low: float
    high: float
    n: int
    """Pairs."""


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Spearman's rank correlation of pairs; equal values share their mean rank; nan if one side is constant."""
    if len(set(one)) < 2 or len(set(other)) < 2:
        return math.nan
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)


def correlation(one: Sequence[float], other: Sequence[float]) -> Correlation:
    """Return the rank correlation of pairs with its interval; pairs with a nan are left out.

    The interval is that of Bonett and Wright (Psychometrika 65, 2000): atanh(rho) +- 1.96 sqrt((1 + rho^2 / 2) / (n - 3)).
    A perfect order has no finite atanh: its interval is that of the most similar order, with one pair of neighbours
    exchanged. The interval is nan for fewer than 5 pairs.
    """
    pairs = [(x, y) for x, y in zip(one, other, strict=True) if not math.isnan(x) and not math.isnan(y)]
    rho, n = spearman([x for x, _ in pairs], [y for _, y in pairs]), len(pairs)
    if math.isnan(rho) or n < FEWEST:
        return Correlation(rho, math.nan, math.nan, n)
    nearest = 1.0 - 12.0 / (n**3 - n)
    z = math.atanh(min(max(rho, -nearest), nearest))
    half = QUANTILE * math.sqrt((1.0 + rho**2 / 2.0) / (n - 3))
    return Correlation(rho, min(rho, math.tanh(z - half)), max(rho, math.tanh(z + half)), n)


def jackknife(labels: Sequence[str], statistic: Callable[[set[str]], float]) -> tuple[float, float]:
    """Return a statistic of all labels, and half of its 95 % interval by leaving out one label after the other.

    `statistic` takes the set of labels that are kept. The half is t(k - 1) times Tukey's jackknife error for k labels (Efron
    and Tibshirani 1993, chapter 11); nan for fewer than 5 labels.
    """
    whole = statistic(set(labels))
    k = len(labels)
    if k < FEWEST:
        return whole, math.nan
    from scipy.special import stdtrit

    without = np.array([statistic(set(labels) - {label}) for label in labels])
    error = math.sqrt((k - 1) / k * float(((without - without.mean()) ** 2).sum()))
    return whole, float(stdtrit(k - 1, 0.975)) * error
