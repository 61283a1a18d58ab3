"""One peer's end of its links: it cuts messages into chunks, assembles and acknowledges them, and measures dispersion.

It is pure: it gets messages, frames and the time (emulated ns) and returns frames, which the world carries.  A world that
carries whole messages gets their sizes from `prepare`, and needs acknowledgements only.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import numpy as np

from grapevine.peer.meter import LinkMeter
from grapevine.peer.payloads import Parcel
from grapevine.peer.wire import HEADER_BYTES, Acknowledgement, Chunk, WireError

MEASURE_EVERY = 4
"""One chunk measures no rate: one message in this number that fits into one chunk is cut in two."""
OVERTAKEN = 64  # messages of a neighbour that may arrive after a later one, and that may be incomplete at the same time
PIECE_LEAST_BYTES = 64  # the smallest piece of a message that is cut for measuring
FLOOD = "flood"
"""The kind of error by which `errors` counts frames of a neighbour that had too many frames waiting here for their instant."""
BLOCKED = "blocked"
"""The key by which `errors` counts the seconds of emulated time without reading, because too many frames waited here."""


class Arrival(NamedTuple):
    """A whole message: its head (bytes), its body (uint8), and the arrival of its last chunk (emulated ns)."""

    source: int
    message: int
    head: bytes
    body: np.ndarray
    arrived_ns: int
    size_bytes: int


class Prepared(NamedTuple):
    """A message that is about to leave: its number, and the sizes of its chunks with their headers."""

    message: int
    size_bytes: int
    """Bytes of all its chunks."""
    first_bytes: int
    """Bytes of its first chunk; of the whole message if there is only one chunk."""
    chunk_bytes: int
    """Bytes of every later chunk except the last, which may be smaller."""
    report_ms: int
    """Time between two of its receiver's progress reports; 0 = one acknowledgement when the message is whole."""


_prepared: Callable[[tuple[int, int, int, int, int]], Prepared] = partial(tuple.__new__, Prepared)
"""Prepared(...), but twice as fast."""


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


class _Neighbour:
    """The state of the messages from and to one neighbour."""

    __slots__ = ("ahead", "arriving", "expected", "meter", "overtaken", "sequence")

    def __init__(self) -> None:
        self.meter = LinkMeter()
        self.sequence = 0  # number of the next message to it
        self.expected = 0  # the next message from it has at least this number
        self.arriving: dict[int, _Assembly] = {}
        self.overtaken: deque[int] = deque(maxlen=OVERTAKEN)
        self.ahead: deque[int] = deque(maxlen=OVERTAKEN)


class Endpoint:
    """One peer's end of its links; `message_limit_bytes` bounds the size of a message that it assembles.

    `errors` counts refused frames by kind: acknowledgements here, other frames in the thread that reads them.
    """

    def __init__(self, peer: int, neighbours: Iterable[int], message_limit_bytes: int) -> None:
        self.peer = peer
        self.message_limit_bytes = message_limit_bytes
        self.meters: dict[int, LinkMeter] = {}
        self.errors: Counter[str] = Counter()
        self._neighbours: dict[int, _Neighbour] = {}
        for neighbour in neighbours:
            self.add(neighbour)

    def add(self, neighbour: int) -> None:
        """Add a link to another peer, with a meter that has measured nothing yet."""
        self._neighbours[neighbour] = known = _Neighbour()
        self.meters[neighbour] = known.meter

    def lose(self, neighbour: int) -> None:
        """Forget a neighbour that is gone; its frames are refused from now on."""
        self._neighbours.pop(neighbour, None)
        self.meters.pop(neighbour, None)

    def prepare(self, target: int, parcel: Parcel, now_ns: int, horizon_ns: float) -> Prepared:
        """Number a message to a neighbour, decide the sizes of its chunks, and remember it until it is acknowledged."""
        neighbour = self._neighbours[target]
        meter, message, total = neighbour.meter, neighbour.sequence, parcel.body.nbytes
        neighbour.sequence = message + 1
        piece = meter.chunk_bytes()
        if total <= piece and not message % MEASURE_EVERY:
            piece = max(PIECE_LEAST_BYTES, -(-total // 2))
        chunk_bytes = HEADER_BYTES + piece
        if total > piece:
            size_bytes = parcel.size_bytes + HEADER_BYTES * -(-total // piece)
            first_bytes = chunk_bytes + len(parcel.head)
        else:
            size_bytes = first_bytes = parcel.size_bytes + HEADER_BYTES
        report_ms = meter.report_ms(horizon_ns)
        meter.sent(message, size_bytes, first_bytes, chunk_bytes, now_ns, horizon_ns, report_ms)
        return _prepared((message, size_bytes, first_bytes, chunk_bytes, report_ms))

    def send(self, target: int, parcel: Parcel, now_ns: int, horizon_ns: float) -> list[Chunk]:
        """Prepare a message to a neighbour and return its chunks; the first chunk asks for progress reports if they are due."""
        message, _, _, chunk_bytes, report_ms = self.prepare(target, parcel, now_ns, horizon_ns)
        total, piece = parcel.body.nbytes, chunk_bytes - HEADER_BYTES
        body = memoryview(parcel.body.data) if total else memoryview(b"")
        chunks = [Chunk(self.peer, message, 0, 0, total, 0, 0, parcel.head, body[:piece], report_ms)]
        for number, offset in enumerate(range(piece, total, piece), start=1):
            chunks.append(Chunk(self.peer, message, number, offset, total, 0, 0, b"", body[offset : offset + piece]))
        return chunks

    def receive(self, chunk: Chunk, now_ns: int) -> tuple[Arrival | None, Acknowledgement] | None:
        """Take a chunk in; if it completes a message return the message and the acknowledgement to send back.

        If it does not, and a progress report is due to its sender, return (None, the acknowledgement of the bytes so far), else
        None.  Raises WireError if the chunk does not come from a neighbour, was here before, or does not continue its message.
        """
        source = chunk.source
        neighbour = self._neighbours.get(source)
        if neighbour is None:
            raise WireError("foreign", f"peer {source} is not a neighbour of peer {self.peer}")
        continued = neighbour.arriving.get(chunk.message)
        if _seen(neighbour, chunk, continued):
            raise WireError("replay", f"chunk {chunk.number} of message {chunk.message} was here before")
        if chunk.number == 0:
            if chunk.total_bytes > self.message_limit_bytes:
                raise WireError("length", f"a message of {chunk.total_bytes} bytes; the limit is {self.message_limit_bytes}")
            assembly = _Assembly(chunk, now_ns)
            _begin(neighbour, assembly)
        else:
            if (
                continued is None
                or continued.next_number != chunk.number
                or continued.filled != chunk.offset
                or len(continued.body) != chunk.total_bytes
            ):
                neighbour.arriving.pop(chunk.message, None)
                raise WireError("order", f"chunk {chunk.number} of message {chunk.message} does not continue its message")
            assembly = continued
            assembly.add(chunk)
        spread = (assembly.size_bytes - assembly.first_bytes, max(0, now_ns - assembly.first_ns))
        answer = Acknowledgement(self.peer, chunk.message, *spread, 0)
        if assembly.filled < chunk.total_bytes:
            if not assembly.report_ns or now_ns - assembly.reported_ns < assembly.report_ns:
                return None
            assembly.reported_ns = now_ns
            return None, answer
        del neighbour.arriving[chunk.message]
        return Arrival(source, chunk.message, assembly.head, assembly.body, now_ns, assembly.size_bytes), answer

    def acknowledged(self, source: int, message: int, spread_bytes: int, spread_ns: int, now_ns: int) -> None:
        """Measure the link from the numbers of a neighbour's Acknowledgement of a message or of a part of it.

        An acknowledgement of a message that is not under way is counted as an error.
        """
        meter = self.meters.get(source)
        if meter is None or not meter.acknowledged(message, spread_bytes, spread_ns, now_ns):
            self.errors["acknowledgement"] += 1


def _seen(neighbour: _Neighbour, chunk: Chunk, continued: _Assembly | None) -> bool:
    """Whether a chunk was taken in before; it is refused and does not disturb the message that is arriving."""
    if continued is not None:
        return chunk.number < continued.next_number
    message = chunk.message
    return message in neighbour.ahead or (message < neighbour.expected and message not in neighbour.overtaken)


def _begin(neighbour: _Neighbour, assembly: _Assembly) -> None:
    """Record that a message begins to arrive; earlier messages that have not begun are overtaken, and may still come.

    A message whose number is more than OVERTAKEN ahead is kept apart, so that a forged number does not make all others old.
    """
    message, expected, arriving = assembly.message, neighbour.expected, neighbour.arriving
    if message < expected:
        neighbour.overtaken.remove(message)
    elif message > expected + OVERTAKEN:
        neighbour.ahead.append(message)
    else:
        neighbour.overtaken.extend(range(expected, message))
        neighbour.expected = message + 1
    arriving[message] = assembly
    if len(arriving) > OVERTAKEN:
        del arriving[next(iter(arriving))]
