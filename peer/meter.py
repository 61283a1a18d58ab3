"""What a peer measures: each link's rate, delay and room, and its own speed.

The rate comes from the dispersion of a message's chunks at the receiver (the bytes after the first chunk over the time
after the first chunk), which the acknowledgement carries back: the delay cancels and no clocks are compared.  Bytes over
round trip would starve itself: small shares measure the delay, look slow, and shrink further.
"""

from __future__ import annotations

from math import inf

PROBE_BYTES = 32_768  # what may be under way before anything was measured
CHUNK_TIME_NS = 2_000_000  # a chunk is about 2 ms of line rate
CHUNK_LEAST_BYTES = 1_400
CHUNK_FIRST_BYTES = 16_384
MEASURING_BYTES = 2_000  # two small chunks: the least that measures a rate
CHUNK_MOST_BYTES = (1 << 20) - 4_096  # the frame's bound less headers
VARIED = 0.02  # batches that vary by less than this share of their mean tell nothing about a step's overhead
MEMORY = 0.5  # weight of the past against one new measurement


class LinkMeter:
    """One link to one neighbour, as measured by its sender.  Times are emulated ns, given by the caller."""

    __slots__ = (
        "_busy_until_ns",
        "_last_bytes",
        "_round_trip_ns",
        "_spread_bytes",
        "_spread_ns",
        "_tokens",
        "_tokens_at_ns",
        "in_flight_bytes",
        "least_bytes",
        "least_round_trip_ns",
        "patience",
        "rate_bytes_per_s",
    )

    def __init__(self) -> None:
        self._spread_bytes = 0.0
        self._spread_ns = 0.0
        self._round_trip_ns = 0.0
        self._tokens = 0.0
        self._tokens_at_ns: int | None = None
        self._busy_until_ns = 0.0
        self._last_bytes = 0
        self.least_round_trip_ns: float | None = None
        self.in_flight_bytes = 0
        self.least_bytes = float(MEASURING_BYTES)  # what may always be saved up, however slow the link seems
        self.patience = 1.0  # how many horizons of room may be saved up
        self.rate_bytes_per_s: float | None = None  # inf where chunks arrive together; None before the first measurement

    @property
    def delay_ns(self) -> float | None:
        """Half of the smoothed round trip; None before the first acknowledgement."""
        return self._round_trip_ns / 2 if self.least_round_trip_ns is not None else None

    def chunk_bytes(self) -> int:
        """How large the next message's chunks should be."""
        rate = self.rate_bytes_per_s
        if rate is None:
            return CHUNK_FIRST_BYTES
        return int(min(max(rate * CHUNK_TIME_NS / 1e9, CHUNK_LEAST_BYTES), CHUNK_MOST_BYTES))

    def sent(self, size_bytes: int, now_ns: int, horizon_ns: float) -> None:
        """A message of so many bytes was handed to the link."""
        if self._tokens_at_ns is not None:  # else nobody has asked for room yet
            self._refill(now_ns, horizon_ns * self.patience)
            self._tokens -= size_bytes
        self.in_flight_bytes += size_bytes
        self._last_bytes = size_bytes
        if self.rate_bytes_per_s:
            self._busy_until_ns = max(self._busy_until_ns, now_ns) + size_bytes / self.rate_bytes_per_s * 1e9

    def busy_ns(self, now_ns: int) -> float | None:
        """How much longer the line will be busy with what was sent, by its measured rate; None where that is not known yet.

        What is under way beyond the last message and what the line holds on its way must have left already, or the rate
        was measured too high: so an error of the rate does not add up to a queue.
        """
        if not self.in_flight_bytes or self.rate_bytes_per_s == inf:
            return 0.0
        if self.rate_bytes_per_s is None:
            return None
        beyond_bytes = self.in_flight_bytes - self._last_bytes
        queued_ns = beyond_bytes / self.rate_bytes_per_s * 1e9 - (self.least_round_trip_ns or 0.0)
        return max(0.0, self._busy_until_ns - now_ns, queued_ns)

    def acknowledged(self, size_bytes: int, spread_bytes: int, spread_ns: int, round_trip_ns: int) -> None:
        """A message has arrived; its chunks lay `spread_ns` apart, and the answer came `round_trip_ns` after its last."""
        self.in_flight_bytes -= size_bytes
        if spread_bytes:
            self._spread_bytes = MEMORY * self._spread_bytes + spread_bytes
            self._spread_ns = MEMORY * self._spread_ns + spread_ns
            self.rate_bytes_per_s = self._spread_bytes / self._spread_ns * 1e9 if self._spread_ns else inf
        if self.least_round_trip_ns is None:
            self.least_round_trip_ns = self._round_trip_ns = round_trip_ns
        else:
            self.least_round_trip_ns = min(self.least_round_trip_ns, round_trip_ns)
            self._round_trip_ns += 0.2 * (round_trip_ns - self._round_trip_ns)

    def room_bytes(self, now_ns: int, horizon_ns: float) -> float:
        """How many bytes the link can take now without building a queue.

        A token bucket over the measured rate that holds at most `horizon_ns` worth of bytes, bounded by what may be under
        way (rate x (round trip + horizon), as a congestion window would): so a link that became slower stops the flow
        before the next measurement has come back.  Before any measurement a few chunks, one probe at a time.  A message
        that is worth sending (`least_bytes`) can always be saved up: a link that was once measured too slow would
        otherwise never carry another one, and never be measured again.
        """
        rate = self.rate_bytes_per_s
        if rate is None:
            return max(0.0, PROBE_BYTES - self.in_flight_bytes)
        if rate == inf:
            return inf
        horizon_ns *= self.patience
        self._refill(now_ns, horizon_ns)
        window = rate * (self.least_round_trip_ns or 0.0) / 1e9 + self._capacity_bytes(rate, horizon_ns)
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
            self._tokens = min(capacity, self._tokens + rate * (now_ns - self._tokens_at_ns) / 1e9)
        self._tokens_at_ns = now_ns


class SpeedMeter:
    """A peer's own speed: how long a step takes, how many samples it trains in a second.  Times are emulated ns.

    Where batches differ in size, a line through (samples, time) tells a step's fixed `overhead_ns` from its time a sample.
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
        """One gradient over `samples` samples took `duration_ns`."""
        weight = max(0.1, 1.0 / (self.steps + 1))
        self.step_ns += weight * (duration_ns - self.step_ns)
        self.samples += weight * (samples - self.samples)
        self._squares += weight * (samples * samples - self._squares)
        self._products += weight * (samples * duration_ns - self._products)
        self.steps += 1
        spread = self._squares - self.samples**2
        if spread > (VARIED * self.samples) ** 2:  # else the last batches say nothing about the overhead
            slope = (self._products - self.samples * self.step_ns) / spread
            self.overhead_ns = min(max(0.0, self.step_ns - slope * self.samples), self.step_ns)

    @property
    def sample_ns(self) -> float:
        """The time that one more sample costs; 0 before the first step."""
        return (self.step_ns - self.overhead_ns) / self.samples if self.samples else 0.0

    @property
    def samples_per_s(self) -> float | None:
        """Measured speed; None before the first step, inf where steps take no time."""
        if not self.steps:
            return None
        return self.samples / self.step_ns * 1e9 if self.step_ns else inf


def relative_speeds(samples_per_s: dict[int, float]) -> dict[int, float]:
    """How much each peer trains in a second against the mean of all that are known; 1 where no speed is finite."""
    finite = [speed for speed in samples_per_s.values() if 0 < speed < inf]
    mean = sum(finite) / len(finite) if finite else 0.0
    return {peer: speed / mean if 0 < speed < inf and mean else 1.0 for peer, speed in samples_per_s.items()}
