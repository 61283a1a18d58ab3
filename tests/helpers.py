"""What several tests need: a pair of endpoints and something that runs a strategy's coroutine without any world."""

from __future__ import annotations

import itertools
from collections.abc import Coroutine
from typing import Any

import numpy as np

from grapevine.peer.codecs import Codec, Float32
from grapevine.peer.effects import Effect, Send
from grapevine.peer.endpoint import Endpoint
from grapevine.peer.meter import LinkMeter
from grapevine.peer.payloads import Dense, encode
from grapevine.peer.peer import Peer
from grapevine.peer.samples import Samples
from grapevine.peer.wire import Chunk

LIMIT_BYTES = 1 << 22
_messages = itertools.count()


def pair() -> tuple[Endpoint, Endpoint]:
    """Two endpoints that are neighbours: peers 0 and 1."""
    return Endpoint(0, [1], LIMIT_BYTES), Endpoint(1, [0], LIMIT_BYTES)


def parcel_of(count: int, codec: Codec | None = None, step: int = 0) -> Any:
    """A message of `count` numbers 0, 1, 2, ..."""
    return encode(Dense(np.arange(count, dtype=np.float32)), codec or Float32(), step)[0]


def chunks_of(sender: Endpoint, target: int, count: int, now_ns: int = 0) -> list[Chunk]:
    """The chunks of such a message, as the sender's endpoint cuts them."""
    return sender.send(target, parcel_of(count), now_ns, 20e6)


def give(meter: LinkMeter, size_bytes: int, now_ns: int, horizon_ns: float) -> int:
    """Hand a link a message whose first chunk has 1,000 bytes; its number."""
    message = next(_messages)
    meter.sent(message, size_bytes, min(size_bytes, 1_000), 1_000, now_ns, horizon_ns)
    return message


def answer(meter: LinkMeter, message: int, spread_ns: int, now_ns: int) -> None:
    """All of such a message has arrived, what followed its first chunk in `spread_ns`."""
    flight = meter._flights[message]
    assert meter.acknowledged(message, flight.size_bytes - flight.first_bytes, spread_ns, now_ns)


class Unread:
    """The samples of a peer without a task: there is nothing behind their handles."""

    def draw(self, count: int) -> Samples:
        return Samples(None, count)

    def whole(self) -> Samples:
        return Samples(None, 100)

    def held_out(self) -> Samples:
        return Samples(None, 30, "held-out")

    def probe(self) -> Samples:
        return Samples(None, 12, "probe")


def make_peer(identity: int, mixing: dict[int, float], size: int = 8, **options: Any) -> Peer:
    """A peer with zero weights and unmeasured links."""
    peer = Peer(identity, len(mixing) + 1, mixing, np.zeros(size, np.float32), **options)
    peer.meters = Endpoint(identity, mixing, LIMIT_BYTES).meters
    peer.data = Unread()
    return peer


def run_until_blocked(work: Coroutine[Any, Any, Any], answer: Any = None) -> tuple[list[Effect], Any, bool]:
    """Run a coroutine, answering sends at once, until it awaits something else or ends.

    Returns the effects awaited, the value returned, and whether it has ended.
    """
    effects: list[Effect] = []
    while True:
        try:
            effect = work.send(answer)
        except StopIteration as end:
            return effects, end.value, True
        effects.append(effect)
        answer = None
        if not isinstance(effect, Send):
            return effects, None, False
