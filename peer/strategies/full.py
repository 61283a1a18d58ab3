"""Full exchange: everyone sends its whole gradient to everyone, every step; large-batch SGD without a server.

When: every step, synchronously.  What: the whole gradient.  Whom: all other peers (a complete graph).  How: each peer applies
the aggregate (by default the mean) of its own and all received gradients of the step, so all peers hold the same weights
while nobody is lost, and n peers with batch b walk exactly as one machine with batch n b.  The all-to-all baseline of Ako
(Watcharapichat et al., SoCC 2016) and DLion (Hong and Chandra, HPDC 2021), with a barrier.

Where a peer is lost while it sends its gradient, some of the others have got that gradient and some have not.  They do not
settle that: each applies the mean of what it has.  From then on their weights differ by a constant (with plain SGD), which
nothing takes away; 0.05 at most in a trial of four peers that lead to weights of about 1.5.  Use `all-reduce` where the
survivors have to agree.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from grapevine.peer.expected import Expected
from grapevine.peer.payloads import Dense
from grapevine.peer.peer import Peer
from grapevine.peer.strategies.base import Strategy


class Full(Strategy, frozen=True, tag="full"):
    """Everyone sends its whole gradient to everyone each step (the all-to-all baseline)."""

    shares: ClassVar[Literal["nothing", "parameters", "gradients"]] = "gradients"
    synchronous: ClassVar[bool] = True
    aggregates: ClassVar[bool] = True
    membership: ClassVar[Literal["fixed", "at-once", "by-step"]] = "by-step"
    alike: ClassVar[bool] = True

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        return (Expected("whole"),)

    async def run(self, peer: Peer) -> None:
        while peer.running:
            gradient = await peer.gradient()
            own = await peer.broadcast(Dense(gradient))
            rows = {peer.id: own}
            for message in await peer.gather(step=peer.step):
                rows[message.source] = message.payload.values
            ordered = [rows[source] for source in sorted(rows)]  # the same order everywhere: the same bits everywhere
            peer.aggregator.combine(ordered, [1.0 / len(ordered)] * len(ordered), gradient)
            peer.apply(gradient)
