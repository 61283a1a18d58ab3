"""Profiles: rate, delay and loss of a link over time, constant or changing in steps."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

SECOND_NS = 1_000_000_000
_AHEAD = 256  # steps drawn at a time


class Step(NamedTuple):
    """Rate, delay and loss of a link for some time."""

    lasts_ns: int
    """More than 0."""
    rate_bytes_per_s: float
    """0 = an outage."""
    delay_ns: int = 0
    """One way."""
    loss: float = 0.0
    """Share of packets lost."""


class Steady:
    """A profile that never changes; its rate may be infinite."""

    __slots__ = ("delay_ns", "loss", "rate_bytes_per_s")

    def __init__(self, rate_bytes_per_s: float, delay_ns: int = 0, loss: float = 0.0) -> None:
        self.rate_bytes_per_s = rate_bytes_per_s
        self.delay_ns = delay_ns
        self.loss = loss

    def rate_at(self, now_ns: float) -> float:
        return self.rate_bytes_per_s

    def delay_at(self, now_ns: float) -> int:
        return self.delay_ns

    def loss_at(self, now_ns: float) -> float:
        return self.loss

    def holds(self, now_ns: float) -> tuple[Step, float]:
        """Return the only step and infinity: it never ends."""
        return Step(1, self.rate_bytes_per_s, self.delay_ns, self.loss), math.inf

    def finish(self, start_ns: float, size_bytes: float) -> float:
        return start_ns + size_bytes / self.rate_bytes_per_s * 1e9


class Profile:
    """A profile that changes in steps, from time 0 on.

    `steps` may be endless: they are drawn as time goes on. Where they end, the profile starts again (`looped`) or stays in
    its last step. Bytes leave at the rate in force: `finish` is the exact integral over the steps, also while a backlog is
    served. A profile holds no state of its users, so links may share one.

    Raises ValueError for no steps, a step out of range, and a profile that ends at a rate of 0.
    """

    def __init__(self, steps: Iterable[Step], looped: bool = False) -> None:
        self._source: Iterator[Step] | None = iter(steps)
        self._looped = looped
        self._steps: list[Step] = []
        self._starts_ns: list[int] = [0]  # start of each step, and the end of the last
        self._totals: list[float] = [0.0]  # bytes carried until each of these instants
        self._draw()
        if not self._steps:
            raise ValueError("a profile has no steps: expected one or more")

    @property
    def first(self) -> Step:
        """The first step."""
        return self._steps[0]

    @property
    def known(self) -> tuple[Step, ...]:
        """The steps drawn so far."""
        return tuple(self._steps)

    @property
    def mean_rate_bytes_per_s(self) -> float:
        """The mean rate of the steps drawn so far (of all steps, if their number is finite)."""
        return self._totals[-1] / self._starts_ns[-1] * SECOND_NS

    def rate_at(self, now_ns: float) -> float:
        """Return the rate, bytes/s; during an outage the mean rate of the profile, for estimates."""
        rate = self._at(now_ns).rate_bytes_per_s
        return rate if rate > 0 else self.mean_rate_bytes_per_s

    def delay_at(self, now_ns: float) -> int:
        """Return the one-way delay, ns."""
        return self._at(now_ns).delay_ns

    def loss_at(self, now_ns: float) -> float:
        """Return the share of packets lost."""
        return self._at(now_ns).loss

    def holds(self, now_ns: float) -> tuple[Step, float]:
        """Return the step in force and the instant at which it ends, ns; infinity = it never ends."""
        place, base_ns = self._locate(now_ns)
        stays = place == len(self._steps) - 1 and not self._looped and self._source is None
        return self._steps[place], math.inf if stays else base_ns + self._starts_ns[place + 1]

    def finish(self, start_ns: float, size_bytes: float) -> float:
        """Return the instant at which the last of `size_bytes` has left, if the first begins at `start_ns`."""
        place, base_ns = self._locate(start_ns)
        inside_ns = start_ns - base_ns
        step = self._steps[place]
        rate = step.rate_bytes_per_s
        need_ns = size_bytes / rate * 1e9 if rate else math.inf
        stays = place == len(self._steps) - 1 and not self._looped and self._source is None
        if stays or inside_ns + need_ns <= self._starts_ns[place + 1] or not size_bytes:
            return start_ns + (need_ns if size_bytes else 0.0)
        target = self._totals[place] + (inside_ns - self._starts_ns[place]) * rate / 1e9 + size_bytes
        return self._reach(target, base_ns)

    def _reach(self, target: float, base_ns: int) -> float:
        """Return the instant at which `target` bytes have left, counted from the start of the pass at `base_ns`."""
        while self._source is not None and self._totals[-1] < target:
            self._draw()
        if self._totals[-1] < target and self._looped:
            passes, target = divmod(target, self._totals[-1])
            base_ns += int(passes) * self._starts_ns[-1]
        place = max(0, min(bisect_left(self._totals, target), len(self._steps)) - 1)
        rest = target - self._totals[place]
        return base_ns + self._starts_ns[place] + (rest / self._steps[place].rate_bytes_per_s * 1e9 if rest > 0 else 0.0)

    def _at(self, now_ns: float) -> Step:
        return self._steps[self._locate(now_ns)[0]]

    def _locate(self, now_ns: float) -> tuple[int, int]:
        """Return the place of the step in force and the instant at which this pass through the steps began."""
        while self._source is not None and now_ns >= self._starts_ns[-1]:
            self._draw()
        length_ns, base_ns = self._starts_ns[-1], 0
        if now_ns >= length_ns and self._looped:
            base_ns = int(now_ns // length_ns) * length_ns
        return min(bisect_right(self._starts_ns, now_ns - base_ns), len(self._steps)) - 1, base_ns

    def _draw(self) -> None:
        assert self._source is not None
        for _ in range(_AHEAD):
            step = next(self._source, None)
            if step is None:
                self._source = None
                self._refuse_dead_end()
                return
            if not (step.lasts_ns > 0 and 0 <= step.rate_bytes_per_s < math.inf and step.delay_ns >= 0 and 0 <= step.loss < 1):
                raise ValueError(f"{step}: expected a step above 0 ns, a rate and a delay of 0 or more and a loss below 1")
            self._steps.append(step)
            self._starts_ns.append(self._starts_ns[-1] + step.lasts_ns)
            self._totals.append(self._totals[-1] + step.lasts_ns * step.rate_bytes_per_s / 1e9)

    def _refuse_dead_end(self) -> None:
        if self._steps and (self._totals[-1] == 0 if self._looped else self._steps[-1].rate_bytes_per_s == 0):
            raise ValueError("the profile ends at a rate of 0, so the link would stay at 0: loop it, or end above 0")
