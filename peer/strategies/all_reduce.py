"""Ring all-reduce: the mean gradient, by passing parts round a ring (Patarasuk and Yuan, JPDC 2009)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from grapevine.peer.blas import all_finite
from grapevine.peer.expected import COUNT, Expected
from grapevine.peer.message import Message
from grapevine.peer.payloads import Dense
from grapevine.peer.peer import Peer
from grapevine.peer.strategies.base import Strategy

_PART, _STEP, _LAST_STEP, _WEIGHTS = (float(kind) for kind in range(4))
_NOTHING = np.zeros(0, np.float32)


class AllReduce(Strategy, frozen=True, tag="all-reduce"):
    """All peers compute the exact mean gradient at every step by passing parts of it round a ring (Patarasuk and Yuan 2009).

    Source: P. Patarasuk and X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", JPDC 2009.

    When: every step, synchronously (BSP).  Sends: one of n equal parts of the gradient at a time, 2 (n - 1) messages a step.
    To: the next living peer in order of number.  How: n - 1 turns of reduce-scatter, after which each peer holds one part of
    the sum over all, then n - 1 turns of all-gather; 2 m (n - 1) / n bytes for each peer and step, with m bytes of a gradient.
    All peers hold equal weights and make the same steps as one machine with an n times larger batch.  Each message carries its
    turn, so links may change the order of messages.

    Departures (ours): if a peer is lost, the survivors exchange their step numbers.  Peers that had not finished the step take
    the weights of one that had (at most one step lies between them), or all begin the step again in a smaller ring; this needs
    a complete graph.  A codec that rounds does so at every hop; in the all-gather a peer keeps the values as its neighbour
    reads them.  A part to which some peer's gradient adds a value that is not finite travels on without elements: in this step
    no peer changes it, and all weights stay equal.
    """

    shares: ClassVar[Literal["nothing", "parameters", "gradients"]] = "gradients"
    synchronous: ClassVar[bool] = True
    needs: ClassVar[Literal["connected", "complete", "hubs"]] = "complete"

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        members, turns = (1.0, float(peer.peers)), (0.0, 2.0 * peer.peers)
        part, weights = ((_PART, _PART), members, turns), ((_WEIGHTS, _WEIGHTS), members, (0.0, 0.0))
        return (
            Expected("part", part), Expected("none", part), Expected("none", ((_STEP, _LAST_STEP), members, COUNT)),
            Expected("whole", weights), Expected("none", weights),
        )  # fmt: skip

    async def run(self, peer: Peer) -> None:
        ring = _Ring(peer)
        while peer.running:
            step = peer.step
            gradient = await peer.gradient()
            while peer.step == step:
                total = gradient.copy()
                if await ring.reduce(total):
                    peer.apply(total / np.float32(len(ring.members)))
                else:
                    await ring.regroup()
        await ring.finish()


class _Ring:
    """The living peers in order of number.

    The scalars of a message are (kind, number of members of the ring, number).  The last one is the turn of a part, the
    sender's step to regroup, its last step of all, or 0 for weights, which go to peers that are behind.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.members = sorted([peer.id, *peer.neighbours])
        self.kept: dict[tuple[int, float, float, float], Message] = {}  # for later: by source, kind, members and number
        self.steps_reported: dict[tuple[int, float], int] = {}  # step of a source, by (source, number of members that regroup)
        self.last: dict[int, int] = {}  # last step of each peer that has finished

    @property
    def alive(self) -> int:
        return len(self.peer.neighbours) + 1

    @property
    def whole(self) -> bool:
        return self.alive == len(self.members)

    async def reduce(self, total: np.ndarray) -> bool:
        """Sum `total` over all members in place, 0 where a value is not finite; return False if a member is lost."""
        peer, n = self.peer, len(self.members)
        place = self.members.index(peer.id)
        following, preceding = self.members[(place + 1) % n], self.members[place - 1]
        parts = [slice(part * peer.size // n, (part + 1) * peer.size // n) for part in range(n)]
        unknown: set[int] = set()
        for turn in range(2 * (n - 1)):
            part = (place - turn) % n  # reduce-scatter; from turn n - 1 on the part holds the whole sum: all-gather
            where = parts[part]
            payload = Dense(total[where], where.start) if part not in unknown else Dense(_NOTHING)
            read = await peer.send(following, payload, (_PART, float(n), float(turn)))
            if not payload.finite:
                unknown.add(part)
            elif part not in unknown:
                total[where] = read
            message = await self._await_message(preceding, _PART, n, turn)
            if message is None:
                return False
            part = (part - 1) % n
            where = parts[part]
            if not isinstance(message.payload, Dense) or message.payload.where() != where:
                unknown.add(part)
            elif turn < n - 1:
                total[where] += message.payload.values
            else:
                total[where] = message.payload.values
        for part in range(n):
            if part in unknown or not all_finite(total[parts[part]]):
                total[parts[part]] = 0
        return self.whole

    async def _await_message(self, source: int, kind: float, members: int, number: int) -> Message | None:
        """Wait for a message of a source; return None if a peer is lost meanwhile."""
        while self.alive == members:
            if (message := self.kept.pop((source, kind, members, number), None)) is not None:
                return message
            await self._keep_next(source)
        return None

    async def _keep_next(self, source: int) -> None:
        """Wait for any message of a source and keep it if it is needed now or later; return also if a peer is lost."""
        message = await self.peer.expect(source)
        if message is None:
            return
        kind, members, number = message.scalars
        if kind == _STEP:
            self.steps_reported[source, members] = int(number)
        elif kind == _LAST_STEP:
            self.last[source] = int(number)
        elif members == self.alive and message.step >= self.peer.step:
            self.kept[source, kind, members, number] = message

    async def regroup(self) -> None:
        """Make a ring of the living peers, and bring all of them to the same step."""
        peer = self.peer
        while True:
            alive = self.alive
            self.kept = {key: message for key, message in self.kept.items() if key[2] == alive}
            await peer.broadcast(Dense(_NOTHING), (_STEP, float(alive), float(peer.step)))
            steps = {peer.id: peer.step}
            for source in list(peer.neighbours):
                step = await self._step_of(source, alive)
                if step is not None:
                    steps[source] = step
            if len(steps) == alive == self.alive and await self._catch_up(steps, alive):
                self.members = sorted(steps)
                return

    async def _step_of(self, source: int, alive: int) -> int | None:
        """Return the step of a member that counts as many living peers as this one; None if a peer is lost meanwhile."""
        while self.alive == alive:
            if (step := self.last.get(source, self.steps_reported.get((source, alive)))) is not None:
                return step
            await self._keep_next(source)
        return None

    async def _catch_up(self, steps: dict[int, int], alive: int) -> bool:
        """Bring peers that are behind to the weights of the lowest-numbered one ahead; return False if this failed."""
        peer, furthest = self.peer, max(steps.values())
        leader = min(member for member, step in steps.items() if step == furthest)
        if peer.id == leader:
            for member, step in sorted(steps.items()):
                if step < furthest:
                    await peer.send(member, Dense(peer.weights), (_WEIGHTS, float(alive), 0.0))
        elif peer.step < furthest:
            message = await self._await_message(leader, _WEIGHTS, alive, 0)
            if message is None:
                return False
            if message.payload.count:  # else the leader's weights are not finite any more
                peer.weights[:] = message.payload.values
            peer.step = furthest
        return True

    async def finish(self) -> None:
        """Wait until all peers have made their last step: one that is behind may need this peer to begin a step again."""
        peer = self.peer
        await peer.broadcast(Dense(_NOTHING), (_LAST_STEP, float(self.alive), float(peer.step)))
        while waiting := [source for source in peer.neighbours if source not in self.last]:
            if self.whole:
                await self._keep_next(waiting[0])
            else:
                await self.regroup()
