"""Laws of jitter: how late or early each message of a link is, optionally correlated with the previous message."""

import math
from typing import Literal

from numpy.random import Generator

Law = Literal["uniform", "normal", "pareto"]

_SHAPE = 3.0  # of the Pareto law: heavy-tailed, with a standard deviation
_MEAN = _SHAPE / (_SHAPE - 1)
_DEVIATION = math.sqrt(_SHAPE / (_SHAPE - 2)) / (_SHAPE - 1)


class Jitter:
    """Draws the lateness of each message, ns; negative = early.

    `width_ns` is the half width of the uniform law (as in tc-netem) and the standard deviation of the normal and the
    Pareto law (shape 3, shifted to mean 0: never earlier than 0.577 widths, late without bound). `correlation` in [0, 1)
    is that of a message with the previous one: an AR(1) process of normal numbers, z = c z' + sqrt(1 - c^2) e, which keeps
    its deviation (tc-netem's c z' + (1 - c) e shrinks it), put through the law's distribution function. So the law is
    exact at any correlation, while the correlation of the uniform and the Pareto numbers comes out a little less than `c`
    (6 / pi asin(c / 2) for the uniform: 0.48 for 0.5).

    Raises ValueError for numbers out of these ranges.
    """

    __slots__ = ("_law", "_rng", "_z", "correlation", "width_ns")

    def __init__(self, width_ns: int, rng: Generator, law: Law = "uniform", correlation: float = 0.0) -> None:
        if width_ns < 0 or not 0 <= correlation < 1 or law not in ("uniform", "normal", "pareto"):
            raise ValueError(f"jitter of {width_ns} ns, {law}, correlation {correlation}: expected 0 ns or more, 0 to below 1")
        self.width_ns = width_ns
        self.correlation = correlation
        self._law = law
        self._rng = rng
        self._z = float(rng.standard_normal()) if correlation else 0.0

    def draw(self) -> int:
        """Return the lateness of the next message, ns."""
        if self._law == "uniform" and not self.correlation:
            return int(self._rng.random() * (2 * self.width_ns + 1)) - self.width_ns
        z = float(self._rng.standard_normal())
        if self.correlation:
            z = self._z = self.correlation * self._z + math.sqrt(1 - self.correlation**2) * z
        if self._law == "normal":
            return round(z * self.width_ns)
        below = 0.5 * math.erfc(-z / math.sqrt(2))
        if self._law == "uniform":
            return round((2 * below - 1) * self.width_ns)
        above = max(0.5 * math.erfc(z / math.sqrt(2)), 1e-300)
        late_ns: int = round((above ** (-1 / _SHAPE) - _MEAN) / _DEVIATION * self.width_ns)
        return late_ns
