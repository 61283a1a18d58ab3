"""What a line can carry, now and later: always the same, or changing in steps."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

SECOND_NS = 1_000_000_000
_AHEAD = 256  # steps drawn at once


class Step(NamedTuple):
    """What a line is like for a while."""

    lasts_ns: int
    """More than 0."""
    rate_bytes_per_s: float
    """0 = an outage."""
    delay_ns: int = 0
    """One way."""
    loss: float = 0.0
    """Share of packets lost."""


class Steady:
    """A line that never changes; its rate may be infinite."""

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
        """What the line is like, and until when: for ever."""
        return Step(1, self.rate_bytes_per_s, self.delay_ns, self.loss), math.inf

    def finish(self, start_ns: float, size_bytes: float) -> float:
        return start_ns + size_bytes / self.rate_bytes_per_s * 1e9


class Profile:
    """A line that changes in steps, from time 0 on.

    `steps` may be endless: they are drawn as time goes on. Where they end, the line begins anew (`looped`) or stays as in
    the last step. Bytes leave at the rate in force: `finish` is the exact integral over the steps, also while a backlog is
    served. A profile holds no state of its users, so links may share one.

    Raises ValueError for no steps, a step that is no step, and a line that would never again carry anything.
    """

    def __init__(self, steps: Iterable[Step], looped: bool = False) -> None:
        self._source: Iterator[Step] | None = iter(steps)
        self._looped = looped
        self._steps: list[Step] = []
        self._starts_ns: list[int] = [0]  # of each step, and the end of the last
        self._totals: list[float] = [0.0]  # bytes carried until then
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
        """The mean rate of the steps drawn so far (of all, unless they are endless)."""
        return self._totals[-1] / self._starts_ns[-1] * SECOND_NS

    def rate_at(self, now_ns: float) -> float:
        """Bytes a second; in an outage those of the whole profile, for whoever plans with it."""
        rate = self._at(now_ns).rate_bytes_per_s
        return rate if rate > 0 else self.mean_rate_bytes_per_s

    def delay_at(self, now_ns: float) -> int:
        """One way, ns."""
        return self._at(now_ns).delay_ns

    def loss_at(self, now_ns: float) -> float:
        """Share of packets lost."""
        return self._at(now_ns).loss

    def holds(self, now_ns: float) -> tuple[Step, float]:
        """The step in force, and until when; infinity = for ever."""
        place, base_ns = self._locate(now_ns)
        stays = place == len(self._steps) - 1 and not self._looped and self._source is None
        return self._steps[place], math.inf if stays else base_ns + self._starts_ns[place + 1]

    def finish(self, start_ns: float, size_bytes: float) -> float:
        """When the last of so many bytes has left, if the first begins at `start_ns`."""
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
        """When a total of bytes is reached, counted from the start of the pass that begins at `base_ns`."""
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
        """Which step is in force, and when the pass through the steps began."""
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
                self._refuse_the_end()
                return
            if not (step.lasts_ns > 0 and 0 <= step.rate_bytes_per_s < math.inf and step.delay_ns >= 0 and 0 <= step.loss < 1):
                raise ValueError(f"{step} is no step of a profile: expected it to last, a rate of 0 or more and a loss below 1")
            self._steps.append(step)
            self._starts_ns.append(self._starts_ns[-1] + step.lasts_ns)
            self._totals.append(self._totals[-1] + step.lasts_ns * step.rate_bytes_per_s / 1e9)

    def _refuse_the_end(self) -> None:
        if self._steps and (self._totals[-1] == 0 if self._looped else self._steps[-1].rate_bytes_per_s == 0):
            raise ValueError("the profile ends at a rate of 0, so the link would be dead for ever: loop it, or end with a rate")
