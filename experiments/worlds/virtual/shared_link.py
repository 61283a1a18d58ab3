"""Links in virtual time that share lines with others: an uplink, a downlink, a cable.

Whole messages flow like water: at every instant each link that has something to send has its max-min fair rate, and a message
has left when the integral of that rate reaches its bytes.  Something happens only when the set of sending links changes, or a
link's own pace.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from grapevine.experiments.worlds.virtual.link import Facts, Line, Packed
from grapevine.netem import Link, Shared
from grapevine.netem.shaping.max_min import MaxMin
from grapevine.peer.meter import LinkMeter
from grapevine.peer.payloads import Parcel

if TYPE_CHECKING:
    from grapevine.experiments.worlds.virtual.world import Member

At = Callable[..., None]
Arrive = Callable[[Line, Parcel, Facts], None]


class Sharing:
    """The rates of all links that share lines; links that change at one instant are settled together."""

    def __init__(self, shared: Shared, at: At, now_ns: Callable[[], int], arrive: Arrive) -> None:
        self.at = at
        self.now_ns = now_ns
        self.arrive = arrive
        self.lines: list[SharedLine] = []
        self.rates = MaxMin(list(shared.limits), list(shared.routes.values()))
        self._profiles = shared.profiles
        self._looks_ns: float | None = None  # when a line changes next
        self._changed: dict[int, None] = {}

    def ask(self, line: SharedLine, cap_bytes_per_s: float) -> None:
        """From now on a link can take so much; 0 = it has nothing to send."""
        if self.rates.caps[line.flow] == cap_bytes_per_s and line.flow not in self._changed:
            line.flows(self.rates.rates[line.flow], self.now_ns())
            return
        self.rates.caps[line.flow] = cap_bytes_per_s
        if not self._changed:
            self.at(self.now_ns(), self._settle)
        self._changed[line.flow] = None

    def _settle(self) -> None:
        changed, self._changed = self._changed, {}
        now_ns = self.now_ns()
        fresh = self.rates.settle(changed, self._follow(now_ns) if self._profiles else ())
        for flow in changed | dict.fromkeys(fresh):
            self.lines[flow].flows(self.rates.rates[flow], now_ns)

    def _follow(self, now_ns: int) -> list[int]:
        """The lines that have another limit now; while anything is sent, look again when the next has."""
        lines, next_ns = self.rates.follow(self._profiles, now_ns)
        if next_ns not in (math.inf, self._looks_ns) and any(line.busy(now_ns) for line in self.lines):
            self._looks_ns = next_ns
            self.at(int(next_ns), self._look, next_ns)
        return lines

    def _look(self, planned_ns: float) -> None:
        if planned_ns == self._looks_ns:
            self._looks_ns = None
            self._settle()


class SharedLine(Line):
    """One directed link that shares lines with others."""

    __slots__ = (
        "_bytes",
        "_chunks",
        "_done_bytes",
        "_first_bytes",
        "_first_due_ns",
        "_first_ns",
        "_number",
        "_planned_ns",
        "_queue",
        "_rate",
        "_since_ns",
        "_told_ns",
        "flow",
        "sharing",
    )

    def __init__(self, source: Member, target: Member, link: Link, meter: LinkMeter, sharing: Sharing) -> None:
        super().__init__(source, target, link, meter)
        self.sharing = sharing
        self.flow = len(sharing.lines)
        sharing.lines.append(self)
        self._queue: deque[tuple[Parcel, Packed]] = deque()
        self._bytes = 0  # of the message that is leaving, with what it makes up for
        self._first_bytes = 0
        self._done_bytes = 0.0  # how many of them have left at _since_ns
        self._since_ns = 0.0
        self._rate = 0.0  # bytes a second since then
        self._first_ns: float | None = None  # when its first chunk had left
        self._first_due_ns: int | None = None  # and when that arrives
        self._chunks = 0  # how many of the later ones are known to have left
        self._told_ns = 0.0  # when the last one had left of which the receiver tells
        self._planned_ns: int | None = None  # when it is next looked at
        self._number = 0  # of messages that have begun to leave

    def send(self, parcel: Parcel, now_ns: int, horizon_ns: float) -> None:
        """Queue a message; it arrives by itself."""
        self._queue.append((parcel, self.pack(parcel, now_ns, horizon_ns)))
        if len(self._queue) == 1:
            self._begin(now_ns)

    def busy(self, now_ns: int) -> bool:
        return bool(self._queue)

    def waiting_bytes(self, now_ns: int) -> float:
        left_bytes = self._done_bytes + self._rate * (now_ns - self._since_ns) / 1e9 if self._queue else 0.0
        return sum(packed.size_bytes for _, packed in self._queue) - left_bytes

    def hear(self, now_ns: int) -> None:
        if self._queue:
            self._foresee_until(now_ns)
        super().hear(now_ns)

    def catch_up(self, now_ns: int) -> None:
        self.hear(now_ns)
        super().catch_up(now_ns)

    def stop(self) -> None:
        """Nothing more leaves: one of its ends is gone."""
        super().stop()
        self._queue.clear()
        self._number += 1
        self._planned_ns = None
        self.sharing.ask(self, 0.0)

    def flows(self, rate_bytes_per_s: float, now_ns: int) -> None:
        """From now on it has this rate."""
        if not self._queue:
            self._rate = 0.0
            return
        if rate_bytes_per_s != self._rate:
            self._run(now_ns)
            self._rate = rate_bytes_per_s
        self._plan()

    def _begin(self, now_ns: float) -> None:
        """The next message comes to the head of the queue."""
        _, size_bytes, first_bytes, _, _ = self._queue[0][1]
        debt_bytes, self._debt_bytes = self._debt_bytes, 0
        self._bytes = self._first_bytes = self.link.swell(first_bytes + debt_bytes)
        if first_bytes < size_bytes:
            self._bytes += self.link.swell(size_bytes - first_bytes)
        self._done_bytes, self._since_ns, self._first_ns = 0.0, now_ns, None
        self._first_due_ns, self._chunks = None, 0
        self._number += 1
        pace = self.link.pace(math.ceil(now_ns), self._bytes)
        if pace.start_ns > now_ns + 1:
            self.sharing.ask(self, 0.0)
            self.sharing.at(pace.start_ns, self._open, self._number, pace.rate_bytes_per_s)
        else:
            self.sharing.ask(self, pace.rate_bytes_per_s)
        if pace.until_ns is not None:
            self.sharing.at(pace.until_ns, self._repace, self._number)

    def _open(self, number: int, rate_bytes_per_s: float) -> None:
        """The link lets the message begin."""
        if number == self._number:
            self._since_ns = self.sharing.now_ns()
            self.sharing.ask(self, rate_bytes_per_s)

    def _repace(self, number: int) -> None:
        """The link changes while a message leaves."""
        if number == self._number and self._queue:
            pace = self.link.pace(self.sharing.now_ns(), 0)
            self.sharing.ask(self, pace.rate_bytes_per_s)
            if pace.until_ns is not None:
                self.sharing.at(pace.until_ns, self._repace, number)

    def _run(self, now_ns: int) -> None:
        """Let bytes leave until now."""
        if now_ns > self._since_ns:
            self._foresee_until(now_ns)
            done_bytes = self._done_bytes + self._rate * (now_ns - self._since_ns) / 1e9
            if self._first_ns is None and done_bytes >= self._first_bytes:
                self._first_ns = self._when(self._first_bytes)
            self._done_bytes = done_bytes
            self._since_ns = now_ns

    def _foresee_until(self, now_ns: float) -> None:
        """Note what the receiver tells of the chunks that have left until now, of the message that is leaving."""
        message, size_bytes, first_bytes, chunk_bytes, report_ns = self._queue[0][1]
        if not report_ns or not self._rate or first_bytes == size_bytes:
            return
        done_bytes = self._done_bytes + self._rate * (now_ns - self._since_ns) / 1e9
        if done_bytes < self._first_bytes:
            return
        if self._first_due_ns is None:
            if self._first_ns is None:
                self._first_ns = self._when(self._first_bytes)
            self._first_due_ns = self.link.arrive(math.ceil(self._first_ns), True, False)
            self._told_ns = self._first_ns
        swollen = (self._bytes - self._first_bytes) / (size_bytes - first_bytes)
        least_bytes = self._done_bytes + self._rate * (self._told_ns + report_ns - self._since_ns) / 1e9
        step_bytes = chunk_bytes * swollen
        last = (size_bytes - first_bytes - 1) // chunk_bytes  # the last chunk but one: the very last is told of in any case
        while True:
            chunks = max(self._chunks + 1, math.ceil((least_bytes - self._first_bytes) / step_bytes - 1e-9))
            left_bytes = self._first_bytes + chunks * step_bytes
            if chunks > last or left_bytes > done_bytes:
                return
            self._chunks, self._told_ns = chunks, self._when(left_bytes)
            due_ns = self.link.arrive(math.ceil(self._told_ns), False, False)
            self.reports.append((due_ns, message, chunks * chunk_bytes, due_ns - self._first_due_ns))
            least_bytes = left_bytes + self._rate * report_ns / 1e9

    def _when(self, bytes_: float) -> float:
        return self._since_ns + max(0.0, bytes_ - self._done_bytes) / self._rate * 1e9

    def _plan(self) -> None:
        """Look again when the message will have left; where that is later than a look planned already, that look will see."""
        if self._rate:
            end_ns = max(math.ceil(self._when(self._bytes)), self.sharing.now_ns())
            if self._planned_ns is None or end_ns < self._planned_ns:
                self._planned_ns = end_ns
                self.sharing.at(end_ns, self._look, end_ns)

    def _look(self, planned_ns: int) -> None:
        if planned_ns != self._planned_ns:
            return
        self._planned_ns = None
        if self._rate and self._when(self._bytes) <= planned_ns:
            self._left()
        else:
            self._plan()

    def _left(self) -> None:
        """The last bit of a message has left."""
        left_ns = self._when(self._bytes)
        self._foresee_until(left_ns)
        assert self.back is not None
        self.back.hear(self.sharing.now_ns())  # while this link is known to be busy
        parcel, packed = self._queue.popleft()
        finish_ns = math.ceil(left_ns)
        if packed.first_bytes < packed.size_bytes:
            if self._first_due_ns is None:
                first_ns = self._first_ns if self._first_ns is not None else self._when(self._first_bytes)
                self._first_due_ns = self.link.arrive(math.ceil(first_ns), True, False)
            due_ns = self.link.arrive(finish_ns, False)
        else:
            self._first_due_ns = due_ns = self.link.arrive(finish_ns)
        self.sent.bytes += packed.size_bytes
        self.sent.messages += 1
        spread = packed.size_bytes - packed.first_bytes, due_ns - self._first_due_ns
        self.sharing.at(due_ns, self.sharing.arrive, self, parcel, (due_ns, packed.message, finish_ns, *spread))
        if self._queue:
            self._begin(left_ns)
        else:
            self.sharing.ask(self, 0.0)
