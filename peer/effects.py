"""What a strategy may await: work of its task, a send, a message, the passing of time.

A strategy is a coroutine.  Awaiting an effect hands it to the world, which carries it out in real or in virtual time and
answers with the result.  Nothing below this line knows a clock, a socket or a thread.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import msgspec
import numpy as np


class Effect:
    """Something that only the world can do; awaiting it yields it to the world and returns the world's answer."""

    __slots__ = ()

    def __await__(self) -> Generator[Effect, Any, Any]:
        return (yield self)


GRADIENTS = ("gradient", "clip", "targets")
"""Work that answers (loss, gradient float32 [size]): plain, with each sample's gradient clipped, towards soft targets."""
STANDARD = (*GRADIENTS, "held-out", "probe", "predict")
"""Work whose cost depends on the number of samples alone; every other name is a piece of a task's own."""


class Work(Effect, msgspec.Struct, eq=False):
    """A piece of work that the peer's task does, and that takes the device's time; answers what the task gives.

    `name` is one of `STANDARD` or of the task's own. "held-out" and "probe" answer (loss, accuracy) on those samples,
    "predict" float32 [samples, outputs]. `count` is the number of samples to work on; None = the piece is the task's own.
    `batch` says which, for the task alone; None = a fresh minibatch of the peer's own, drawn when the work is asked for.
    `weights` are those to work at, float32 [size]; None = the peer's own, which nothing may touch until the answer comes.
    """

    name: str
    count: int | None
    batch: Any
    weights: np.ndarray | None
    arguments: Mapping[str, Any]


class Send(Effect):
    """One encoded message to one neighbour or to several; answers at once, the world queues it on each link."""

    __slots__ = ("parcel", "targets")

    def __init__(self, targets: tuple[int, ...], parcel: Any) -> None:
        self.targets = targets
        self.parcel = parcel


class SendAt(Effect):
    """A message that leaves at an instant (emulated ns), whatever its strategy awaits by then; answers at once."""

    __slots__ = ("leaves_ns", "send")

    def __init__(self, send: Send, leaves_ns: int) -> None:
        self.send = send
        self.leaves_ns = leaves_ns


class Receive(Effect):
    """Something new: `least` messages have arrived since, or a neighbour was lost; with a deadline (emulated ns) at the
    latest then."""

    __slots__ = ("deadline_ns", "least")

    def __init__(self, least: int = 1, deadline_ns: int | None = None) -> None:
        self.least = least
        self.deadline_ns = deadline_ns


class Sleep(Effect):
    """The passing of time until an instant (emulated ns)."""

    __slots__ = ("until_ns",)

    def __init__(self, until_ns: int) -> None:
        self.until_ns = until_ns


class Leave(Effect):
    """The wish to leave the fleet, for a duration (emulated ns) or for good; answers at once."""

    __slots__ = ("duration_ns",)

    def __init__(self, duration_ns: int | None) -> None:
        self.duration_ns = duration_ns
