"""A clock and a device for the main thread of a live peer, without real time."""

from __future__ import annotations

import numpy as np

from grapevine.peer.effects import Work
from grapevine.peer.live import Clock

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

    def take_on(self, work: Work) -> int:
        return work.count or 0

    def do(self, work: Work, weights: np.ndarray) -> tuple[float, np.ndarray]:
        return 1.0, np.ones_like(weights)

    def duration_ns(self, samples: int, now_ns: int, step: int) -> int:
        return 100 * SECOND_NS
