"""One directed link as its sender uses it: what is queued, what has gone past the queue, and when each chunk travels.

Acknowledgements go past whatever waits on a link: each arrives as if nothing else were there. Their bytes are the link's debt,
which it makes up for with the data that leave next; over an idle link nobody waits, and only the last one is made up for.
Pure: every method is given the time. Real time and virtual time, with and without shared segments, use these two machines.
"""

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from grapevine.netem.links.link import Link, Transit


class Queued(NamedTuple):
    """A chunk that waits on a link, or leaves."""

    offered_ns: int
    size_bytes: int
    item: Any
    first: bool
    """Whether it begins a message."""


_queued: Callable[[tuple[int, int, Any, bool]], Queued] = partial(tuple.__new__, Queued)
"""The same as Queued(...), in half the time."""


class Sender:
    """The sender of a link that shares no segment with others: the link itself says when a chunk leaves."""

    __slots__ = ("debt_bytes", "link", "open", "queue", "queued_bytes")

    def __init__(self, link: Link) -> None:
        self.link = link
        self.open = type(link) is Link and link.rate_bytes_per_s == math.inf  # nothing holds a chunk up
        self.queue: deque[Queued] = deque()
        self.queued_bytes = 0
        self.debt_bytes = 0  # what has gone past the queue and was not made up for

    def relink(self, link: Link) -> None:
        """Use another link from now on."""
        self.link = link
        self.open = self.open and type(link) is Link

    def busy(self, now_ns: int) -> bool:
        """Whether anything leaves or waits to."""
        return bool(self.queue) or self.link.free_ns > now_ns

    def slip(self, now_ns: int, size_bytes: int) -> int:
        """Let a few bytes go past whatever waits; when they arrive."""
        if self.debt_bytes and not self.busy(now_ns):
            self.debt_bytes = 0
        self.debt_bytes += size_bytes
        return self.link.beside_ns(now_ns, size_bytes)

    def offer(self, now_ns: int, size_bytes: int, item: Any, first: bool = True, urgent: bool = False) -> Transit | None:
        """Queue a chunk; where nothing holds it up, or it goes past the queue (`urgent`), when it travels."""
        if self.open:
            return self.link.send(now_ns, size_bytes, first, urgent)
        if urgent and not self.link.halted:
            return Transit(now_ns, now_ns, self.slip(now_ns, size_bytes))
        self.queue.append(_queued((now_ns, size_bytes, item, first)))
        self.queued_bytes += size_bytes
        return None

    def start_ns(self) -> int:
        """When the next chunk of the queue can begin."""
        return max(self.queue[0][0], self.link.free_ns)

    def take(self, start_ns: int) -> tuple[Any, Transit]:
        """Put the next chunk of the queue on the link, at its `start_ns` and with what it makes up for: its item, and when it
        travels."""
        _, size_bytes, item, first = self.queue.popleft()
        self.queued_bytes -= size_bytes
        size_bytes += self.debt_bytes
        self.debt_bytes = 0
        return item, self.link.send(start_ns, size_bytes, first)

    def carry(self, now_ns: int, first_bytes: int, rest_bytes: int = 0) -> tuple[int, int, int]:
        """Put a message on the link at once, its first chunk and then the rest in one piece.

        Return when the first chunk arrives, and when the last bytes leave and arrive (ns).
        """
        if self.debt_bytes:
            first_bytes, rest_bytes = self._with_debt(first_bytes, rest_bytes)
        link = self.link
        _, finish_ns, first_ns = link.send(now_ns, first_bytes)
        if not rest_bytes:
            return first_ns, finish_ns, first_ns
        _, finish_ns, due_ns = link.send(now_ns, rest_bytes, False)
        return first_ns, finish_ns, due_ns

    def carry_chunks(self, now_ns: int, first_bytes: int, rest_bytes: int, chunk_bytes: int) -> list[Transit]:
        """Put a message on the link at once, its first chunk and then the rest in chunks; return when each travels."""
        laden_first_bytes, laden_rest_bytes = self._with_debt(first_bytes, rest_bytes)
        debt_bytes = laden_rest_bytes - rest_bytes
        transits = [self.link.send(now_ns, laden_first_bytes)]
        for start in range(0, rest_bytes, chunk_bytes):
            end = min(start + chunk_bytes, rest_bytes)
            more_bytes = debt_bytes * end // rest_bytes - debt_bytes * start // rest_bytes
            transits.append(self.link.send(now_ns, end - start + more_bytes, False))
        return transits

    def _with_debt(self, first_bytes: int, rest_bytes: int) -> tuple[int, int]:
        """Return the bytes of a message's first chunk and of its rest with the link's debt, which is paid by this.

        Acknowledgements that are sent while a message leaves travel among its chunks. They are not known yet, so those since
        the message before take their place: spread evenly over all bytes, so that the receiver measures the same rate.
        """
        debt_bytes, self.debt_bytes = self.debt_bytes, 0
        early_bytes = debt_bytes * first_bytes // (first_bytes + rest_bytes)
        if not rest_bytes:
            return first_bytes + debt_bytes, 0
        return first_bytes + early_bytes, rest_bytes + debt_bytes - early_bytes

    def forget(self) -> int:
        """Drop what is queued; how many bytes that was."""
        forgotten_bytes = self.queued_bytes
        self.queue.clear()
        self.queued_bytes = self.debt_bytes = 0
        return forgotten_bytes


class FlowSender(Sender):
    """The sender of a link that shares segments: its chunks leave when the fluid of all links says so (netem.shaping.fluid).

    Chunks move from `queue` to `leaving` when the fluid is asked to carry them, with the sizes that they then take.
    """

    __slots__ = ("leaving",)

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.open = False
        self.leaving: deque[Queued] = deque()

    def busy(self, now_ns: int) -> bool:
        return bool(self.leaving or self.queue)

    def takes(self, size_bytes: int) -> int:
        """What the next bytes to leave take on the link: with what they make up for, and with what goes twice."""
        size_bytes += self.debt_bytes
        self.debt_bytes = 0
        return self.link.swell(size_bytes)

    def begin(self, count: int) -> int:
        """Let the next `count` chunks of the queue leave; how many bytes they take on the link."""
        total_bytes = 0
        for _ in range(count):
            offered_ns, size_bytes, item, first = self.queue.popleft()
            self.queued_bytes -= size_bytes
            size_bytes = self.takes(size_bytes)
            self.leaving.append(_queued((offered_ns, size_bytes, item, first)))
            total_bytes += size_bytes
        return total_bytes

    def leave(self, before_ns: float, left_ns: float, end: bool) -> tuple[Any, Transit]:
        """The first of the leaving chunks has left, at `left_ns`, the one before it at `before_ns`: its item, and when it
        travels.  `end`: nothing else leaves."""
        chunk = self.leaving.popleft()
        finish_ns = math.ceil(left_ns)
        due_ns = self.link.arrive(finish_ns, chunk.first, end)
        start_ns = min(max(chunk.offered_ns, math.ceil(before_ns)), finish_ns)
        return chunk.item, Transit(start_ns, finish_ns, due_ns)

    def forget(self) -> int:
        forgotten_bytes = sum(chunk.size_bytes for chunk in self.leaving) + super().forget()
        self.leaving.clear()
        return forgotten_bytes
