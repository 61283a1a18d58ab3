"""TFAKO: Ako with adapted frequency, adapted size, and contributions weighed by speed (Hong and Chandra, SoCC 2018 poster)."""

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
    """Ako with frequency and size of the parts adapted to each link's measured rate (Hong and Chandra, SoCC 2018 poster).

    When: to each neighbour every f-th step, f from the measured rate.  Sends: one of p parts of the accumulated gradient, p
    from the measured rate and f.  To: every peer, each a different part.  How: as `ako` (no gradient is lost).

    The poster names what is adapted, and from which measurements, but gives no formulas; these are ours:

      frequency   f = max(1, ceil((m / p_max) / (B T)))          steps between two parts for a neighbour
      size        p = clamp(m / (B T f), 1, p_max)               a part is m / p; not rounded, else up to half of B stays unused
      scaling     x <- x - eta (s_own g_own + sum_j s_j g_j) / n

    with m bytes of a model, B the measured bytes a second of the link, T the measured time of a step.

    "Weighs a node's contribution by the amount of data it trains per unit time" has two readings.  In each second peer j makes
    v_j / b gradients of b samples each, with v_j its samples a second; so with s_j = 1, the default, its contribution in a
    second already counts in proportion to v_j.  In the other reading s_j = v_j / mean v for every gradient, and the
    contribution in a second grows with v_j^2: `scaling = true`, to study its cost.

    A gradient is multiplied by s_j before it is owed: a peer moves its own weights by exactly what it owes to the others, so no
    factor makes the peers drift apart.  Lost peers are handled as in `ako`.

    Departures: updates are scaled by 1/n as in `ako`.  A part is never larger than the room of the link, so that a link which
    became slower is not flooded before it is measured anew.
    """

    shares: ClassVar[Literal["nothing", "parameters", "gradients"]] = "gradients"
    membership: ClassVar[Literal["fixed", "at-once", "by-step"]] = "at-once"

    parts_most: Annotated[int, msgspec.Meta(ge=1)] = 16
    """p_max: the largest number of parts of a gradient; a slower link gets a part less often instead; >= 1."""
    fill: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.9
    """Share of a link's measured room that may be used, 0 < fill <= 1."""
    scaling: bool = False
    """Whether each gradient is multiplied by its peer's samples a second, relative to the mean of all; if false a faster peer
    counts more only because it makes more gradients."""

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
            scale, scalars_sent = self._scale(peer, speeds)
            update = gradient * np.float32(scale / (1 + len(peer.neighbours)))
            ledger.add(update)
            for neighbour in list(peer.neighbours):
                every, parts = self._rhythm(peer, neighbour)
                if peer.step - last_sent.get(neighbour, -1) < every:
                    continue
                room = peer.room(neighbour, self.fill)
                if room:
                    last_sent[neighbour] = peer.step
                    await pay_round(peer, neighbour, min(room, ceil(peer.size / parts)), scalars_sent)
            for message in peer.arrived():
                if message.scalars:
                    speeds[message.source] = message.scalars[0]
                update[message.payload.where()] += message.payload.values
            peer.apply(update)
        await pay_before_leaving(peer, scalars=self._scale(peer, speeds)[1])

    def _scale(self, peer: Peer, speeds: dict[int, float]) -> tuple[float, tuple[float, ...]]:
        """Return s of this peer, and the scalars of its messages: its own speed."""
        if not self.scaling:
            return 1.0, ()
        speeds[peer.id] = peer.speed.samples_per_s or inf
        living = {known: speed for known, speed in speeds.items() if known == peer.id or known in peer.mixing}
        return relative_speeds(living)[peer.id], (speeds[peer.id],)

    def _rhythm(self, peer: Peer, neighbour: int) -> tuple[int, float]:
        """Return f and p for a neighbour; let its link save up room for a part over f steps."""
        if neighbour not in peer.mixing:
            return 1, 1.0
        every = max(1, ceil(parts_for(peer, neighbour) / self.parts_most))
        peer.save_up(neighbour, every)
        return every, min(max(1.0, exact_parts_for(peer, neighbour, every)), float(self.parts_most))
