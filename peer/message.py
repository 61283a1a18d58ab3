"""A message as its receiver sees it, and how old messages were when they were used."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from grapevine.peer.payloads import Payload


class Message(NamedTuple):
    """A message from a neighbour: `step` is the sender's own step, `arrived_ns` an emulated time in ns."""

    source: int
    step: int
    payload: Payload
    scalars: tuple[float, ...]
    arrived_ns: int


new_message: Callable[[tuple[int, int, Payload, tuple[float, ...], int]], Message] = partial(tuple.__new__, Message)
"""The same as Message(*fields), in half the time."""


class Staleness:
    """The number of one neighbour's messages that were used, and the sum of the steps by which each was behind the receiver."""

    __slots__ = ("messages", "steps")

    def __init__(self) -> None:
        self.steps = 0
        self.messages = 0
