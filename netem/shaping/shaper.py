"""What one peer sends over links that share nothing with others (those that do: netem.shaping.sharing_shaper).

Pure: every method is given the time, and the stamps come from the lines' own clocks, so that whoever calls late does not
slow an emulated link.
"""

import math
from collections import deque
from typing import Any

from grapevine.netem.links.link import Link, Transit

_Queue = deque[tuple[int, int, Any, bool]]  # enqueued_ns, size_bytes, item, first


class Shaper:
    """A queue for each neighbour, which empties at its link's pace.

    `links` maps each neighbour to the Link towards it. `release` hands chunks out up to `lookahead_ns` before they begin, so
    that whoever carries them need not wake for each one in time. Raises ValueError for a negative lookahead.
    """

    __slots__ = ("_busy", "_lanes", "_lookahead_ns", "_next_start_ns", "_ready", "_ready_bytes")

    def __init__(self, links: dict[int, Link], lookahead_ns: int = 10_000_000) -> None:
        if lookahead_ns < 0:
            raise ValueError(f"the lookahead is {lookahead_ns} ns: expected 0 or more")
        self._lanes = {target: _Lane(target, link) for target, link in links.items()}
        self._busy: dict[int, _Lane] = {}  # those with something queued, in the order in which they became so
        self._lookahead_ns = lookahead_ns
        self._ready: list[tuple[int, Any, Transit]] = []  # what no line holds up: stamped when offered
        self._ready_bytes: list[int] = []
        self._next_start_ns: int | None = None  # when the next queued chunk begins, where that is known

    def offer(self, target: int, item: Any, size_bytes: int, now_ns: int, first: bool = True, urgent: bool = False) -> None:
        """Queue a chunk for `target`; `item` comes back from `release` as it is.

        `first`: the chunk begins a message (its jitter is drawn). `urgent`: a message of one chunk (an acknowledgement)
        that goes at once, past all data of that link, also past what was released ahead of its time and has not begun yet;
        the link makes its bytes up with the next chunk of data. `target` must be one of the links.
        """
        lane = self._lanes[target]
        if lane.open or (urgent and not lane.link.halted):
            transit = lane.link.send(now_ns, size_bytes, first, urgent) if lane.open else self._slip(lane, size_bytes, now_ns)
            self._ready.append((target, item, transit))
            self._ready_bytes.append(size_bytes)
            return
        lane.data.append((now_ns, size_bytes, item, first))
        lane.queued_bytes += size_bytes
        if target not in self._busy:
            self._busy[target] = lane
            self._next_start_ns = None

    def release(self, now_ns: int) -> list[tuple[int, Any, Transit]]:
        """The chunks that begin by `now_ns` + lookahead, as (target, item, transit), in order of start; each once."""
        released = self._ready
        if released or self._busy:
            self._ready = []
            self._ready_bytes = []
        horizon_ns = now_ns + self._lookahead_ns
        if not self._busy or (self._next_start_ns is not None and self._next_start_ns > horizon_ns):
            return released
        self._next_start_ns = None
        for lane in list(self._busy.values()):
            self._release_from(lane, horizon_ns, released)
        if len(released) > 1:
            released.sort(key=_start_ns)
        return released

    def next_ns(self) -> int | None:
        """When `release` will next yield something (perhaps in the past); None when nothing is queued."""
        if self._ready:
            return self._ready[0][2].start_ns
        if not self._busy:
            return None
        if self._next_start_ns is None:
            self._next_start_ns = min(lane.start_ns() for lane in self._busy.values())
        return self._next_start_ns - self._lookahead_ns

    def relink(self, target: int, link: Link) -> None:
        """The Link towards a neighbour is another from now on, or is not as it was; what is queued goes over it."""
        lane = self._lanes[target]
        lane.link = link
        lane.open = lane.open and type(link) is Link
        self._next_start_ns = None

    def drop(self, target: int) -> int:
        """Forget what is queued for a lost neighbour; how many bytes that was."""
        forgotten_bytes = self.backlog_bytes(target)
        kept = [i for i, chunk in enumerate(self._ready) if chunk[0] != target]
        self._ready, self._ready_bytes = [self._ready[i] for i in kept], [self._ready_bytes[i] for i in kept]
        lane = self._lanes[target]
        lane.data.clear()
        lane.queued_bytes = lane.debt_bytes = 0
        self._busy.pop(target, None)
        self._next_start_ns = None
        return forgotten_bytes

    def backlog_bytes(self, target: int) -> int:
        """How many bytes offered for `target` were not released yet."""
        ready = zip(self._ready, self._ready_bytes, strict=True)
        return self._lanes[target].queued_bytes + sum(size for chunk, size in ready if chunk[0] == target)

    def _slip(self, lane: "_Lane", size_bytes: int, now_ns: int) -> Transit:
        """Let a few bytes go past whatever waits."""
        idle = not lane.data and lane.link.free_ns <= now_ns
        lane.debt_bytes = size_bytes + (0 if idle else lane.debt_bytes)
        return Transit(now_ns, now_ns, lane.link.beside_ns(now_ns, size_bytes))

    def _release_from(self, lane: "_Lane", horizon_ns: int, released: list[tuple[int, Any, Transit]]) -> None:
        while lane.data:
            start_ns = lane.start_ns()
            if start_ns > horizon_ns:
                known_ns = self._next_start_ns
                self._next_start_ns = start_ns if known_ns is None else min(known_ns, start_ns)
                return
            size_bytes, item, first = lane.take()
            released.append((lane.target, item, lane.link.send(start_ns, size_bytes, first)))
        del self._busy[lane.target]


class _Lane:
    """One neighbour's queue."""

    __slots__ = ("data", "debt_bytes", "link", "open", "queued_bytes", "target")

    def __init__(self, target: int, link: Link) -> None:
        self.target = target
        self.link = link
        self.open = type(link) is Link and link.rate_bytes_per_s == math.inf  # nothing holds a chunk up
        self.data: _Queue = deque()
        self.queued_bytes = 0
        self.debt_bytes = 0  # what has gone past the data, and is made up with the next chunk

    def start_ns(self) -> int:
        """When its next chunk can begin."""
        return max(self.data[0][0], self.link.free_ns)

    def take(self) -> tuple[int, Any, bool]:
        """Its next chunk: the bytes that it takes on the line, the item, and whether it begins a message."""
        _, size_bytes, item, first = self.data.popleft()
        self.queued_bytes -= size_bytes
        size_bytes += self.debt_bytes
        self.debt_bytes = 0
        return size_bytes, item, first


def _start_ns(chunk: tuple[int, Any, Transit]) -> int:
    return chunk[2].start_ns
