"""One direction of one edge: told the time and a size, it answers when the bytes leave and arrive.

A link serves one chunk at a time, in the order asked: it begins when the line is idle, takes size / rate to leave, and
arrives a delay (and a jitter) later. It owns no clock, thread or socket; the same object serves virtual time and real
time.
"""

import math
from typing import NamedTuple

from numpy.random import Generator


class Transit(NamedTuple):
    """When one chunk travels; integer nanoseconds on the caller's clock."""

    start_ns: int
    """Its first bit begins."""
    finish_ns: int
    """Its last bit has left."""
    due_ns: int
    """Its last bit arrives."""


class Link:
    """A line with a rate, a delay and a jitter.

    `rate_bytes_per_s` may be infinite; `delay_ns` is one way. `jitter_ns` is the half width of a uniform law (the
    default law of tc-netem) drawn once a message, from `rng`: a message arrives between finish + delay - jitter and
    finish + delay + jitter, but never before it has left and never before what was sent earlier (tc-netem, which draws
    for every packet, would reorder).

    Times are exact: fractions of a nanosecond are carried on while the line is busy, so that the n-th of n chunks sent
    back to back leaves after ceil(total bytes / rate) however the bytes were cut.

    Raises ValueError for a rate that is not positive, a negative delay or jitter, or a jitter without `rng`.
    """

    __slots__ = ("_credit_ns", "_due_ns", "_ns_per_byte", "_rng", "_shift_ns", "delay_ns", "free_ns", "jitter_ns")

    free_ns: int
    """When the line is idle again."""

    def __init__(
        self,
        rate_bytes_per_s: float = math.inf,
        delay_ns: int = 0,
        jitter_ns: int = 0,
        rng: Generator | None = None,
    ) -> None:
        if not rate_bytes_per_s > 0:
            raise ValueError(f"a link's rate is {rate_bytes_per_s} bytes/s: expected more than 0 or math.inf")
        if delay_ns < 0 or jitter_ns < 0:
            raise ValueError(f"a link's delay is {delay_ns} ns and its jitter {jitter_ns} ns: expected 0 or more")
        if jitter_ns and rng is None:
            raise ValueError(f"a link with a jitter of {jitter_ns} ns draws numbers: give it an rng")
        self.free_ns = 0
        self.delay_ns = delay_ns
        self.jitter_ns = jitter_ns
        self._ns_per_byte = 1e9 / rate_bytes_per_s
        self._credit_ns = 0.0  # what rounding finish_ns up has taken too much; in [0, 1)
        self._due_ns = 0
        self._shift_ns = 0  # the running message's jitter
        self._rng = rng

    @property
    def rate_bytes_per_s(self) -> float:
        """What the line carries a second; infinity where nothing limits it."""
        return 1e9 / self._ns_per_byte if self._ns_per_byte else math.inf

    def time_ns(self, size_bytes: int) -> float:
        """How long the line is busy with that many bytes; 0 where the rate is infinite."""
        return size_bytes * self._ns_per_byte

    def send(self, now_ns: int, size_bytes: int, first: bool = True, urgent: bool = False, fed_ns: int = 0) -> Transit:
        """Put `size_bytes` on the line, at `now_ns` or when it is idle, and say when they leave and arrive.

        `first`: a message begins, its jitter is drawn; the message's other chunks share it. `urgent`: a message of one
        chunk that slips between those of another, whose jitter stays as it was. `fed_ns`: when whatever feeds the line
        (a shared uplink) has delivered the last bit; the line is held until then.
        """
        start_ns = self.free_ns
        if now_ns > start_ns:
            start_ns = now_ns
            self._credit_ns = 0.0
        finish_ns = start_ns
        if self._ns_per_byte:
            exact_ns = size_bytes * self._ns_per_byte - self._credit_ns
            whole_ns = math.ceil(exact_ns)
            self._credit_ns = whole_ns - exact_ns
            finish_ns += whole_ns
        if fed_ns > finish_ns:
            finish_ns = fed_ns
            self._credit_ns = 0.0
        self.free_ns = finish_ns
        due_ns = finish_ns + self.delay_ns
        if self.jitter_ns:
            due_ns = max(finish_ns, due_ns + self._jitter(first, urgent))
        if due_ns < self._due_ns:
            due_ns = self._due_ns
        self._due_ns = due_ns
        return Transit(start_ns, finish_ns, due_ns)

    def _jitter(self, first: bool, urgent: bool) -> int:
        if not (first or urgent):
            return self._shift_ns
        assert self._rng is not None
        shift_ns = int(self._rng.random() * (2 * self.jitter_ns + 1)) - self.jitter_ns
        if not urgent:
            self._shift_ns = shift_ns
        return shift_ns
