"""Slices: partial *parameters*, adaptive in size, frequency and weight; safe on any connected graph.

When: to each neighbour as often as its link carries a slice worth a message: every step over a link that is fast against a
step, every f-th step over a slow one, f = ceil(least m / (fill B T)) with m bytes a model, B the measured rate of the link
and T the measured time of a step.  What: the next slice of the weights in turn, as many elements as the measured room holds.
Whom: every neighbour, each a different slice; where the graph changes from round to round, those of the sender's step.  How:
the receiver moves those elements towards the sender's, x <- x + w (q - x) with

    w = min(1/2, W_ij s_j / sqrt(1 + a))

where W_ij is the mixing weight, s_j = the sender's samples a second over the mean of all that the receiver knows, and a = the
slice's age in steps of the receiver: the measured delay of the link, and the time that it has waited.  Every move is a convex
combination, so the distance between peers shrinks whatever arrives when.

This is ours: Ako's partial exchange (SoCC 2016) applied to weights instead of gradients, because gradient gossip diverges
where not everyone hears everyone; the three adaptations are TFAKO's (SoCC 2018 poster), their formulas ours; averaging only
where values arrived follows partial sharing in DecentralizePy (Dhasade et al. 2023).  With unequal speeds the weights are not
symmetric: consensus leans towards the peers that see more data, which is meant.
"""

from __future__ import annotations

from math import ceil, inf, sqrt
from typing import Annotated, ClassVar

import msgspec

from peer.expected import Expected
from peer.meter import relative_speeds
from peer.payloads import Dense
from peer.peer import Message, Peer
from peer.strategies.base import Strategy

_LONGEST_NS = 250_000_000  # of link time that one slice may save up for: queues stay well under a second
_HEAVIEST = 0.5


class Slices(Strategy, frozen=True, tag="slices"):
    """Partial parameters by measured room, a different slice to each neighbour; any connected graph."""

    follows_rounds: ClassVar[bool] = True

    fill: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.9
    """Share of a link's measured room that slices may use, 0 < fill <= 1."""
    least: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1 / 64
    """Smallest slice worth a message, as a share of the model; a slow link saves up for it, for a quarter second at most."""
    scaling: bool = True
    """Whether a slice counts by its sender's samples per second and by its age; false: by the mixing weight alone."""

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        return (Expected("part", ((0.0, inf),)),)

    async def run(self, peer: Peer) -> None:
        degree = max(1, len(peer.neighbours))
        following = {neighbour: place * peer.size // degree for place, neighbour in enumerate(peer.neighbours)}
        speeds: dict[int, float] = {}
        while peer.running:
            peer.apply(await peer.gradient())
            speeds[peer.id] = peer.speed.samples_per_s or inf
            for message in peer.arrived():
                speeds[message.source] = message.scalars[0]
                peer.blend(message, self._weight(peer, message, speeds))
            for neighbour in list(peer.targets):
                enough = self._enough(peer, neighbour)
                count = peer.room(neighbour, self.fill)
                if count < enough:
                    continue
                if count == peer.size:
                    following[neighbour] = 0  # all of it in one message
                while count > 0 and neighbour in peer.mixing:  # round the end of the vector where it reaches it
                    start = following[neighbour]
                    stop = min(start + count, peer.size)
                    following[neighbour] = stop % peer.size
                    count -= stop - start
                    await peer.send(neighbour, Dense(peer.weights[start:stop], start), (speeds[peer.id],))

    def _enough(self, peer: Peer, neighbour: int) -> int:
        """The smallest slice worth a message now; the link saves up room for as long as that takes."""
        least = max(1, int(self.least * peer.size))
        rate = peer.rate_bytes_per_s(neighbour)
        if rate is None or rate == inf:
            return least
        filling_ns = peer.codec.body_bytes(least) / (self.fill * rate) * 1e9
        horizons = ceil(min(filling_ns, _LONGEST_NS) / peer.horizon_ns)
        peer.save_up(neighbour, horizons)
        saved = peer.codec.elements(self.fill * rate * max(1, horizons) * peer.horizon_ns / 1e9)
        return min(least, max(1, saved // 2))

    def _weight(self, peer: Peer, message: Message, speeds: dict[int, float]) -> float:
        """How far to move towards a slice."""
        mixing = peer.weight(message)
        if not self.scaling:
            return mixing
        step_ns = peer.speed.step_ns
        age_ns = (peer.meters[message.source].delay_ns or 0.0) + peer.now_ns - message.arrived_ns if step_ns else 0.0
        age = age_ns / step_ns if step_ns else 0.0
        return min(_HEAVIEST, mixing * relative_speeds(speeds)[message.source] / sqrt(1 + age))
