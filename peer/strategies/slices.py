"""Slices: partial parameters, adaptive in size, frequency and weight (ours)."""

from __future__ import annotations

from collections import defaultdict
from math import ceil, inf, sqrt
from typing import Annotated, ClassVar, Literal

import msgspec

from grapevine.peer.expected import Expected
from grapevine.peer.message import Message
from grapevine.peer.payloads import Dense
from grapevine.peer.peer import Peer
from grapevine.peer.strategies.base import Strategy

_LONGEST_NS = 250_000_000  # the longest link time of one slice: queues stay well under a second
_SMOOTHING = 0.1  # share of the newest message in the means of gaps and sizes


class _Heard:
    """The mean time between the messages of one neighbour, and their mean size."""

    __slots__ = ("_at_ns", "_elements", "_gap_ns")

    def __init__(self) -> None:
        self._at_ns: int | None = None
        self._gap_ns = 0.0
        self._elements = 0.0

    def period_ns(self, message: Message, size: int) -> float | None:
        """Return the mean time (ns) between two arrivals of the same of `size` elements; None at the first message."""
        count, before_ns = message.payload.count, self._at_ns
        self._at_ns = message.arrived_ns
        if before_ns is None:
            return None
        share = _SMOOTHING if self._elements else 1.0
        self._gap_ns += share * (message.arrived_ns - before_ns - self._gap_ns)
        self._elements += share * (count - self._elements)
        return self._gap_ns * size / self._elements


class Slices(Strategy, frozen=True, tag="slices"):
    """Every peer sends each neighbour a different slice of its parameters, as large as the link's measured room (ours).

    When: to each neighbour as often as its link carries a slice worth a message: every step over a fast link, every f-th step
    over a slow one, f = ceil(least m / (fill B T)), with m bytes of a model, B the measured rate of the link and T the measured
    time of a step.  Sends: the next slice of the weights in turn, as many elements as the measured room holds.  To: every
    neighbour, each a different slice; if the graph changes from round to round, the neighbours of the sender's step.  How: the
    receiver moves these elements towards the sender's, x <- x + w (q - x) with

      w = W_ij min(1, P / T_i) / sqrt(1 + a)

    where W_ij is the mixing weight, P the measured time between two arrivals of the same element from that neighbour, T_i and
    T_j the times of a step of the receiver and of the sender, and a the measured delay of the link divided by the longer of
    these.  Peer j therefore moves peer i at the rate W_ij / max(P, T_i) a second, however often it sends: a neighbour that
    sends eight times in a step of the receiver counts as if it had sent once.  If links are equal both ways, this rate is the
    same from i to j as from j to i, and then the peers agree on the sum of all gradients: a faster peer counts more only
    because it makes more gradients.  Every move is a convex combination, so the distance between peers shrinks in whatever
    order messages arrive.  If one direction of a link is slower than the other, the peer whose messages arrive more often
    counts more.

    Sources: there is no paper.  The partial exchange is that of Ako (SoCC 2016), applied to weights instead of gradients,
    because gradient gossip diverges unless every peer is a neighbour of every other one.  The three adaptations are those of
    TFAKO (SoCC 2018 poster), with our formulas.  Averaging only where values arrived follows partial sharing in DecentralizePy
    (Dhasade et al. 2023).
    """

    follows_rounds: ClassVar[bool] = True
    membership: ClassVar[Literal["fixed", "at-once", "by-step"]] = "at-once"

    fill: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.9
    """Share of a link's measured room that slices may use, 0 < fill <= 1."""
    least: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1 / 64
    """Smallest slice worth a message, as a share of the model; a slow link saves room up for it, for at most 0.25 s."""
    scaling: bool = True
    """Whether the weight of a slice depends on the rate of its sender's messages and on the link's delay too."""

    @property
    def link_share(self) -> float:
        return self.fill

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        return (Expected("part", ((0.0, inf),)),)

    async def run(self, peer: Peer) -> None:
        degree = max(1, len(peer.neighbours))
        following = {neighbour: place * peer.size // degree for place, neighbour in enumerate(peer.neighbours)}
        heard: dict[int, _Heard] = defaultdict(_Heard)
        while peer.running:
            peer.apply(await peer.gradient())
            for message in peer.arrived():
                peer.blend(message, self._weight(peer, message, heard[message.source]))
            for neighbour in list(peer.targets):
                enough = self._enough(peer, neighbour)
                count = peer.room(neighbour, self.fill)
                following.setdefault(neighbour, 0)
                if count < enough:
                    continue
                if count == peer.size:
                    following[neighbour] = 0  # the whole vector in one message
                while count > 0 and neighbour in peer.mixing:  # continued at element 0 after the end of the vector
                    start = following[neighbour]
                    stop = min(start + count, peer.size)
                    following[neighbour] = stop % peer.size
                    count -= stop - start
                    await peer.send(neighbour, Dense(peer.weights[start:stop], start), (peer.speed.step_ns,))

    def _enough(self, peer: Peer, neighbour: int) -> int:
        """Return the smallest slice worth a message now, in elements; let the link save room up until it fits."""
        least = max(1, int(self.least * peer.size))
        rate = peer.rate_bytes_per_s(neighbour)
        if rate is None or rate == inf:
            return least
        filling_ns = peer.codec.body_bytes(least) / (self.fill * rate) * 1e9
        horizons = ceil(min(filling_ns, _LONGEST_NS) / peer.horizon_ns)
        peer.save_up(neighbour, horizons)
        saved = peer.codec.elements(self.fill * rate * max(1, horizons) * peer.horizon_ns / 1e9)
        return min(least, max(1, saved // 2))

    def _weight(self, peer: Peer, message: Message, heard: _Heard) -> float:
        """Return the share of the way to move towards a slice."""
        weight, own_ns = peer.weight(message), peer.speed.step_ns
        if not self.scaling or not own_ns:
            return weight
        period_ns = heard.period_ns(message, peer.size)
        if period_ns is not None and period_ns < own_ns:
            weight *= period_ns / own_ns
        age = (peer.meters[message.source].delay_ns or 0.0) / max(own_ns, message.scalars[0])
        return weight / sqrt(1 + age)
