"""Alterations of links and devices during a run: slower, longer delay, cut, healed; at known instants.

An altered link keeps its own profile and its own random numbers; the alterations apply on top, in steps of time. Where the
instants are known beforehand every transfer is exact: bytes leave at the rate in force, also if it changes during the transfer.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

from grapevine.netem.devices.device import Device
from grapevine.netem.links.profile import Profile, Steady, Step

FAR_NS = 2**61
"""The time of an event that never happens, ns."""


class Condition(NamedTuple):
    """The alteration of a link that is in force."""

    rate_factor: float = 1.0
    rate_bytes_per_s: float | None = None
    """Replaces the link's own rate; `rate_factor` does not multiply it. None = the link's own rate."""
    delay_factor: float = 1.0
    delay_more_ns: int = 0
    loss: float | None = None
    """Replaces the link's own loss; None = the link's own."""
    up: bool = True
    """Whether the link carries bytes. While it does not, bytes wait and none is lost."""


PLAIN = Condition()


class Change(NamedTuple):
    """A condition and the instant from which it holds, until the next change."""

    at_ns: int
    condition: Condition


def cut_for_good_ns(changes: Sequence[Change]) -> int | None:
    """Return the instant from which a link with these changes never carries bytes again; None if it is not cut at the end."""
    since_ns = None
    for change in reversed(changes):
        if change.condition.up:
            break
        since_ns = change.at_ns
    return since_ns


def without_open_end(changes: Sequence[Change]) -> list[Change]:
    """Return the same changes without the last cut, if the link is never healed after it."""
    since_ns = cut_for_good_ns(changes)
    if since_ns is None:
        return list(changes)
    return [
        change if change.at_ns < since_ns else Change(change.at_ns, change.condition._replace(up=True)) for change in changes
    ]


class Altered:
    """A link's profile under changing conditions; `profile` is the profile without alterations.

    `changes` are in order of time, on the link's clock; `ahead_ns` is the place of the link's time 0 within the profile.
    `cap(rate, delay, loss)` returns the rate that delay and loss leave; None if the rates in `profile` already allow for them.
    Bytes that are offered after the last cut, which is never healed, leave at `FAR_NS`.
    """

    __slots__ = ("_ahead_ns", "_cap", "_conditions", "_starts_ns", "profile")

    def __init__(
        self,
        profile: "Steady | Profile | Altered",
        changes: Sequence[Change] = (),
        ahead_ns: int = 0,
        cap: Callable[[float, int, float], float] | None = None,
    ) -> None:
        self.profile = profile
        self._ahead_ns = ahead_ns
        self._cap = cap
        self.become(changes)

    def become(self, changes: Sequence[Change]) -> None:
        """Replace all changes by these."""
        self._starts_ns = [change.at_ns + self._ahead_ns for change in changes]
        self._conditions = [PLAIN, *(change.condition for change in changes)]

    @property
    def mean_rate_bytes_per_s(self) -> float:
        """The mean rate of `profile`, bytes/s, for estimates; of a steady one its altered rate at time 0."""
        return self.rate_at(self._ahead_ns) if isinstance(self.profile, Steady) else self.profile.mean_rate_bytes_per_s

    def rate_at(self, now_ns: float) -> float:
        """Return the rate, bytes/s; during a cut the rate without the cut."""
        own_ns, condition = self._own_ns(now_ns), self._holds(now_ns)[0]
        step = self.profile.holds(own_ns)[0]._replace(rate_bytes_per_s=self.profile.rate_at(own_ns))
        return self._rate(step, condition._replace(up=True))

    def delay_at(self, now_ns: float) -> int:
        """Return the one-way delay, ns."""
        return _delay(self.profile.delay_at(self._own_ns(now_ns)), self._holds(now_ns)[0])

    def loss_at(self, now_ns: float) -> float:
        """Return the share of packets lost."""
        loss = self._holds(now_ns)[0].loss
        return self.profile.loss_at(self._own_ns(now_ns)) if loss is None else loss

    def holds(self, now_ns: float) -> tuple[Step, float]:
        """Return the altered step in force and the instant at which it ends, ns; infinity = it never ends."""
        (step, until_ns), (condition, changes_ns) = self.profile.holds(now_ns), self._holds(now_ns)
        loss = step.loss if condition.loss is None else condition.loss
        altered = Step(step.lasts_ns, self._rate(step, condition), _delay(step.delay_ns, condition), loss)
        return altered, min(until_ns, changes_ns)

    def finish(self, start_ns: float, size_bytes: float) -> float:
        """Return the instant at which the last of `size_bytes` has left, if the first begins at `start_ns`."""
        now_ns, left = start_ns, size_bytes
        while left > 0:
            condition, changes_ns = self._holds(now_ns)
            if not condition.up:
                if changes_ns == math.inf:
                    return max(now_ns, float(FAR_NS))
                now_ns = changes_ns
                continue
            if condition.rate_bytes_per_s is None and self._cap is None:
                end_ns = self.profile.finish(now_ns, left / condition.rate_factor)
                if end_ns <= changes_ns:
                    return end_ns
            step, until_ns = self.holds(now_ns)
            rate = step.rate_bytes_per_s
            if rate == math.inf:
                return now_ns
            end_ns = now_ns + left / rate * 1e9 if rate else math.inf
            if end_ns <= until_ns:
                return end_ns
            left -= (until_ns - now_ns) * rate / 1e9
            now_ns = until_ns
        return now_ns

    def _own_ns(self, now_ns: float) -> float:
        """Return the instant at which to read `profile`, below `FAR_NS`: an endless profile draws all steps up to there."""
        return now_ns if now_ns < FAR_NS else self._starts_ns[-1]

    def _holds(self, now_ns: float) -> tuple[Condition, float]:
        place = bisect_right(self._starts_ns, now_ns)
        return self._conditions[place], self._starts_ns[place] if place < len(self._starts_ns) else math.inf

    def _rate(self, step: Step, condition: Condition) -> float:
        if not condition.up:
            return 0.0
        rate = condition.rate_bytes_per_s
        if rate is None:
            rate = step.rate_bytes_per_s * condition.rate_factor
        if self._cap is None:
            return rate
        return self._cap(rate, _delay(step.delay_ns, condition), step.loss if condition.loss is None else condition.loss)


def _delay(delay_ns: int, condition: Condition) -> int:
    return round(delay_ns * condition.delay_factor) + condition.delay_more_ns


class Tempo(NamedTuple):
    """A factor of a device's speed and the instant from which it holds, until the next."""

    at_ns: int
    factor: float
    """0 = the device pauses."""


class AlteredDevice(Device, frozen=True):
    """A device that is slowed, hastened or paused at known instants: a step's own time passes at the tempo in force."""

    device: Device = Device()
    tempos: tuple[Tempo, ...] = ()
    """In order of time."""

    def step_ns(self, batch_size: int, now_ns: int = 0, step: int | None = None) -> int:
        own_ns = self.device.step_ns(batch_size, now_ns, step)
        if step is None and now_ns == 0:
            return own_ns  # the nominal duration, for estimates
        time_ns, left_ns, factor = float(now_ns), float(own_ns), 1.0
        for tempo in self.tempos:
            if tempo.at_ns > time_ns:
                if time_ns + left_ns / factor <= tempo.at_ns if factor else not left_ns:
                    break
                left_ns -= (tempo.at_ns - time_ns) * factor
                time_ns = float(tempo.at_ns)
            factor = tempo.factor
        if factor:
            time_ns += left_ns / factor
        return max(0, math.ceil(time_ns) - now_ns)
