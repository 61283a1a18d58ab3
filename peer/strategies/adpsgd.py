"""AD-PSGD: asynchronous decentralized parallel SGD (Lian et al., ICML 2018, arXiv 1710.06952, algorithm 1).

When: every step, without a barrier for all.  What: the whole model.  Whom: one neighbour, all of them equally likely.  How:
both go half of the way towards each other, x_i, x_j <- (x_i + x_j) / 2, and each applies its own gradient, which was computed
before that at its older model.  What one gains the other gives: the sum over all peers moves by gradients alone.

A peer hands its model to a neighbour, computes its gradient, and waits for the answer.  Meanwhile it answers one other peer
that asks, and declines the rest, who then make their step without a meeting: so nobody waits for somebody who waits.  Each
adds half of the difference of the two models that were exchanged; with at most one other meeting in between, that leaves every
model a convex combination of models.  Where two have asked each other, the one of the lower number declines: one meeting, not
two that would make them change places.

Where the graph changes from round to round a peer asks one of those to whom it sends at its present step.  Where that link goes
one way the peer is answered against it, and both go a quarter of the way, since there everybody may ask and be asked in one
step, and peers in a circle would only hand their models round.

Departures: the paper wants a bipartite graph, whose one side asks and whose other side answers, and so never meets a peer of
its own side.  Here everybody asks and answers on any graph, and every edge is used; a peer that has met another while it
waited averages a model that is older by that meeting.

The paper answers in a thread of its own, so that a slow peer holds nobody up, which is its point.  Here a peer answers between
two of its steps, so whoever asks a slow peer waits until that has computed its gradient.  Eight peers, one of them slower by 4,
10 or 50: on a complete graph the other seven make 81, 55 or 14 % of the steps that they make alone; on a ring its two
neighbours make 46, 20 or 4 %, and the rest nearly all.  So do not judge by this strategy how AD-PSGD takes slow peers.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from grapevine.peer.expected import COUNT, Expected
from grapevine.peer.message import Message
from grapevine.peer.payloads import Dense
from grapevine.peer.peer import Peer
from grapevine.peer.strategies.base import Strategy

_NOTHING = np.zeros(0, np.float32)
_REQUEST, _ANSWER, _DECLINED, _DONE = 0.0, 1.0, 2.0, 3.0


class ADPSGD(Strategy, frozen=True, tag="ad-psgd"):
    """Averaging of whole models with one random neighbour at a time, without barriers (Lian et al. 2018)."""

    follows_rounds: ClassVar[bool] = True
    membership: ClassVar[Literal["fixed", "at-once", "by-step"]] = "at-once"

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        request, answer, declined, done = (((kind, kind), COUNT) for kind in (_REQUEST, _ANSWER, _DECLINED, _DONE))
        return (
            Expected("whole", request), Expected("whole", answer), Expected("none", declined), Expected("none", done),
            Expected("none", request), Expected("none", answer),  # of a peer whose own weights are not finite any more
        )  # fmt: skip

    async def run(self, peer: Peer) -> None:
        await _Meetings(peer).run()


class _Meetings:
    """One peer's meetings.  Messages carry (kind, step of the request)."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.done: set[int] = set()  # neighbours that ask no more
        self.told: set[int] = set()  # those that know that this peer asks no more
        self.partner: int | None = None  # whom this peer has asked and not yet heard of
        self.asked = _NOTHING  # this peer's model as it went out
        self.met = False  # whether it has answered another since

    @property
    def waits(self) -> bool:
        """Whether an answer is still to come."""
        return self.partner in self.peer.mixing

    async def run(self) -> None:
        peer = self.peer
        while peer.running:
            await self._ask()
            gradient = await peer.gradient()
            arrived = peer.arrived()
            order = peer.rng.permutation(len(arrived))  # so that no neighbour is met more often because it asks first
            for place in sorted(order, key=lambda place: arrived[place].source != self.partner):  # the answer before requests
                await self._take_in(arrived[place])
            while self.waits:
                await self._take_in_next()
            peer.apply(gradient)
        if peer.leaving:
            return
        await self._tell_done()
        while peer.mixing.keys() - self.done:  # others may still ask
            await self._take_in_next()
            await self._tell_done()

    async def _tell_done(self) -> None:
        """Let all neighbours know that this peer asks no more, those that have joined since too."""
        self.told &= self.peer.mixing.keys()
        for neighbour in [neighbour for neighbour in self.peer.neighbours if neighbour not in self.told]:
            self.told.add(neighbour)
            await self.peer.send(neighbour, Dense(_NOTHING), (_DONE, 0.0))

    async def _ask(self) -> None:
        """Hand the model to one neighbour, all equally likely."""
        peer = self.peer
        self.partner, self.met = None, False
        if targets := peer.targets:
            self.partner = targets[int(peer.rng.integers(len(targets)))]
            self.asked = await peer.send(self.partner, Dense(peer.weights), (_REQUEST, float(peer.step)))

    async def _take_in_next(self) -> None:
        message = await self.peer.receive()
        if message is not None:
            await self._take_in(message)

    async def _take_in(self, message: Message) -> None:
        kind, step = message.scalars
        if kind == _DONE:
            self.done.add(message.source)
        elif kind == _REQUEST:
            await self._answer(message)
        elif message.source == self.partner and step == self.peer.step:
            self.partner = None
            if kind == _ANSWER:
                self._meet(message, self.asked)

    async def _answer(self, message: Message) -> None:
        """Average with a neighbour that asks, or decline; the answer is this peer's model before that."""
        peer, source, step = self.peer, message.source, message.scalars[1]
        if self.waits and (self.met or (source == self.partner and peer.id < source)):
            await peer.send(source, Dense(_NOTHING), (_DECLINED, step))
            return
        self.met = True
        own = await peer.send(source, Dense(peer.weights), (_ANSWER, step))
        self._meet(message, own)

    def _meet(self, message: Message, own: np.ndarray) -> None:
        """Go towards the other's model from this peer's own, as both were read on the wire."""
        if message.payload.count:  # else the other's weights are not finite any more
            share = 0.5 if self._both_ways(message.source, int(message.scalars[1])) else 0.25
            self.peer.weights += (message.payload.values - own) * np.float32(share)

    def _both_ways(self, neighbour: int, step: int) -> bool:
        """Whether each of the two sends to the other at a step."""
        rounds, identity = self.peer.rounds, self.peer.id
        return rounds is None or (identity in rounds.targets(step, neighbour) and neighbour in rounds.targets(step, identity))
