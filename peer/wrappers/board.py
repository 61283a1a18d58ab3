"""The board of colluding peers: all of them see the posts of each.

The board lies in one flat buffer, which a world provides: plain memory if all peers live in one process, else a file in memory
that only the fleet's processes hold.  Each colluder writes into slots of its own, one after the other and round again.  A slot
is stamped with the number of its post when it is whole, so that no peer reads a half-written post.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from grapevine.peer.payloads import Dense, Payload, decode, decode_head, encode, message_limit_bytes
from grapevine.peer.spaces import Spaces
from grapevine.peer.wire import HEAD_LIMIT_BYTES, WireError

LIMIT_BYTES = 1 << 30
ROOMY_BYTES = 64 << 20
LEAST_SLOTS, MOST_SLOTS = 2, 256
"""Bounds of the number of posts kept for each colluder: as many as fit into 64 MiB, or 2 if these fit into 1 GiB."""
_ABOUT = struct.Struct("<qiiIQ")  # time ns, source, target, bytes of the head, bytes of the body
_STAMP_BYTES = 8
_WRITING, _EMPTY = -2, -1


class Posted(NamedTuple):
    """A post of a colluder: a message that it sent or received, or (source = target) a vector that it computed."""

    peer: int
    time_ns: int
    source: int
    target: int
    step: int
    payload: Payload
    scalars: tuple[float, ...] = ()

    @classmethod
    def computed(cls, peer: int, time_ns: int, step: int, values: np.ndarray) -> Posted:
        """Return a post of a vector of the model's size that a colluder computed."""
        return cls(peer, time_ns, peer, peer, step, Dense(np.asarray(values, np.float32)))


class Board:
    """The board of some colluders in a buffer (uint8 [at least `bytes_needed`]), which must be all zeros if `new`.

    It keeps the last `slots` posts of each colluder, 2 to 256.  Numbers are kept exactly, independent of the codec of messages.
    """

    def __init__(self, colluders: Sequence[int], spaces: Spaces, buffer: np.ndarray, new: bool = True) -> None:
        self.colluders = sorted(colluders)
        self.spaces = Spaces(spaces.all[0].size, None, spaces.all[1:])
        self.slots = self.slots_of(len(self.colluders), spaces)
        slot_bytes = _slot_bytes(spaces)
        self._slots = buffer[: len(self.colluders) * self.slots * slot_bytes].reshape(
            len(self.colluders), self.slots, slot_bytes
        )
        self._stamps = self._slots[:, :, :_STAMP_BYTES].view(np.int64)[:, :, 0]
        self._rows = {peer: row for row, peer in enumerate(self.colluders)}
        if new:
            self._stamps[:] = _EMPTY

    @staticmethod
    def slots_of(colluders: int, spaces: Spaces) -> int:
        """Return the number of posts that a board keeps of each of its colluders; 0 if 2 of each do not fit."""
        each_bytes = colluders * _slot_bytes(spaces)
        slots = min(MOST_SLOTS, max(LEAST_SLOTS, ROOMY_BYTES // each_bytes))
        return slots if slots * each_bytes <= LIMIT_BYTES else 0

    @staticmethod
    def bytes_needed(colluders: int, spaces: Spaces) -> int:
        """Return the number of bytes that the buffer needs."""
        return colluders * Board.slots_of(colluders, spaces) * _slot_bytes(spaces)

    def post(self, posted: Posted) -> None:
        """Keep a copy of a post; it replaces the oldest post of its colluder."""
        row = self._rows[posted.peer]
        number = int(self._stamps[row].max()) + 1
        space = self.spaces.find(posted.payload.space)[0]
        parcel, _ = encode(posted.payload, self.spaces.codecs[space], posted.step, posted.scalars, space)
        head, body = np.frombuffer(parcel.head, np.uint8), parcel.body
        about = _ABOUT.pack(posted.time_ns, posted.source, posted.target, len(head), len(body))
        place = number % self.slots
        self._stamps[row, place] = _WRITING
        content = self._slots[row, place, _STAMP_BYTES:]
        content[: _ABOUT.size] = np.frombuffer(about, np.uint8)
        content[_ABOUT.size : _ABOUT.size + len(head)] = head
        content[_ABOUT.size + len(head) : _ABOUT.size + len(head) + len(body)] = body
        self._stamps[row, place] = number

    def read(self, until_ns: int) -> list[Posted]:
        """Return copies of the posts of an emulated time of at most `until_ns`, in order of time, then peer."""
        found = [each for peer in self.colluders for each in self._of(peer)]
        return sorted((each for each in found if each.time_ns <= until_ns), key=lambda each: (each.time_ns, each.peer))

    def _of(self, peer: int) -> Iterator[Posted]:
        """Yield the posts of one colluder, the oldest first."""
        row = self._rows[peer]
        stamps = self._stamps[row].copy()
        for place in np.argsort(stamps, kind="stable"):
            if stamps[place] < 0:
                continue
            content = self._slots[row, place, _STAMP_BYTES:].copy()
            if self._stamps[row, place] != stamps[place]:
                continue  # overwritten meanwhile
            time_ns, source, target, head_bytes, body_bytes = _ABOUT.unpack(content[: _ABOUT.size].tobytes())
            start = _ABOUT.size + head_bytes
            try:
                head = decode_head(content[_ABOUT.size : start].tobytes())
                payload = decode(head, content[start : start + body_bytes].copy(), self.spaces)
            except WireError:
                continue
            yield Posted(peer, time_ns, source, target, head.step, payload, head.scalars)


def _slot_bytes(spaces: Spaces) -> int:
    """Return the bytes of the largest post, a multiple of 8."""
    return -(-(_STAMP_BYTES + _ABOUT.size + HEAD_LIMIT_BYTES + message_limit_bytes(spaces)) // 8) * 8
