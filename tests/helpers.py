"""What several tests need: a pair of endpoints and something that runs a strategy's coroutine without any world."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import numpy as np

from peer.codecs import Codec, Float32
from peer.effects import Effect, Send
from peer.endpoint import Endpoint
from peer.payloads import Dense, encode
from peer.peer import Peer
from peer.wire import Chunk

LIMIT_BYTES = 1 << 22


def pair() -> tuple[Endpoint, Endpoint]:
    """Two endpoints that are neighbours: peers 0 and 1."""
    return Endpoint(0, [1], LIMIT_BYTES), Endpoint(1, [0], LIMIT_BYTES)


def parcel_of(count: int, codec: Codec | None = None, step: int = 0) -> Any:
    """A message of `count` numbers 0, 1, 2, ..."""
    return encode(Dense(np.arange(count, dtype=np.float32)), codec or Float32(), step)[0]


def chunks_of(sender: Endpoint, target: int, count: int, now_ns: int = 0) -> list[Chunk]:
    """The chunks of such a message, as the sender's endpoint cuts them."""
    return sender.send(target, parcel_of(count), now_ns, 20e6)


def make_peer(identity: int, mixing: dict[int, float], size: int = 8, **options: Any) -> Peer:
    """A peer with zero weights and unmeasured links."""
    peer = Peer(identity, len(mixing) + 1, mixing, np.zeros(size, np.float32), **options)
    peer.meters = Endpoint(identity, mixing, LIMIT_BYTES).meters
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
