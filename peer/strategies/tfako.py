"""TFAKO: Ako with adapted frequency, adapted size and contributions scaled by speed (Hong and Chandra, SoCC 2018 poster).

When: to each neighbour every f-th step, f from the measured rate.  What: one of p parts of the accumulated gradient, p from
the measured rate and f.  Whom: every peer, each a different part.  How: as Ako (nothing is lost), and every contribution
counts by how much its peer trains in a second.

The poster says what is adapted and from what, but gives no formulas: these are ours.
    frequency   f = max(1, ceil((m / p_max) / (B T)))          steps between two parts for a neighbour
    size        p = clamp(m / (B T f), 1, p_max)               a part is m / p; not rounded, or up to half of B is left idle
    scaling     s_j = v_j / mean of all known v, and  x <- x - eta (s_own g_own + sum_j s_j payload_j) / n
with m bytes a model, B the measured bytes a second of the link, T the measured time of a step, v samples a second as measured
by each peer and told in its messages.

Departures: scaled by 1/n as in `ako`; a part is never larger than the room that the link has, so that a link which became
slower is not flooded before it is measured anew.
"""

from __future__ import annotations

from math import ceil, inf
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

from peer.meter import relative_speeds
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
    """Whether contributions count by samples per second; false: all alike."""

    async def run(self, peer: Peer) -> None:
        ledger = peer.new_ledger()
        speeds: dict[int, float] = {}
        last_sent = dict.fromkeys(peer.neighbours, -1)
        while peer.running:
            gradient = await peer.gradient()
            ledger.add(gradient)
            speeds[peer.id] = peer.speed.samples_per_s or inf
            for neighbour in list(peer.neighbours):
                every, parts = self._rhythm(peer, neighbour)
                if peer.step - last_sent[neighbour] < every:
                    continue
                room = peer.room(neighbour, self.fill)
                if room:
                    last_sent[neighbour] = peer.step
                    await pay_round(peer, neighbour, min(room, ceil(peer.size / parts)), (speeds[peer.id],))
            arrived = peer.arrived()
            for message in arrived:
                speeds[message.source] = message.scalars[0] if message.scalars else inf
            scale = relative_speeds(speeds) if self.scaling else {}
            update = gradient * np.float32(scale.get(peer.id, 1.0) / peer.peers)
            for message in arrived:
                weight = np.float32(scale.get(message.source, 1.0) / peer.peers)
                update[message.payload.where()] += weight * message.payload.values
            peer.apply(update)

    def _rhythm(self, peer: Peer, neighbour: int) -> tuple[int, float]:
        """f and p for a neighbour; the room for a part is saved up over f steps."""
        if neighbour not in peer.mixing:
            return 1, 1.0
        every = max(1, ceil(parts_for(peer, neighbour) / self.parts_most))
        peer.save_up(neighbour, every)
        return every, min(max(1.0, exact_parts_for(peer, neighbour, every)), float(self.parts_most))
