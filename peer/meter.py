"""The measurements of a peer: each link's rate, round trip and room, and its own speed.

The rate comes from dispersion: the bytes of a message that arrived after its first chunk, divided by the time in which they
arrived, both measured by the receiver's clock.  The receiver reports them when the message is whole, and also while it
arrives if the sender asks for this.  The delay cancels, and no clocks are compared.  A rate of bytes over round trip would
shrink without end: small messages measure the delay, so the link looks slow, and the next messages are smaller.
"""

from __future__ import annotations

from collections import deque
from math import inf

PROBE_BYTES = 32_768  # bytes that may be under way before the first measurement
CHUNK_TIME_NS = 2_000_000  # a chunk is about 2 ms of line rate
CHUNK_LEAST_BYTES = 1_400
CHUNK_FIRST_BYTES = 16_384
MEASURING_BYTES = 2_000  # two small chunks: the least that measures a rate
CHUNK_MOST_BYTES = (1 << 20) - 4_096  # the frame's bound, less the headers
REPORT_LEAST_MS = 10  # the least time between two progress reports of a receiver
REPORTS = 4  # progress reports in a horizon
STRETCH_NS = 10_000_000  # the least time in which bytes must arrive to measure a rate, except for the rest of a message
STRETCHES = 64  # the largest number of stretches that are remembered
ROUND_TRIP_MEMORY_NS = 5_000_000_000  # the least round trip is taken over the last one or two periods of this length
LATE = 4.0  # an acknowledgement is overdue when it is late by this many mean deviations, as in TCP's timeout
VARIED = 0.02  # batches that vary by less than this share of their mean cannot measure a step's overhead


class Flight:
    """A message under way, as its sender knows it; `spread_bytes` have arrived in `spread_ns` after its first chunk."""

    __slots__ = ("chunk_bytes", "first_bytes", "handed_ns", "report_ns", "size_bytes", "spread_bytes", "spread_ns")

    def __init__(self, size_bytes: int, first_bytes: int, chunk_bytes: int, report_ns: int, handed_ns: int) -> None:
        self.size_bytes = size_bytes
        self.first_bytes = first_bytes
        self.chunk_bytes = chunk_bytes
        self.report_ns = report_ns
        self.handed_ns = handed_ns
        self.spread_bytes = 0
        self.spread_ns = 0


class LinkMeter:
    """The measurements of one link by its sender.  Times are emulated ns, given by the caller."""

    __slots__ = (
        "_asked",
        "_busy_until_ns",
        "_flights",
        "_fresh_bytes",
        "_fresh_ns",
        "_heard_ns",
        "_horizon_ns",
        "_last_bytes",
        "_late_ns",
        "_round_trip_since_ns",
        "_round_trips_ns",
        "_share",
        "_spread_at_ns",
        "_spread_bytes",
        "_spread_ns",
        "_stretches",
        "_tokens",
        "_tokens_at_ns",
        "in_flight_bytes",
        "least_bytes",
        "patience",
        "rate_bytes_per_s",
        "round_trip_ns",
    )

    def __init__(self) -> None:
        self._spread_bytes = 0.0
        self._spread_ns = 0.0
        self._spread_at_ns = 0
        self._fresh_bytes = 0
        self._fresh_ns = 0
        self._stretches: deque[tuple[int, float]] = deque(maxlen=STRETCHES)  # (begin, bytes a second), ever faster
        self._round_trips_ns = (inf, inf)  # the least of the present period of memory, and of the one before
        self._round_trip_since_ns = 0
        self._late_ns = 0.0  # mean deviation of first acknowledgements from their expected time
        self._heard_ns = 0
        self._horizon_ns = 0.0
        self._asked = False  # whether the strategy has asked for the room
        self._share = 1.0  # share of the rate by which room grows
        self._tokens = 0.0
        self._tokens_at_ns: int | None = None
        self._busy_until_ns = 0.0
        self._last_bytes = 0
        self._flights: dict[int, Flight] = {}
        self.in_flight_bytes = 0
        self.least_bytes = float(MEASURING_BYTES)  # room that may always be saved up, however low the measured rate is
        self.patience = 1.0  # number of horizons of room that may be saved up
        self.rate_bytes_per_s: float | None = None  # inf if chunks arrive together; None before the first measurement
        self.round_trip_ns: float | None = None
        """The least time of the last 5 to 10 s from sending a message to its acknowledgement, less the time in which its bytes
        left: the delay there and back without queues; None before the first acknowledgement."""

    @property
    def delay_ns(self) -> float | None:
        """Half of the least round trip, ns; None before the first acknowledgement."""
        return None if self.round_trip_ns is None else self.round_trip_ns / 2

    def chunk_bytes(self) -> int:
        """Return the size of the next message's chunks."""
        rate = self.rate_bytes_per_s
        if rate is None:
            return CHUNK_FIRST_BYTES
        size_bytes = rate * CHUNK_TIME_NS / 1e9
        if size_bytes >= CHUNK_MOST_BYTES:
            return CHUNK_MOST_BYTES
        return int(size_bytes) if size_bytes > CHUNK_LEAST_BYTES else CHUNK_LEAST_BYTES

    def report_ms(self, horizon_ns: float) -> int:
        """Return the time between two progress reports on the next message; 0 = none, if the strategy does not ask for room."""
        if not self._asked:
            return 0
        return max(REPORT_LEAST_MS, min(int(horizon_ns * self.patience / REPORTS / 1e6), 65_535))

    def sent(
        self,
        message: int,
        size_bytes: int,
        first_bytes: int,
        chunk_bytes: int,
        now_ns: int,
        horizon_ns: float,
        report_ms: int = 0,
    ) -> None:
        """Record that a message was sent: its size, and the sizes of its first chunk and of a later one."""
        self._horizon_ns = horizon_ns * self.patience
        if self._tokens_at_ns is not None:  # else the strategy has not asked for room yet
            self._refill(now_ns, self._horizon_ns)
            self._tokens -= size_bytes
        self.in_flight_bytes += size_bytes
        self._last_bytes = size_bytes
        self._flights[message] = Flight(size_bytes, first_bytes, chunk_bytes, report_ms * 1_000_000, now_ns)
        if self.rate_bytes_per_s:
            self._busy_until_ns = max(self._busy_until_ns, now_ns) + size_bytes / self.rate_bytes_per_s * 1e9

    def busy_ns(self, now_ns: int) -> float | None:
        """Return the time (ns) until all sent bytes have left, by the measured rate; None before the first measurement.

        If more bytes are under way than the last message and the link's round trip hold, the rate was measured too high; the
        time for these bytes is then the least answer, so that an error of the rate does not build up a queue.
        """
        if not self.in_flight_bytes or self.rate_bytes_per_s == inf:
            return 0.0
        if self.rate_bytes_per_s is None:
            return None
        beyond_bytes = self.in_flight_bytes - self._last_bytes
        queued_ns = beyond_bytes / self.rate_bytes_per_s * 1e9 - (self.round_trip_ns or 0.0)
        return max(0.0, self._busy_until_ns - now_ns, queued_ns)

    def acknowledged(self, message: int, spread_bytes: int, spread_ns: int, now_ns: int) -> bool:
        """Take an acknowledgement: the first chunk of a message and `spread_bytes` more have arrived, these in `spread_ns`.

        Return False if the message is not under way, or if no progress or more bytes than were sent are reported.
        """
        flight = self._flights.get(message)
        if flight is None:
            return False
        first, rate = not flight.spread_bytes, self.rate_bytes_per_s or 0.0
        more_bytes, more_ns = spread_bytes - flight.spread_bytes, spread_ns - flight.spread_ns
        left_bytes = flight.size_bytes - flight.first_bytes - spread_bytes
        if left_bytes < 0 or more_ns < 0 or (more_bytes <= 0 and (left_bytes or not first)):
            return False
        self.in_flight_bytes -= more_bytes + (flight.first_bytes if first else 0)
        if more_bytes:
            self._spread(more_bytes, more_ns, now_ns, not left_bytes)
        if first:
            pace = spread_bytes / spread_ns * 1e9 if spread_ns else inf
            self._came_round(flight, spread_ns, now_ns, max(rate, pace) if spread_bytes else 0.0)
        flight.spread_bytes, flight.spread_ns = spread_bytes, spread_ns
        if not left_bytes:
            del self._flights[message]
        self._heard_ns = now_ns
        return True

    def _spread(self, more_bytes: int, more_ns: int, now_ns: int, whole: bool) -> None:
        """Update the rate: `more_bytes` more bytes arrived in `more_ns` more time.

        The rate is the mean over the time in which bytes arrived; its memory halves over a round trip and a horizon.  On a
        shared segment it is the link's share.  A slower stretch bounds the rate at once; the rate rises at once to the slowest
        stretch of the last round trip and horizon.
        """
        loop_ns = self._horizon_ns + (self.round_trip_ns or 0.0)
        past = 0.5 ** ((now_ns - self._spread_at_ns) / loop_ns) if loop_ns else 0.0
        self._spread_at_ns = now_ns
        self._spread_bytes = past * self._spread_bytes + more_bytes
        self._spread_ns = past * self._spread_ns + more_ns
        mean = self._spread_bytes / self._spread_ns * 1e9 if self._spread_ns else inf
        if not self._asked:  # no message depends on it: the mean is exact enough
            self.rate_bytes_per_s = mean
            return
        self._fresh_bytes += more_bytes
        self._fresh_ns += more_ns
        if not whole and self._fresh_ns < STRETCH_NS:
            return
        newest, began_ns = self._fresh_bytes / self._fresh_ns * 1e9 if self._fresh_ns else inf, now_ns - self._fresh_ns
        self._fresh_bytes = self._fresh_ns = 0
        stretches = self._stretches
        while stretches and stretches[0][0] < now_ns - loop_ns:
            stretches.popleft()
        while stretches and stretches[-1][1] >= newest:  # the newest stretch is slower, and is remembered for longer
            stretches.pop()
        stretches.append((began_ns, newest))
        self.rate_bytes_per_s = min(newest, max(mean, stretches[0][1]))

    def _came_round(self, flight: Flight, spread_ns: int, now_ns: int, rate: float) -> None:
        """Measure the round trip from the first acknowledgement of a message.

        It is the time since sending, less the time of the chunks after the first, and less the first chunk's own time.  `rate`
        is the faster of the rate measured before and the rate of this message; 0 for a message of one chunk, which measures no
        rate.  If a link has just become faster, the old rate would subtract too much, and the round trip would be remembered
        too short for seconds.
        """
        handed_ns = flight.handed_ns
        came_ns = now_ns - spread_ns - (flight.first_bytes / rate * 1e9 if rate else 0.0)
        if (known_ns := self.round_trip_ns) is not None:
            expected_ns = handed_ns + known_ns
            if expected_ns < self._heard_ns:
                expected_ns = self._heard_ns
            self._late_ns += 0.25 * (abs(came_ns - expected_ns) - self._late_ns)
        round_trip_ns = came_ns - handed_ns if came_ns > handed_ns else 0.0
        present_ns, before_ns = self._round_trips_ns
        if now_ns - self._round_trip_since_ns > ROUND_TRIP_MEMORY_NS:
            present_ns, before_ns, self._round_trip_since_ns = inf, present_ns, now_ns
        if round_trip_ns < present_ns:
            present_ns = round_trip_ns
        self._round_trips_ns = present_ns, before_ns
        self.round_trip_ns = present_ns if present_ns < before_ns else before_ns

    def look(self, now_ns: int) -> None:
        """Lower the rate if an acknowledgement is overdue: the bytes that have not arrived bound the rate of the link."""
        rate = self.rate_bytes_per_s
        if not self._flights or rate is None or rate == inf:
            return
        flight = next(iter(self._flights.values()))
        begun_ns = max(flight.handed_ns + (self.round_trip_ns or 0.0), self._heard_ns)
        overdue_ns = now_ns - begun_ns - LATE * self._late_ns
        if overdue_ns <= 0:
            return
        arriving = bool(flight.spread_bytes)
        left_bytes = flight.size_bytes - (flight.first_bytes + flight.spread_bytes if arriving else 0)
        bound = left_bytes / overdue_ns * 1e9
        if flight.report_ns and overdue_ns > flight.report_ns:
            next_bytes = flight.chunk_bytes + (0 if arriving else flight.first_bytes)
            bound = min(bound, next_bytes / (overdue_ns - flight.report_ns) * 1e9)
        if bound < rate:
            self.rate_bytes_per_s = bound

    def room_bytes(self, now_ns: int, horizon_ns: float, share: float = 1.0) -> float:
        """Return the bytes that the link can take now without building a queue, if a `share` of its rate may be used.

        The room is a token bucket: it fills at that share of the measured rate and holds at most the bytes of `horizon_ns`.  As
        with a congestion window, at most rate x (round trip + time between reports + horizon) may be under way, so that sending
        stops on a link that became slower before the next measurement arrives.  Before any measurement the room is a few
        chunks, one probe at a time.  The smallest message worth sending (`least_bytes`) can always be saved up: a link that was
        once measured too slow would otherwise never carry another message, and never be measured again.
        """
        self._asked = True
        self.look(now_ns)
        rate = self.rate_bytes_per_s
        if rate is None:
            return max(0.0, PROBE_BYTES - self.in_flight_bytes)
        if rate == inf:
            return inf
        report_ns = self.report_ms(horizon_ns) * 1e6
        horizon_ns *= self.patience
        self._refill(now_ns, horizon_ns)
        self._share = share
        told_ns = (self.round_trip_ns or 0.0) + report_ns
        window = rate * told_ns / 1e9 + self.chunk_bytes() + self._capacity_bytes(rate, horizon_ns)
        return max(0.0, min(self._tokens, window - self.in_flight_bytes))

    def _capacity_bytes(self, rate: float, horizon_ns: float) -> float:
        return max(rate * horizon_ns / 1e9, self.least_bytes)

    def _refill(self, now_ns: int, horizon_ns: float) -> None:
        rate = self.rate_bytes_per_s
        if rate is None or rate == inf:
            return
        capacity = self._capacity_bytes(rate, horizon_ns)
        if self._tokens_at_ns is None:
            self._tokens = capacity
        else:
            self._tokens = min(capacity, self._tokens + self._share * rate * (now_ns - self._tokens_at_ns) / 1e9)
        self._tokens_at_ns = now_ns


class SpeedMeter:
    """A peer's own speed: the time of a step, and the samples that it trains on in a second.  Times are emulated ns.

    If batches differ in size, a line through (samples, time) separates a step's fixed `overhead_ns` from its time per sample.
    """

    __slots__ = ("_products", "_squares", "overhead_ns", "samples", "step_ns", "steps")

    def __init__(self) -> None:
        self.steps = 0
        self.step_ns = 0.0
        self.samples = 0.0
        self.overhead_ns = 0.0
        self._squares = 0.0
        self._products = 0.0

    def computed(self, duration_ns: int, samples: int) -> None:
        """Record that one gradient over `samples` samples took `duration_ns`."""
        weight = 0.1 if self.steps > 8 else 1.0 / (self.steps + 1)
        self.step_ns += weight * (duration_ns - self.step_ns)
        self.samples += weight * (samples - self.samples)
        self._squares += weight * (samples * samples - self._squares)
        self._products += weight * (samples * duration_ns - self._products)
        self.steps += 1
        spread = self._squares - self.samples**2
        if spread > (VARIED * self.samples) ** 2:  # else the last batches cannot measure the overhead
            slope = (self._products - self.samples * self.step_ns) / spread
            self.overhead_ns = min(max(0.0, self.step_ns - slope * self.samples), self.step_ns)

    @property
    def sample_ns(self) -> float:
        """The time of one more sample, ns; 0 before the first step."""
        return (self.step_ns - self.overhead_ns) / self.samples if self.samples else 0.0

    @property
    def samples_per_s(self) -> float | None:
        """The measured speed; None before the first step, inf if steps take no time."""
        if not self.steps:
            return None
        return self.samples / self.step_ns * 1e9 if self.step_ns else inf


def relative_speeds(samples_per_s: dict[int, float]) -> dict[int, float]:
    """Return each peer's speed divided by the mean of all known speeds; 1 for a speed that is not finite."""
    finite = [speed for speed in samples_per_s.values() if 0 < speed < inf]
    mean = sum(finite) / len(finite) if finite else 0.0
    return {peer: speed / mean if 0 < speed < inf and mean else 1.0 for peer, speed in samples_per_s.items()}
