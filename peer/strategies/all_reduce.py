"""Ring all-reduce: the mean gradient by passing parts round a ring (bandwidth-optimal; Patarasuk and Yuan, JPDC 2009).

When: every step, synchronously (BSP).  What: one of n equal parts of the gradient at a time, 2 (n - 1) messages a step.
Whom: the next living peer in order of number.  How: n - 1 steps of reduce-scatter, after which each peer holds one part of
the sum over all, then n - 1 steps of all-gather; 2 m (n - 1) / n bytes a peer and step, whatever n is.  All peers hold equal
weights and walk as one machine with an n times larger batch.

Departures (ours): where a peer is lost, the survivors tell each other how far they are; those that had not finished the step
take the weights of one that had (at most one step lies between them), or all begin it anew in a smaller ring; that needs a
complete graph.  A codec that rounds does so at every hop; what a peer sends in the all-gather it keeps itself, as read.  A
part to which some peer's gradient adds a value that is not finite travels on without elements: in that step nobody moves it,
and all weights stay equal.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from peer.expected import COUNT, Expected
from peer.payloads import Dense, all_finite
from peer.peer import Message, Peer
from peer.strategies.base import Strategy

_NOTHING = np.zeros(0, np.float32)


class AllReduce(Strategy, frozen=True, tag="all-reduce"):
    """The exact mean gradient every step, parts passed round a ring; 2 m (n - 1) / n bytes a peer (BSP)."""

    shares: ClassVar[Literal["nothing", "parameters", "gradients"]] = "gradients"
    synchronous: ClassVar[bool] = True
    needs: ClassVar[Literal["connected", "complete", "hubs"]] = "complete"

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        members = (0.0, float(peer.peers))
        lead = (members, COUNT, (1.0, 1.0))
        return (
            Expected("part", (members,)), Expected("none", (members,)), Expected("none", (members, COUNT)),
            Expected("whole", lead), Expected("none", lead),
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
        await ring.part()


class _Ring:
    """The living peers in order of number.  Messages carry (members,) in the ring; (members, step) to regroup, and
    (0, step) for good; (members, step, 1) with the weights for whoever is behind."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.members = sorted([peer.id, *peer.neighbours])
        self.told: dict[int, tuple[float, ...]] = {}

    @property
    def whole(self) -> bool:
        return len(self.peer.neighbours) + 1 == len(self.members)

    async def reduce(self, total: np.ndarray) -> bool:
        """Sum `total` over all members, in place, 0 where a member's values are not finite; False where a member is lost."""
        peer, n = self.peer, len(self.members)
        place = self.members.index(peer.id)
        following, preceding = self.members[(place + 1) % n], self.members[place - 1]
        parts = [slice(part * peer.size // n, (part + 1) * peer.size // n) for part in range(n)]
        unknown: set[int] = set()
        for turn in range(2 * (n - 1)):
            part = (place - turn) % n  # reduce-scatter first; from turn n - 1 on the part sent is whole: all-gather
            where = parts[part]
            payload = Dense(total[where], where.start) if part not in unknown else Dense(_NOTHING)
            read = await peer.send(following, payload, (float(n),))
            if not payload.finite:
                unknown.add(part)
            elif part not in unknown:
                total[where] = read
            message = await self._next(preceding)
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

    async def _next(self, source: int) -> Message | None:
        """The next message of the ring from its source; what it says of regrouping is kept.  None where the ring broke."""
        while self.whole and (message := await self.peer.expect(source)) is not None:
            if len(message.scalars) == 1:
                return message
            self.told[source] = message.scalars
        return None

    async def regroup(self) -> None:
        """Make a ring of the living, and bring everybody to the same step."""
        peer = self.peer
        while True:
            alive = len(peer.neighbours) + 1
            await peer.broadcast(Dense(_NOTHING), (float(alive), float(peer.step)))
            steps = {peer.id: peer.step}
            for source in list(peer.neighbours):
                step = await self._step_of(source, alive)
                if step is not None:
                    steps[source] = step
            if len(steps) == alive == len(peer.neighbours) + 1 and await self._catch_up(steps, alive):
                self.members = sorted(steps)
                return

    async def _step_of(self, source: int, alive: int) -> int | None:
        """How far a member is that knows of as many living as this peer; None where another is lost meanwhile."""
        while self.told.get(source, (-1.0,))[0] not in (0.0, float(alive)):
            if len(self.peer.neighbours) + 1 != alive:
                return None
            message = await self.peer.expect(source)
            if message is None:
                return None
            if len(message.scalars) == 2:
                self.told[source] = message.scalars
        return int(self.told[source][1])

    async def _catch_up(self, steps: dict[int, int], alive: int) -> bool:
        """The lowest of those that are ahead hands its weights to those behind, who take them; False where that failed."""
        peer, furthest = self.peer, max(steps.values())
        leader = min(member for member, step in steps.items() if step == furthest)
        if peer.id == leader:
            for member, step in sorted(steps.items()):
                if step < furthest:
                    await peer.send(member, Dense(peer.weights), (float(alive), float(furthest), 1.0))
            return True
        if peer.step == furthest:
            return True
        while (message := await peer.expect(leader)) is not None:
            if len(message.scalars) == 3:
                if message.payload.count:  # else the leader's own weights are not finite any more
                    peer.weights[:] = message.payload.values
                peer.step = furthest
                return True
            if len(message.scalars) == 2:
                self.told[leader] = message.scalars
        return False

    async def part(self) -> None:
        """Stay until everybody has made its last step: one that is behind may need this peer to begin anew."""
        peer = self.peer
        await peer.broadcast(Dense(_NOTHING), (0.0, float(peer.step)))
        while waiting := [source for source in peer.neighbours if self.told.get(source, (-1.0,))[0] != 0.0]:
            if not self.whole:
                await self.regroup()
                continue
            message = await peer.expect(waiting[0])
            if message is not None and len(message.scalars) == 2:
                self.told[message.source] = message.scalars
