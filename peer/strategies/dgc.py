"""DGC: deep gradient compression (Lin et al., ICLR 2018)."""

from __future__ import annotations

from math import ceil, sqrt
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

from grapevine.peer.codecs import Codec
from grapevine.peer.expected import Expected
from grapevine.peer.ledger import All, Largest, Ledger
from grapevine.peer.payloads import Dense, Sparse
from grapevine.peer.peer import Peer
from grapevine.peer.strategies.base import Strategy

_Share = Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]
_LATE = 10**9  # a step after the warm-up


class DGC(Strategy, frozen=True, tag="dgc"):
    """Every peer sends the largest elements of its accumulated velocity to all others at every step (Lin et al. 2018).

    Source: Y. Lin et al., "Deep Gradient Compression", ICLR 2018, arXiv 1712.01887, sections 3.1 to 3.3.

    When: every step; a peer waits for all.  Sends: the (1 - sparsity) share of the accumulated velocity with the largest
    absolute values.  To: all other peers.  How: momentum correction (velocities accumulate, not gradients), clipping of the
    local gradient before that, momentum factor masking (the velocity of sent elements begins again at 0), and a warm-up of
    rising sparsity.  Every peer applies the mean of all sparse vectors by plain SGD, so all peers hold the same weights while
    no peer is lost.

      u <- m u + g;  v <- v + u;  send the largest of v;  there v <- 0 and u <- 0

    Clipping: the paper's local gradient is G_k = 1/(N b) sum over the batch, clipped to the norm thr / sqrt(N), and the N of
    them are added up.  Here g = N G_k is the mean over the batch, and the N of them are averaged, so N clip(G_k, thr / sqrt(N))
    = clip(g, thr sqrt(N)) is used.  N independent gradients that are all clipped then have a mean of norm thr.

    Departures: the largest elements are taken over the whole vector, exactly, not for each tensor by a sampled threshold.  A
    stage of the warm-up is counted in steps (the paper: epochs), because a strategy does not know epochs.  With sparsity 0 no
    element is held back and none is stale, so nothing is masked: as in the authors' dense path this is plain momentum SGD.
    Indices are sent as 32-bit numbers, not as run lengths.  Momentum is a field here: leave the optimizer's own at 0.  If a
    peer is lost while it sends, only some of the others receive its vector; as in `full` they do not settle this, and their
    weights differ by a constant from then on (at most 0.10 in the same trial).
    """

    shares: ClassVar[Literal["nothing", "parameters", "gradients"]] = "gradients"
    synchronous: ClassVar[bool] = True
    membership: ClassVar[Literal["fixed", "at-once", "by-step"]] = "by-step"
    alike: ClassVar[bool] = True

    sparsity: _Share = 0.999
    """Share of the elements that are held back, 0 <= sparsity < 1."""
    momentum: _Share = 0.9
    """m of the momentum correction, 0 <= momentum < 1; leave the optimizer's own at 0."""
    nesterov: bool = False
    """Nesterov's momentum, as in the authors' code."""
    clip: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    """thr: each of n peers clips the mean gradient of its batch to the norm clip x sqrt(n); 0 = no clipping; >= 0."""
    warmup_steps: Annotated[int, msgspec.Meta(ge=0)] = 25
    """Steps of each stage of the warm-up (an epoch in the paper): 75 %, 93.75 %, 98.4375 %, ...; 0 = no warm-up."""

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        return Expected("chosen"), Expected("whole")

    def step_bytes(self, size: int, codec: Codec) -> float:
        count = self.count_at(_LATE, size)
        return Sparse.body_bytes(count, codec) if count < size else Dense.body_bytes(size, codec)

    async def run(self, peer: Peer) -> None:
        ledger = Ledger(peer.size, [peer.id])  # one account: all neighbours get the same elements
        peer.ledger = ledger
        velocity = np.zeros(peer.size, np.float32)
        while peer.running:
            gradient = self._clipped(await peer.gradient(), len(peer.targets) + 1)
            if self.nesterov:
                velocity = (velocity + gradient) * np.float32(self.momentum)
                ledger.add(velocity + gradient)
            else:
                velocity = velocity * np.float32(self.momentum) + gradient
                ledger.add(velocity)
            count = self.count_at(peer.step, peer.size)
            payload = ledger.take(peer.id, Largest(count) if count < peer.size else All())
            if count < peer.size:
                velocity[payload.where()] = 0
            read = await peer.broadcast(payload)
            ledger.refund(peer.id, payload, read)
            parts = {peer.id: (payload.where(), read)}
            for message in await peer.gather(peer.step):
                parts[message.source] = (message.payload.where(), message.payload.values)
            total = np.zeros(peer.size, np.float32)
            for source in sorted(parts):  # the same order at all peers gives the same bits
                where, values = parts[source]
                total[where] += values
            peer.apply(total / np.float32(len(parts)))

    def sparsity_at(self, step: int) -> float:
        """Return the share of the elements that is held back at a step."""
        if not self.warmup_steps:
            return self.sparsity
        return min(self.sparsity, 1 - 0.25 ** (1 + step // self.warmup_steps))

    def count_at(self, step: int, size: int) -> int:
        """Return the number of elements that are sent at a step: the share that is not held back, rounded up, at least one."""
        return max(1, ceil(round((1 - self.sparsity_at(step)) * size, 6)))  # 1 - 0.999 is 0.0010000000000000009

    def _clipped(self, gradient: np.ndarray, peers: int) -> np.ndarray:
        norm, most = float(np.linalg.norm(gradient)), self.clip * sqrt(peers)
        return gradient * np.float32(most / norm) if self.clip and norm > most else gradient
