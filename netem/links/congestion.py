"""The congestion controls of netem.links.tcp: window and pace of the next round, from the result of each round.

Windows are in segments. The rules and their sources are in netem/links/tcp.py.
"""

import math
from typing import NamedTuple

FIRST_WINDOW = 10
TIMEOUT_NS = 200_000_000
"""The least difference between the retransmission timeout and the smoothed round trip."""
DUPLICATES = 3
"""The sender notices a loss when this many segments after the lost one are acknowledged."""
ROUNDING = 1e-6
"""A window that is nearer to a whole number than this counts as whole; in segments."""

_BETA = 0.7
_CUBIC = 0.4
_FRIENDLY = 8 / 15
_EXPLORING = 20.0  # before the first loss: at most this many acknowledgements add one segment
_HYSTART_WINDOW = 16
_HYSTART_SPACING_NS = 2_000_000
_HIGH_GAIN = 2.885
_HEADROOM = 3  # segments that BBR adds to its window for bursts
_MARGIN = 0.99  # of the estimate at which BBR paces
_PROBE_GAIN = 1.25
_PHASES = 8  # round trips from one probe to the next


class Round(NamedTuple):
    """The result of one round, for the congestion control; sizes in segments."""

    start_ns: float
    end_ns: float
    sent: float
    before: float
    """Segments that the previous round sent, if this round followed it at once; else 0."""
    full: bool
    """Whether the window was used up."""
    lost: int
    clean: float
    """Segments sent before the first loss that shrinks the window (`news`); all segments if there is none."""
    noticed: float
    """Segments sent before the sender noticed the losses of the previous round."""
    news: bool
    """Whether a segment was lost that was sent after the sender had noticed the losses of the previous round."""
    rtt_ns: float
    per_s: float
    """The link's rate, segments a second."""
    pipe: float
    """BDP and queue; segments beyond them are lost."""
    sent_per_s: float
    """The pace of this round, segments a second."""


class Cubic:
    """The window of Linux's default congestion control."""

    pace_per_s = math.inf

    def __init__(self) -> None:
        self.window = float(FIRST_WINDOW)
        self.spare = 0.0  # sent beyond the window, before a loss was noticed
        self._threshold = math.inf
        self._top = 0.0  # w_max
        self._epoch_ns: float | None = None  # start of the growth since the last loss
        self._origin = self._wait_s = self._friendly = 0.0
        self._found = False  # HyStart has ended a slow start

    def ended(self, past: Round) -> None:
        """Take the result of a round; set the window of the next."""
        self.spare = 0.0
        if past.news:
            ahead = past.clean * (2 if self.window < self._threshold else 1)
            self.window += ahead - past.clean
            self.spare = (1 - _BETA) * min(ahead + DUPLICATES, self.window)
            self._shrink()
        elif past.sent > past.pipe - 1:
            self._shrink()
        elif past.lost:  # the recovery takes a round more
            return
        elif self.window < self._threshold:
            self._slow_start(past)
        elif past.full:
            self._avoid(past)

    def idled(self, gap_ns: float, pause_ns: float, timeout_ns: float) -> None:
        """Take an idle time: no segment was sent for `gap_ns`, and none was outstanding for `pause_ns` of that time."""
        self.spare = 0.0
        if self._epoch_ns is not None:
            self._epoch_ns += pause_ns
        if gap_ns <= timeout_ns:
            return
        self._threshold = max(self._threshold, math.floor(0.75 * self.window + ROUNDING))
        least = min(float(FIRST_WINDOW), self.window)
        halvings = min(64, math.ceil(gap_ns / timeout_ns) - 1)
        self.window = max(least, float(int(self.window + ROUNDING) >> halvings))

    def _shrink(self) -> None:
        self._top = math.floor(self.window * (1 + _BETA) / 2 if self.window < self._top else self.window)
        self.window = self._threshold = max(2.0, math.floor(self.window * _BETA + ROUNDING))
        self._epoch_ns = None

    def _slow_start(self, past: Round) -> None:
        flight = past.before + past.sent / 2 if past.before else past.sent
        if self.window >= 2 * flight and not past.full:
            return
        window = min(self.window + past.sent, max(2 * flight, self.window + 1))
        bdp = past.per_s * past.rtt_ns / 1e9
        if self.window >= _HYSTART_WINDOW and not self._found:
            if 2e9 / past.per_s < _HYSTART_SPACING_NS:
                if past.sent >= bdp / 2:
                    window = self._threshold = min(window, self.window + bdp / 2)
            elif past.sent > bdp + min(max(past.rtt_ns / 8, 4e6), 16e6) * past.per_s / 1e9:
                window = self._threshold = self.window + 8
        self._found |= self._threshold < math.inf
        self.window = max(self.window, min(window, self._threshold))

    def _avoid(self, past: Round) -> None:
        acknowledged = past.sent - past.noticed  # since the recovery, if there was one
        window = math.floor(self.window + ROUNDING)
        if self._epoch_ns is None:
            self._epoch_ns = past.end_ns
            self._friendly = self.window
            self._origin = max(self._top, window)
            self._wait_s = ((self._origin - window) / _CUBIC) ** (1 / 3)
        age_s = (past.end_ns - self._epoch_ns + past.rtt_ns) / 1e9 - self._wait_s
        target = self._origin + math.copysign(math.floor(_CUBIC * abs(age_s) ** 3), age_s)
        every = window // (target - window) if target > window else 100.0 * window  # acknowledgements that add one segment
        if not self._top:
            every = min(every, _EXPLORING)
        self._friendly += _FRIENDLY * acknowledged / window
        friendly = math.floor(self._friendly + ROUNDING)
        if friendly > window:
            every = min(every, window // (friendly - window))
        self.window += acknowledged / max(every, 2.0)


class Bbr:
    """The window and pace of BBR, version 1."""

    def __init__(self, rtt_ns: float) -> None:
        self.window = float(FIRST_WINDOW)
        self.spare = 0.0
        self.pace_per_s = _HIGH_GAIN * FIRST_WINDOW / max(rtt_ns, 1.0) * 1e9
        self._best_per_s = 0.0  # the delivery rate seen so far
        self._level_per_s = 0.0  # the rate at its last growth by a quarter
        self._stalls = 0
        self._filled = False
        self._kept = 0.0  # the window before a loss
        self._flow_ns = 0.0  # the time that sending the last round took
        self._phase = 1  # of the probes for a higher rate

    def ended(self, past: Round) -> None:
        """Take the result of a round; set the window of the next."""
        flow_ns = past.sent / past.sent_per_s * 1e9
        span_ns = past.rtt_ns + max(0.0, flow_ns - (self._flow_ns if past.before else 0.0))
        if flow_ns >= past.rtt_ns:  # acknowledgements came in while the round was being sent
            span_ns = flow_ns
        self._flow_ns = flow_ns
        before_per_s = self._best_per_s
        self._best_per_s = max(before_per_s, min(past.sent / span_ns * 1e9, past.per_s))
        if past.full and not self._filled:
            self._check_filled()
        bdp = self._best_per_s * past.rtt_ns / 1e9
        if self._filled:
            self._phase = (self._phase + 1) % _PHASES
            self.pace_per_s = self._best_per_s * (_MARGIN if self._phase else _PROBE_GAIN)
            self.window = min(max(self.window, self._kept) + past.sent, 2 * bdp + _HEADROOM)
            return
        # acknowledgements of this round, which show its rate, come in during the next round: so the mean of both rates
        self.pace_per_s = max(self.pace_per_s, _HIGH_GAIN * (before_per_s + self._best_per_s) / 2)
        if past.lost:
            self._kept = max(self._kept, self.window)
            self.window = min(self.window + past.sent, max(past.sent + past.clean, 4.0))
            return
        self.window = max(self.window, self._kept)
        self._kept = 0.0
        self.window = max(self.window, min(self.window + past.sent, _HIGH_GAIN * bdp + _HEADROOM))

    def idled(self, gap_ns: float, pause_ns: float, timeout_ns: float) -> None:
        """Idle time has no effect."""

    def _check_filled(self) -> None:
        if self._best_per_s >= 1.25 * self._level_per_s:
            self._level_per_s = self._best_per_s
            self._stalls = 0
        else:
            self._stalls += 1
            self._filled = self._stalls >= 3
