"""D-PSGD: decentralized parallel SGD (Lian et al., NeurIPS 2017, arXiv 1705.09056, algorithm 1).

When: every step, synchronously.  What: the whole model.  Whom: every neighbour.  How: x_i <- sum_j W_ij x_j - eta g_i(x_i)
with a doubly stochastic W ("combine-then-adapt", as published: mixing and gradient run in parallel, both at the old weights),
or x_i <- sum_j W_ij (x_j - eta g_j(x_j)) ("adapt-then-combine").  Both move the mean by exactly -eta times the mean gradient.

A graph may change from round to round, the steps being the rounds, and its links may go one way: where W_t is doubly
stochastic all of the above holds.  With the mixing rule "push-sum" each model goes out with a share of its sender's mass, and
peers average by the mass that has come together: that is stochastic gradient push (Assran et al., ICML 2019, arXiv
1811.10792, algorithm 1), for any strongly connected graph.

Departures: a lossy codec is allowed (then every peer mixes what was read on the wire, its own model included, so that the
mean is still kept); a neighbour that is lost hands its weight back to each survivor.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from grapevine.peer.expected import LARGEST, Expected
from grapevine.peer.peer import Peer
from grapevine.peer.strategies.base import Strategy


class DPSGD(Strategy, frozen=True, tag="d-psgd"):
    """Synchronous averaging of whole models with all neighbours, every step (Lian et al. 2017)."""

    synchronous: ClassVar[bool] = True
    aggregates: ClassVar[bool] = True
    follows_rounds: ClassVar[bool] = True
    pushes_sums: ClassVar[bool] = True
    membership: ClassVar[Literal["fixed", "at-once", "by-step"]] = "by-step"

    order: Literal["combine-then-adapt", "adapt-then-combine"] = "combine-then-adapt"
    """Which comes first: "combine-then-adapt" as published, or "adapt-then-combine"."""

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        return (Expected("whole", () if peer.mass is None else ((0.0, LARGEST),)),)

    @property
    def sends_first(self) -> bool:  # type: ignore[override]  # it depends on a field
        return self.order == "combine-then-adapt"

    @property
    def steps_ahead(self) -> int:
        return 0 if self.order == "combine-then-adapt" else 1

    @property
    def gossip(self) -> Literal["combine-then-adapt", "adapt-then-combine"]:  # type: ignore[override]  # it depends on a field
        return self.order

    async def run(self, peer: Peer) -> None:
        while peer.running:
            if self.order == "combine-then-adapt":
                own = await peer.broadcast_model()  # on its way while the gradient is computed
                gradient = await peer.gradient()
                models = await peer.gather(step=peer.step)
                peer.mix(models, own)
                peer.apply(gradient)
            else:
                step = peer.step
                peer.apply(await peer.gradient())
                own = await peer.broadcast_model()
                peer.mix(await peer.gather(step=step + 1), own)
