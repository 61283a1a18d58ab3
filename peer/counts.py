"""What has gone over a peer's links so far: the counts from which every world reports."""

from __future__ import annotations

from grapevine.peer.wire import HEADER_BYTES, Chunk

SAMPLES_KEPT = 65_536  # of delays and of lateness between two reports: beyond, every other one is dropped


class LinkCount:
    """What has gone over one directed link so far; times are emulated ns, in real time those of the real clock.

    One thread counts and another may read, so numbers only ever grow: the counts of an interval are the difference of two
    readings. `delays_ns` are samples, which the reader takes away.
    """

    __slots__ = ("bytes", "delays_ns", "first_bytes", "first_ns", "messages", "spread_bytes", "spread_ns")

    def __init__(self) -> None:
        self.bytes = 0
        self.messages = 0
        self.delays_ns: list[int] = []
        self.first_ns = 0
        self.first_bytes = 0
        self.spread_bytes = 0
        self.spread_ns = 0

    def delivered(self, chunk: Chunk, now_ns: int) -> None:
        """Count a chunk that was handed to the endpoint: how long it travelled, and how far a message's chunks lie apart."""
        if chunk.finish_ns:
            self.delays_ns.append(now_ns - chunk.finish_ns)
            thin(self.delays_ns)
        if chunk.number == 0:
            self.first_ns, self.first_bytes = now_ns, chunk.size_bytes
        elif chunk.offset + len(chunk.piece) == chunk.total_bytes:
            self.spread_bytes += chunk.total_bytes - self.first_bytes + HEADER_BYTES * (chunk.number + 1)
            self.spread_ns += now_ns - self.first_ns

    def arrived(self, travelled_ns: int, spread_bytes: int, spread_ns: int) -> None:
        """Count a whole message: how long its last bit travelled, and how far its chunks lay apart."""
        self.delays_ns.append(travelled_ns)
        self.spread_bytes += spread_bytes
        self.spread_ns += spread_ns


def thin(samples: list[int]) -> None:
    """Drop every other sample where there are more than SAMPLES_KEPT."""
    if len(samples) > SAMPLES_KEPT:
        del samples[::2]
