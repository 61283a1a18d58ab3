"""What one peer sends and receives, at the rates of its links and of the access line that they share.

Pure: every method is given the time, and the stamps come from the lines' own clocks, so that whoever calls late does not
slow an emulated link.
"""

import math
from collections import deque
from typing import Any

from netem.link import Link, Transit

_Queue = deque[tuple[int, int, Any, bool]]  # enqueued_ns, size_bytes, item, first


class Shaper:
    """All that one peer sends: a queue for each neighbour, and the uplink shared among them chunk by chunk.

    `links` maps each neighbour to the Link towards it; `uplink_bytes_per_s` is shared by all of them (infinite: none).
    `release` hands chunks out up to `lookahead_ns` before they begin, so that whoever carries them need not wake for
    each one in time.

    The uplink is shared max-min fairly in bytes: among the links that can take a chunk, the one goes next that has had
    the least (start-time fair queueing, Goyal, Vin & Cheng, SIGCOMM 1996, equal weights). With equal chunks that is
    round robin; counting bytes keeps it fair where links of unequal rates cut chunks of unequal sizes. A link slower
    than its share takes its chunks early, by one of its chunks or by one round of the others, so that it does not run
    dry while it waits for its turn; what it leaves goes to the others. There is no store-and-forward: a chunk leaves
    the link while the uplink still feeds it.

    Raises ValueError for an uplink that is not positive or a negative lookahead.
    """

    __slots__ = (
        "_busy",
        "_credit_ns",
        "_lanes",
        "_longest_ns",
        "_lookahead_ns",
        "_next_start_ns",
        "_ns_per_byte",
        "_ready",
        "_ready_bytes",
        "_tag",
        "_uplink_free_ns",
    )

    def __init__(self, links: dict[int, Link], uplink_bytes_per_s: float = math.inf, lookahead_ns: int = 10_000_000) -> None:
        self._ns_per_byte = _ns_per_byte(uplink_bytes_per_s, "uplink")
        if lookahead_ns < 0:
            raise ValueError(f"the lookahead is {lookahead_ns} ns: expected 0 or more")
        self._lanes = {target: _Lane(target, link, not self._ns_per_byte) for target, link in links.items()}
        self._busy: dict[int, _Lane] = {}  # those with something queued, in the order in which they became so
        self._lookahead_ns = lookahead_ns
        self._ready: list[tuple[int, Any, Transit]] = []  # what no line holds up: stamped when offered
        self._ready_bytes: list[int] = []
        self._uplink_free_ns = 0
        self._credit_ns = 0.0  # what rounding the uplink's times up has taken too much; in [0, 1)
        self._longest_ns = 0  # the longest time that one chunk has taken on the uplink
        self._next_start_ns: int | None = None  # when the next queued chunk begins, where that is known
        self._tag = 0  # bytes that a link without arrears has had: the start tag of the chunk last served

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
        if size_bytes > lane.largest_bytes:
            self._next_start_ns = None
            lane.largest_bytes = size_bytes
            lane.early_ns = math.ceil(lane.link.time_ns(size_bytes))
            self._longest_ns = max(self._longest_ns, math.ceil(size_bytes * self._ns_per_byte))

    def release(self, now_ns: int) -> list[tuple[int, Any, Transit]]:
        """The chunks that begin by `now_ns` + lookahead, as (target, item, transit), in order of start; each once.

        With an uplink, a transit's start is when the uplink begins with the chunk.
        """
        released = self._ready
        if released or self._busy:
            self._ready = []
            self._ready_bytes = []
        horizon_ns = now_ns + self._lookahead_ns
        if not self._busy or (self._next_start_ns is not None and self._next_start_ns > horizon_ns):
            return released
        self._next_start_ns = None
        if self._ns_per_byte:
            self._release_shared(horizon_ns, released)
            released.sort(key=_start_ns)
            return released
        for lane in list(self._busy.values()):
            self._release_alone(lane, horizon_ns, released)
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
            alone = not self._ns_per_byte
            self._next_start_ns = min(lane.start_ns() for lane in self._busy.values()) if alone else self._pick()[0]
        return self._next_start_ns - self._lookahead_ns

    def relink(self, target: int, link: Link) -> None:
        """The Link towards a neighbour is another from now on, or is not as it was; what is queued goes over it."""
        lane = self._lanes[target]
        lane.link = link
        lane.open = lane.open and type(link) is Link
        lane.early_ns = math.ceil(link.time_ns(max(0, lane.largest_bytes)))
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
        idle = not lane.data and max(lane.link.free_ns, self._uplink_free_ns) <= now_ns
        lane.debt_bytes = size_bytes + (0 if idle else lane.debt_bytes)
        fed_ns = max(0, math.ceil(size_bytes * self._ns_per_byte - lane.link.time_ns(size_bytes)))
        return Transit(now_ns, now_ns, lane.link.beside_ns(now_ns, size_bytes) + fed_ns)

    def _release_alone(self, lane: "_Lane", horizon_ns: int, released: list[tuple[int, Any, Transit]]) -> None:
        """Without an uplink the links know nothing of each other: each empties its queue at its own pace."""
        while lane.data:
            start_ns = lane.start_ns()
            if start_ns > horizon_ns:
                known_ns = self._next_start_ns
                self._next_start_ns = start_ns if known_ns is None else min(known_ns, start_ns)
                return
            size_bytes, item, first = lane.take()
            released.append((lane.target, item, lane.link.send(start_ns, size_bytes, first)))
        del self._busy[lane.target]

    def _release_shared(self, horizon_ns: int, released: list[tuple[int, Any, Transit]]) -> None:
        while self._busy:
            start_ns, lane = self._pick()
            if start_ns > horizon_ns:
                self._next_start_ns = start_ns
                break
            size_bytes, item, first = lane.take()
            fed_ns = self._feed(start_ns, size_bytes)
            transit = lane.link.send(start_ns, size_bytes, first, fed_ns=fed_ns)
            released.append((lane.target, item, Transit(start_ns, transit.finish_ns, transit.due_ns)))
            self._tag = max(self._tag, lane.tag)
            lane.tag = self._tag + size_bytes
            if not lane.data:
                del self._busy[lane.target]

    def _pick(self) -> tuple[int, "_Lane"]:
        """Which link the uplink serves next, and when."""
        others_ns = self._longest_ns * (len(self._busy) - 1)
        best: tuple[int, int, _Lane] | None = None
        for lane in self._busy.values():
            start_ns = lane.start_ns(max(lane.early_ns, others_ns), self._uplink_free_ns)
            tag = max(self._tag, lane.tag)
            if best is None or start_ns < best[0] or (start_ns == best[0] and tag < best[1]):
                best = start_ns, tag, lane
        assert best is not None
        return best[0], best[2]

    def _feed(self, start_ns: int, size_bytes: int) -> int:
        """Put a chunk on the uplink; when its last bit has left."""
        if start_ns > self._uplink_free_ns:
            self._credit_ns = 0.0
        exact_ns = size_bytes * self._ns_per_byte - self._credit_ns
        whole_ns = math.ceil(exact_ns)
        self._credit_ns = whole_ns - exact_ns
        self._uplink_free_ns = start_ns + whole_ns
        return self._uplink_free_ns


class Downlink:
    """What one peer receives over an access line that all of its links share, in order of due.

    The line passes bits on while they come in: a lone flow below its rate is not delayed, and flows that are together
    above it leave one after another at exactly that rate. Of a link faster than this line, a burst's first chunk is
    taken to be in when it is due, which is early by what it takes on this line. `rate_bytes_per_s` may be infinite;
    ValueError where it is not positive.
    """

    __slots__ = ("_credit_ns", "_free_ns", "_ns_per_byte")

    def __init__(self, rate_bytes_per_s: float = math.inf) -> None:
        self._ns_per_byte = _ns_per_byte(rate_bytes_per_s, "downlink")
        self._free_ns = -(2**63)  # idle since ever
        self._credit_ns = 0.0

    def receive(self, due_ns: int, size_bytes: int) -> int:
        """When the last bit of a chunk due at `due_ns` is really in (never before); call in order of due."""
        if not self._ns_per_byte:
            return due_ns
        exact_ns = size_bytes * self._ns_per_byte - self._credit_ns
        in_ns = self._free_ns + math.ceil(exact_ns)
        if in_ns > due_ns:
            self._credit_ns = in_ns - self._free_ns - exact_ns
        else:
            in_ns = due_ns
            self._credit_ns = 0.0
        self._free_ns = in_ns
        return in_ns


class _Lane:
    """One neighbour's queue and what the uplink has given it."""

    __slots__ = ("data", "debt_bytes", "early_ns", "largest_bytes", "link", "open", "queued_bytes", "tag", "target")

    def __init__(self, target: int, link: Link, alone: bool) -> None:
        self.target = target
        self.link = link
        self.open = alone and type(link) is Link and link.rate_bytes_per_s == math.inf  # nothing holds a chunk up
        self.data: _Queue = deque()
        self.queued_bytes = 0
        self.debt_bytes = 0  # what has gone past the data, and is made up with the next chunk
        self.largest_bytes = -1
        self.early_ns = 0  # how long the largest chunk takes on the link
        self.tag = 0

    def start_ns(self, early_ns: int = 0, not_before_ns: int = 0) -> int:
        """When its next chunk can begin."""
        return max(self.data[0][0], self.link.free_ns - early_ns, not_before_ns)

    def take(self) -> tuple[int, Any, bool]:
        """Its next chunk: the bytes that it takes on the lines, the item, and whether it begins a message."""
        _, size_bytes, item, first = self.data.popleft()
        self.queued_bytes -= size_bytes
        size_bytes += self.debt_bytes
        self.debt_bytes = 0
        return size_bytes, item, first


def _ns_per_byte(rate_bytes_per_s: float, what: str) -> float:
    if not rate_bytes_per_s > 0:
        raise ValueError(f"the {what}'s rate is {rate_bytes_per_s} bytes/s: expected more than 0 (math.inf for none)")
    return 1e9 / rate_bytes_per_s


def _start_ns(chunk: tuple[int, Any, Transit]) -> int:
    return chunk[2].start_ns
