"""TFAKO: Ako with adapted frequency, adapted size and contributions scaled by speed (Hong and Chandra, SoCC 2018 poster).

When: to each neighbour every f-th step, f from the measured rate.  What: one of p parts of the accumulated gradient, p from
the measured rate and f.  Whom: every peer, each a different part.  How: as Ako (nothing is lost), and every gradient counts
by the samples that it was made of.

The poster says what is adapted and from what, but gives no formulas: these are ours.
    frequency   f = max(1, ceil((m / p_max) / (B T)))          steps between two parts for a neighbour
    size        p = clamp(m / (B T f), 1, p_max)               a part is m / p; not rounded, or up to half of B is left idle
    scaling     s = b / b_0  for a gradient over b samples, and  x <- x - eta (s_own g_own + sum_j s_j g_j) / n
with m bytes a model, B the measured bytes a second of the link, T the measured time of a step, b_0 the experiment's batch size,
which all peers know.

What "weighs a node's contribution by the amount of data it trains per unit time" may mean: in each second peer j hands over
v_j / b_j gradients (v samples a second, b samples a gradient).  A factor of v_j / mean v for each of them would let it count
v_j^2 / b_j.  So that a second of its work counts by its v_j samples, the factor is normalised by its steps:
(v_j / mean v) / (steps a second_j / mean steps a second) = b_j / mean b, and a mean that peers would estimate differently is
replaced by b_0.  Where all batches are alike s = 1: faster peers count more because they make more gradients.

The factor is applied where the gradient is made, before it is owed: a peer moves its own weights by exactly what it owes
to others, so that no factor can make peers drift apart.  Losses are met as in `ako`.

Departures: scaled by 1/n as in `ako`; a part is never larger than the room that the link has, so that a link which became
slower is not flooded before it is measured anew.
"""

from __future__ import annotations

from math import ceil
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

from peer.expected import Expected
from peer.peer import Peer
from peer.strategies.ako import exact_parts_for, parts_for, pay_round
from peer.strategies.base import Strategy


class TFAko(Strategy, frozen=True, tag="tfako"):
    """Ako with frequency, size and scaling of contributions from measured rates and speeds (SoCC 2018 poster)."""

    shares: ClassVar[Literal["nothing", "parameters", "gradients"]] = "gradients"

    parts_most: Annotated[int, msgspec.Meta(ge=1)] = 16
    """p_max: the most parts that a gradient is cut into; a slower link gets a part less often instead; >= 1."""
    fill: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.9
    """Share of a link's measured room that may be used, 0 < fill <= 1."""
    scaling: bool = True
    """Whether a gradient counts by its samples, against `task.batch_size`; false: all gradients alike."""

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        return (Expected("part"),)

    async def run(self, peer: Peer) -> None:
        ledger = peer.new_ledger()
        usual_batch = peer.batch_size
        last_sent = dict.fromkeys(peer.neighbours, -1)
        while peer.running:
            scale = peer.batch_size / usual_batch if self.scaling else 1.0
            update = await peer.gradient() * np.float32(scale / (1 + len(peer.neighbours)))
            ledger.add(update)
            for neighbour in list(peer.neighbours):
                every, parts = self._rhythm(peer, neighbour)
                if peer.step - last_sent[neighbour] < every:
                    continue
                room = peer.room(neighbour, self.fill)
                if room:
                    last_sent[neighbour] = peer.step
                    await pay_round(peer, neighbour, min(room, ceil(peer.size / parts)))
            for message in peer.arrived():
                update[message.payload.where()] += message.payload.values
            peer.apply(update)

    def _rhythm(self, peer: Peer, neighbour: int) -> tuple[int, float]:
        """f and p for a neighbour; the room for a part is saved up over f steps."""
        if neighbour not in peer.mixing:
            return 1, 1.0
        every = max(1, ceil(parts_for(peer, neighbour) / self.parts_most))
        peer.save_up(neighbour, every)
        return every, min(max(1.0, exact_parts_for(peer, neighbour, every)), float(self.parts_most))
