"""The main thread of a live peer, on a clock that moves whenever somebody looks at it."""

from __future__ import annotations

import numpy as np
import pytest

from grapevine.peer.effects import Work
from grapevine.peer.endpoint import Endpoint
from grapevine.peer.live import Clock, LivePeer
from grapevine.peer.peer import Peer
from grapevine.peer.strategies import Solo
from tests.helpers import LIMIT_BYTES, make_peer
from tests.peer.clocks import SECOND_NS, Slow, Ticking


def test_the_end_of_the_time_does_not_wait_for_the_end_of_a_step() -> None:
    """The launcher would take the peer for stuck, and end it."""
    peer, clock = make_peer(0, {}), Ticking()
    records: list[int] = []
    live = LivePeer(
        peer, Endpoint(0, [], LIMIT_BYTES), Slow(), clock, SECOND_NS, SECOND_NS // 4, lambda index, _: records.append(index)
    )
    live.run(Solo().run(peer))
    assert peer.now_ns == SECOND_NS
    assert clock.looked_ns < 2 * SECOND_NS
    assert peer.step == 0
    assert records == [0, 1, 2, 3]
    assert live.ended


class Host(Clock):
    """Stands where a test puts it; whoever waits for an instant finds that it has come."""

    def __init__(self) -> None:
        super().__init__()
        self.at_ns = 0

    def now_ns(self) -> int:
        return self.at_ns

    def seconds_until(self, emulated_ns: int) -> float:
        self.at_ns = max(self.at_ns, emulated_ns)
        return 0.0


class Device:
    """A step takes a second; 0 = as long as the host takes, which is 3 ms."""

    def __init__(self, host: Host, step_ns: int) -> None:
        self.host, self.step_ns = host, step_ns

    def take_on(self, work: Work) -> int:
        return work.count or 0

    def do(self, work: Work, weights: np.ndarray) -> tuple[float, np.ndarray]:
        self.host.at_ns += 3_000_000
        return 1.0, np.ones_like(weights)

    def duration_ns(self, samples: int, now_ns: int, step: int) -> int:
        return self.step_ns


def times(step_ns: int, *held_up_ns: int) -> list[int]:
    """A peer's logical time after each of its steps; before each the host holds its strategy up for so long."""
    seen: list[int] = []
    peer, host = make_peer(0, {}), Host()

    async def strategy(peer: Peer) -> None:
        for length_ns in held_up_ns:
            host.at_ns += length_ns
            await peer.gradient()
            seen.append(peer.now_ns)

    live = LivePeer(peer, Endpoint(0, [], LIMIT_BYTES), Device(host, step_ns), host, None, 10**15, lambda index, _: None)
    live.run(strategy(peer))
    return seen


def test_logical_time_passes_over_what_holds_the_host_up_for_less_than_the_slack() -> None:
    """Decision 1: up to 20 ms of the host's cost no emulated time; beyond, the peer is never more than 20 ms behind."""
    ms = 1_000_000
    assert times(SECOND_NS, 0, 19 * ms, 5 * ms) == [SECOND_NS, 2 * SECOND_NS, 3 * SECOND_NS]
    late_ns = 1_000 * ms  # the host stands still for two seconds: the step that takes one ends a second late
    assert times(SECOND_NS, 0, 2 * SECOND_NS, 0) == [
        SECOND_NS,
        2 * SECOND_NS + late_ns + 3 * ms - 20 * ms,
        3 * SECOND_NS + late_ns + 3 * ms - 20 * ms,
    ]


def test_where_a_step_takes_what_the_host_takes_there_is_no_slack() -> None:
    assert times(0, 0, 7_000_000) == [3_000_000, 13_000_000]


@pytest.mark.parametrize(("step_ns", "time_ns"), [(SECOND_NS, 1), (0, 7_000_000)])
def test_what_a_strategy_awaits_between_steps_has_the_same_slack(step_ns: int, time_ns: int) -> None:
    """The host holds a strategy up for 7 ms before it sleeps for 1 ns: within the slack, or real time where there is none."""
    seen: list[int] = []
    peer, host = make_peer(0, {}), Host()

    async def strategy(peer: Peer) -> None:
        host.at_ns += 7_000_000
        await peer.sleep(1)
        seen.append(peer.now_ns)

    live = LivePeer(peer, Endpoint(0, [], LIMIT_BYTES), Device(host, step_ns), host, None, 10**15, lambda index, _: None)
    live.run(strategy(peer))
    assert seen == [time_ns]
