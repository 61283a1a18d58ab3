"""The sending side of one directed link: its queue, the bytes that overtook the queue, and the times of each chunk.

Acknowledgements overtake the chunks that wait on a link: each arrives as if the link were idle. Their bytes are the link's
debt, which is added to the data that leave next, less the bytes that the link could have carried while it was idle.
Pure: time is an argument. Real time and virtual time, with and without shared segments, use these two classes.
"""

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from grapevine.netem.links.link import Link, Transit


class Queued(NamedTuple):
    """A chunk that waits on a link, or is leaving."""

    offered_ns: int
    size_bytes: int
    item: Any
    first: bool
    """Whether the chunk begins a message."""


_queued: Callable[[tuple[int, int, Any, bool]], Queued] = partial(tuple.__new__, Queued)
"""The same as Queued(...), in half the time."""


class Sender:
    """The sender of a link that shares no segment with others: the link itself gives the time at which a chunk leaves."""

    __slots__ = ("_early_bytes", "_slipped_ns", "debt_bytes", "link", "open", "queue", "queued_bytes")

    def __init__(self, link: Link) -> None:
        self.link = link
        self.open = type(link) is Link and link.rate_bytes_per_s == math.inf  # chunks never wait
        self.queue: deque[Queued] = deque()
        self.queued_bytes = 0
        self.debt_bytes = 0  # bytes that overtook the queue and were not yet added to data, as of `_slipped_ns`
        self._early_bytes = 0  # the part of the debt that arose on an idle link
        self._slipped_ns = 0

    def relink(self, link: Link) -> None:
        """Use another link from now on."""
        self.link = link
        self.open = self.open and type(link) is Link

    def busy(self, now_ns: int) -> bool:
        """Return whether a chunk is leaving or waiting."""
        return bool(self.queue) or self.link.free_ns > now_ns

    def slip(self, now_ns: int, size_bytes: int) -> int:
        """Send a few bytes past the queue; return when they arrive."""
        if not self.open:
            if self.busy(now_ns):
                self.debt_bytes += size_bytes
            else:
                left_bytes = self._take_debt(now_ns) if self.debt_bytes else 0
                self.debt_bytes = self._early_bytes = left_bytes + size_bytes
            self._slipped_ns = now_ns
        return self.link.beside_ns(now_ns, size_bytes)

    def offer(self, now_ns: int, size_bytes: int, item: Any, first: bool = True, urgent: bool = False) -> Transit | None:
        """Queue a chunk and return None; or return its times if it leaves at once: no queue, or `urgent` (past the queue)."""
        if self.open:
            return self.link.send(now_ns, size_bytes, first, urgent)
        if urgent and not self.link.halted:
            return Transit(now_ns, now_ns, self.slip(now_ns, size_bytes))
        self.queue.append(_queued((now_ns, size_bytes, item, first)))
        self.queued_bytes += size_bytes
        return None

    def start_ns(self) -> int:
        """Return the instant at which the next chunk of the queue can begin."""
        return max(self.queue[0][0], self.link.free_ns)

    def take(self, start_ns: int) -> tuple[Any, Transit]:
        """Send the next chunk of the queue at its `start_ns`, with the debt; return its item and its times."""
        _, size_bytes, item, first = self.queue.popleft()
        self.queued_bytes -= size_bytes
        if self.debt_bytes:
            size_bytes += self._take_debt(start_ns)
        return item, self.link.send(start_ns, size_bytes, first)

    def carry(self, now_ns: int, first_bytes: int, rest_bytes: int = 0) -> tuple[int, int, int]:
        """Send a whole message at once: its first chunk, and then the rest in one piece.

        Return when the first chunk arrives, and when the last bytes leave and arrive (ns).
        """
        if self.debt_bytes and (debt_bytes := self._take_debt(now_ns)):
            first_bytes, rest_bytes = self._with_debt(debt_bytes, first_bytes, rest_bytes)
        link = self.link
        _, finish_ns, first_ns = link.send(now_ns, first_bytes)
        if not rest_bytes:
            return first_ns, finish_ns, first_ns
        _, finish_ns, due_ns = link.send(now_ns, rest_bytes, False)
        return first_ns, finish_ns, due_ns

    def carry_chunks(self, now_ns: int, first_bytes: int, rest_bytes: int, chunk_bytes: int) -> list[Transit]:
        """Send a whole message at once: its first chunk, and then the rest in chunks; return the times of each."""
        laden_first_bytes, laden_rest_bytes = self._with_debt(self._take_debt(now_ns), first_bytes, rest_bytes)
        debt_bytes = laden_rest_bytes - rest_bytes
        transits = [self.link.send(now_ns, laden_first_bytes)]
        for start in range(0, rest_bytes, chunk_bytes):
            end = min(start + chunk_bytes, rest_bytes)
            more_bytes = debt_bytes * end // rest_bytes - debt_bytes * start // rest_bytes
            transits.append(self.link.send(now_ns, end - start + more_bytes, False))
        return transits

    def _take_debt(self, now_ns: int) -> int:
        """Return the debt less the bytes that the link could have carried since it became idle, and set the debt to 0."""
        debt_bytes, self.debt_bytes, link = self.debt_bytes, 0, self.link
        idle_ns = link.free_ns if link.free_ns > self._slipped_ns else self._slipped_ns
        if now_ns <= idle_ns:
            return debt_bytes
        paid_ns = link.left_ns(idle_ns, debt_bytes)
        return 0 if paid_ns <= now_ns else math.ceil(debt_bytes * (paid_ns - now_ns) / (paid_ns - idle_ns))

    def _with_debt(self, debt_bytes: int, first_bytes: int, rest_bytes: int) -> tuple[int, int]:
        """Return the bytes of a message's first chunk and of its rest with a debt added.

        Acknowledgements that were sent over the idle link delay the first chunk. Those that are sent while a message leaves
        travel among its chunks; they are not known yet, so the bytes of those that overtook the previous message are added in
        their place, evenly over all bytes: the receiver measures the same rate.
        """
        early_bytes = debt_bytes if not rest_bytes else min(self._early_bytes, debt_bytes)
        early_bytes += (debt_bytes - early_bytes) * first_bytes // (first_bytes + rest_bytes)
        self._early_bytes = 0
        return first_bytes + early_bytes, rest_bytes + debt_bytes - early_bytes

    def forget(self) -> int:
        """Drop the queued chunks; return their size in bytes."""
        forgotten_bytes = self.queued_bytes
        self.queue.clear()
        self.queued_bytes = self.debt_bytes = self._early_bytes = 0
        return forgotten_bytes


class FlowSender(Sender):
    """The sender of a link that shares segments: the fluid of all links determines when chunks leave (netem.shaping.fluid).

    Chunks move from `queue` to `leaving` when their bytes are given to the fluid, with the sizes that they then take.
    """

    __slots__ = ("leaving",)

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.open = False
        self.leaving: deque[Queued] = deque()

    def busy(self, now_ns: int) -> bool:
        return bool(self.leaving or self.queue)

    def takes(self, size_bytes: int) -> int:
        """Return the bytes that the next `size_bytes` take on the link, debt and duplicates included."""
        size_bytes += self.debt_bytes
        self.debt_bytes = 0
        return self.link.swell(size_bytes)

    def begin(self, count: int) -> int:
        """Move the next `count` chunks from the queue to `leaving`; return the bytes that they take on the link."""
        total_bytes = 0
        for _ in range(count):
            offered_ns, size_bytes, item, first = self.queue.popleft()
            self.queued_bytes -= size_bytes
            size_bytes = self.takes(size_bytes)
            self.leaving.append(_queued((offered_ns, size_bytes, item, first)))
            total_bytes += size_bytes
        return total_bytes

    def leave(self, before_ns: float, left_ns: float, end: bool) -> tuple[Any, Transit]:
        """Remove the first leaving chunk, which has left at `left_ns` (the one before it at `before_ns`); return its item and
        its times. `end`: no other chunk is leaving."""
        chunk = self.leaving.popleft()
        finish_ns = math.ceil(left_ns)
        due_ns = self.link.arrive(finish_ns, chunk.first, end)
        start_ns = min(max(chunk.offered_ns, math.ceil(before_ns)), finish_ns)
        return chunk.item, Transit(start_ns, finish_ns, due_ns)

    def forget(self) -> int:
        forgotten_bytes = sum(chunk.size_bytes for chunk in self.leaving) + super().forget()
        self.leaving.clear()
        return forgotten_bytes
