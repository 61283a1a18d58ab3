"""Messages to chunks and back, acknowledgements, dispersion: one peer's end of all of its links.

Pure: it is fed with frames and with the time (emulated ns) and answers with frames; who carries them is the world's business.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from grapevine.peer.meter import LinkMeter
from grapevine.peer.payloads import Parcel
from grapevine.peer.wire import HEADER_BYTES, Acknowledgement, Chunk, WireError

MEASURE_EVERY = 4
OVERTAKEN = 64  # so many messages of a neighbour may come later than one sent after them, and be arriving at the same time
PIECE_LEAST_BYTES = 64  # a message that is cut for measuring is cut no finer


class Arrival(NamedTuple):
    """A whole message: its head (bytes), its body (uint8), and when its last chunk was in."""

    source: int
    message: int
    head: bytes
    body: np.ndarray
    arrived_ns: int
    size_bytes: int


class _Assembly:
    """One message that is arriving, chunk after chunk, in order."""

    __slots__ = (
        "body",
        "filled",
        "first_bytes",
        "first_ns",
        "head",
        "message",
        "next_number",
        "report_ns",
        "reported_ns",
        "size_bytes",
    )

    def __init__(self, chunk: Chunk, now_ns: int) -> None:
        self.message = chunk.message
        self.head = bytes(chunk.head)
        self.first_ns = self.reported_ns = now_ns
        self.report_ns = chunk.report_ms * 1_000_000
        self.first_bytes = self.size_bytes = chunk.size_bytes
        self.filled = len(chunk.piece)
        self.next_number = 1
        if self.filled == chunk.total_bytes:
            self.body = np.frombuffer(chunk.piece, np.uint8)  # whole in one chunk: no copy
        else:
            self.body = np.empty(chunk.total_bytes, np.uint8)
            self.body[: self.filled] = np.frombuffer(chunk.piece, np.uint8)

    def add(self, chunk: Chunk) -> None:
        self.body[self.filled : self.filled + len(chunk.piece)] = np.frombuffer(chunk.piece, np.uint8)
        self.filled += len(chunk.piece)
        self.next_number += 1
        self.size_bytes += chunk.size_bytes


class Endpoint:
    """One peer's end of its links; `message_limit_bytes` bounds what a neighbour may make it assemble."""

    def __init__(self, peer: int, neighbours: Iterable[int], message_limit_bytes: int) -> None:
        self.peer = peer
        self.message_limit_bytes = message_limit_bytes
        self.meters = {neighbour: LinkMeter() for neighbour in neighbours}
        self.errors: Counter[str] = Counter()
        self._sequence = dict.fromkeys(self.meters, 0)
        self._arriving: dict[int, dict[int, _Assembly]] = {neighbour: {} for neighbour in self.meters}
        self._overtaken: dict[int, deque[int]] = {neighbour: deque(maxlen=OVERTAKEN) for neighbour in self.meters}
        self._ahead: dict[int, deque[int]] = {neighbour: deque(maxlen=OVERTAKEN) for neighbour in self.meters}
        self._expected = dict.fromkeys(self.meters, 0)  # the least number that a neighbour's next message may have

    def send(self, target: int, parcel: Parcel, now_ns: int, horizon_ns: float) -> list[Chunk]:
        """Cut a message into the chunks that go to a neighbour, and remember it until it is acknowledged."""
        meter = self.meters[target]
        message = self._sequence[target]
        self._sequence[target] = message + 1
        report_ms = meter.report_ms(horizon_ns)
        chunks = cut(self.peer, message, parcel, meter.chunk_bytes(), report_ms)
        size_bytes = len(parcel.head) + parcel.body.nbytes + HEADER_BYTES * len(chunks)
        later_bytes = chunks[1].size_bytes if len(chunks) > 1 else 0
        meter.sent(message, size_bytes, chunks[0].size_bytes, later_bytes, now_ns, horizon_ns, report_ms)
        return chunks

    def receive(self, chunk: Chunk, now_ns: int) -> tuple[Arrival | None, Acknowledgement] | None:
        """Take in a chunk; when it completes a message: the message, and the acknowledgement to send back.  Where its sender
        wants to be told how far it has come, and was not for that long: no message, and the acknowledgement of what is there.

        Raises WireError where the chunk comes from a stranger, was here before, or does not continue what its sender began.
        """
        source = chunk.source
        if source not in self.meters:
            raise WireError("foreign", f"peer {source} is no neighbour of peer {self.peer}")
        continued = self._arriving[source].get(chunk.message)
        if self._seen(chunk, continued):
            raise WireError("replay", f"chunk {chunk.number} of message {chunk.message} was here before")
        if chunk.number == 0:
            if chunk.total_bytes > self.message_limit_bytes:
                raise WireError("length", f"a message of {chunk.total_bytes} bytes; the limit is {self.message_limit_bytes}")
            assembly = _Assembly(chunk, now_ns)
            self._begin(source, assembly)
        else:
            if (
                continued is None
                or continued.next_number != chunk.number
                or continued.filled != chunk.offset
                or len(continued.body) != chunk.total_bytes
            ):
                self._arriving[source].pop(chunk.message, None)
                raise WireError("order", f"chunk {chunk.number} of message {chunk.message} continues nothing")
            assembly = continued
            assembly.add(chunk)
        spread = (assembly.size_bytes - assembly.first_bytes, max(0, now_ns - assembly.first_ns))
        answer = Acknowledgement(self.peer, chunk.message, *spread, 0)
        if assembly.filled < chunk.total_bytes:
            if not assembly.report_ns or now_ns - assembly.reported_ns < assembly.report_ns:
                return None
            assembly.reported_ns = now_ns
            return None, answer
        del self._arriving[source][chunk.message]
        return Arrival(source, chunk.message, assembly.head, assembly.body, now_ns, assembly.size_bytes), answer

    def _seen(self, chunk: Chunk, continued: _Assembly | None) -> bool:
        """Whether a chunk is one that was taken in before: refused, it must not disturb the message that is arriving."""
        if continued is not None:
            return chunk.number < continued.next_number
        source, message = chunk.source, chunk.message
        return message in self._ahead[source] or (message < self._expected[source] and message not in self._overtaken[source])

    def _begin(self, source: int, assembly: _Assembly) -> None:
        """A message begins to arrive; those before it that have not are overtaken, and may still come.

        One that is further ahead than may be overtaken stands by itself: a forged number must not make all others old.
        """
        message, expected, arriving = assembly.message, self._expected[source], self._arriving[source]
        if message < expected:
            self._overtaken[source].remove(message)
        elif message > expected + OVERTAKEN:
            self._ahead[source].append(message)
        else:
            self._overtaken[source].extend(range(expected, message))
            self._expected[source] = message + 1
        arriving[message] = assembly
        if len(arriving) > OVERTAKEN:
            del arriving[next(iter(arriving))]

    def acknowledged(self, answer: Acknowledgement, now_ns: int) -> None:
        """A neighbour has a message, or some of it: measure the link.  Raises WireError for what is not under way."""
        meter = self.meters.get(answer.source)
        if meter is None or not meter.acknowledged(answer.message, answer.spread_bytes, answer.spread_ns, now_ns):
            raise WireError("acknowledgement", f"message {answer.message} to peer {answer.source} is not under way like that")

    def lose(self, neighbour: int) -> None:
        """Forget a neighbour that is gone; nothing of it may be received any more."""
        self.meters.pop(neighbour, None)
        self._sequence.pop(neighbour, None)
        self._arriving.pop(neighbour, None)
        self._overtaken.pop(neighbour, None)
        self._ahead.pop(neighbour, None)
        self._expected.pop(neighbour, None)


def cut(peer: int, message: int, parcel: Parcel, chunk_bytes: int, report_ms: int = 0) -> list[Chunk]:
    """A message's chunks; the first one asks for a report every `report_ms`."""
    body, total = memoryview(parcel.body.data) if parcel.body.nbytes else memoryview(b""), parcel.body.nbytes
    piece = piece_bytes(total, message, chunk_bytes)
    chunks = [Chunk(peer, message, 0, 0, total, 0, 0, parcel.head, body[:piece], report_ms)]
    for index, offset in enumerate(range(piece, total, piece), start=1):
        chunks.append(Chunk(peer, message, index, offset, total, 0, 0, b"", body[offset : offset + piece]))
    return chunks


def piece_bytes(total_bytes: int, message: int, chunk_bytes: int) -> int:
    """How much of a body goes into each of its chunks.

    One chunk measures nothing, so a message that would fit into one is cut in two whenever its turn to measure comes:
    every fourth time, which keeps small messages over fast links cheap.
    """
    if total_bytes <= chunk_bytes and message % MEASURE_EVERY == 0:
        return max(PIECE_LEAST_BYTES, -(-total_bytes // 2))
    return chunk_bytes
