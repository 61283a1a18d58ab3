"""One direction of one edge: given a time and a size, it returns when the bytes leave and arrive.

A link serves one chunk at a time, in the order of the calls: a chunk begins when the link is idle, takes size / rate to leave,
and arrives a delay (and a jitter) later. A link owns no clock, thread or socket; the same object serves virtual time and real
time.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from grapevine.netem.links.alterations import FAR_NS, Altered, Change, cut_for_good_ns
from grapevine.netem.links.jitter import Jitter, Law
from grapevine.netem.links.losses import Doubles, Losses
from grapevine.netem.links.profile import Profile, Steady
from grapevine.netem.links.tcp import Tcp

Cap = Callable[[float, int, float], float]
"""Returns the rate that a delay and a loss leave of a rate: cap(rate in bytes/s, delay in ns, loss)."""


class Transit(NamedTuple):
    """The times of one chunk, integer nanoseconds on the caller's clock."""

    start_ns: int
    """The first bit begins."""
    finish_ns: int
    """The last bit has left."""
    due_ns: int
    """The last bit arrives."""


_transit: Callable[[tuple[int, int, int]], Transit] = partial(tuple.__new__, Transit)
"""The same as Transit(...), in half the time: virtual time makes two a message."""


class Pace(NamedTuple):
    """How fast a link could carry the next bytes if no shared segment limited it."""

    start_ns: int
    """The instant from which the rate holds."""
    rate_bytes_per_s: float
    """0 = an outage."""
    until_ns: int | None
    """The instant at which the rate ends; then call `pace` again. None = it holds until all of these bytes have left."""


class Link:
    """A link with a constant rate and delay, and a jitter.

    `rate_bytes_per_s` may be infinite; `delay_ns` is one way. `jitter_ns` is the width of the `law` of jitter, drawn once a
    message from `rng`, correlated with the previous message by `correlation` (netem.links.jitter): with the uniform law a
    message arrives between finish + delay - jitter and finish + delay + jitter, but never before it has left and never before
    an earlier message (tc-netem, which draws for every packet, would reorder). If `reorders` is set, whole messages overtake
    each other.

    Times are exact: fractions of a nanosecond are carried on while the link is busy, so that the last of n chunks sent
    back to back leaves after ceil(total bytes / rate), independent of how the bytes were cut.

    Raises ValueError for a rate that is not positive, a negative delay or jitter, or a jitter without `rng`.
    """

    __slots__ = (
        "_credit_ns",
        "_doubles",
        "_due_ns",
        "_jitter",
        "_ns_per_byte",
        "_resume_ns",
        "_shift_ns",
        "delay_ns",
        "free_ns",
        "jitter_ns",
        "reorders",
    )

    free_ns: int
    """The instant at which the link is idle again."""
    reorders: bool
    """Whether a message may arrive before an earlier one, if their jitters make it so."""

    def __init__(
        self,
        rate_bytes_per_s: float = math.inf,
        delay_ns: int = 0,
        jitter_ns: int = 0,
        rng: Generator | None = None,
        law: Law = "uniform",
        correlation: float = 0.0,
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
        self._credit_ns = 0.0  # finish_ns less its exact value, from rounding up; in [0, 1)
        self._due_ns = 0
        self._shift_ns = 0  # jitter of the current message
        self._resume_ns: int | None = None  # free_ns before the last cut, while the link is cut for good
        self._jitter = Jitter(jitter_ns, rng, law, correlation) if jitter_ns and rng is not None else None
        self._doubles: Doubles | None = None
        self.reorders = False

    def double(self, doubles: Doubles) -> None:
        """Send some packets twice from now on; the duplicates take time on the link, and the receiver drops them."""
        self._doubles = doubles

    def swell(self, size_bytes: int) -> int:
        """Return the bytes that `size_bytes` take on the link, duplicates included."""
        return size_bytes if self._doubles is None else size_bytes + self._doubles.more_bytes(size_bytes)

    @property
    def rate_bytes_per_s(self) -> float:
        """The link's rate; infinite = unlimited."""
        return 1e9 / self._ns_per_byte if self._ns_per_byte else math.inf

    def left_ns(self, start_ns: int, size_bytes: int) -> float:
        """Return when `size_bytes` would have left that begin at `start_ns` on the idle link; the link stays unchanged."""
        return start_ns + size_bytes * self._ns_per_byte

    def beside_ns(self, now_ns: int, size_bytes: int) -> int:
        """Return when a few bytes would arrive that overtake the link's queue, without jitter; the link stays unchanged."""
        return now_ns + round(size_bytes * self._ns_per_byte) + self.delay_ns

    def send(self, now_ns: int, size_bytes: int, first: bool = True, urgent: bool = False) -> Transit:
        """Send `size_bytes` at `now_ns`, or when the link is idle, and return when they leave and arrive.

        `first`: a message begins and its jitter is drawn; the message's other chunks share it. `urgent`: a message of one
        chunk that is sent between the chunks of another message, whose jitter stays unchanged.
        """
        start_ns = self.free_ns
        if now_ns > start_ns:
            start_ns = now_ns
            self._credit_ns = 0.0
        finish_ns = start_ns
        if self._doubles is not None:
            size_bytes = self.swell(size_bytes)
        if self._ns_per_byte:
            exact_ns = size_bytes * self._ns_per_byte - self._credit_ns
            whole_ns = math.ceil(exact_ns)
            self._credit_ns = whole_ns - exact_ns
            finish_ns += whole_ns
        self.free_ns = finish_ns
        due_ns = finish_ns + self.delay_ns
        if self._jitter is not None:
            due_ns = max(finish_ns, due_ns + self._late_ns(first, urgent))
            if first and self.reorders:
                self._due_ns = 0
        if due_ns < self._due_ns:
            due_ns = self._due_ns
        self._due_ns = due_ns
        return _transit((start_ns, finish_ns, due_ns))

    def pace(self, now_ns: int, size_bytes: int, first: bool = True) -> Pace:
        """Return how fast the next `size_bytes` could leave, for a sender whose link shares segments (netem.shaping.max_min).

        Call it when the link is idle, and call `arrive` when the bytes have left. `first`: they begin a message.
        """
        return Pace(now_ns, self.rate_bytes_per_s, None)

    def arrive(self, left_ns: int, first: bool = True, end: bool = True) -> int:
        """Return when a chunk arrives whose last bit has left at `left_ns`; call it in the order in which chunks leave.

        `first`: the chunk begins a message, whose jitter is drawn; `end`: all bytes of the last call of `pace` have left.
        """
        self.free_ns = left_ns
        return self._arrival(left_ns, self.delay_ns, left_ns, first, False)

    def altered(self, changes: Sequence[Change], own: Steady, cap: Cap | None) -> "Link":
        """Return the link to use from now on in place of this one: the same state, these changes instead of earlier ones.

        `own` is the profile without alterations and `cap` returns the rate that delay and loss leave; a link with a profile or
        with TCP ignores both. Chunks that have left keep their times. A link that is cut for good is busy until it is altered
        again. `changes` holds all changes since time 0, in order of time.
        """
        link = ChangingLink(Altered(own, changes, 0, cap))
        link.free_ns, link._due_ns, link._resume_ns = self.free_ns, self._due_ns, self._resume_ns
        link._exact_ns = self.free_ns - self._credit_ns
        link._doubles, link.reorders = self._doubles, self.reorders
        link.jitter_ns, link._jitter, link._shift_ns = self.jitter_ns, self._jitter, self._shift_ns
        link._hold(changes)
        return link

    @property
    def halted(self) -> bool:
        """Whether the link is cut and no later change heals it (see altered)."""
        return self._resume_ns is not None

    def _hold(self, changes: Sequence[Change]) -> None:
        """Halt the link if these changes cut it for good; else continue where it was halted."""
        if cut_for_good_ns(changes) is not None:
            if self._resume_ns is None:
                self._resume_ns, self.free_ns = self.free_ns, FAR_NS
        elif self._resume_ns is not None:
            self.free_ns, self._resume_ns = self._resume_ns, None

    def _late_ns(self, first: bool, urgent: bool) -> int:
        if not (first or urgent):
            return self._shift_ns
        assert self._jitter is not None
        shift_ns = self._jitter.draw()
        if not urgent:
            self._shift_ns = shift_ns
        return shift_ns

    def _arrival(self, done_ns: float, delay_ns: int, finish_ns: int, first: bool, urgent: bool) -> int:
        """Return when bytes that have left at `done_ns` arrive: after delay and jitter, in order, not before `finish_ns`."""
        due_ns = math.ceil(done_ns) + delay_ns
        if self._jitter is not None:
            due_ns += self._late_ns(first, urgent)
            if first and self.reorders:
                self._due_ns = 0
        self._due_ns = max(self._due_ns, due_ns, finish_ns)
        return self._due_ns


class ChangingLink(Link):
    """A link whose rate and delay change with time: bytes leave at the rate in force, also while a backlog is served.

    `ahead_ns` is the link's place in the profile at time 0, so that links that share a profile need not change at the same
    time. A chunk arrives by the delay in force when it has left; if the delay has just become shorter, the chunk does not
    overtake earlier ones. The other arguments are those of Link.
    """

    __slots__ = ("_ahead_ns", "_exact_ns", "profile")

    def __init__(
        self,
        profile: Profile | Altered,
        jitter_ns: int = 0,
        rng: Generator | None = None,
        law: Law = "uniform",
        correlation: float = 0.0,
        ahead_ns: int = 0,
    ) -> None:
        super().__init__(profile.mean_rate_bytes_per_s, profile.delay_at(ahead_ns), jitter_ns, rng, law, correlation)
        self.profile = profile
        self._ahead_ns = ahead_ns
        self._exact_ns = 0.0  # free_ns without rounding

    def left_ns(self, start_ns: int, size_bytes: int) -> float:
        return self.profile.finish(start_ns + self._ahead_ns, size_bytes) - self._ahead_ns

    def beside_ns(self, now_ns: int, size_bytes: int) -> int:
        return _beside_ns(self.profile, now_ns, self._ahead_ns, size_bytes)

    def altered(self, changes: Sequence[Change], own: Steady, cap: Cap | None) -> Link:
        if not isinstance(self.profile, Altered):
            self.profile = Altered(self.profile, (), self._ahead_ns)
        self.profile.become(changes)
        self._hold(changes)
        return self

    def send(self, now_ns: int, size_bytes: int, first: bool = True, urgent: bool = False) -> Transit:
        start_ns = max(now_ns, self.free_ns)
        size_bytes = self.swell(size_bytes)
        begin_ns = self._exact_ns if now_ns <= self.free_ns else now_ns
        self._exact_ns = self.profile.finish(begin_ns + self._ahead_ns, size_bytes) - self._ahead_ns
        self.free_ns = finish_ns = max(start_ns, math.ceil(self._exact_ns))
        self.delay_ns = self.profile.delay_at(finish_ns + self._ahead_ns)
        return Transit(start_ns, finish_ns, self._arrival(finish_ns, self.delay_ns, finish_ns, first, urgent))

    def pace(self, now_ns: int, size_bytes: int, first: bool = True) -> Pace:
        step, until_ns = self.profile.holds(now_ns + self._ahead_ns)
        return Pace(now_ns, step.rate_bytes_per_s, None if until_ns == math.inf else int(until_ns) - self._ahead_ns)

    def arrive(self, left_ns: int, first: bool = True, end: bool = True) -> int:
        self._exact_ns = left_ns
        self.delay_ns = self.profile.delay_at(left_ns + self._ahead_ns)
        return super().arrive(left_ns, first, end)


class TcpLink(Link):
    """A link that a TCP connection fills as far as it can (netem.links.tcp): windows, losses and idle times make it slower.

    The chunks of a message may be sent one by one. `profile` is the profile of rate, one-way delay and loss, and `tcp` the
    connection's state. A chunk begins when the window allows it; `free_ns` is when the next one may begin. A chunk is due when
    all of its segments have arrived, lost and resent ones included. The other arguments are those of ChangingLink.
    """

    __slots__ = ("_again_ns", "_ahead_ns", "_opens_ns", "profile", "tcp")

    def __init__(
        self,
        profile: Steady | Profile | Altered,
        tcp: Tcp,
        jitter_ns: int = 0,
        rng: Generator | None = None,
        law: Law = "uniform",
        correlation: float = 0.0,
        ahead_ns: int = 0,
    ) -> None:
        super().__init__(profile.rate_at(ahead_ns), profile.delay_at(ahead_ns), jitter_ns, rng, law, correlation)
        self.profile = profile
        self.tcp = tcp
        self._ahead_ns = ahead_ns
        self._again_ns = 0  # delay of the last chunk's end by resent segments
        self._opens_ns = 0  # when the window is open again

    def left_ns(self, start_ns: int, size_bytes: int) -> float:
        return self.profile.finish(start_ns + self._ahead_ns, size_bytes) - self._ahead_ns

    def beside_ns(self, now_ns: int, size_bytes: int) -> int:
        return _beside_ns(self.profile, now_ns, self._ahead_ns, size_bytes)

    def altered(self, changes: Sequence[Change], own: Steady, cap: Cap | None) -> Link:
        if not isinstance(self.profile, Altered):
            self.profile = Altered(self.profile, (), self._ahead_ns)
        if self.tcp.losses is None and any(change.condition.loss for change in changes):
            self.tcp.losses = Losses(0.0, np.random.default_rng([change.at_ns for change in changes]))
        self.profile.become(changes)
        self._hold(changes)
        return self

    def send(self, now_ns: int, size_bytes: int, first: bool = True, urgent: bool = False) -> Transit:
        ahead_ns = self._ahead_ns
        asked_ns = max(now_ns, self.free_ns)
        size_bytes = self.swell(size_bytes)
        carried = self.tcp.send(self.profile, asked_ns + ahead_ns, size_bytes, first or urgent)
        start_ns = max(asked_ns, math.ceil(carried.start_ns) - ahead_ns)
        finish_ns = max(start_ns, math.ceil(carried.finish_ns) - ahead_ns)
        self.free_ns = max(finish_ns, math.ceil(carried.free_ns) - ahead_ns)
        self.delay_ns = self.profile.delay_at(finish_ns + ahead_ns)
        due_ns = self._arrival(carried.done_ns - ahead_ns, self.delay_ns, finish_ns, first, urgent)
        return Transit(start_ns, finish_ns, due_ns)

    def pace(self, now_ns: int, size_bytes: int, first: bool = True) -> Pace:
        """Return the mean pace over all of these bytes, with the windows of a link that no shared segment limits."""
        ahead_ns = self._ahead_ns
        asked_ns = max(now_ns, self.free_ns)
        carried = self.tcp.send(self.profile, asked_ns + ahead_ns, size_bytes, first)
        self._again_ns = math.ceil(carried.done_ns - carried.finish_ns)
        self._opens_ns = math.ceil(carried.free_ns) - ahead_ns
        took_ns = carried.finish_ns - carried.start_ns
        start_ns = max(asked_ns, math.ceil(carried.start_ns) - ahead_ns)
        return Pace(start_ns, size_bytes / took_ns * 1e9 if took_ns > 0 else math.inf, None)

    def arrive(self, left_ns: int, first: bool = True, end: bool = True) -> int:
        self.free_ns = left_ns
        self.delay_ns = self.profile.delay_at(left_ns + self._ahead_ns)
        if not end:
            return self._arrival(left_ns, self.delay_ns, left_ns, first, False)
        self.tcp.held(left_ns + self._ahead_ns)
        self.free_ns = max(left_ns, self._opens_ns)
        return self._arrival(left_ns + self._again_ns, self.delay_ns, left_ns, first, False)


def _beside_ns(profile: Steady | Profile | Altered, now_ns: int, ahead_ns: int, size_bytes: int) -> int:
    left_ns = math.ceil(profile.finish(now_ns + ahead_ns, size_bytes)) - ahead_ns
    return left_ns + profile.delay_at(left_ns + ahead_ns)
