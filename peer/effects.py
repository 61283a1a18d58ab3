"""Effects: work of the task, messages to send and to receive, and the passing of time, which a strategy awaits.

A strategy is a coroutine.  Awaiting an effect hands it to the world, which carries it out in real or in virtual time and
returns the result.  Effects use no clock, socket or thread.
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
"""Work that returns (loss, gradient float32 [size]): plain, with each sample's gradient clipped, or towards soft targets."""
STANDARD = (*GRADIENTS, "held-out", "probe", "predict")
"""Work whose cost depends on the number of samples alone; every other name is a piece of work that a task defines."""


class Work(Effect, msgspec.Struct, eq=False, gc=False):
    """A piece of work that the peer's task does in the device's time; awaiting it returns the result of the task.

    `name` is one of `STANDARD`, or a piece that the task defines.  "held-out" and "probe" return (loss, accuracy) on those
    samples, "predict" float32 [samples, outputs].  `count` is the number of samples; None for a piece that the task defines.
    `batch` identifies the samples to the task; None = the peer's next minibatch, drawn when the work begins.  `weights` are the
    weights to work at, float32 [size]; None = the peer's own, which nothing may change until the work is done.
    """

    name: str
    count: int | None
    batch: Any
    weights: np.ndarray | None
    arguments: Mapping[str, Any]


class Send(Effect):
    """One encoded message to one or several neighbours; returns at once, and the world queues the message on each link."""

    __slots__ = ("parcel", "targets")

    def __init__(self, targets: tuple[int, ...], parcel: Any) -> None:
        self.targets = targets
        self.parcel = parcel


class SendAt(Effect):
    """A message that leaves at an instant (emulated ns), also while the strategy awaits something else; returns at once."""

    __slots__ = ("leaves_ns", "send")

    def __init__(self, send: Send, leaves_ns: int) -> None:
        self.send = send
        self.leaves_ns = leaves_ns


class Receive(Effect):
    """The wait until `least` more messages have arrived, a neighbour is lost, or the deadline (emulated ns) has come."""

    __slots__ = ("deadline_ns", "least")

    def __init__(self, least: int = 1, deadline_ns: int | None = None) -> None:
        self.least = least
        self.deadline_ns = deadline_ns


class Sleep(Effect):
    """The wait until an instant (emulated ns)."""

    __slots__ = ("until_ns",)

    def __init__(self, until_ns: int) -> None:
        self.until_ns = until_ns


class Leave(Effect):
    """The wish to leave the fleet for a duration (emulated ns), or for good (None); returns at once."""

    __slots__ = ("duration_ns",)

    def __init__(self, duration_ns: int | None) -> None:
        self.duration_ns = duration_ns
