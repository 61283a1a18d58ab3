"""Lost packets of a stream: independent or in bursts; drawn as gaps between losses, not packet by packet."""

import math

from numpy.random import Generator

PACKET_BYTES = 1500


class Doubles:
    """The packets of 1500 bytes that a link sends twice: a `share` of all, in [0, 1), drawn independently.

    Packets are counted along the stream, so the result does not depend on how the bytes are cut into chunks.
    """

    __slots__ = ("_drawn", "_position")

    def __init__(self, share: float, rng: Generator) -> None:
        self._drawn = Losses(share, rng)
        self._position = 0  # in the current packet, bytes

    def more_bytes(self, size_bytes: int) -> int:
        """Return the bytes of the duplicates among the next `size_bytes`."""
        packets, self._position = divmod(self._position + size_bytes, PACKET_BYTES)
        return PACKET_BYTES * self._drawn.pass_packets(packets)


class Losses:
    """The lost packets of one link.

    `share` is the mean share of lost packets in [0, 1). `burst` is the mean number of packets for which the link stays
    bad, 1 or more: at 1 each packet is lost independently (Bernoulli); above, the link is a two-state Markov chain (Gilbert,
    Bell System Technical Journal 1960; Elliott 1963) that loses `share_in_burst` of the packets while it is bad and
    none while it is good. Raises ValueError for numbers out of these ranges, and where `share` is not below `share_in_burst`.
    """

    __slots__ = ("_bad_left", "_gap", "_rng", "burst", "share", "share_in_burst")

    _gap: float

    def __init__(self, share: float, rng: Generator, burst: float = 1.0, share_in_burst: float = 1.0) -> None:
        if not 0 <= share < share_in_burst <= 1:
            raise ValueError(f"a loss of {share}, {share_in_burst} of it in bursts: expected 0 <= loss < loss in bursts <= 1")
        if not burst >= 1:
            raise ValueError(f"bursts of {burst} packets: expected 1 or more")
        if burst > 1 and share / share_in_burst > burst / (burst + 1):
            raise ValueError(f"a loss of {share} in bursts of {burst} packets leaves none between: expected less of it")
        self.share = share
        self.burst = burst
        self.share_in_burst = share_in_burst
        self._rng = rng
        self._bad_left = 0  # packets that the bad state still lasts
        self._gap = self._draw()

    def become(self, share: float) -> None:
        """Lose this share from the next packet on."""
        if share != self.share:
            self.share = min(share, math.nextafter(self.share_in_burst, 0))
            self._bad_left = 0
            self._gap = self._draw()

    def pass_packets(self, count: int) -> int:
        """Return the number of lost packets among the next `count`."""
        return len(self.lost_among(count))

    def lost_among(self, count: int) -> list[int]:
        """Return the places of the lost packets among the next `count`, counted from 0."""
        lost, passed = [], 0
        while count - passed >= self._gap:
            passed += int(self._gap)
            self._gap = self._draw()
            lost.append(passed - 1)
        self._gap -= count - passed
        return lost

    def tries(self) -> int:
        """Return how often a packet is sent until it arrives, 1 or more; for tries that are a round trip or more apart."""
        return int(self._rng.geometric(1 - self.share)) if self.share else 1

    def _draw(self) -> float:
        """Return the distance to the next lost packet, in packets."""
        if not self.share:
            return math.inf
        if self.burst == 1:
            return int(self._rng.geometric(self.share))
        bad_share = self.share / self.share_in_burst
        packets = 0
        while True:
            if self._bad_left == 0:
                packets += int(self._rng.geometric(min(1.0, bad_share / ((1 - bad_share) * self.burst))))
                self._bad_left = int(self._rng.geometric(1 / self.burst))
                packets -= 1  # the good state's last packet is followed by the bad state's first
            packets += 1
            self._bad_left -= 1
            if self.share_in_burst == 1 or self._rng.random() < self.share_in_burst:
                return packets
