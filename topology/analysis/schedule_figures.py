"""Figures of a schedule: whether and how fast its rounds reach agreement, and how many messages they need."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from grapevine.topology.schedules.rounds import Schedule

EXACT = 1e-9  # a product of rounds this close to J counts as J
SEEN = 64  # rounds of an endless schedule from which figures without a formula are computed
LONG = 400  # rounds over which the rate of an endless schedule without a formula is measured
STARTS = 16


class ScheduleFigures:
    """The figures of a schedule, as `analyse` returns them; each is an attribute, computed when first read.

    For an endless schedule a figure without a formula is computed from the first 64 rounds.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    @property
    def nodes(self) -> int:
        """Number of peers."""
        return self.schedule.n

    @property
    def period(self) -> int | None:
        """Rounds after which the rounds repeat; None for never."""
        return self.schedule.period

    @property
    def directed(self) -> bool:
        """Whether links go one way."""
        return self.schedule.directed

    @property
    def max_degree(self) -> int:
        """The largest number of peers that one peer sends to in a round."""
        return self.schedule.max_degree

    @property
    def contraction(self) -> float | None:
        """The factor of the expected squared disagreement in a random round, by formula; None if no formula is known."""
        return self.schedule.contraction

    @cached_property
    def finite_time(self) -> int | None:
        """Rounds, from the first, until all peers agree exactly, from any start; None for never."""
        product = np.eye(self.nodes)
        for t in range(self.period or 0):
            product = self.schedule.matrix(t) @ product
            if np.abs(product - 1.0 / self.nodes).max() < EXACT:
                return t + 1
        return 0 if self.nodes == 1 else None

    @cached_property
    def slem(self) -> float:
        """The mean factor that multiplies disagreement in one round, in the long run.

        For rounds that repeat: the period-th root of the second largest eigenvalue modulus of their product. For random
        rounds: the square root of `contraction` (a root mean square); if that is None, measured over 400 rounds.
        """
        if self.finite_time is not None:
            return 0.0
        if self.period is not None:
            product = np.eye(self.nodes)
            for t in range(self.period):
                product = self.schedule.matrix(t) @ product
            values = np.linalg.eigvals(product)
            others = np.delete(values, np.argmin(np.abs(values - 1.0)))
            slem = float(np.abs(others).max()) ** (1.0 / self.period)
            return 1.0 if abs(slem - 1.0) < 1e-12 else slem
        if self.contraction is not None:
            return math.sqrt(max(0.0, self.contraction))
        return min(1.0, _measured_rate(self.schedule))

    @property
    def gap(self) -> float:
        """The spectral gap 1 - SLEM: 1 means agreement in one round, 0 means no agreement ever."""
        return 1.0 - self.slem

    def mixing_time(self, eps: float = 1e-3) -> float:
        """Return the rounds until disagreement falls to the share `eps`; the rounds to exact agreement if it is reached.

        Raises ValueError unless 0 < eps < 1.
        """
        if not 0.0 < eps < 1.0:
            raise ValueError(f"eps is the share of the disagreement that is left: give a number between 0 and 1, not {eps}")
        if self.finite_time is not None:
            return self.finite_time
        if self.slem == 0.0:  # one random round is enough for agreement
            return 1
        return math.inf if self.slem >= 1.0 else math.ceil(math.log(1.0 / eps) / -math.log(self.slem))

    def effective_neighbours(self, decay: float = 0.9) -> float:
        """Return the number of peers with which one peer effectively averages, for the walk x <- W_t (sqrt(decay) x + noise).

        The variance is the mean over a period (or over 64 rounds), after the walk's start no longer matters.

        Raises ValueError unless 0 <= decay < 1, and if the weights make the walk grow without end.
        """
        from scipy.sparse import csr_array

        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay is at least 0 and below 1 (the limit at 1 is n on a connected graph), not {decay}")
        settled = math.ceil(math.log(1e-10) / math.log(decay)) if decay > 0.0 else 0
        looked_at = self.period or SEEN
        covariance = np.zeros((self.nodes, self.nodes))
        variances = []
        for t in range(settled - settled % looked_at + 2 * looked_at):
            matrix = csr_array(self.schedule.matrix(t))
            covariance = matrix @ (matrix @ (decay * covariance + np.eye(self.nodes))).T
            variances.append(float(np.trace(covariance)) / self.nodes)
            if variances[-1] > 10.0 / (1.0 - decay) * self.nodes:
                raise ValueError("the walk grows without end: some rounds amplify disagreement")
        return 1.0 / (1.0 - decay) / float(np.mean(variances[-looked_at:]))

    @cached_property
    def doubly_stochastic(self) -> bool:
        """Whether, in every round, no weight is negative and all rows and columns sum to 1."""
        return all(
            matrix.min() >= -1e-12 and _sums_to_one(matrix, axis=1) and _sums_to_one(matrix, axis=0) for matrix in self._seen()
        )

    @cached_property
    def mean_preserved(self) -> bool:
        """Whether, in every round, all columns sum to 1: averaging then does not change the fleet's mean."""
        return all(_sums_to_one(matrix, axis=0) for matrix in self._seen())

    @cached_property
    def messages_per_round(self) -> float:
        """Messages that all peers together send in a round, mean over the rounds."""
        off = ~np.eye(self.nodes, dtype=bool)
        return float(np.mean([np.count_nonzero(matrix[off]) for matrix in self._seen()]))

    def as_dict(self, eps: float = 1e-3, decay: float = 0.9) -> dict[str, Any]:
        """Return every figure by name, ready for JSON; infinite and undefined figures are None."""
        figures: dict[str, Any] = {name: getattr(self, name) for name in FIGURES}
        figures["mixing_time"] = self.mixing_time(eps)
        try:
            figures["effective_neighbours"] = self.effective_neighbours(decay)
        except ValueError:
            figures["effective_neighbours"] = None
        return {name: None if value == math.inf else value for name, value in figures.items()}

    def _seen(self) -> Iterator[np.ndarray]:
        return (self.schedule.matrix(t) for t in range(self.period or SEEN))


def measured_contraction(schedule: Schedule, rounds: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Measure the share of the squared disagreement that one round leaves: return the mean and its standard error.

    Taken over the first `rounds` rounds, each from the same random start; disagreement is about the mean before the round.
    Compare it with `Schedule.contraction`.
    """
    values = np.random.default_rng([seed, schedule.n]).standard_normal(schedule.n)
    values -= values.mean()
    left = np.array([np.sum((schedule.matrix(t) @ values) ** 2) for t in range(rounds)]) / np.sum(values**2)
    return float(left.mean()), float(left.std(ddof=1) / math.sqrt(rounds))


def simulated_rounds(schedule: Schedule, rounds: int) -> np.ndarray:
    """Simulate rounds from random starts; return the disagreement after 0..rounds rounds as a share of that at the start.

    The result is float64 [rounds + 1]; disagreement is the root mean square distance of the peers from their mean.
    """
    values = np.random.default_rng([0, schedule.n]).standard_normal((schedule.n, STARTS))
    spread = np.empty(rounds + 1)
    for t in range(rounds + 1):
        spread[t] = np.linalg.norm(values - values.mean(axis=0))
        if t < rounds:
            values = schedule.matrix(t) @ values
    return spread / spread[0] if spread[0] > 0.0 else spread


def _measured_rate(schedule: Schedule) -> float:
    """Measure the factor that multiplies disagreement per round; it is scaled to 1 each time, to stay representable."""
    values = np.random.default_rng([4, schedule.n]).standard_normal((schedule.n, STARTS))
    logs = []
    for t in range(LONG):
        values = values - values.mean(axis=0)
        before = np.linalg.norm(values)
        if before < 1e-200:
            return 0.0
        values = schedule.matrix(t) @ (values / before)
        logs.append(math.log(max(float(np.linalg.norm(values - values.mean(axis=0))), 1e-300)))
    return math.exp(float(np.mean(logs[LONG // 4 :])))


def _sums_to_one(matrix: np.ndarray, axis: int) -> bool:
    return bool(np.allclose(matrix.sum(axis=axis), 1.0, rtol=0.0, atol=1e-9))


FIGURES = (
    "nodes",
    "period",
    "directed",
    "max_degree",
    "finite_time",
    "slem",
    "gap",
    "contraction",
    "doubly_stochastic",
    "mean_preserved",
    "messages_per_round",
)
