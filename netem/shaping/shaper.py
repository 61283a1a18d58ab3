"""The chunks that one peer sends over links that share no segment (for links that do: netem.shaping.sharing_shaper).

Pure: time is an argument, and the links compute the times of chunks, so that a late call does not slow an emulated link.
"""

from typing import Any

from grapevine.netem.links.link import Link, Transit
from grapevine.netem.shaping.sender import Sender


class Shaper:
    """A queue for each neighbour, emptied at the rate of its link.

    `links` maps each neighbour to the Link towards it. `release` returns chunks up to `lookahead_ns` before they begin, so that
    the thread that carries them need not wake for each one. Raises ValueError for a negative lookahead.
    """

    __slots__ = ("_busy", "_lookahead_ns", "_next_start_ns", "_ready", "_ready_bytes", "_senders")

    def __init__(self, links: dict[int, Link], lookahead_ns: int = 10_000_000) -> None:
        if lookahead_ns < 0:
            raise ValueError(f"the lookahead is {lookahead_ns} ns: expected 0 or more")
        self._senders: dict[int, Sender] = {}
        self._busy: dict[int, Sender] = {}  # senders with a queue, in the order in which the queues began
        self._lookahead_ns = lookahead_ns
        self._ready: list[tuple[int, Any, Transit]] = []  # chunks that did not wait: their times are known
        self._ready_bytes: list[int] = []
        self._next_start_ns: int | None = None  # the next queued chunk begins; None = unknown
        for target, link in links.items():
            self.add(target, link)

    def add(self, target: int, link: Link) -> None:
        """Add the link to a neighbour; a neighbour that came back after `drop` begins anew."""
        self._senders[target] = Sender(link)

    def offer(self, target: int, item: Any, size_bytes: int, now_ns: int, first: bool = True, urgent: bool = False) -> None:
        """Queue a chunk for `target`; `release` returns `item` unchanged.

        `first`: the chunk begins a message (its jitter is drawn). `urgent`: a message of one chunk (an acknowledgement) that
        leaves at once, before all data of that link, also before chunks that were released ahead of time and have not begun;
        its bytes are added to the next chunk of data. `target` must be one of the links.
        """
        sender = self._senders[target]
        transit = sender.offer(now_ns, size_bytes, item, first, urgent)
        if transit is not None:
            self._ready.append((target, item, transit))
            self._ready_bytes.append(size_bytes)
        elif target not in self._busy:
            self._busy[target] = sender
            self._next_start_ns = None

    def release(self, now_ns: int) -> list[tuple[int, Any, Transit]]:
        """Return the chunks that begin by `now_ns` + lookahead, as (target, item, transit), in order of start; each once."""
        released = self._ready
        if released or self._busy:
            self._ready = []
            self._ready_bytes = []
        horizon_ns = now_ns + self._lookahead_ns
        if not self._busy or (self._next_start_ns is not None and self._next_start_ns > horizon_ns):
            return released
        self._next_start_ns = None
        for target, sender in list(self._busy.items()):
            self._release_from(target, sender, horizon_ns, released)
        if len(released) > 1:
            released.sort(key=_start_ns)
        return released

    def next_ns(self) -> int | None:
        """Return the instant at which `release` next returns a chunk (possibly in the past); None when nothing is queued."""
        if self._ready:
            return self._ready[0][2].start_ns
        if not self._busy:
            return None
        if self._next_start_ns is None:
            self._next_start_ns = min(sender.start_ns() for sender in self._busy.values())
        return self._next_start_ns - self._lookahead_ns

    def relink(self, target: int, link: Link) -> None:
        """Use another Link towards a neighbour from now on, or the same one after a change; queued chunks go over it."""
        self._senders[target].relink(link)
        self._next_start_ns = None

    def drop(self, target: int) -> int:
        """Drop the chunks queued for a lost neighbour; return their size in bytes."""
        forgotten_bytes = self.backlog_bytes(target)
        kept = [i for i, chunk in enumerate(self._ready) if chunk[0] != target]
        self._ready, self._ready_bytes = [self._ready[i] for i in kept], [self._ready_bytes[i] for i in kept]
        self._senders[target].forget()
        self._busy.pop(target, None)
        self._next_start_ns = None
        return forgotten_bytes

    def backlog_bytes(self, target: int) -> int:
        """Return the bytes offered for `target` that were not released yet."""
        ready = zip(self._ready, self._ready_bytes, strict=True)
        return self._senders[target].queued_bytes + sum(size for chunk, size in ready if chunk[0] == target)

    def _release_from(self, target: int, sender: Sender, horizon_ns: int, released: list[tuple[int, Any, Transit]]) -> None:
        while sender.queue:
            start_ns = sender.start_ns()
            if start_ns > horizon_ns:
                known_ns = self._next_start_ns
                self._next_start_ns = start_ns if known_ns is None else min(known_ns, start_ns)
                return
            released.append((target, *sender.take(start_ns)))
        del self._busy[target]


def _start_ns(chunk: tuple[int, Any, Transit]) -> int:
    return chunk[2].start_ns
