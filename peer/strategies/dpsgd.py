"""D-PSGD: decentralized parallel SGD (Lian et al., NeurIPS 2017), and stochastic gradient push (Assran et al., ICML 2019)."""

from __future__ import annotations

from typing import ClassVar, Literal

from grapevine.peer.expected import LARGEST, Expected
from grapevine.peer.peer import Peer
from grapevine.peer.strategies.base import Strategy


class DPSGD(Strategy, frozen=True, tag="d-psgd"):
    """Every peer averages its whole model with those of all neighbours at every step, synchronously (Lian et al. 2017).

    Source: X. Lian et al., "Can Decentralized Algorithms Outperform Centralized Algorithms?", NeurIPS 2017, arXiv 1705.09056,
    algorithm 1.

    When: every step; a peer waits for all neighbours.  Sends: the whole model.  To: every neighbour.  How, with a doubly
    stochastic W:

      combine-then-adapt   x_i <- sum_j W_ij x_j - eta g_i(x_i)
      adapt-then-combine   x_i <- sum_j W_ij (x_j - eta g_j(x_j))

    The first one is the published order: mixing and gradient run in parallel, both at the old weights.  Both orders move the
    mean of the fleet by exactly -eta times the mean gradient.

    The graph may change from round to round (a round is a step), and its links may go one way: all of this holds where every
    W_t is doubly stochastic.  With the mixing rule "push-sum" each model carries a share of its sender's mass, and a receiver
    averages by the masses that it has received: stochastic gradient push (Assran et al., ICML 2019, arXiv 1811.10792), for any
    strongly connected graph.  Its algorithm 1 steps first and then pushes: this is order = "adapt-then-combine".

    Departures: with push-sum the default order, "combine-then-adapt", is not that of algorithm 1: a peer pushes its model while
    it computes the gradient at it.  A lossy codec is allowed; every peer then mixes the models as they are read on the wire,
    its own model included, so that the mean is still kept.  The mixing weight of a lost neighbour returns to each survivor's
    own weight, which keeps the survivors' mean only if W is symmetric; with push-sum the mass of a lost peer is lost: the
    summary then has a warning.
    """

    synchronous: ClassVar[bool] = True
    aggregates: ClassVar[bool] = True
    follows_rounds: ClassVar[bool] = True
    pushes_sums: ClassVar[bool] = True
    membership: ClassVar[Literal["fixed", "at-once", "by-step"]] = "by-step"

    order: Literal["combine-then-adapt", "adapt-then-combine"] = "combine-then-adapt"
    """Order of mixing and gradient: "combine-then-adapt", the published order of D-PSGD, or "adapt-then-combine", that of
    stochastic gradient push."""

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
                own = await peer.broadcast_model()  # travels while the gradient is computed
                gradient = await peer.gradient()
                models = await peer.gather(step=peer.step)
                peer.mix(models, own)
                peer.apply(gradient)
            else:
                step = peer.step
                peer.apply(await peer.gradient())
                own = await peer.broadcast_model()
                peer.mix(await peer.gather(step=step + 1), own)
