"""AD-PSGD: asynchronous decentralized parallel SGD (Lian et al., ICML 2018, arXiv 1710.06952, algorithm 1).

When: every step, without any barrier.  What: the whole model.  Whom: one neighbour drawn at random.  How: both set x_i, x_j
<- (x_i + x_j) / 2 at one and the same moment, and each applies its own gradient, which was computed before that at its older
model.  The sum over all peers moves by gradients alone.

No deadlock: peers are active or passive.  An active peer hands its model to a passive neighbour before it computes its
gradient and keeps its weights until the answer is there; a passive peer only ever answers and waits for nobody.

Where the graph changes from round to round no two sides serve all rounds.  There every peer asks one of those to whom it sends
at its present step (of two that send to each other the one of the lower number asks), and whoever waits for an answer answers
others meanwhile: so again nobody waits for somebody who waits.  Each adds half of the difference of the two models that were
exchanged, or a quarter where the link goes one way, since there everybody may both ask and be asked in one step: the sum over
all peers still moves by gradients alone, and no round takes two peers to each other's places.

Departures: the paper wants a bipartite graph.  Here sides are found at the start: where everyone hears everyone by the
number's parity, else they spread from peer 0 on, neighbour by neighbour, each taking the other side of whom it heard first.
Edges between peers of one side stay idle; those that are left join all peers.  The paper answers in a thread of its own; here
a passive peer answers between two of its steps, so an active one may wait for as long as a step of its partner takes.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from peer.payloads import Dense
from peer.peer import Message, Peer
from peer.strategies.base import Strategy

_NOTHING = np.zeros(0, np.float32)
_ACTIVE, _PASSIVE = 0, 1
_MODEL, _DONE, _SIDE, _DEGREE, _ANSWER = 0.0, 1.0, 2.0, 3.0, 4.0


class ADPSGD(Strategy, frozen=True, tag="ad-psgd"):
    """Averaging of whole models with one random neighbour at a time, without barriers (Lian et al. 2018)."""

    follows_rounds: ClassVar[bool] = True

    async def run(self, peer: Peer) -> None:
        if peer.rounds is not None:
            await _run_rounds(peer)
            return
        sides, requests = await _choose_sides(peer)
        if sides[peer.id] == _ACTIVE:
            await _run_active(peer, [neighbour for neighbour in peer.neighbours if sides[neighbour] == _PASSIVE])
        else:
            await _run_passive(peer, {neighbour for neighbour in peer.neighbours if sides[neighbour] == _ACTIVE}, requests)


async def _run_rounds(peer: Peer) -> None:
    working = set(peer.neighbours)
    while peer.running:
        partners = [target for target in peer.targets if peer.id < target or not _both_ways(peer, target, peer.step)]
        partner = partners[int(peer.rng.integers(len(partners)))] if partners else None
        own = _NOTHING if partner is None else await peer.send(partner, Dense(peer.weights), (_MODEL,))
        gradient = await peer.gradient()
        news = peer.arrived()
        while True:
            for message in news:
                if message.scalars == (_ANSWER,):
                    if message.source == partner:
                        _meet(peer, message, own, peer.step)
                        partner = None
                else:
                    await _answer(peer, message, working)
            if partner not in peer.mixing:  # it has answered, or is lost, or there is none
                break
            late = await peer.receive()
            news = [] if late is None else [late]
        peer.apply(gradient)
    for neighbour in list(peer.neighbours):
        await peer.send(neighbour, Dense(_NOTHING), (_DONE,))
    await _serve(peer, working)


async def _serve(peer: Peer, working: set[int]) -> None:
    """Answer those who still work, until none does."""
    while working & peer.mixing.keys():
        late = await peer.receive()
        if late is not None:
            await _answer(peer, late, working)


async def _run_active(peer: Peer, partners: list[int]) -> None:
    while peer.running:
        partners = [partner for partner in partners if partner in peer.mixing]
        if not partners:
            peer.apply(await peer.gradient())
            continue
        partner = partners[int(peer.rng.integers(len(partners)))]
        own = await peer.send(partner, Dense(peer.weights), (_MODEL,))
        gradient = await peer.gradient()
        answer = None
        while answer is None and partner in peer.mixing:
            answer = await peer.expect(partner)
        if answer is not None:
            _meet(peer, answer, own, peer.step)
        peer.apply(gradient)
    await peer.broadcast(Dense(_NOTHING), (_DONE,))


async def _run_passive(peer: Peer, actives: set[int], requests: list[Message]) -> None:
    while peer.running:
        gradient = await peer.gradient()
        for message in requests + peer.arrived():
            await _answer(peer, message, actives)
        requests = []
        peer.apply(gradient)
    await _serve(peer, actives)


async def _answer(peer: Peer, message: Message, actives: set[int]) -> None:
    """Average with a neighbour that asks; the answer is this peer's model before that."""
    if message.scalars == (_DONE,):
        actives.discard(message.source)
    elif message.scalars == (_MODEL,):
        own = await peer.send(message.source, Dense(peer.weights), (_ANSWER,))
        _meet(peer, message, own, message.step)


def _meet(peer: Peer, message: Message, own: np.ndarray, step: int) -> None:
    """Go towards the other's model from this peer's own, as both were read on the wire: half of the way."""
    if len(message.payload.values) != peer.size:
        peer.errors["range"] += 1
        return
    share = 0.5 if _both_ways(peer, message.source, step) else 0.25
    peer.weights += (message.payload.values - own) * np.float32(share)


def _both_ways(peer: Peer, neighbour: int, step: int) -> bool:
    """Whether each of the two sends to the other at a step."""
    rounds = peer.rounds
    return rounds is None or (peer.id in rounds.targets(step, neighbour) and neighbour in rounds.targets(step, peer.id))


async def _choose_sides(peer: Peer) -> tuple[dict[int, int], list[Message]]:
    """The side of this peer and of every neighbour, and what active neighbours have asked meanwhile."""
    sides: dict[int, int] = {}
    requests: list[Message] = []
    begun_with = len(peer.mixing)
    if await _everybody_hears_everybody(peer) or peer.id == 0 or len(peer.mixing) < begun_with:
        sides[peer.id] = peer.id % 2  # this peer need not, or may not, hear of a side from peer 0 on
        await peer.broadcast(Dense(_NOTHING), (_SIDE, float(sides[peer.id])))
    while not sides.keys() >= {peer.id, *peer.neighbours}:
        message = await peer.receive()
        if message is not None and message.scalars[:1] != (_SIDE,):
            requests.append(message)
            continue
        if message is not None:
            sides[message.source] = int(message.scalars[1])
        if peer.id not in sides:  # heard for the first time, or lost whom it would have heard
            sides[peer.id] = 1 - sides[message.source] if message is not None else peer.id % 2
            await peer.broadcast(Dense(_NOTHING), (_SIDE, float(sides[peer.id])))
    return sides, requests


async def _everybody_hears_everybody(peer: Peer) -> bool:
    """Whether the graph is complete: then all agree on it, because else each peer has a neighbour that misses somebody."""
    everybody = peer.peers - 1
    complete = len(peer.mixing) == everybody
    await peer.broadcast(Dense(_NOTHING), (_DEGREE, float(len(peer.mixing))))
    for neighbour in list(peer.neighbours):
        message: Message | None = None
        while message is None and neighbour in peer.mixing:
            message = await peer.expect(neighbour)
        complete = complete and message is not None and message.scalars[1] == everybody
    return complete
