"""One peer in real time: the loop that carries out its strategy's effects, and the only clock of the peer.

A live peer has two threads.  The main thread runs the strategy and does the task's work.  The I/O thread (`peer.carrier`) owns
the sockets, releases shaped chunks and holds arriving chunks until they are due.  They exchange named tuples over two deques;
only the main thread changes what a strategy can see.

The emulated time of a peer is logical: work that begins at t ends at t + its device's time, independent of the time that the
host needs for the strategy's own code; the thread waits until the real clock has reached that instant.  If the host cannot
keep up, the logical time follows the real clock (never more than SLACK_NS behind), and the distance is recorded as lateness.
"""

from __future__ import annotations

import heapq
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import numpy as np

from grapevine.peer.effects import Receive, Send, SendAt, Sleep, Work
from grapevine.peer.endpoint import Arrival, Endpoint
from grapevine.peer.payloads import Parcel
from grapevine.peer.peer import Peer
from grapevine.peer.waiting import Waiter
from grapevine.peer.wire import Acknowledgement, Chunk

SLACK_NS = 20_000_000


class Clock:
    """The clock of emulated time: ns since the start barrier; an emulated second takes `dilation` real seconds."""

    def __init__(self, dilation: float = 1.0) -> None:
        self.dilation = dilation
        self.epoch_ns = 0

    def now_ns(self) -> int:
        """Return the present emulated time, ns; negative before the start barrier."""
        return int((time.monotonic_ns() - self.epoch_ns) / self.dilation)

    def seconds_until(self, emulated_ns: int) -> float:
        """Return the real seconds until an emulated instant; 0 if it has passed."""
        return max(0.0, (self.epoch_ns + emulated_ns * self.dilation - time.monotonic_ns()) / 1e9)


class Doorbell:
    """An eventfd by which one thread wakes another; it is used only while the other one waits."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self) -> None:
        os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self.fd)


class Learner(Protocol):
    """The part that does the task's work for one peer."""

    def take_on(self, work: Work) -> int:
        """Return the cost of a piece of work, in samples of a gradient, before it is done."""

    def do(self, work: Work, weights: np.ndarray) -> Any:
        """Return the result of a piece of work that was taken on; `weights` (float32 [size]) are the peer's own."""

    def duration_ns(self, samples: int, now_ns: int, step: int) -> int:
        """Return the emulated time (ns) of work over `samples` samples that begins now, in this step; 0 = real time."""


class Acknowledged(NamedTuple):
    """An acknowledgement of a neighbour has arrived."""

    answer: Acknowledgement
    arrived_ns: int


class Lost(NamedTuple):
    """A neighbour was lost."""

    neighbour: int


class MembersChanged(NamedTuple):
    """The launcher has sent a message about members."""

    message: Any


class Stopped(NamedTuple):
    """Training ends."""


News = Arrival | Acknowledged | Lost | MembersChanged | Stopped
"""The messages of the I/O thread to the main thread."""


class Outbound(NamedTuple):
    """A chunk that the main thread hands to the I/O thread."""

    target: int
    chunk: Chunk
    offered_ns: int


class LivePeer:
    """The main thread of a live peer; it calls `snapshot(index, now_ns)` at every record instant, index * every_ns."""

    def __init__(
        self,
        peer: Peer,
        endpoint: Endpoint,
        learner: Learner,
        clock: Clock,
        stop_ns: int | None,
        every_ns: int,
        snapshot: Callable[[int, int], None],
    ) -> None:
        self.peer = peer
        self.endpoint = endpoint
        self.learner = learner
        self.clock = clock
        self.stop_ns = stop_ns
        self.every_ns = every_ns
        self.snapshot = snapshot
        self.news: deque[News] = deque()  # from the I/O thread
        self.outbox: deque[Outbound] = deque()  # to the I/O thread
        self.doorbell = Doorbell()
        self._waiter = Waiter(self.doorbell.fd)
        self.ring_carrier: Callable[[], None] = lambda: None
        self.waiting = False  # for messages: then the I/O thread rings
        self.ended = False  # then the I/O thread passes nothing on
        self.overrun_ns: list[int] = []
        self._emulated = learner.duration_ns(1, 0, 0) > 0
        self._pending: deque[Arrival] = deque()  # arrived, but later than the logical time
        self._losses: list[int] = []
        self._later: list[tuple[int, int, int, Parcel]] = []  # (leaves_ns, order, target, message)
        self._order = itertools.count()
        self._records = 0
        peer.meters = endpoint.meters

    def run(self, strategy: Coroutine[Any, Any, None]) -> None:
        """Carry out the strategy until it returns or is stopped; an exception of the strategy is raised here."""
        answer: Any = None
        error: Exception | None = None
        self._wait(0)
        try:
            while not self._over():
                effect = strategy.send(answer) if error is None else strategy.throw(error)
                if isinstance(effect, Work):
                    answer, error = self._work(effect)
                else:
                    answer, error = self._carry_out(effect), None
                self._pull_along()
                self._deliver()
        except StopIteration:
            return
        finally:
            strategy.close()
            self._end()

    def _end(self) -> None:
        """Read no news of the I/O thread any more."""
        self.ended = True
        self.news.clear()

    def _over(self) -> bool:
        if self.stop_ns is not None and self.peer.now_ns >= self.stop_ns:
            self.peer.stopped = True
        return self.peer.stopped

    def _carry_out(self, effect: object) -> Any:
        if isinstance(effect, Send):
            return self._send(effect)
        if isinstance(effect, Receive):
            return self._receive(effect)
        if isinstance(effect, Sleep):
            return self._wait(effect.until_ns)
        if isinstance(effect, SendAt):
            return self._hold_back(effect)
        raise TypeError(f"a strategy awaited {effect!r}; it may await the verbs of its peer only")

    def _work(self, work: Work) -> tuple[Any, Exception | None]:
        """Do work in the device's time; return its result and the exception that the task raised, one of them None."""
        start_ns, answer, raised = self.peer.now_ns, None, None
        try:
            samples = self.learner.take_on(work)
        except Exception as error:  # noqa: BLE001 - the task's own code may raise anything
            return None, error
        try:
            answer = self.learner.do(work, self.peer.weights)
        except Exception as error:  # noqa: BLE001 - likewise
            raised = error
        if self._emulated:
            end_ns = start_ns + self.learner.duration_ns(samples, start_ns, self.peer.speed.steps)
            self.overrun_ns.append(max(0, self.clock.now_ns() - end_ns))
            self._wait(end_ns)
        else:
            self._advance(self.clock.now_ns())
        return answer, raised

    def _send(self, effect: Send) -> None:
        for target in effect.targets:
            if target in self.peer.mixing:
                self._post(target, effect.parcel, self.peer.now_ns)
        self.ring_carrier()

    def _hold_back(self, effect: SendAt) -> None:
        """Keep a message until it leaves; a target that is a neighbour now may be gone then, and still wait for it."""
        for target in effect.send.targets:
            if target in self.peer.mixing:
                heapq.heappush(self._later, (effect.leaves_ns, next(self._order), target, effect.send.parcel))

    def _post(self, target: int, parcel: Parcel, now_ns: int) -> None:
        """Hand a message to the I/O thread, if there is a link to its target."""
        if target in self.endpoint.meters:
            for chunk in self.endpoint.send(target, parcel, now_ns, self.peer.horizon_ns):
                self.outbox.append(Outbound(target, chunk, now_ns))

    def _receive(self, effect: Receive) -> None:
        """Wait until enough messages have arrived, a neighbour is lost, the deadline has come, or training ends."""
        deadline_ns = min(x for x in (effect.deadline_ns, self.stop_ns, 2**62) if x is not None)
        self.waiting = True
        departures, least = self.peer.departures, effect.least
        while not self.peer.stopped:
            least -= self._deliver()
            if least <= 0 or self.peer.departures > departures or self._called():
                break
            if self._pending and self._pending[0].arrived_ns < deadline_ns:
                self._advance(self._pending[0].arrived_ns)
            elif self.clock.now_ns() >= deadline_ns:
                self._advance(deadline_ns)
                break
            else:
                self._sleep(min(deadline_ns, self._next_instant_ns()))
                self._record(min(deadline_ns, self.clock.now_ns()))
        self.waiting = False

    def _wait(self, until_ns: int) -> None:
        """Let emulated time pass until an instant or a stop; messages that arrive meanwhile stay undelivered."""
        until_ns = until_ns if self.stop_ns is None else min(until_ns, self.stop_ns)
        while not self.peer.stopped and self.clock.now_ns() < until_ns:
            self._sleep(min(until_ns, self._next_instant_ns()))
            self._record(min(until_ns, self.clock.now_ns()))
            self._read_news()
        self._advance(until_ns)

    def _sleep(self, until_ns: int) -> None:
        if not self.news:
            self._waiter.wait(self.clock.seconds_until(until_ns))
        self.doorbell.clear()

    def _pull_along(self) -> None:
        """Advance the peer's time to the real clock; with an emulated device only to SLACK_NS before it."""
        self._advance(self.clock.now_ns() - (SLACK_NS if self._emulated else 0))

    def _advance(self, now_ns: int) -> None:
        if self.stop_ns is not None:
            now_ns = min(now_ns, self.stop_ns)
        if now_ns > self.peer.now_ns:
            self._record(now_ns)
            self.peer.now_ns = now_ns

    def _next_record_ns(self) -> int:
        return self._records * self.every_ns

    def _next_instant_ns(self) -> int:
        """Return the instant of the next record, or of the next delayed message that leaves."""
        return min(self._next_record_ns(), self._later[0][0]) if self._later else self._next_record_ns()

    def _record(self, now_ns: int) -> None:
        """Take a snapshot for every record instant until now (weights do not change meanwhile), and send delayed messages."""
        while (instant_ns := self._next_record_ns()) <= now_ns and (self.stop_ns is None or instant_ns < self.stop_ns):
            self.snapshot(self._records, instant_ns)
            self._records += 1
        if not self._later or self._later[0][0] > now_ns:
            return
        while self._later and self._later[0][0] <= now_ns:
            leaves_ns, _, target, parcel = heapq.heappop(self._later)
            self._post(target, parcel, leaves_ns)
        self.ring_carrier()

    def _deliver(self) -> int:
        """Give the peer the messages that have arrived by its logical time; return their number."""
        self._read_news()
        self.peer.calls = 0  # real time has passed: the bound on calls at one instant begins anew
        while self._losses:
            self.peer.lose(self._losses.pop())
        delivered = 0
        while self._pending and self._pending[0].arrived_ns <= self.peer.now_ns:
            self.peer.deliver(self._pending.popleft())
            delivered += 1
        return delivered

    def _arrived(self, arrival: Arrival) -> None:
        """Keep a message until the peer's logical time has reached its arrival."""
        self._pending.append(arrival)

    def _called(self) -> bool:
        """Whether something other than a message of a strategy has come that ends a wait for messages."""
        return False

    def _changed(self, message: Any) -> None:
        """Handle a message of the launcher about members; here all members stay."""

    def _read_news(self) -> None:
        """Read all news of the I/O thread."""
        while self.news:
            match self.news.popleft():
                case Arrival() as arrival:
                    self._arrived(arrival)
                case Acknowledged(answer, arrived_ns):
                    self.endpoint.acknowledged(answer.source, answer.message, answer.spread_bytes, answer.spread_ns, arrived_ns)
                case MembersChanged(message):
                    self._changed(message)
                case Lost(neighbour):
                    self._losses.append(neighbour)
                    self.endpoint.lose(neighbour)
                case Stopped():
                    self.peer.stopped = True
