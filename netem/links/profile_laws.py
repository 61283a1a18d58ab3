"""Profile laws: how links change over time. Each profile draws its steps from its own random generator.

The iterators are classes, not generator functions, because links are pickled for other processes.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator

import msgspec
from numpy.random import Generator

from grapevine.netem.links.profile import SECOND_NS, Profile, Step

_MOST_Z = 8.0


class ProfileLaw(msgspec.Struct, frozen=True, kw_only=True):
    """A law that profiles are drawn from."""

    @abstractmethod
    def steps(self, rng: Generator) -> Iterator[Step]:
        """Return the steps from time 0 on, endless or not."""
        raise NotImplementedError

    @property
    def loops(self) -> bool:
        """Whether a profile starts again where its steps end."""
        return False

    @property
    @abstractmethod
    def mean_rate_bytes_per_s(self) -> float:
        """The mean rate, bytes/s (of a walk: the median)."""
        raise NotImplementedError

    def profile(self, rng: Generator) -> Profile:
        """Return a profile drawn from this law with `rng`."""
        return Profile(self.steps(rng), self.loops)


class Still(ProfileLaw, frozen=True, kw_only=True):
    """A profile that never changes."""

    step: Step

    @property
    def mean_rate_bytes_per_s(self) -> float:
        return self.step.rate_bytes_per_s

    def steps(self, rng: Generator) -> Iterator[Step]:
        return _Repeat(self.step)


class Listed(ProfileLaw, frozen=True, kw_only=True):
    """A given list of steps: a schedule or a trace."""

    given: tuple[Step, ...]
    looped: bool = False

    @property
    def mean_rate_bytes_per_s(self) -> float:
        return Profile(self.given, self.looped).mean_rate_bytes_per_s

    def steps(self, rng: Generator) -> Iterator[Step]:
        return iter(self.given)

    @property
    def loops(self) -> bool:
        return self.looped


class Rated(ProfileLaw, frozen=True, kw_only=True):
    """A law with a mean or median rate."""

    rate_bytes_per_s: float
    delay_ns: int = 0
    loss: float = 0.0

    @property
    def mean_rate_bytes_per_s(self) -> float:
        return self.rate_bytes_per_s


class Diurnal(Rated, frozen=True, kw_only=True):
    """A rate that follows the hours of the day: mean (1 + swing sin(2 pi (t / period + phase))), in 96 steps a period."""

    swing: float
    """0 to below 1."""
    period_ns: int
    phase: float = 0.0
    """In periods."""

    def steps(self, rng: Generator) -> Iterator[Step]:
        bounds = [self.period_ns * place // _A_DAY for place in range(_A_DAY + 1)]
        middles = [2 * math.pi * ((place + 0.5) / _A_DAY + self.phase) for place in range(_A_DAY)]
        rates = [self.rate_bytes_per_s * (1 + self.swing * math.sin(angle)) for angle in middles]
        return iter([Step(bounds[i + 1] - bounds[i], rates[i], self.delay_ns, self.loss) for i in range(_A_DAY)])

    @property
    def loops(self) -> bool:
        return True


class Walk(Rated, frozen=True, kw_only=True):
    """A rate whose logarithm takes a random step every `every_ns`, reflected at median / range and median x range."""

    deviation: float
    """Standard deviation of the logarithm's steps: 0.1 is about 10 % a step."""
    range: float
    """More than 1."""
    every_ns: int

    def steps(self, rng: Generator) -> Iterator[Step]:
        return _Walking(self, rng)


class Cellular(Rated, frozen=True, kw_only=True):
    """A rate that is log-normal in each step and correlated from one step to the next.

    rate = mean exp(s z - s^2 / 2) with s^2 = ln(1 + variation^2) and z an AR(1) process of unit deviation with
    rho = ln(1 + correlation (e^(s^2) - 1)) / s^2. So the rates have this mean, coefficient of variation and lag-1
    autocorrelation.
    """

    variation: float
    correlation: float
    """In [0, 1)."""
    every_ns: int = SECOND_NS

    def steps(self, rng: Generator) -> Iterator[Step]:
        return _Fading(self, rng)


class Outages(ProfileLaw, frozen=True, kw_only=True):
    """Another law with outages: the times up and down are exponentially distributed."""

    profile_law: ProfileLaw
    every_ns: int
    """Mean time from the end of an outage to the next."""
    length_ns: int
    """Mean length of an outage."""

    @property
    def mean_rate_bytes_per_s(self) -> float:
        return self.profile_law.mean_rate_bytes_per_s * self.every_ns / (self.every_ns + self.length_ns)

    def steps(self, rng: Generator) -> Iterator[Step]:
        return _Interrupted(self, rng)


class Slowed(ProfileLaw, frozen=True, kw_only=True):
    """Another law whose rates are replaced by `cap(rate, delay, loss)`."""

    profile_law: ProfileLaw
    cap: Callable[[float, int, float], float]

    @property
    def mean_rate_bytes_per_s(self) -> float:
        return self.profile_law.mean_rate_bytes_per_s

    @property
    def loops(self) -> bool:
        return self.profile_law.loops

    def steps(self, rng: Generator) -> Iterator[Step]:
        return _Slowed(self.profile_law.steps(rng), self.cap)


_A_DAY = 96


class _Repeat:
    def __init__(self, step: Step) -> None:
        self._step = step

    def __iter__(self) -> "_Repeat":
        return self

    def __next__(self) -> Step:
        return self._step


class _Slowed:
    def __init__(self, steps: Iterator[Step], cap: Callable[[float, int, float], float]) -> None:
        self._steps = steps
        self._cap = cap

    def __iter__(self) -> "_Slowed":
        return self

    def __next__(self) -> Step:
        step = next(self._steps)
        return step._replace(rate_bytes_per_s=self._cap(step.rate_bytes_per_s, step.delay_ns, step.loss))


class _Walking:
    def __init__(self, walk: Walk, rng: Generator) -> None:
        self._walk = walk
        self._rng = rng
        self._log = 0.0

    def __iter__(self) -> "_Walking":
        return self

    def __next__(self) -> Step:
        walk, edge = self._walk, math.log(self._walk.range)
        step = Step(walk.every_ns, walk.rate_bytes_per_s * math.exp(self._log), walk.delay_ns, walk.loss)
        folded = (self._log + walk.deviation * float(self._rng.standard_normal()) + edge) % (4 * edge)
        self._log = (folded if folded <= 2 * edge else 4 * edge - folded) - edge
        return step


class _Fading:
    def __init__(self, cell: Cellular, rng: Generator) -> None:
        self._cell = cell
        self._rng = rng
        self._variance = math.log(1 + cell.variation**2)
        s2 = self._variance
        self._rho = math.log(1 + cell.correlation * math.expm1(s2)) / s2 if s2 else 0.0
        self._z = float(rng.standard_normal())

    def __iter__(self) -> "_Fading":
        return self

    def __next__(self) -> Step:
        cell = self._cell
        z = max(-_MOST_Z, min(_MOST_Z, self._z))
        rate = cell.rate_bytes_per_s * math.exp(math.sqrt(self._variance) * z - self._variance / 2)
        self._z = self._rho * self._z + math.sqrt(1 - self._rho**2) * float(self._rng.standard_normal())
        return Step(cell.every_ns, rate, cell.delay_ns, cell.loss)


class _Interrupted:
    """Splits the steps of a profile at the beginnings and ends of outages."""

    def __init__(self, outages: Outages, rng: Generator) -> None:
        self._outages = outages
        self._rng = rng
        self._steps = outages.profile_law.steps(rng)
        self._up = True
        self._phase_ns = self._draw()
        self._step: Step | None = None
        self._last: Step | None = None

    def __iter__(self) -> "_Interrupted":
        return self

    def __next__(self) -> Step:
        step = self._step or self._following()
        lasts_ns = min(step.lasts_ns, self._phase_ns)
        part = step._replace(lasts_ns=lasts_ns, rate_bytes_per_s=step.rate_bytes_per_s if self._up else 0.0)
        self._step = step._replace(lasts_ns=step.lasts_ns - lasts_ns) if step.lasts_ns > lasts_ns else None
        self._phase_ns -= lasts_ns
        if self._phase_ns == 0:
            self._up = not self._up
            self._phase_ns = self._draw()
        return part

    def _draw(self) -> int:
        mean_ns = self._outages.every_ns if self._up else self._outages.length_ns
        return max(1, round(float(self._rng.exponential(mean_ns))))

    def _following(self) -> Step:
        """Return the other law's next step; after its end the first one again if it loops, else the last one."""
        step = next(self._steps, None)
        if step is None and self._outages.profile_law.loops:
            self._steps = self._outages.profile_law.steps(self._rng)
            step = next(self._steps)
        self._last = step or self._last
        assert self._last is not None
        return self._last
