"""How large a window and how fast a pace: the congestion controls of netem.tcp, told how each round went.

Windows are in segments. The rules and their sources stand in netem/tcp.py.
"""

import math
from typing import NamedTuple

FIRST_WINDOW = 10
TIMEOUT_NS = 200_000_000
"""What the retransmission timeout lies above the round trip."""
ROUNDING = 1e-6
"""Of a segment: windows that are so near to a whole number are whole."""

_BETA = 0.7
_CUBIC = 0.4
_FRIENDLY = 8 / 15
_HYSTART_WINDOW = 16
_HYSTART_SPACING_NS = 2_000_000
_HIGH_GAIN = 2.885
_HEADROOM = 3  # segments that BBR adds to its window for bursts


class Round(NamedTuple):
    """What a congestion control learns at the end of a round."""

    start_ns: float
    end_ns: float
    sent: float
    before: float
    """What the round before had sent, where this one followed it at once; else 0."""
    full: bool
    """The window was used up."""
    lost: int
    rtt_ns: float
    per_s: float
    """What the line carries, segments a second."""
    pipe: float
    """BDP and queue: what is beyond is lost."""
    sent_per_s: float
    """The pace at which it was sent."""


class Cubic:
    """The window of Linux's default congestion control."""

    pace_per_s = math.inf

    def __init__(self) -> None:
        self.window = float(FIRST_WINDOW)
        self._threshold = math.inf
        self._top = 0.0  # w_max
        self._peak = 0.0  # the window at the last loss
        self._epoch_ns: float | None = None  # since when it has grown without loss
        self._origin = self._wait_s = self._friendly = self._friendly_before = 0.0
        self._recovering = False

    def ended(self, past: Round) -> None:
        """A round is over."""
        if past.lost or past.sent > past.pipe - 1:
            self._shrink()
        elif self.window < self._threshold:
            self._slow_start(past)
        elif past.full:
            self._avoid(past)

    def idled(self, gap_ns: float, pause_ns: float, rtt_ns: float) -> None:
        """Nothing was sent for `gap_ns`; for `pause_ns` of these nothing was outstanding either."""
        if self._epoch_ns is not None:
            self._epoch_ns += pause_ns
        timeout_ns = rtt_ns + TIMEOUT_NS
        if gap_ns <= timeout_ns:
            return
        self._threshold = max(self._threshold, 0.75 * self.window)
        least = min(float(FIRST_WINDOW), self.window)
        halvings = min(64, math.ceil(gap_ns / timeout_ns) - 1)
        self.window = max(least, float(int(self.window + ROUNDING) >> halvings))

    def _shrink(self) -> None:
        self._top = self.window * (1 + _BETA) / 2 if self.window < self._peak else self.window
        self._peak = self.window
        self.window = self._threshold = max(2.0, math.floor(self.window * _BETA + ROUNDING))
        self._epoch_ns = None
        self._recovering = True

    def _slow_start(self, past: Round) -> None:
        flight = past.before + past.sent / 2 if past.before else past.sent
        if self.window >= 2 * flight and not past.full:
            return
        window = min(self.window + past.sent, max(2 * flight, self.window + 1))
        bdp = past.per_s * past.rtt_ns / 1e9
        if self.window >= _HYSTART_WINDOW:
            if 2e9 / past.per_s < _HYSTART_SPACING_NS:
                if past.sent >= bdp / 2:
                    window = self._threshold = min(window, self.window + bdp / 2)
            elif past.sent > bdp + min(max(past.rtt_ns / 8, 4e6), 16e6) * past.per_s / 1e9:
                window = self._threshold = self.window + 8
        self.window = max(self.window, min(window, self._threshold))

    def _avoid(self, past: Round) -> None:
        if self._recovering:
            self._recovering = False
            return
        if self._epoch_ns is None:
            self._epoch_ns = past.start_ns
            self._friendly = self._friendly_before = self.window
            self._origin = max(self._top, self.window)
            self._wait_s = ((self._origin - self.window) / _CUBIC) ** (1 / 3)
        age_s = (past.end_ns - self._epoch_ns + past.rtt_ns) / 1e9 - self._wait_s
        target = min(self._origin + _CUBIC * age_s**3, 1.5 * self.window)
        self._friendly += _FRIENDLY
        self.window = max(self.window, target, self._friendly_before)
        self._friendly_before = math.floor(self._friendly + ROUNDING)


class Bbr:
    """The window and pace of BBR, version 1."""

    def __init__(self, rtt_ns: float) -> None:
        self.window = float(FIRST_WINDOW)
        self.pace_per_s = _HIGH_GAIN * FIRST_WINDOW / max(rtt_ns, 1.0) * 1e9
        self._best_per_s = 0.0  # the delivery rate seen so far
        self._level_per_s = 0.0  # from which it has yet to grow
        self._stalls = 0
        self._filled = False
        self._kept = 0.0  # the window before a loss

    def ended(self, past: Round) -> None:
        """A round is over."""
        flow_ns = past.sent / past.sent_per_s * 1e9
        span_ns = max(past.rtt_ns, flow_ns) if past.before else past.rtt_ns + flow_ns
        self._best_per_s = max(self._best_per_s, min(past.sent / span_ns * 1e9, past.per_s))
        if past.full and not self._filled:
            self._look_for_the_top()
        bdp = self._best_per_s * past.rtt_ns / 1e9
        if past.lost and not self._filled:
            self.pace_per_s = max(self.pace_per_s, _HIGH_GAIN * self._best_per_s)
            self._kept = max(self._kept, self.window)
            self.window = min(self.window, max(past.sent, 4.0))
            return
        self.window = max(self.window, self._kept)
        self._kept = 0.0
        if self._filled:
            self.pace_per_s = self._best_per_s
            self.window = min(self.window + past.sent, 2 * bdp + _HEADROOM)
        else:
            self.pace_per_s = max(self.pace_per_s, _HIGH_GAIN * self._best_per_s)
            self.window = max(self.window, min(self.window + past.sent, _HIGH_GAIN * bdp + _HEADROOM))

    def idled(self, gap_ns: float, pause_ns: float, rtt_ns: float) -> None:
        """Idle time changes nothing."""

    def _look_for_the_top(self) -> None:
        if self._best_per_s >= 1.25 * self._level_per_s:
            self._level_per_s = self._best_per_s
            self._stalls = 0
        else:
            self._stalls += 1
            self._filled = self._stalls >= 3
