"""TFAKO: Ako with adapted frequency, adapted size and contributions weighed by speed (Hong and Chandra, SoCC 2018 poster).

When: to each neighbour every f-th step, f from the measured rate.  What: one of p parts of the accumulated gradient, p from
the measured rate and f.  Whom: every peer, each a different part.  How: as Ako (nothing is lost).

The poster says what is adapted and from what, but gives no formulas: these are ours.
    frequency   f = max(1, ceil((m / p_max) / (B T)))          steps between two parts for a neighbour
    size        p = clamp(m / (B T f), 1, p_max)               a part is m / p; not rounded, or up to half of B is left idle
    scaling     x <- x - eta (s_own g_own + sum_j s_j g_j) / n
with m bytes a model, B the measured bytes a second of the link, T the measured time of a step.

"Weighs a node's contribution by the amount of data it trains per unit time" can be read in two ways.  In each second peer j
hands over v_j / b gradients of b samples each (v_j samples a second), so with s_j = 1 a second of its work already counts by
its v_j samples: the default.  With s_j = v_j / mean v for every gradient, the other reading, it counts v_j^2: `scaling`, to
study what that costs.

s_j is applied where the gradient is made, before it is owed: a peer moves its own weights by exactly what it owes to others, so
that no factor can make peers drift apart.  Losses are met as in `ako`.

Departures: scaled by 1/n as in `ako`; a part is never larger than the room that the link has, so that a link which became
slower is not flooded before it is measured anew.
"""

from __future__ import annotations

from math import ceil, inf
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

from grapevine.peer.expected import Expected
from grapevine.peer.meter import relative_speeds
from grapevine.peer.peer import Peer
from grapevine.peer.strategies.ako import exact_parts_for, parts_for, pay_before_leaving, pay_round
from grapevine.peer.strategies.base import Strategy


class TFAko(Strategy, frozen=True, tag="tfako"):
    """Ako with frequency and size from measured rates, and contributions weighed by speed (SoCC 2018 poster)."""

    shares: ClassVar[Literal["nothing", "parameters", "gradients"]] = "gradients"
    membership: ClassVar[Literal["fixed", "at-once", "by-step"]] = "at-once"

    parts_most: Annotated[int, msgspec.Meta(ge=1)] = 16
    """p_max: the most parts that a gradient is cut into; a slower link gets a part less often instead; >= 1."""
    fill: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.9
    """Share of a link's measured room that may be used, 0 < fill <= 1."""
    scaling: bool = False
    """Whether each gradient is multiplied by its peer's samples a second over the mean of all; false: a faster peer counts
    more only because it makes more gradients."""

    @property
    def link_share(self) -> float:
        return self.fill

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        return (Expected("part", ((0.0, inf),) if self.scaling else ()),)

    async def run(self, peer: Peer) -> None:
        ledger = peer.new_ledger()
        speeds: dict[int, float] = {}
        last_sent = dict.fromkeys(peer.neighbours, -1)
        while peer.running:
            gradient = await peer.gradient()
            scale, told = self._scale(peer, speeds)
            update = gradient * np.float32(scale / (1 + len(peer.neighbours)))
            ledger.add(update)
            for neighbour in list(peer.neighbours):
                every, parts = self._rhythm(peer, neighbour)
                if peer.step - last_sent.get(neighbour, -1) < every:
                    continue
                room = peer.room(neighbour, self.fill)
                if room:
                    last_sent[neighbour] = peer.step
                    await pay_round(peer, neighbour, min(room, ceil(peer.size / parts)), told)
            for message in peer.arrived():
                if message.scalars:
                    speeds[message.source] = message.scalars[0]
                update[message.payload.where()] += message.payload.values
            peer.apply(update)
        await pay_before_leaving(peer, scalars=self._scale(peer, speeds)[1])

    def _scale(self, peer: Peer, speeds: dict[int, float]) -> tuple[float, tuple[float, ...]]:
        """s of a peer, and what it tells the others: its own speed."""
        if not self.scaling:
            return 1.0, ()
        speeds[peer.id] = peer.speed.samples_per_s or inf
        living = {known: speed for known, speed in speeds.items() if known == peer.id or known in peer.mixing}
        return relative_speeds(living)[peer.id], (speeds[peer.id],)

    def _rhythm(self, peer: Peer, neighbour: int) -> tuple[int, float]:
        """f and p for a neighbour; the room for a part is saved up over f steps."""
        if neighbour not in peer.mixing:
            return 1, 1.0
        every = max(1, ceil(parts_for(peer, neighbour) / self.parts_most))
        peer.save_up(neighbour, every)
        return every, min(max(1.0, exact_parts_for(peer, neighbour, every)), float(self.parts_most))
