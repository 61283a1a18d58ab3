"""One peer of a virtual fleet: its coroutine, its device, its samples, and the state of its waiting."""

from __future__ import annotations

from grapevine.experiments.fleet import Fleet
from grapevine.experiments.tasks.share import Costs, Share
from grapevine.experiments.worlds.peer_report import Reporter, batch_generator
from grapevine.experiments.worlds.virtual.transport import new_endpoint
from grapevine.peer.membership import Handover, life
from grapevine.peer.peer import Peer


class Member:
    """One peer with its coroutine and its state in the world of virtual time."""

    __slots__ = (
        "alive",
        "away",
        "device",
        "ended",
        "endpoint",
        "handover",
        "missing",
        "peer",
        "receives",
        "reporter",
        "share",
        "strategy",
        "waiting",
    )

    def __init__(self, fleet: Fleet, peer: Peer, costs: Costs) -> None:
        self.peer = peer
        self.endpoint = new_endpoint(peer)
        self.share = peer.data = Share(fleet.problem, peer.id, batch_generator(fleet.experiment.seed, peer.id), costs)
        self.device = fleet.devices[peer.id]
        self.handover = Handover(peer)
        strategy = fleet.experiment.strategy
        self.strategy = peer.begin(strategy) if fleet.membership is None else life(peer, strategy, self.handover)
        self.reporter: Reporter | None = None
        self.waiting = 0  # number of the Receive that waits; 0 = none
        self.missing = 0  # number of messages that it still waits for
        self.receives = 0
        self.alive = True
        self.ended = False
        self.away = False  # it has left or has not joined yet, and waits until it may join
