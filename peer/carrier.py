"""The I/O thread of a live peer: it sends shaped chunks, and holds arriving chunks until they are due.

The sender stamps each chunk with the instant at which the emulated link delivers it; the receiver holds the chunk until then.
A late wake-up on either side therefore delays no later chunk, and rates stay exact.  The lateness of each release is recorded.
"""

from __future__ import annotations

import heapq
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from grapevine.peer.counts import LinkCount, thin
from grapevine.peer.endpoint import BLOCKED, FLOOD, Endpoint
from grapevine.peer.live import Acknowledged, Clock, Doorbell, LivePeer, Lost, MembersChanged, News, Stopped
from grapevine.peer.membership import is_errand
from grapevine.peer.realtime import schedule
from grapevine.peer.sockets import Sockets
from grapevine.peer.waiting import Waiter
from grapevine.peer.wire import HEADER_BYTES, Acknowledgement, Chunk, Frame, WireError, decode, encode

HELD_LIMIT_BYTES = 1 << 28  # memory of the frames that one peer holds; above that it leaves the rest in the sockets
FRAME_BYTES = 2_048  # the most memory that a held frame takes beyond its bytes on the wire
BLOCKED_NS = 1_000_000_000  # emulated time without reading, after which neighbours that hold more than their share are curbed
AHEAD_LIMIT_NS = 2**61  # 73 years: a chunk due later than this is refused; no honest link has such a delay
RETRY_NS = 1_000_000
BEAT_NS = 500_000_000  # real time between signs of life
BUSY_NS = 1_000_000_000  # real time without a pause after which this thread gives up its real-time priority


class Outgoing(Protocol):
    """The shaper of one peer's outgoing links (netem.shaping.shaper.Shaper)."""

    def offer(self, target: int, item: Any, size_bytes: int, now_ns: int, first: bool = True, urgent: bool = False) -> None: ...
    def release(self, now_ns: int) -> list[tuple[int, Any, Any]]: ...
    def next_ns(self) -> int | None: ...
    def drop(self, target: int) -> int: ...


class Carrier:
    """The loop of the I/O thread.

    `run` is the random number that marks the frames of this run.  The thread watches `control_fd` for messages of the launcher,
    which `on_control` reads, and calls `beat` every 0.5 s of real time as a sign of life.  With a `priority` above 0 it asks
    for SCHED_FIFO for itself alone, and gives it up for good after 1 s without a pause, so that a flood of frames cannot occupy
    the machine.
    """

    def __init__(
        self,
        live: LivePeer,
        sockets: Sockets,
        outgoing: Outgoing,
        run: int,
        control_fd: int,
        on_control: Callable[[Carrier], None],
        beat: Callable[[Carrier], None],
        priority: int = 0,
    ) -> None:
        self.live = live
        self.endpoint: Endpoint = live.endpoint
        self.clock: Clock = live.clock
        self.sockets = sockets
        self.outgoing = outgoing
        self.run_number = run
        self.control_fd = control_fd
        self.on_control = on_control
        self.beat = beat
        self.doorbell = Doorbell()
        self._control, self._all = Waiter(control_fd), Waiter(sockets.fd, self.doorbell.fd, control_fd)
        self._unread = Waiter(self.doorbell.fd, control_fd)  # while nothing is read, when the sockets would only keep it awake
        self.finished = False
        self.priority = priority
        self.sent = {neighbour: LinkCount() for neighbour in self.endpoint.meters}
        self.received = {neighbour: LinkCount() for neighbour in self.endpoint.meters}
        self.lateness_ns: list[int] = []
        self._asleep = False
        self._lost: set[int] = set()
        self._held: list[tuple[int, int, int, Frame]] = []  # (due, order, bytes of memory, frame)
        self._held_bytes = 0
        self._held_from = dict.fromkeys(self.sent, 0)  # bytes of memory by neighbour
        self._share_bytes = HELD_LIMIT_BYTES  # the bytes that a curbed neighbour may hold
        self._curbed: set[int] = set()
        self._full_ns: int | None = None  # nothing has been read since then
        self._order = 0
        self._refused: dict[int, deque[list[Any]]] = {}  # by neighbour: frames that its full queue refused, in order
        self._next_beat_ns = 0
        self._rested_ns = 0
        live.ring_carrier = self.wake

    def wake(self) -> None:
        """Wake the thread because the outbox holds something."""
        if self._asleep:
            self.doorbell.ring()

    def run(self) -> None:
        """Send, receive and deliver until `finished`."""
        if self.priority:
            schedule(os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, self.priority)
        self._rested_ns = time.monotonic_ns()
        while not self.finished:
            now_ns = self.clock.now_ns()
            self._send_out(now_ns)
            self._release_due(now_ns)
            if self._held_bytes <= HELD_LIMIT_BYTES:
                self._full_ns = None
                frames = self.sockets.drain()
            else:
                frames = []
                self._wait_for_room(now_ns)
            if not frames:
                self._sleep()
                continue
            now_ns = self.clock.now_ns()
            for parts in frames:
                self._take_in(parts, now_ns)
            if time.monotonic_ns() >= self._next_beat_ns:
                self._look_up()

    def _look_up(self) -> None:
        """Read the launcher's messages and give up priority if due: a flood of frames must not prevent either."""
        if self._control.wait(0):
            self.on_control(self)
        self._beat()
        if self.priority and time.monotonic_ns() - self._rested_ns > BUSY_NS:
            self.priority = 0
            schedule(os.SCHED_OTHER, 0)

    def lose(self, neighbour: int) -> None:
        """Drop all frames to and from a neighbour that is gone, and close its connection."""
        if neighbour not in self.sent or neighbour in self._lost:
            return
        self._lost.add(neighbour)
        self.outgoing.drop(neighbour)
        self._refused.pop(neighbour, None)
        self.sockets.disconnect(neighbour)
        self._held = [entry for entry in self._held if entry[3].source != neighbour]
        heapq.heapify(self._held)
        self._held_bytes -= self._held_from[neighbour]
        self._held_from[neighbour] = 0
        self._tell(Lost(neighbour), ring=True)

    def change(self, message: Any) -> None:
        """Pass a message of the launcher about members to the main thread."""
        self._tell(MembersChanged(message), ring=True)

    def stop(self) -> None:
        """Pass the end of training to the main thread."""
        self._tell(Stopped(), ring=True)

    # ---- out ------------------------------------------------------------------------------------------------------

    def _send_out(self, now_ns: int) -> None:
        outbox, outgoing = self.live.outbox, self.outgoing
        while outbox:
            target, chunk, offered_ns = outbox.popleft()
            if target not in self._lost:
                outgoing.offer(target, chunk, chunk.size_bytes, offered_ns, chunk.number == 0)
        for target, frame, transit in outgoing.release(now_ns):
            self._transmit(target, frame, transit)
        for target, waiting in list(self._refused.items()):
            while waiting and self.sockets.send(target, waiting[0]):
                waiting.popleft()
            if not waiting:
                del self._refused[target]

    def _transmit(self, target: int, frame: Frame, transit: Any) -> None:
        due_ns = transit.due_ns if transit.due_ns > transit.start_ns else 0  # 0: a link that takes no time
        count = self.sent[target]
        count.bytes += frame.size_bytes
        if isinstance(frame, Chunk):
            if frame.offset + len(frame.piece) == frame.total_bytes:
                count.messages += 1
            parts = encode(frame._replace(due_ns=due_ns, finish_ns=transit.finish_ns), self.run_number)
        else:
            parts = encode(frame._replace(due_ns=due_ns), self.run_number)
        if target in self._refused or not self.sockets.send(target, parts):
            self._refused.setdefault(target, deque()).append(parts)  # behind the frames refused before: chunks keep their order

    # ---- in -------------------------------------------------------------------------------------------------------

    def _take_in(self, parts: list[Any], now_ns: int) -> None:
        """Decode a frame from the wire; deliver it if it is due, hold it if not, count an error if it is not valid."""
        try:
            frame = decode(parts, self.run_number, self.endpoint.message_limit_bytes)
            if frame.source not in self.sent:
                raise WireError("foreign", f"peer {frame.source} is not a neighbour")
            if frame.due_ns > now_ns + AHEAD_LIMIT_NS:
                raise WireError("stamp", "due later than any honest link delivers")
        except WireError as error:
            self.endpoint.errors[error.kind] += 1
            return
        source = frame.source
        if source in self._lost:
            return
        if not self._held and frame.due_ns <= now_ns:
            self._deliver(frame, frame.due_ns or now_ns, now_ns)
            return
        size_bytes = frame.size_bytes + FRAME_BYTES
        from_source = self._held_from[source] + size_bytes
        if from_source > self._share_bytes and source in self._curbed:
            self.endpoint.errors[FLOOD] += 1
            return
        self._order += 1
        self._held_bytes += size_bytes
        self._held_from[source] = from_source
        heapq.heappush(self._held, (frame.due_ns, self._order, size_bytes, frame))

    def _release_due(self, now_ns: int) -> None:
        """Deliver the held frames that are due."""
        held = self._held
        while held and held[0][0] <= now_ns:
            due_ns, _, size_bytes, frame = heapq.heappop(held)
            self._held_bytes -= size_bytes
            self._held_from[frame.source] -= size_bytes
            self._deliver(frame, due_ns or now_ns, now_ns)

    def _wait_for_room(self, now_ns: int) -> None:
        """Measure the time for which the full store of held frames prevents reading; count each second, and curb neighbours."""
        if self._full_ns is None:
            self._full_ns = now_ns
        elif now_ns - self._full_ns >= BLOCKED_NS:
            self._full_ns = now_ns
            self.endpoint.errors[BLOCKED] += 1
            self._curb()

    def _curb(self) -> None:
        """Refuse from now on the frames by which a neighbour would hold more than its equal share, if it does so now.

        Of the frames that it holds already, those that are due last are dropped.  A neighbour without others beside it
        delays only its own messages, and is not curbed.
        """
        neighbours = len(self.sent) - len(self._lost)
        if neighbours < 2:
            return
        share_bytes = self._share_bytes = HELD_LIMIT_BYTES // neighbours
        self._curbed.update(neighbour for neighbour, held_bytes in self._held_from.items() if held_bytes > share_bytes)
        held, self._held = sorted(self._held), []
        self._held_from = dict.fromkeys(self.sent, 0)
        for entry in held:
            source = entry[3].source
            from_source = self._held_from[source] + entry[2]
            if from_source > share_bytes and source in self._curbed:
                self.endpoint.errors[FLOOD] += 1
            else:
                self._held.append(entry)
                self._held_from[source] = from_source
        self._held_bytes = sum(self._held_from.values())

    def _deliver(self, frame: Frame, arrived_ns: int, now_ns: int) -> None:
        """Hand a frame on, arrived at the instant that the emulated link gave it; record how late this host was.

        Over a link without rate and delay it arrives now.
        """
        if arrived_ns < now_ns:
            self.lateness_ns.append(now_ns - arrived_ns)
            thin(self.lateness_ns)
        if isinstance(frame, Acknowledgement):
            self._tell(Acknowledged(frame, arrived_ns))
            return
        try:
            answered = self.endpoint.receive(frame, arrived_ns)
        except WireError as error:
            self.endpoint.errors[error.kind] += 1
            return
        self.received[frame.source].delivered(frame, now_ns)
        if answered is not None:
            arrival, answer = answered
            self.outgoing.offer(frame.source, answer, HEADER_BYTES, arrived_ns, True, True)
            for target, acknowledgement, transit in self.outgoing.release(now_ns):
                self._transmit(target, acknowledgement, transit)
            if arrival is not None:
                self._tell(arrival, ring=self.live.waiting or is_errand(arrival.head))

    def _tell(self, news: News, ring: bool = False) -> None:
        if self.live.ended:
            return  # the main thread reads no news any more, and neighbours may continue for long
        self.live.news.append(news)
        if ring:
            self.live.doorbell.ring()

    # ---- waiting --------------------------------------------------------------------------------------------------

    def _sleep(self) -> None:
        deadlines = [2**62]
        if self._held:
            deadlines.append(self._held[0][0])
        if (next_ns := self.outgoing.next_ns()) is not None:
            deadlines.append(next_ns)
        if self._refused:
            deadlines.append(self.clock.now_ns() + RETRY_NS)
        self._asleep = True
        timeout = 0.0 if self.live.outbox else self.clock.seconds_until(min(deadlines))
        waiter = self._all if self._full_ns is None else self._unread
        ready = waiter.wait(min(timeout, BEAT_NS / 1e9))
        self._asleep = False
        if self.doorbell.fd in ready:
            self.doorbell.clear()
        if self.control_fd in ready:
            self.on_control(self)
        self._rested_ns = time.monotonic_ns()
        if self._rested_ns >= self._next_beat_ns:
            self._beat()

    def _beat(self) -> None:
        self._next_beat_ns = time.monotonic_ns() + BEAT_NS
        self.beat(self)
