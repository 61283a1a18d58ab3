"""The main thread of a live peer, on a clock that moves whenever somebody looks at it."""

from __future__ import annotations

import numpy as np

from peer.endpoint import Endpoint
from peer.live import Clock, LivePeer
from peer.strategies import Solo
from tests.helpers import LIMIT_BYTES, make_peer

SECOND_NS = 10**9


class Ticking(Clock):
    """A millisecond passes with every look."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_ns = 0

    def now_ns(self) -> int:
        self.looked_ns += 1_000_000
        return self.looked_ns

    def seconds_until(self, emulated_ns: int) -> float:
        return 0.0


class Slow:
    """A device that takes a hundred seconds for a step."""

    def gradient(self, weights: np.ndarray, batch_size: int) -> tuple[float, np.ndarray]:
        return 1.0, np.ones_like(weights)

    def duration_ns(self, batch_size: int, now_ns: int, step: int) -> int:
        return 100 * SECOND_NS


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
