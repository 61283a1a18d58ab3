"""AD-PSGD: asynchronous decentralized parallel SGD (Lian et al., ICML 2018, arXiv 1710.06952, algorithm 1).

When: every step, without any barrier.  What: the whole model.  Whom: one neighbour, all of them equally likely.  How: both set
x_i, x_j <- (x_i + x_j) / 2 at one and the same moment, and each applies its own gradient, which was computed before that at its
older model.  The sum over all peers moves by gradients alone.

A peer hands its model to a neighbour before it computes its gradient.  Until it is answered it averages with nobody else, so
that both average what both still hold; it trains on meanwhile, and its gradients add to the average when that comes.  Who asks
a peer that has not been answered itself is kept waiting or declined: each request carries a random priority, and only a
request of lower priority is kept waiting.  So priorities rise along every chain of requests that wait, no chain closes, and
each request is answered or declined.  Whoever was declined asks again, at its next step.

Where the graph changes from round to round a peer asks one of those to whom it sends at its present step; it is answered
against the link where that goes one way only.

Departures: the paper wants a bipartite graph, whose one side asks and whose other side answers, and so never meets a peer of
its own side.  Here everybody asks and answers on any graph, and every edge is used.  The paper answers at once, in a thread of
its own, so that each step has its average.  Here a peer answers between two of its steps: a step whose answer is not there yet
is made without one, and a fast peer averages less often than it steps.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from peer.expected import Expected
from peer.payloads import Dense
from peer.peer import Message, Peer
from peer.strategies.base import Strategy

_NOTHING = np.zeros(0, np.float32)
_REQUEST, _ANSWER, _DECLINED, _DONE = 0.0, 1.0, 2.0, 3.0


class ADPSGD(Strategy, frozen=True, tag="ad-psgd"):
    """Averaging of whole models with one random neighbour at a time, without barriers (Lian et al. 2018)."""

    follows_rounds: ClassVar[bool] = True

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        request, answer, declined, done = (((kind, kind), (0.0, 1.0)) for kind in (_REQUEST, _ANSWER, _DECLINED, _DONE))
        return (
            Expected("whole", request), Expected("whole", answer), Expected("none", declined), Expected("none", done),
            Expected("none", request), Expected("none", answer),  # of a peer whose own weights are not finite any more
        )  # fmt: skip

    async def run(self, peer: Peer) -> None:
        await _Meetings(peer).run()


class _Meetings:
    """One peer's meetings.  Messages carry (kind, priority of the request)."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.working = set(peer.neighbours)
        self.partner: int | None = None  # whom this peer has asked and not yet heard of
        self.priority = 0.0  # of that request
        self.asked = _NOTHING  # this peer's model as it went out
        self.waiting: list[Message] = []  # requests that this peer answers once it has been answered

    async def run(self) -> None:
        peer = self.peer
        while peer.running:
            if not self._promised:
                await self._ask()
            gradient = await peer.gradient()
            for message in sorted(peer.arrived(), key=lambda message: message.source != self.partner):  # its answer first
                await self._take_in(message)
            if not self._promised:
                await self._set_free()
            peer.apply(gradient)
        while self._promised:
            await self._take_in_next()
        await self._set_free()
        for neighbour in list(peer.neighbours):
            await peer.send(neighbour, Dense(_NOTHING), (_DONE, 0.0))
        while self.working & peer.mixing.keys():  # others may still ask
            await self._take_in_next()

    @property
    def _promised(self) -> bool:
        """Whether this peer's model is with a neighbour that has not answered yet."""
        return self.partner in self.peer.mixing

    async def _ask(self) -> None:
        """Hand the model to one neighbour, all equally likely."""
        peer = self.peer
        if targets := peer.targets:
            partner = targets[int(peer.rng.integers(len(targets)))]
            self.priority = float(peer.rng.random())
            self.asked = await peer.send(partner, Dense(peer.weights), (_REQUEST, self.priority))
            self.partner = partner

    async def _take_in_next(self) -> None:
        message = await self.peer.receive()
        if message is not None:
            await self._take_in(message)

    async def _take_in(self, message: Message) -> None:
        kind, priority = message.scalars
        if kind == _DONE:
            self.working.discard(message.source)
        elif kind == _REQUEST:
            if not self._promised:
                await self._answer(message)
            elif (priority, message.source) < (self.priority, self.peer.id):
                self.waiting.append(message)
            else:
                await self._decline(message)
        elif message.source == self.partner and priority == self.priority:
            if message.payload.count:
                self.peer.weights += (message.payload.values - self.asked) * np.float32(0.5)
            await self._set_free()

    async def _set_free(self) -> None:
        """This peer waits for nobody any more: answer those that wait for it."""
        self.partner = None
        waiting, self.waiting = self.waiting, []
        for message in waiting:
            await self._answer(message)

    async def _answer(self, message: Message) -> None:
        """Average with a neighbour that asks; the answer is this peer's model before that."""
        peer = self.peer
        if not message.payload.count:
            await self._decline(message)
        elif message.source in peer.mixing:
            own = await peer.send(message.source, Dense(peer.weights), (_ANSWER, message.scalars[1]))
            peer.weights += (message.payload.values - own) * np.float32(0.5)

    async def _decline(self, message: Message) -> None:
        await self.peer.send(message.source, Dense(_NOTHING), (_DECLINED, message.scalars[1]))
