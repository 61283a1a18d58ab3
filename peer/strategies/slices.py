"""Slices: partial *parameters*, as many as each link has room for; safe on any connected graph.

When: every step in which the link has room for a slice, asynchronously.  What: the next slice of the weights in turn, as many
elements as the measured room holds.  Whom: every neighbour, each a different slice.  How: the receiver moves those elements
towards the sender's by the mixing weight, x <- x + W_ij (q - x): a convex combination, so the distance between peers shrinks
whatever arrives when.

This is ours: Ako's partial exchange (SoCC 2016) applied to weights instead of gradients, because gradient gossip diverges
where not everyone hears everyone; averaging only where values arrived follows partial sharing in DecentralizePy (Dhasade et
al. 2023).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from peer.payloads import Dense
from peer.peer import Peer
from peer.strategies.base import Strategy


class Slices(Strategy, frozen=True, tag="slices"):
    """Partial parameters by measured room, a different slice to each neighbour; any connected graph."""

    fill: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.9
    """Share of a link's measured room that slices may use, 0 < fill <= 1."""
    least: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1 / 64
    """Smallest slice worth a message, as a share of the model; with less room the peer skips a step."""

    async def run(self, peer: Peer) -> None:
        least = max(1, int(self.least * peer.size))
        degree = max(1, len(peer.neighbours))
        following = {neighbour: place * peer.size // degree for place, neighbour in enumerate(peer.neighbours)}
        while peer.running:
            peer.apply(await peer.gradient())
            for message in peer.arrived():
                peer.blend(message, peer.mixing[message.source])
            for neighbour in list(peer.neighbours):
                count = peer.room(neighbour, self.fill)
                if count >= least:
                    start = following[neighbour]
                    stop = min(start + count, peer.size)
                    following[neighbour] = stop % peer.size
                    await peer.send(neighbour, Dense(peer.weights[start:stop], start))
