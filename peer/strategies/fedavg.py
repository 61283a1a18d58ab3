"""FedAvg: clients train for whole epochs, a server averages (McMahan et al., AISTATS 2017)."""

from __future__ import annotations

from math import ceil
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

from grapevine.peer.expected import COUNT, Expected
from grapevine.peer.message import Message
from grapevine.peer.payloads import Dense
from grapevine.peer.peer import Peer
from grapevine.peer.strategies.base import Strategy

_MODEL, _REPORT, _BYE = 0.0, 1.0, 2.0
_NOTHING = np.zeros(0, np.float32)
_SERVER = 0


class FedAvg(Strategy, frozen=True, tag="fed-avg"):
    """A share of the clients trains for local epochs, and peer 0, the server, averages their models (McMahan et al. 2017).

    Source: H. B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
    arXiv 1602.05629, algorithm 1; goal, over-selection and deadlines: K. Bonawitz et al., "Towards Federated Learning at
    Scale", MLSys 2019.

    When: in rounds; a client reports after E local epochs.  Sends: the whole model, both ways.  To: peer 0, the server, which
    does not train; a random share C of the clients takes part in a round.  How: the server's model becomes the mean of the
    reported models, weighted by each client's number of training samples.

    A round needs as many reports as its goal, C times the number of clients.  It begins when at least so many clients are idle;
    more clients may be chosen than are needed, the first reports make the round, and later ones are ignored.  If chosen clients
    are lost, idle ones replace them.  Selection and reporting have a deadline each, at which the round continues with the
    clients or reports that are there, or is abandoned if they are too few.

    Departures: the optimizer's state begins anew in every round.  Clients that lose the server train alone.  A client leaves
    when it has made its number of steps, the server when all clients have left.
    """

    synchronous: ClassVar[bool] = True
    aggregates: ClassVar[bool] = True
    needs: ClassVar[Literal["connected", "complete", "hubs"]] = "hubs"

    fraction: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 1.0
    """C: share of the clients whose reports make a round, 0 to 1; at least one client."""
    epochs: Annotated[float, msgspec.Meta(gt=0.0)] = 1.0
    """E: passes over its own data that a client makes in a round, > 0; at least one step."""
    batch: Literal["task", "all"] = "task"
    """B: "task" for minibatches of `task.batch_size`, "all" for a client's whole data as one batch (B = infinity)."""
    over_selection: Annotated[float, msgspec.Meta(ge=1.0)] = 1.0
    """Number of chosen clients divided by the number needed, >= 1; 1.3 in Bonawitz et al."""
    deadline_s: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    """Emulated seconds after which selection ends with the present clients, and a round with its reports; 0 = never."""
    least: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.5
    """Share of the goal below which a round does not begin, or is abandoned, at its deadline, 0 to 1."""

    @property
    def hubs(self) -> int:
        return 1

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        if peer.id != _SERVER:
            return (Expected("whole", ((_MODEL, _MODEL), COUNT), (_SERVER,)),)
        report = ((_REPORT, _REPORT), COUNT, COUNT)
        return Expected("whole", report), Expected("none", report), Expected("none", ((_BYE, _BYE), COUNT, COUNT))

    async def run(self, peer: Peer) -> None:
        if peer.id == _SERVER:
            await self._serve(peer)
        else:
            await self._train(peer)

    # ---- the server -----------------------------------------------------------------------------------------------

    async def _serve(self, peer: Peer) -> None:
        clients = _Clients(peer)
        while clients.living:
            if not await self._select(clients):
                continue
            goal = self._goal(clients)
            reports = await self._round(clients, goal)
            if len(reports) >= max(1, ceil(self.least * goal)):
                _average(peer, reports)
            peer.step += 1

    def _goal(self, clients: _Clients) -> int:
        """Return the number of reports that a round needs."""
        return max(1, round(self.fraction * len(clients.living)))

    async def _select(self, clients: _Clients) -> bool:
        """Wait until the goal's number of clients is idle; return whether they, or at the deadline fewer, suffice."""
        deadline_ns = self._deadline_ns(clients.peer)
        while len(clients.idle & clients.living) < self._goal(clients):
            if not clients.living:
                return False
            if deadline_ns is not None and clients.peer.now_ns >= deadline_ns:
                return len(clients.idle & clients.living) >= max(1, ceil(self.least * self._goal(clients)))
            await clients.receive(deadline_ns)
        return True

    async def _round(self, clients: _Clients, goal: int) -> dict[int, Message]:
        """Send the model and collect reports until the goal is reached, no more can come, or the deadline has passed."""
        peer, deadline_ns = clients.peer, self._deadline_ns(clients.peer)
        chosen: set[int] = set()
        reports: dict[int, Message] = {}
        while len(reports) < goal:
            due = (chosen & clients.living) - clients.idle
            missing = goal - len(reports) - len(due)
            fresh = sorted((clients.idle & clients.living) - chosen)
            if missing > 0 and fresh:
                count = min(len(fresh), missing if chosen else ceil(goal * self.over_selection))
                picked = {int(client) for client in peer.rng.choice(fresh, count, replace=False)}
                chosen |= picked
                await clients.hand_out(picked)
                continue
            if not due or (deadline_ns is not None and peer.now_ns >= deadline_ns):
                break
            message = await clients.receive(deadline_ns)
            if message is not None and message.payload.count and message.scalars[1] == peer.step:  # else late or not finite
                reports[message.source] = message
        return reports

    def _deadline_ns(self, peer: Peer) -> int | None:
        return peer.now_ns + round(self.deadline_s * 1e9) if self.deadline_s else None

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
            if self.batch == "all":
                peer.batch_size = max(1, peer.data_samples)
            for _ in range(max(1, ceil(self.epochs * peer.data_samples / peer.batch_size))):
                if not peer.running:
                    break
                peer.apply(await peer.gradient())
            report = (_REPORT, model.scalars[1], float(peer.data_samples))
            if _SERVER in peer.mixing:
                await peer.send(_SERVER, Dense(peer.weights), report)
        if _SERVER in peer.mixing:
            await peer.send(_SERVER, Dense(_NOTHING), (_BYE, 0.0, 0.0))


class _Clients:
    """The server's clients: those that are idle, and those that have left for good."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.idle = set(peer.neighbours)
        self.left: set[int] = set()

    @property
    def living(self) -> set[int]:
        return self.peer.mixing.keys() - self.left

    async def hand_out(self, chosen: set[int]) -> None:
        """Send the model to clients; they are no longer idle."""
        self.idle -= chosen
        for client in sorted(chosen):
            await self.peer.send(client, Dense(self.peer.weights), (_MODEL, float(self.peer.step)))

    async def receive(self, deadline_ns: int | None) -> Message | None:
        """Wait for the next report; None if none has come.  It has no elements if a client's weights are not finite."""
        message = await self.peer.receive(deadline_ns=deadline_ns)
        if message is None:
            return None
        if message.scalars[0] == _BYE:
            self.left.add(message.source)
            return None
        self.idle.add(message.source)
        return message


def _average(peer: Peer, reports: dict[int, Message]) -> None:
    """Set the server's model to the mean of the clients' models, weighted by their numbers of samples."""
    ordered = [reports[client] for client in sorted(reports)]
    samples = [max(1.0, message.scalars[2]) for message in ordered]
    peer.aggregator.combine([message.payload.values for message in ordered], [n / sum(samples) for n in samples], peer.weights)
