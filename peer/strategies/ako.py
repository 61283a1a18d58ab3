"""Ako: accumulated partial gradients (Watcharapichat et al., SoCC 2016)."""

from __future__ import annotations

from math import ceil, inf
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

from grapevine.peer.expected import Expected
from grapevine.peer.ledger import All, Next
from grapevine.peer.peer import Peer
from grapevine.peer.strategies.base import Strategy

_Parts = Annotated[int, msgspec.Meta(ge=1)]


class Ako(Strategy, frozen=True, tag="ako"):
    """Every peer sends each other peer a different part of its accumulated gradient at every step (Watcharapichat et al. 2016).

    Source: P. Watcharapichat et al., "Ako: Decentralised Deep Learning with Partial Gradient Exchange", SoCC 2016, section 3.

    When: every step, asynchronously; with the schedule "room" every step in which the link has room.  Sends: one of p parts of
    the accumulated gradient.  To: every peer, each a different part: in round t the q-th neighbour gets part (t + q) mod p.
    How: gradients that were not sent to a neighbour accumulate, so every gradient element reaches every peer exactly once, at
    most p - 1 rounds late.  A receiver adds the parts that have arrived to its own next gradient.

    Computing and sending are decoupled, as in the paper: while a part leaves, the peer trains on.  `schedule` chooses p:

      "rates"  p = ceil(m gamma / B) for each link, from the measured gradients a second (gamma) and bytes a second (B),
               with m bytes of a model.  The paper's formula (not verified against its text) is p = ceil(m gamma (n - 1) / B)
               for one network card that all links share; here it is applied to each link.
      "fixed"  p = `parts`, independent of the links; a list gives each peer its own p, as TFAKO's "p = various".
      "room"   a part is as large as the link's measured room (ours): the same p at a constant rate; it follows changing rates.

    With "fixed", `when_busy` chooses what follows if a part has not left when the next one is due: "skip", the peer trains on
    and the neighbour gets its part later; "wait", the step lasts until the part has left, as in the TFAKO group's code, whose
    sends block; "queue", the next part is sent too, and the queue before a link that is too slow grows for ever.

    The ledger owes the update itself, g / n, with n the number of living peers when the gradient is made, and a peer applies to
    its own weights exactly what it owes to the others.  With plain SGD, once all is delivered, all peers therefore hold the
    same weights

      x_0 - eta sum_j sum_t g_j(t) / n(t)

    After a loss new gradients are divided by the number of survivors; earlier gradients keep their divisor, else the peers
    would drift apart.  Parts that a lost peer had delivered to some peers only are not completed.

    Departures: if p changes, a part begins where the last one ended, so that the bound of p - 1 rounds holds for the largest p
    of any sequence; a part that wraps round the end of the vector is sent as two messages.  Updates are scaled by 1/n (the code
    of the TFAKO group sums), so that the learning rate means the same for any number of peers.  Parts are ranges of the flat
    vector, not layers, because one layer may hold nearly all of the bytes.  `accumulate = false` is an ablation: round robin
    parts of the newest gradient alone, and the rest is dropped.
    """

    shares: ClassVar[Literal["nothing", "parameters", "gradients"]] = "gradients"
    membership: ClassVar[Literal["fixed", "at-once", "by-step"]] = "at-once"

    fill: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.9
    """Share of a link's measured room that gradients may use, 0 < fill <= 1; not with the schedule "fixed"."""
    least: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1 / 64
    """Smallest part worth a message, as a share of the model; below it the peer skips a step (schedule "room")."""
    schedule: Literal["rates", "fixed", "room"] = "rates"
    """Rule for the size of a part: p from measured rates, p = `parts`, or the link's room."""
    parts: _Parts | Annotated[tuple[_Parts, ...], msgspec.Meta(min_length=1)] = 4
    """p of the schedule "fixed", the number of parts of the gradient, >= 1; or a list of them, cycled over the peers."""
    when_busy: Literal["skip", "wait", "queue"] = "skip"
    """With "fixed", if the last part for a neighbour has not left: skip this neighbour, wait, or queue the next part."""
    accumulate: bool = True
    """Whether gradients that were not sent yet are kept; false is the ablation that drops them."""

    @property
    def link_share(self) -> float:
        return self.fill

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        return (Expected("part"),)

    async def run(self, peer: Peer) -> None:
        ledger = peer.new_ledger()
        if self.schedule == "fixed":
            for place, neighbour in enumerate(peer.neighbours):
                ledger.turn(neighbour, place % self.parts_of(peer.id) * ceil(peer.size / self.parts_of(peer.id)))
        while peer.running:
            update = await peer.gradient() / np.float32(1 + len(peer.neighbours))
            ledger.add(update)
            for neighbour in list(peer.neighbours):
                if not self._skips or peer.free(neighbour):
                    await pay_round(peer, neighbour, self._count(peer, neighbour))
                if not self.accumulate:
                    ledger.settle(neighbour)
            for message in peer.arrived():
                update[message.payload.where()] += message.payload.values
            peer.apply(update)
            if self.schedule == "fixed" and self.when_busy == "wait":
                for neighbour in list(peer.neighbours):
                    await peer.drain(neighbour)
        await pay_before_leaving(peer, self.accumulate)

    @property
    def _skips(self) -> bool:
        return self.schedule == "fixed" and self.when_busy == "skip"

    def parts_of(self, peer: int) -> int:
        """Return p of a peer with the schedule "fixed"."""
        return self.parts if isinstance(self.parts, int) else self.parts[peer % len(self.parts)]

    def _count(self, peer: Peer, neighbour: int) -> int:
        """Return the number of elements that a neighbour gets now."""
        if self.schedule == "fixed":
            return ceil(peer.size / self.parts_of(peer.id))
        least = max(1, int(self.least * peer.size)) if self.schedule != "rates" else 1
        room = peer.room(neighbour, self.fill, least=least)
        if self.schedule == "rates" and room and (parts := parts_for(peer, neighbour)):
            return min(room, ceil(peer.size / parts))
        return room


def parts_for(peer: Peer, neighbour: int, steps: int = 1) -> int:
    """Return p = ceil(m / (B T steps)), so that one of p parts leaves in that number of steps; 0 = not measured."""
    return ceil(exact_parts_for(peer, neighbour, steps))


def exact_parts_for(peer: Peer, neighbour: int, steps: int = 1) -> float:
    """Return p as `parts_for` without rounding up: 1 or more, or 0 = not measured."""
    rate = peer.rate_bytes_per_s(neighbour)
    if rate is None:
        return 0.0
    if rate == inf:
        return 1.0
    sendable_bytes = rate * (peer.speed.step_ns or peer.horizon_ns) / 1e9 * steps
    return max(1.0, peer.codec.body_bytes(peer.size) / sendable_bytes)


async def pay_before_leaving(peer: Peer, accumulate: bool = True, scalars: tuple[float, ...] = ()) -> None:
    """Send all debts to the neighbours if the peer is leaving and debts accumulate."""
    for neighbour in list(peer.neighbours) if peer.leaving and accumulate else []:
        await peer.pay(neighbour, All(), scalars)


async def pay_round(peer: Peer, neighbour: int, count: int, scalars: tuple[float, ...] = ()) -> None:
    """Send a neighbour its next `count` elements, continued at element 0 after the end of the vector."""
    while count > 0 and neighbour in peer.mixing:
        payload = await peer.pay(neighbour, Next(count), scalars)
        count -= len(payload.values)
