"""AD-PSGD: asynchronous decentralized parallel SGD (Lian et al., ICML 2018)."""

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
    """Every peer averages its whole model with one random neighbour at a time, without a barrier (Lian et al. 2018).

    Source: X. Lian et al., "Asynchronous Decentralized Parallel Stochastic Gradient Descent", ICML 2018, arXiv 1710.06952,
    algorithm 1.

    When: every step, without a barrier.  Sends: the whole model.  To: one neighbour, all equally likely.  How: both peers move
    half of the way towards each other, x_i, x_j <- (x_i + x_j) / 2, and each applies its own gradient, which it computed before
    at its older model.  The sum over all peers moves by gradients alone, because one peer loses exactly what the other gains.

    A peer sends its model to a neighbour as a request, computes its gradient, and waits for the answer.  Meanwhile it answers
    one other request and declines further ones; a declined peer makes its step without a meeting.  Therefore no peer waits
    for a peer that waits.  Each of the two adds half of the difference of the two models that were exchanged; with at most
    one other meeting in between, every model stays a convex combination of models.  If two peers have sent each other a
    request, the one with the lower number declines: two meetings would exchange their models.

    If the graph changes from round to round, a peer chooses among the neighbours to which it sends at its present step.  If
    that link goes one way, the answer travels against it, and both peers move a quarter of the way: every peer may then send
    and receive a request in the same step, and with half of the way peers on a directed cycle would only pass their models on.

    Departures: the paper requires a bipartite graph, in which one side sends requests and the other side answers, so that peers
    of one side never meet.  Here every peer does both on any graph, and every edge is used; a peer that met another one while
    it waited averages a model that is older by that meeting.

    In the paper a peer answers in a thread of its own, so that a slow peer delays no other peer; this is the purpose of the
    algorithm.  Here a peer answers between two of its steps, so a peer that sends a request to a slow peer waits for the slow
    peer's gradient.  Measured with eight peers, one of them slower by 4, 10 or 50: on a complete graph the other seven make 81,
    55 or 14 % of the steps that they make alone; on a ring the slow peer's two neighbours make 46, 20 or 4 %, and the others
    nearly all.  Do not use this strategy to measure how AD-PSGD copes with slow peers.
    """

    follows_rounds: ClassVar[bool] = True
    pairwise: ClassVar[bool] = True
    membership: ClassVar[Literal["fixed", "at-once", "by-step"]] = "at-once"

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        request, answer, declined, done = (((kind, kind), COUNT) for kind in (_REQUEST, _ANSWER, _DECLINED, _DONE))
        return (
            Expected("whole", request), Expected("whole", answer), Expected("none", declined), Expected("none", done),
            Expected("none", request), Expected("none", answer),  # from a peer whose weights are not finite any more
        )  # fmt: skip

    async def run(self, peer: Peer) -> None:
        await _Meetings(peer).run()


class _Meetings:
    """The meetings of one peer; the scalars of a message are its kind and the step of the request."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.finished: set[int] = set()  # neighbours that send no more requests
        self.informed: set[int] = set()  # neighbours that know that this peer sends no more requests
        self.partner: int | None = None  # the neighbour whose answer is awaited
        self.sent_model = _NOTHING  # this peer's model as the partner reads it
        self.met = False  # whether this peer has answered another one since its request

    @property
    def waiting(self) -> bool:
        """Whether the answer of a living partner is awaited."""
        return self.partner in self.peer.mixing

    async def run(self) -> None:
        peer = self.peer
        while peer.running:
            await self._send_request()
            gradient = await peer.gradient()
            arrived = peer.arrived()
            order = peer.rng.permutation(len(arrived))  # so that no neighbour is preferred because its request came first
            for place in sorted(order, key=lambda place: arrived[place].source != self.partner):  # the answer first
                await self._take_in(arrived[place])
            while self.waiting:
                await self._take_in_next()
            peer.apply(gradient)
        if peer.leaving:
            return
        await self._send_done()
        while peer.mixing.keys() - self.finished:  # others may still send requests
            await self._take_in_next()
            await self._send_done()

    async def _send_done(self) -> None:
        """Inform all neighbours, also joiners, that this peer sends no more requests."""
        self.informed &= self.peer.mixing.keys()
        for neighbour in [neighbour for neighbour in self.peer.neighbours if neighbour not in self.informed]:
            self.informed.add(neighbour)
            await self.peer.send(neighbour, Dense(_NOTHING), (_DONE, 0.0))

    async def _send_request(self) -> None:
        """Send the model to one neighbour, all equally likely."""
        peer = self.peer
        self.partner, self.met = None, False
        if targets := peer.targets:
            self.partner = targets[int(peer.rng.integers(len(targets)))]
            self.sent_model = await peer.send(self.partner, Dense(peer.weights), (_REQUEST, float(peer.step)))

    async def _take_in_next(self) -> None:
        message = await self.peer.receive()
        if message is not None:
            await self._take_in(message)

    async def _take_in(self, message: Message) -> None:
        kind, step = message.scalars
        if kind == _DONE:
            self.finished.add(message.source)
        elif kind == _REQUEST:
            await self._answer(message)
        elif message.source == self.partner and step == self.peer.step:
            self.partner = None
            if kind == _ANSWER:
                self._meet(message, self.sent_model)

    async def _answer(self, message: Message) -> None:
        """Answer a request with this peer's model, then average with the neighbour's; or decline the request."""
        peer, source, step = self.peer, message.source, message.scalars[1]
        if self.waiting and (self.met or (source == self.partner and peer.id < source)):
            await peer.send(source, Dense(_NOTHING), (_DECLINED, step))
            return
        self.met = True
        own = await peer.send(source, Dense(peer.weights), (_ANSWER, step))
        self._meet(message, own)

    def _meet(self, message: Message, own: np.ndarray) -> None:
        """Move towards the other peer's model, by the difference of the two models as both were read."""
        if message.payload.count:  # else the other peer's weights are not finite any more
            share = 0.5 if self._both_ways(message.source, int(message.scalars[1])) else 0.25
            self.peer.weights += (message.payload.values - own) * np.float32(share)

    def _both_ways(self, neighbour: int, step: int) -> bool:
        """Whether this peer and a neighbour send to each other at a step."""
        rounds, identity = self.peer.rounds, self.peer.id
        return rounds is None or (identity in rounds.targets(step, neighbour) and neighbour in rounds.targets(step, identity))
