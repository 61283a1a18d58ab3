"""FedAvg: clients train for whole epochs, a server averages (McMahan et al., AISTATS 2017, arXiv 1602.05629, algorithm 1).

When: in rounds; a client reports after E local epochs.  What: the whole model, both ways.  Whom: peer 0, the server, which
trains nothing itself; a random share C of the clients takes part in a round.  How: the server's model becomes the mean of the
reported ones, weighted by how many training samples each client owns.

Over-selection and the reporting deadline are those of Bonawitz et al. (MLSys 2019): more clients are chosen than are needed,
the first that report make the round, stragglers are ignored; at the deadline the round is made of what is there, or abandoned
where that is too little.

Departures: the optimizer's state begins anew in every round.  Clients that lose the server train alone.  A client leaves when
it has made its number of steps, the server when all have left.
"""

from __future__ import annotations

from math import ceil
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

from peer.payloads import Dense
from peer.peer import Message, Peer
from peer.strategies.base import Strategy

_MODEL, _REPORT, _BYE = 0.0, 1.0, 2.0
_NOTHING = np.zeros(0, np.float32)
_SERVER = 0


class FedAvg(Strategy, frozen=True, tag="fed-avg"):
    """Local epochs on a random share of the clients, averaged by the server, peer 0 (McMahan et al. 2017)."""

    synchronous: ClassVar[bool] = True
    aggregates: ClassVar[bool] = True
    needs: ClassVar[Literal["connected", "complete", "hubs"]] = "hubs"

    fraction: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 1.0
    """C: share of the clients whose reports make a round, 0 to 1; at least one client."""
    epochs: Annotated[float, msgspec.Meta(gt=0.0)] = 1.0
    """E: passes over its own data that a client makes in a round, > 0; at least one step."""
    over_selection: Annotated[float, msgspec.Meta(ge=1.0)] = 1.0
    """So many times as many clients are chosen as are needed, >= 1; 1.3 in Bonawitz et al."""
    deadline_s: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    """Emulated seconds after which a round ends with the reports that are there; 0 = never."""
    least: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.5
    """Share of the needed reports below which a round is abandoned at its deadline, 0 to 1."""

    @property
    def hubs(self) -> int:
        return 1

    async def run(self, peer: Peer) -> None:
        if peer.id == _SERVER:
            await self._serve(peer)
        else:
            await self._train(peer)

    # ---- the server -----------------------------------------------------------------------------------------------

    async def _serve(self, peer: Peer) -> None:
        idle = set(peer.neighbours)
        left: set[int] = set()
        while clients := set(peer.neighbours) - left:
            idle &= clients
            if not idle:
                message = await peer.receive()
                if message is not None:
                    (left if message.scalars[0] == _BYE else idle).add(message.source)
                continue
            needed = max(1, round(self.fraction * len(clients)))
            count = min(len(idle), ceil(needed * self.over_selection))
            chosen = {int(client) for client in peer.rng.choice(sorted(idle), count, replace=False)}
            idle -= chosen
            reports = await self._round(peer, chosen, min(needed, count), idle, left)
            if len(reports) >= max(1, ceil(self.least * min(needed, count))):
                _average(peer, reports)
            peer.step += 1

    async def _round(self, peer: Peer, chosen: set[int], needed: int, idle: set[int], left: set[int]) -> dict[int, Message]:
        """Hand out the model and collect reports: until enough are there, or no more can come, or the time is over."""
        deadline_ns = peer.now_ns + round(self.deadline_s * 1e9) if self.deadline_s else None
        for client in sorted(chosen):
            await peer.send(client, Dense(peer.weights), (_MODEL, float(peer.step)))
        reports: dict[int, Message] = {}
        while len(reports) < needed and (chosen & peer.mixing.keys()) - left - reports.keys():
            message = await peer.receive(deadline_ns=deadline_ns)
            if message is None:
                if deadline_ns is not None and peer.now_ns >= deadline_ns:
                    break
                continue
            if message.scalars[0] == _BYE:
                left.add(message.source)
                continue
            idle.add(message.source)
            if int(message.scalars[1]) == peer.step:  # else of an earlier round: too late
                reports[message.source] = message
        return reports

    # ---- a client -------------------------------------------------------------------------------------------------

    async def _train(self, peer: Peer) -> None:
        while peer.running:
            model = await peer.expect(_SERVER)
            if model is None:
                if _SERVER not in peer.mixing:
                    peer.apply(await peer.gradient())
                continue
            peer.weights[:] = model.payload.values
            peer.stepper = peer.optimizer.start(peer.size)
            for _ in range(max(1, ceil(self.epochs * peer.data_samples / peer.batch_size))):
                if peer.running:
                    peer.apply(await peer.gradient())
            report = (_REPORT, model.scalars[1], float(peer.data_samples))
            if _SERVER in peer.mixing:
                await peer.send(_SERVER, Dense(peer.weights), report)
        if _SERVER in peer.mixing:
            await peer.send(_SERVER, Dense(_NOTHING), (_BYE,))


def _average(peer: Peer, reports: dict[int, Message]) -> None:
    """The mean of the clients' models, weighted by their data."""
    ordered = [reports[client] for client in sorted(reports)]
    samples = [max(1.0, message.scalars[2]) for message in ordered]
    peer.aggregator.combine([message.payload.values for message in ordered], [n / sum(samples) for n in samples], peer.weights)
