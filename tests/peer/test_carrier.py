"""The I/O thread's work against hostile, full and lost neighbours; sockets, links and clock are stand-ins, nothing sleeps."""

from __future__ import annotations

import os
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from grapevine.peer import carrier as module
from grapevine.peer import counts
from grapevine.peer.carrier import Carrier
from grapevine.peer.counts import LinkCount
from grapevine.peer.endpoint import BLOCKED, FLOOD, Arrival, Endpoint
from grapevine.peer.live import Acknowledged, Lost, News, Outbound
from grapevine.peer.wire import HEADER_BYTES, Acknowledgement, Chunk, encode
from tests.helpers import LIMIT_BYTES, chunks_of

RUN = 77


class Transit(NamedTuple):
    start_ns: int
    finish_ns: int
    due_ns: int


class Straight:
    """A network that takes no time."""

    def __init__(self) -> None:
        self.ready: list[tuple[int, Any, Transit]] = []

    def offer(self, target: int, item: Any, size: int, now_ns: int, first: bool = True, urgent: bool = False) -> None:
        self.ready.append((target, item, Transit(now_ns, now_ns, now_ns)))

    def release(self, now_ns: int) -> list[tuple[int, Any, Transit]]:
        released, self.ready = self.ready, []
        return released

    def next_ns(self) -> int | None:
        return self.ready[0][2].start_ns if self.ready else None

    def drop(self, target: int) -> int:
        self.ready = [entry for entry in self.ready if entry[0] != target]
        return 0


class Wires:
    """Sockets whose frames are given and kept; `full` are the neighbours that take nothing more."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0)
        self.incoming: deque[list[Any]] = deque()
        self.sent: list[tuple[int, list[Any]]] = []
        self.full: set[int] = set()
        self.drains = 0
        self.endless: list[Any] | None = None

    def drain(self, most: int = 64) -> list[list[Any]]:
        self.drains += 1
        assert self.drains < 10_000, "the thread has lost itself in the frames"
        if self.endless is not None:
            return [self.endless] * most
        return [self.incoming.popleft() for _ in range(min(most, len(self.incoming)))]

    def send(self, neighbour: int, parts: list[Any]) -> bool:
        if neighbour in self.full:
            return False
        self.sent.append((neighbour, parts))
        return True

    def disconnect(self, neighbour: int) -> None:
        self.full.discard(neighbour)


class Clock:
    """Stands still; whoever would sleep does not."""

    def __init__(self) -> None:
        self.time_ns = 1_000

    def now_ns(self) -> int:
        return self.time_ns

    def seconds_until(self, emulated_ns: int) -> float:
        return 0.0


class Rig:
    """A carrier of peer 1, whose neighbours are 0 and 2, with everything around it; `rounds` of its loop at a time."""

    def __init__(self, on_control: Callable[[Carrier], None] = lambda carrier: None) -> None:
        self.wires = Wires()
        self.clock = Clock()
        self.control, self.launcher = os.pipe()
        doorbell = SimpleNamespace(ring=lambda: None)
        self.live: Any = SimpleNamespace(
            endpoint=Endpoint(1, [0, 2], LIMIT_BYTES), clock=self.clock, news=deque(), outbox=deque(), doorbell=doorbell,
            waiting=False, ended=False,
        )  # fmt: skip
        self.beats = 0
        wires: Any = self.wires
        network = Straight()
        self.carrier = Carrier(self.live, wires, network, RUN, self.control, on_control, self._beat)

    def _beat(self, carrier: Carrier) -> None:
        self.beats += 1
        if self.wires.endless is None:
            carrier.finished = True

    def round(self) -> None:
        """Carry until the next sign of life."""
        self.carrier.finished = False
        self.carrier._next_beat_ns = 0
        self.carrier.run()

    def news(self, kind: type[News]) -> list[Any]:
        return [news for news in self.live.news if isinstance(news, kind)]

    def close(self) -> None:
        for fd in (self.wires.fd, self.control, self.launcher, self.carrier.doorbell.fd):
            os.close(fd)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def frames_from(source: int, count: int = 10) -> list[list[Any]]:
    """The frames of one message to peer 1."""
    return [encode(chunk, RUN) for chunk in chunks_of(Endpoint(source, [1], LIMIT_BYTES), 1, count)]


def numbers(sent: list[tuple[int, list[Any]]], target: int) -> list[int]:
    """The chunk numbers that have gone to a neighbour."""
    return [int.from_bytes(parts[0][20:24], "little") for to, parts in sent if to == target]


def test_a_flood_neither_hides_the_launcher_nor_the_signs_of_life() -> None:
    def finish(carrier: Carrier) -> None:
        carrier.finished = True

    rig = Rig(finish)
    rig.wires.endless = [b"rubbish"]
    os.write(rig.launcher, b"exit")
    rig.carrier.run()
    assert rig.beats >= 1
    assert rig.live.endpoint.errors["foreign"] > 0
    rig.close()


def test_a_flooded_thread_gives_up_its_real_time_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(module, "schedule", lambda policy, priority: asked.append((policy, priority)))
    monkeypatch.setattr(module, "BUSY_NS", 0)
    monkeypatch.setattr(module, "BEAT_NS", 0)
    rig = Rig()
    rig.carrier.priority = 1
    rig.carrier.beat = lambda carrier: setattr(carrier, "finished", len(asked) > 1)
    rig.wires.endless = [b"rubbish"]
    rig.carrier.run()
    assert asked == [(os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, 1), (os.SCHED_OTHER, 0)]
    rig.close()


def test_chunks_keep_their_order_behind_a_full_queue(rig: Rig) -> None:
    """One that finds room must not overtake those that did not: the receiver would drop the whole message."""
    chunks = [Chunk(1, 0, number, number, 5, 0, 0, b"", b"x") for number in range(5)]
    for chunk in chunks[:2]:
        rig.live.outbox.append(Outbound(0, chunk, 0))
    rig.wires.full = {0}
    rig.round()
    rig.wires.full = set()
    for chunk in chunks[2:]:
        rig.live.outbox.append(Outbound(0, chunk, 0))
        rig.live.outbox.append(Outbound(2, chunk, 0))
    rig.round()
    assert numbers(rig.wires.sent, 0) == [0, 1, 2, 3, 4]
    assert numbers(rig.wires.sent, 2) == [2, 3, 4]


def test_what_a_lost_neighbour_still_had_under_way_is_dropped_without_blame(rig: Rig) -> None:
    late = encode(Chunk(0, 0, 0, 0, 1000, 10**9, 5, b"head", bytes(1000)), RUN)
    rig.wires.incoming.append(late)
    rig.round()
    assert rig.carrier._held_bytes > 0
    rig.carrier.lose(0)
    rig.carrier.lose(0)
    assert rig.carrier._held_bytes == 0
    rig.wires.incoming.extend([late, encode(Acknowledgement(0, 7, 0, 0, 0), RUN), *frames_from(2)])
    rig.live.outbox.append(Outbound(0, Chunk(1, 0, 0, 0, 1, 0, 0, b"", b"x"), 0))
    rig.round()
    assert rig.news(Lost) == [Lost(0)]
    assert rig.news(Acknowledged) == []
    assert [arrival.source for arrival in rig.news(Arrival)] == [2]
    assert not rig.live.endpoint.errors
    assert [target for target, _ in rig.wires.sent] == [2]


def test_more_than_may_be_held_waits_in_the_sockets_and_is_not_lost(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_LIMIT_BYTES", 70_000)
    size, count = 1_000, 200  # about 200 KB that are due later
    for message in range(count):
        rig.wires.incoming.append(encode(Chunk(0, message, 0, 0, size, 10**6, 5, b"head", bytes(size)), RUN))
    rig.round()
    assert rig.wires.incoming, "all was taken in at once"
    rig.clock.time_ns = 10**6
    for _ in range(count):
        rig.round()
    assert [arrival.message for arrival in rig.news(Arrival)] == list(range(count))
    assert not rig.live.endpoint.errors


def fill(rig: Rig, source: int, count: int, due_ns: int, first: int = 0) -> None:
    """Let messages of one chunk of 1,000 bytes arrive that are due later."""
    for message in range(first, first + count):
        rig.wires.incoming.append(encode(Chunk(source, message, 0, 0, 1_000, due_ns, 5, b"head", bytes(1_000)), RUN))


def rounds(rig: Rig, count: int) -> None:
    for _ in range(count):
        rig.round()


def test_a_neighbour_whose_frames_are_never_due_does_not_silence_the_others(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_LIMIT_BYTES", 100_000)
    size = 1_000 + 4 + HEADER_BYTES + module.FRAME_BYTES
    fill(rig, 0, 200, 2**60)
    fill(rig, 2, 10, 10**6)
    rounds(rig, 5)
    assert len(rig.wires.incoming) >= 10, "there was no limit"
    rig.clock.time_ns += module.BLOCKED_NS
    rounds(rig, 5)
    assert not rig.wires.incoming
    assert rig.carrier._held_from[0] <= 50_000
    assert [(arrival.source, arrival.message) for arrival in rig.news(Arrival)] == [(2, message) for message in range(10)]
    assert rig.live.endpoint.errors == {BLOCKED: 1, FLOOD: 200 - 50_000 // size}
    for first in range(200, 20_000, 200):  # the flood goes on
        fill(rig, 0, 200, 2**60, first)
        rounds(rig, 4)
        assert not rig.wires.incoming
        assert rig.carrier._held_bytes <= 50_000
    assert rig.live.endpoint.errors[BLOCKED] == 1


def test_honest_neighbours_that_fill_the_store_lose_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The links hold more than the limit, and the store is full again and again, but never for a second."""
    monkeypatch.setattr(module, "HELD_LIMIT_BYTES", 100_000)
    for number in range(20):
        fill(rig, 0, 100, 10**6 + number * 10**8, 100 * number)
    for number in range(20):
        rig.clock.time_ns = 10**6 + number * 10**8
        rounds(rig, 10)
    for _ in range(100):
        rig.clock.time_ns += 10**8
        rounds(rig, 2)
    assert [arrival.message for arrival in rig.news(Arrival)] == list(range(2_000))
    assert not rig.live.endpoint.errors


def test_a_single_neighbour_is_waited_for_and_not_curbed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_LIMIT_BYTES", 100_000)
    rig.carrier.lose(2)
    fill(rig, 0, 100, 10**11)
    for _ in range(5):
        rounds(rig, 5)
        rig.clock.time_ns += module.BLOCKED_NS
    rig.clock.time_ns = 10**11
    rounds(rig, 20)
    assert [arrival.message for arrival in rig.news(Arrival)] == list(range(100))
    assert set(rig.live.endpoint.errors) == {BLOCKED}


@pytest.mark.parametrize("frame", [Acknowledgement(0, 1, 0, 0, 2**60), Chunk(0, 1, 0, 0, 0, 2**60, 0, b"\x90", b"")])
def test_the_limit_bounds_the_memory_of_small_frames(rig: Rig, frame: Any) -> None:
    """Python's own allocations for held frames; those of zmq end with the frame, because small parts are copied."""
    count = 2_000
    tracemalloc.start()
    try:
        for message in range(count):
            parts = [bytes(part) for part in encode(frame._replace(message=message, due_ns=2**60 + message), RUN)]
            rig.carrier._take_in(parts, 1_000)
        taken_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(rig.carrier._held) == count
    assert taken_bytes <= rig.carrier._held_bytes


def test_a_peer_that_has_ended_does_not_pile_up_what_others_go_on_sending(rig: Rig) -> None:
    rig.live.ended = True
    rig.wires.incoming.extend(frames_from(0))
    rig.round()
    assert not rig.live.news
    assert [target for target, _ in rig.wires.sent] == [0]  # the others are still answered


def test_samples_between_two_reports_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "SAMPLES_KEPT", 100)
    count = LinkCount()
    for now_ns in range(5_000):
        count.delivered(Chunk(0, now_ns, 0, 0, 1, 1, 1, b"", b"x"), now_ns + 1)
    assert 40 <= len(count.delays_ns) <= 101
    assert max(count.delays_ns) == 4_999


def test_frames_that_no_honest_neighbour_sends_are_counted_and_change_nothing(rig: Rig) -> None:
    itself = Chunk(1, 0, 0, 0, 1, 0, 0, b"", b"x")
    rig.wires.incoming.extend(
        [
            [],
            [b""],
            [b"x" * 72],
            encode(itself, RUN),
            encode(itself._replace(source=9), RUN),
            encode(itself._replace(source=0), RUN + 1),
            encode(itself._replace(source=0, due_ns=2**62), RUN),
            encode(itself._replace(source=0, finish_ns=-5), RUN),
        ]
    )
    rig.round()
    assert rig.live.endpoint.errors == {"foreign": 6, "stamp": 2}
    assert not rig.live.news


def test_a_delay_of_years_is_an_honest_one(rig: Rig) -> None:
    """A link may have any delay that an experiment may ask for, and a running fleet may be poked with one."""
    years_ns = 315_576_000 * 10**9 + 10**9
    rig.wires.incoming.append(encode(Chunk(0, 0, 0, 0, 8, years_ns, 5, b"head", bytes(8)), RUN))
    rig.round()
    assert (rig.live.endpoint.errors, rig.news(Arrival)) == ({}, [])
    rig.clock.time_ns = years_ns
    rig.round()
    assert [arrival.arrived_ns for arrival in rig.news(Arrival)] == [years_ns]


def test_how_late_a_frame_is_handed_on_is_recorded(rig: Rig) -> None:
    """The figure by which a run says how true it was: against the instant of the emulated link."""
    for source, due_ns in ((0, 10_000), (2, 40_000)):
        rig.wires.incoming.append(encode(Chunk(source, 0, 0, 0, 8, due_ns, 5, b"head", bytes(8)), RUN))
    rig.round()
    assert rig.carrier.lateness_ns == []  # neither is due
    rig.clock.time_ns = 10_250
    rig.round()
    assert rig.carrier.lateness_ns == [250]
    rig.clock.time_ns = 40_000
    rig.round()
    assert rig.carrier.lateness_ns == [250]  # the other one came in time
    rig.wires.incoming.append(encode(Chunk(2, 1, 0, 0, 8, 39_000, 5, b"head", bytes(8)), RUN))
    rig.round()
    assert rig.carrier.lateness_ns == [250, 1_000]  # it was late when it reached this process
    assert [arrival.arrived_ns for arrival in rig.news(Arrival)] == [10_000, 40_000, 39_000]


def test_a_link_that_takes_no_time_is_never_late(rig: Rig) -> None:
    rig.wires.incoming.extend(frames_from(0))
    rig.round()
    assert rig.news(Arrival)
    assert rig.carrier.lateness_ns == []
