"""The counts of bytes, messages and delays of a peer's links, from which both worlds report."""

from __future__ import annotations

from grapevine.peer.wire import HEADER_BYTES, Chunk

SAMPLES_KEPT = 65_536  # samples of delay or lateness between two reports; above that number every other sample is dropped


class LinkCount:
    """The bytes and messages that one directed link has carried so far, and samples of its delays.

    Times are emulated ns, in real time read from the real clock.  One thread counts and another may read, so numbers only grow:
    the counts of an interval are the difference of two readings.  The reader removes the samples in `delays_ns`.
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
        """Count a chunk that was handed to the endpoint: its delay, and the dispersion of a message of several chunks."""
        if chunk.finish_ns:
            self.delays_ns.append(now_ns - chunk.finish_ns)
            thin(self.delays_ns)
        if chunk.number == 0:
            self.first_ns, self.first_bytes = now_ns, chunk.size_bytes
        elif chunk.offset + len(chunk.piece) == chunk.total_bytes:
            self.spread_bytes += chunk.total_bytes - self.first_bytes + HEADER_BYTES * (chunk.number + 1)
            self.spread_ns += now_ns - self.first_ns


def thin(samples: list[int]) -> None:
    """Drop every other sample if there are more than SAMPLES_KEPT."""
    if len(samples) > SAMPLES_KEPT:
        del samples[::2]
