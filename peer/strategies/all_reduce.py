"""Ring all-reduce: the mean gradient by passing parts round a ring (bandwidth-optimal; Patarasuk and Yuan, JPDC 2009).

When: every step, synchronously (BSP).  What: one of n equal parts of the gradient at a time, 2 (n - 1) messages a step.  Whom: the
next living peer in order of number.  How: n - 1 steps of reduce-scatter, after which each peer holds one part of the sum over
all, then n - 1 steps of all-gather; 2 m (n - 1) / n bytes a peer and step, whatever n is.  All peers hold equal weights and
walk as one machine with an n times larger batch.

Departures (ours): where a peer is lost, the survivors tell each other how far they are; those that had not finished the step
take the weights of one that had (at most one step lies between them), or all begin it anew in a smaller ring; that needs
a complete graph.  A codec that rounds does so at every hop; what a peer sends in the all-gather it keeps itself, as read.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from peer.payloads import Dense
from peer.peer import Message, Peer
from peer.strategies.base import Strategy

_EMPTY = np.zeros(0, np.float32)


class AllReduce(Strategy, frozen=True, tag="all-reduce"):
    """The exact mean gradient every step, parts passed round a ring; 2 m (n - 1) / n bytes a peer (BSP)."""

    shares: ClassVar[Literal["nothing", "parameters", "gradients"]] = "gradients"
    needs: ClassVar[Literal["connected", "complete", "hubs"]] = "complete"

    async def run(self, peer: Peer) -> None:
        members = sorted([peer.id, *peer.neighbours])
        while peer.running:
            step = peer.step
            gradient = await peer.gradient()
            while peer.step == step:
                if len(peer.neighbours) + 1 < len(members):
                    members = await _regroup(peer)
                    continue
                total = gradient.copy()
                if await _reduce(peer, members, total):
                    peer.apply(total / np.float32(len(members)))


async def _reduce(peer: Peer, members: list[int], total: np.ndarray) -> bool:
    """Sum `total` over all members, in place; False where a member was lost meanwhile."""
    n, place = len(members), members.index(peer.id)
    following, preceding = members[(place + 1) % n], members[place - 1]
    bounds = [part * peer.size // n for part in range(n + 1)]
    for turn in range(2 * (n - 1)):
        part = (place - turn) % n if turn < n - 1 else (place + 1 - (turn - (n - 1))) % n
        start, stop = bounds[part], bounds[part + 1]
        total[start:stop] = await peer.send(following, Dense(total[start:stop], start), (float(n),))
        message = await _from(peer, preceding, n)
        if message is None:
            return False
        if turn < n - 1:
            total[message.payload.where()] += message.payload.values
        else:
            total[message.payload.where()] = message.payload.values
    return True


async def _from(peer: Peer, source: int, members: int) -> Message | None:
    """The next message of a peer in a ring of so many; None where the ring has broken (or has been left by the source)."""
    while len(peer.neighbours) + 1 == members:
        message = await peer.receive()
        if message is None:
            return None
        ...
    return None


async def _regroup(peer: Peer) -> list[int]:
    raise NotImplementedError
