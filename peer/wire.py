"""The frames that peers send and accept, and the check of each frame that arrives.

A frame is one zmq message of up to three parts: a fixed header of 72 bytes, and for a chunk its piece of the message (the
first chunk carries the message's head as a part of its own, so that a body never has to be copied behind it).  Nothing is
unpickled, and every length is checked against a bound before memory is taken.  A frame that is not valid raises `WireError`:
the fault is the sender's; the receiver drops the frame, counts it and goes on.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

MAGIC = b"GRVN"
VERSION = 2
_CHUNK, _ACK = 1, 2
# magic, version, kind, report ms, run, source, number, message, offset, total, due, finish | spread bytes, spread ns
_HEADER = struct.Struct("<4sBBHQIIQQQqqq")
HEADER_BYTES = _HEADER.size
CHUNK_LIMIT_BYTES = 1 << 20
HEAD_LIMIT_BYTES = 512


class WireError(Exception):
    """A frame that no honest peer of this run sends; `kind` is the kind of error that is counted, the text explains it."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Chunk(NamedTuple):
    """A piece of a message; `due_ns` and `finish_ns` are stamps of the emulated link (0 = deliver at once).

    `report_ms`, of a message's first chunk, is the time between two progress reports that its sender wants; 0 = none, only the
    acknowledgement of the whole message.
    """

    source: int
    message: int
    number: int
    offset: int
    total_bytes: int
    due_ns: int
    finish_ns: int
    head: Any
    piece: Any
    report_ms: int = 0

    @property
    def size_bytes(self) -> int:
        return HEADER_BYTES + len(self.head) + len(self.piece)


class Acknowledgement(NamedTuple):
    """The receiver's answer to a message, when it is whole or as a progress report: the dispersion of its chunks.

    From it the sender knows the link's rate without comparing clocks.  `spread_bytes` arrived in the `spread_ns` after the
    first chunk; the message is whole when these are all its other bytes.
    """

    source: int
    message: int
    spread_bytes: int
    spread_ns: int
    due_ns: int

    @property
    def size_bytes(self) -> int:
        return HEADER_BYTES


Frame = Chunk | Acknowledgement


def encode(frame: Frame, run: int) -> list[Any]:
    """Return the parts of one zmq message; the piece of a chunk is not copied."""
    if isinstance(frame, Chunk):
        header = _HEADER.pack(
            MAGIC, VERSION, _CHUNK, frame.report_ms, run, frame.source, frame.number, frame.message,
            frame.offset, frame.total_bytes, frame.due_ns, frame.finish_ns, 0,
        )  # fmt: skip
        return [header, frame.head, frame.piece] if frame.number == 0 else [header, frame.piece]
    header = _HEADER.pack(
        MAGIC, VERSION, _ACK, 0, run, frame.source, 0, frame.message,
        frame.spread_bytes, 0, frame.due_ns, 0, frame.spread_ns,
    )  # fmt: skip
    return [header]


def decode(parts: list[Any], run: int, message_limit_bytes: int) -> Frame:
    """Decode one frame of this run; raise WireError if the parts are not one.

    `parts` are bytes-like; `message_limit_bytes` bounds the size of the message that a chunk belongs to.
    """
    if not 1 <= len(parts) <= 3 or len(parts[0]) != HEADER_BYTES:
        raise WireError("foreign", f"{len(parts)} parts, the first of {len(parts[0]) if parts else 0} bytes: not a frame")
    (magic, version, kind, report_ms, token, source, number, message,
     offset, total, due_ns, finish_ns, spread_ns) = _HEADER.unpack(parts[0])  # fmt: skip
    if magic != MAGIC:
        raise WireError("foreign", "not a frame of this protocol")
    if version != VERSION:
        raise WireError("version", f"protocol version {version}; this peer speaks {VERSION}")
    if token != run:
        raise WireError("foreign", "a frame of another run")
    if due_ns < 0 or finish_ns < 0:
        raise WireError("stamp", "a frame stamped before the run began")
    if kind == _ACK:
        if len(parts) != 1 or report_ms or spread_ns < 0 or offset > message_limit_bytes:
            raise WireError("length", "an acknowledgement with fields that are not valid")
        return Acknowledgement(source, message, offset, spread_ns, due_ns)
    if kind != _CHUNK:
        raise WireError("kind", f"frame kind {kind}; known are {_CHUNK} and {_ACK}")
    if len(parts) != (3 if number == 0 else 2):
        raise WireError("length", f"chunk {number} in {len(parts)} parts")
    head, piece = (parts[1] if number == 0 else b""), parts[-1]
    if len(head) > HEAD_LIMIT_BYTES or len(piece) > CHUNK_LIMIT_BYTES:
        raise WireError("length", f"a chunk with a head of {len(head)} and a piece of {len(piece)} bytes")
    if total > message_limit_bytes or offset + len(piece) > total or (number == 0) != (offset == 0):
        raise WireError("length", f"bytes {offset}..{offset + len(piece)} of {total}; the limit is {message_limit_bytes}")
    if (number and report_ms) or (not len(piece) and (total or number)):
        raise WireError("length", f"chunk {number} of {total} bytes is empty, or asks for reports, which only chunk 0 may")
    return Chunk(source, message, number, offset, total, due_ns, finish_ns, head, piece, report_ms)
