"""What a strategy may await: a gradient, a loss, a send, a message, the passing of time.

A strategy is a coroutine.  Awaiting an effect hands it to the world, which carries it out in real or in virtual time and
answers with the result.  Nothing below this line knows a clock, a socket or a thread.
"""

from __future__ import annotations

from collections.abc import Generator
from math import ceil
from typing import Any


class Effect:
    """Something that only the world can do; awaiting it yields it to the world and returns the world's answer."""

    __slots__ = ()

    def __await__(self) -> Generator[Effect, Any, Any]:
        return (yield self)


class Gradient(Effect):
    """One gradient of the peer's loss at its present weights; answers (loss, gradient float32 [size])."""

    __slots__ = ("batch_size",)

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size


class HeldOutLoss(Effect):
    """The loss at the peer's present weights over the samples that it keeps apart; answers a float.

    `cost_samples` is what it takes of the device's time, in samples of a gradient: a forward pass alone takes about a third of
    what forward and backward take.
    """

    __slots__ = ("cost_samples",)

    def __init__(self, samples: int) -> None:
        self.cost_samples = ceil(samples / 3)


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
