"""How fast TCP fills a link: a state machine of rounds, one for each direction of a persistent connection.

In each round trip the sender sends a window of segments, then waits for their acknowledgements. So a message takes one round
trip for each window, and slow start, losses and idle times make windows small. Pure: time and sizes are arguments.

Rules, in units of segments (1448 bytes of payload in 1500 bytes on the wire), first window 10, as in Linux:

- A round lasts max(RTT, sent / rate) and carries at most BDP + queue, by default a droptail queue of max(BDP, 50 ms); with BBR
  at most the segments of its pace in a round trip.
- Slow start adds the segments acknowledged (never beyond twice the segments in flight), until ssthresh; HyStart (Ha & Rhee,
  Computer Networks 2011) ends it when the burst fills half the pipe (rates at which acknowledgements come less than 2 ms
  apart) or the standing queue exceeds RTT / 8, 4 to 16 ms.
- CUBIC (Ha, Rhee & Xu, SIGOPS 2008; RFC 9438): the larger of 0.4 (t - K)^3 + w_max and the Reno-friendly 8/15 a round; as
  in the kernel, the cube is cut to whole segments (towards w_max from below, so that small windows return to it early), the
  window grows by acknowledgements / (window / missing segments), also in whole numbers, and before the first loss by a
  twentieth a round at least.
- A loss is noticed a round trip later, when three segments behind it are acknowledged. Until then the window grows, in slow
  start to twice the segments sent before the lost one; then it falls to 0.7 (proportional rate reduction, RFC 6937: segments
  sent earlier in that round stay sent). Further losses among segments sent before the notice are resent, and the window does
  not fall again.
- Idle for longer than the timeout: ssthresh at least 0.75 of the window, which halves once per timeout, down to 10
  (tcp_slow_start_after_idle, on by default). The timeout lies above the smoothed round trip, the queue's delay included, by two
  round trips at first and by 200 ms soon (RFC 6298, with Linux's least variance).
- BBR (Cardwell et al., ACM Queue 2016): paced at 2.885 times the delivery rate seen so far until that stops growing by a
  quarter in three rounds, then at 0.99 of that rate with a window of 2 BDP, and at 1.25 of it in every eighth round trip, to
  probe for a higher rate. The delivery rate of a round is the segments acknowledged over the time of sending them and a round
  trip, so the first round after a pause shows less than the link's rate. Neither idle time nor loss slows it, but in its
  start-up the window does not grow between the notice of a loss and the end of that round (packet conservation).
- A lost segment is resent a round trip after it was sent, and again after each further loss; later segments are
  delivered after it. The only segment of a message, with none behind it to reveal its loss, waits for the timeout.

**A message need not be offered whole.** The machine takes bytes in any cut: a window is used up byte by byte, and lost packets
are drawn as gaps in the stream. So chunks of a message that are offered one after another leave and arrive as the whole
message would, and `first` (a message begins) is needed only because a new message begins a new segment.

Left out: timeouts with several segments outstanding, tail loss probes, timeouts' backoff during an outage, BBR's draining
phases and its probes of the round trip, congestion window validation, the sender's and the receiver's buffers.
"""

import math
from typing import Literal, NamedTuple, Protocol

from grapevine.netem.links.congestion import DUPLICATES, ROUNDING, TIMEOUT_NS, Bbr, Cubic, Round
from grapevine.netem.links.losses import Losses

Control = Literal["cubic", "bbr"]

MSS_BYTES = 1448
"""Payload of a TCP segment on Ethernet with timestamps."""
PACKET_BYTES = 1500
"""The bytes of such a segment on the wire."""
QUEUE_NS = 50_000_000

_NOTHING = 1e-9  # a smaller part of a segment is a rounding error
_ALONE = 0.9  # segments: a message below this is sent as one packet, never as a chunk of a larger one


class AnyProfile(Protocol):
    """The profile of the link that carries the segments: steady, changing or altered."""

    def rate_at(self, now_ns: float) -> float:
        """Return the rate, bytes/s; more than 0."""

    def delay_at(self, now_ns: float) -> int:
        """Return the one-way delay, ns."""

    def loss_at(self, now_ns: float) -> float:
        """Return the share of packets lost."""

    def finish(self, start_ns: float, size_bytes: float) -> float:
        """Return the instant at which the last of `size_bytes` has left, if the first begins at `start_ns`."""


class Sent(NamedTuple):
    """The times of some bytes, exact nanoseconds."""

    start_ns: float
    """The first byte begins."""
    finish_ns: float
    """The last byte has left, for the first time."""
    done_ns: float
    """All bytes have left, the resending of lost ones included; they have arrived a one-way delay later."""
    free_ns: float
    """The next bytes can begin: the link is idle and the window open."""


class Tcp:
    """One direction of a connection over a link.

    `rtt_ns` is the round trip at the opening (afterwards twice the link's delay), `losses` the link's losses (None: no
    packet is lost), `queue_ns` the time that the link takes to send a full queue (None: max(BDP, 50 ms)).
    """

    def __init__(self, control: Control, rtt_ns: int, losses: Losses | None = None, queue_ns: int | None = None) -> None:
        self.losses = losses
        self.rtt_ns = max(1, rtt_ns)
        self.queue_ns = queue_ns
        self.control: Cubic | Bbr = Cubic() if control == "cubic" else Bbr(rtt_ns)
        self._free_ns = 0.0  # the link is idle from here
        self._began = False
        self._start_ns = self._last_ns = 0.0  # the current round: its start, and its last sending
        self._done_ns = 0.0  # all of the stream so far has left
        # segments: sent in this round, sent in the previous one, left of the window, to be resent
        self._sent = self._before = self._left = self._again = 0.0
        self._per_s = self._pipe = self._pace_per_s = 0.0
        self._lost = 0
        self._noticed = 0.0  # segments of this round sent before the losses of the previous round were noticed
        self._clean = math.inf  # segments sent before the first loss that shrinks the window
        self._news = False
        self._smooth_ns = float(self.rtt_ns)  # the round trip, queue included, as the sender smooths it
        self._slack_ns = max(2.0 * self.rtt_ns, TIMEOUT_NS)  # the timeout less the smoothed round trip
        self._position = 0.0  # in the message, segments

    def send(self, profile: AnyProfile, now_ns: float, size_bytes: float, first: bool = True) -> Sent:
        """Send bytes at `now_ns` or when the link is idle and the window open; `first`: they begin a message."""
        rested = now_ns > self._free_ns + 1  # 1 ns or less is a caller's rounding
        if rested:
            self._free_ns = now_ns
        left = size_bytes / MSS_BYTES
        alone = first and left < _ALONE
        if first:
            self._position = 0.0
        start_ns: float | None = None
        while left > _NOTHING or start_ns is None:
            self._open(profile, rested)
            if start_ns is None:
                start_ns = self._free_ns
            part = min(left, self._left)
            left -= part
            self._put(profile, part, alone)
        self._done_ns = max(self._done_ns, self._free_ns)
        free_ns = self._free_ns if self._left > _NOTHING else max(self._free_ns, self._start_ns + self.rtt_ns)
        return Sent(start_ns, self._free_ns, self._done_ns, free_ns)

    def held(self, until_ns: float) -> None:
        """Delay the last bytes to `until_ns`, because a shared segment held them up."""
        if until_ns > self._free_ns:
            self._free_ns = self._last_ns = until_ns
            self._done_ns = max(self._done_ns, until_ns)

    def _open(self, profile: AnyProfile, rested: bool) -> None:
        """Advance to the round in which bytes can be sent now; while the link is busy, a round ends with its window."""
        if not self._began:
            self._begin(profile, self._free_ns, False)
        while self._left <= _NOTHING or (rested and self._free_ns >= self._start_ns + self.rtt_ns):
            self._end(profile)

    def _end(self, profile: AnyProfile) -> None:
        """Close a round; begin the next when the first acknowledgement is back, or later, when bytes are offered."""
        end_ns = max(self._start_ns + self.rtt_ns, self._last_ns)
        pause_ns = self._free_ns - end_ns
        self._sent = _whole(self._sent)
        full = _whole(self._left) < 1
        self.control.ended(
            Round(
                self._start_ns, end_ns, self._sent, self._before, full, self._lost, min(self._clean, self._sent),
                min(self._noticed, self._sent), self._news,
                self.rtt_ns, self._per_s, self._pipe, self._pace_per_s,
            )
        )  # fmt: skip
        flow_ns = self._sent / self._per_s * 1e9
        seen_ns = max(flow_ns, self.rtt_ns + max(0.0, flow_ns - self._before / self._per_s * 1e9))  # by the last segment
        self._smooth_ns += (seen_ns - self._smooth_ns) * (1 - 0.875 ** (self._sent / 2))
        self._slack_ns += (TIMEOUT_NS - self._slack_ns) / 4
        idle = pause_ns > 1
        if idle:
            if pause_ns >= self.rtt_ns:
                self._again = 0.0  # sent long ago
            self.control.idled(self._free_ns - self._last_ns, pause_ns, self._smooth_ns + self._slack_ns)
        self._begin(profile, max(self._free_ns, end_ns), not idle)

    def _begin(self, profile: AnyProfile, start_ns: float, follows: bool) -> None:
        before_per_s = self._pace_per_s
        self._before = self._sent if follows else 0.0
        self._began = True
        self._start_ns = self._free_ns = self._last_ns = start_ns
        self._per_s = profile.rate_at(start_ns) / PACKET_BYTES
        self.rtt_ns = max(1, 2 * profile.delay_at(start_ns))
        if self.losses is not None:
            self.losses.become(profile.loss_at(start_ns))
        queue_ns = max(self.rtt_ns, QUEUE_NS) if self.queue_ns is None else self.queue_ns
        self._pipe = max(2.0, self._per_s * (self.rtt_ns + queue_ns) / 1e9)
        self._left = min(math.floor(self.control.window + self.control.spare + ROUNDING), self._pipe)
        self._pace_per_s = min(self._per_s, self.control.pace_per_s)
        if isinstance(self.control, Bbr):
            if follows:  # acknowledgements come at the pace of the round before
                self._pace_per_s = min(self._pace_per_s, 2 * before_per_s)
            self._left = min(self._left, max(4.0, math.ceil(self._pace_per_s * self.rtt_ns / 1e9)))
        self._sent = 0.0
        self._lost = 0
        self._noticed = self._clean + DUPLICATES if self._news and follows else 0.0
        self._clean, self._news = math.inf, False
        if self._again:
            again = min(self._again, self._left)
            self._again -= again
            self._carry(profile, again)

    def _put(self, profile: AnyProfile, segments: float, alone: bool) -> None:
        """Send new segments and draw which of them are lost."""
        self._carry(profile, segments)
        if self.losses is None or not segments:
            return
        position = self._position + segments
        packets = math.ceil(position - _NOTHING) - math.ceil(self._position - _NOTHING)
        self._position = position
        lost = self.losses.lost_among(packets)
        if not lost:
            return
        self._lost += len(lost)
        self._again += len(lost)
        for place in lost:
            at = self._sent - segments + place
            if at >= self._noticed and not self._news:
                self._news, self._clean = True, at
        wait_ns = self.rtt_ns + TIMEOUT_NS if alone else self.rtt_ns
        again_ns = max(self._free_ns - (packets - 1 - lost[-1]) / self._pace_per_s * 1e9 + wait_ns, self._free_ns)
        tries = max(self.losses.tries() for _ in lost)
        self._done_ns = max(self._done_ns, again_ns + (tries - 1) * wait_ns)

    def _carry(self, profile: AnyProfile, segments: float) -> None:
        left_ns = profile.finish(self._free_ns, segments * PACKET_BYTES)
        if self._pace_per_s < self._per_s:
            left_ns = max(left_ns, self._free_ns + segments / self._pace_per_s * 1e9)
        self._free_ns = self._last_ns = left_ns
        self._sent += segments
        self._left -= segments


def _whole(segments: float) -> float:
    """Return the whole number next to `segments` if only rounding lies between them: the cut of a message must not decide."""
    nearest = round(segments)
    return float(nearest) if abs(segments - nearest) < ROUNDING else segments
