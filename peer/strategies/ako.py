"""Ako: accumulated partial gradients (Watcharapichat et al., SoCC 2016, section 3).

When: every step in which the link has room, asynchronously.  What: one part of the accumulated gradient, as many elements as
the link's measured room holds.  Whom: every peer, each a different part (the rounds of q neighbours start q equal distances
apart).  How: what a neighbour was not sent yet accumulates, so every gradient element reaches every peer exactly once; a
receiver adds what has arrived to its own next gradient.

Departures: the paper fixes p partitions from a formula over bandwidth and gradient rate; here the size of a part follows the
measured room of each link, which comes to the same p where the rate is constant and follows it where it is not.  Updates are
scaled by 1/n (the paper's code sums), so that the learning rate means the same for any number of peers.  Parts are ranges
of the flat vector, not layers: one layer may hold nearly all of the bytes.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from peer.ledger import Next
from peer.peer import Peer
from peer.strategies.base import Strategy


class Ako(Strategy, frozen=True, tag="ako"):
    """Accumulated partial gradients, a different part to each peer, sized by measured room (SoCC 2016)."""

    shares: ClassVar[Literal["nothing", "parameters", "gradients"]] = "gradients"

    fill: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.9
    """Share of a link's measured room that gradients may use, 0 < fill <= 1."""
    least: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1 / 64
    """Smallest part worth a message, as a share of the model; below it the peer skips a step and the debt grows."""

    async def run(self, peer: Peer) -> None:
        ledger = peer.new_ledger()
        least = max(1, int(self.least * peer.size))
        while peer.running:
            gradient = await peer.gradient()
            ledger.add(gradient)
            for neighbour in list(peer.neighbours):
                count = peer.room(neighbour, self.fill)
                if count >= least:
                    await peer.pay(neighbour, Next(count))
            update = gradient / peer.peers
            for message in peer.arrived():
                update[message.payload.where()] += message.payload.values / peer.peers
            peer.apply(update)
