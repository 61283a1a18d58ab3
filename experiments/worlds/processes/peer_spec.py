"""The specification of one peer's process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grapevine.experiments.config.experiment import Processes
from grapevine.experiments.config.membership import Membership
from grapevine.experiments.fleet import Fleet
from grapevine.experiments.scenario import kills
from grapevine.experiments.worlds.peer_report import make_peer
from grapevine.netem import Device, Link, Shared
from grapevine.netem.kernel.namespaces import Namespaces
from grapevine.netem.kernel.plan import address
from grapevine.peer.peer import Peer
from grapevine.topology import TimeVarying


@dataclass(frozen=True)
class PeerSpec:
    """Everything that one peer's process needs; the launcher makes the peer itself and sends it whole."""

    peer: Peer
    peers: int
    links: dict[int, Link]
    shared: Shared
    device: Device
    strategy: Any
    problem: Any
    arrays: list[str]
    seed: int
    room: Path
    address: str
    run: int
    realtime: bool
    """Whether to ask for real-time priority, which is known to be permitted."""
    dilation: float
    stop_ns: int | None
    every_ns: int
    dies_ns: int | None = None
    """When an event kills this peer; its process kills itself, because the launcher of a busy machine may be late."""
    membership: Membership | None = None
    """The law of membership; None = all peers stay."""
    schedule: TimeVarying | None = None
    """The schedule whose rounds connect the members."""
    namespace: str = ""
    """The network namespace of the process; "" = the launcher's."""


def peer_spec(
    fleet: Fleet, peer: int, arrays: list[str], room: Path, run: int, realtime: bool, network: Namespaces | None = None
) -> PeerSpec:
    """Return the specification of a peer's process.

    `arrays` names the problem's arrays in the folder `room`, `run` marks the frames of this run, `realtime`: whether to ask for
    real-time priority; `network` holds the namespaces of the kernel backend.
    """
    experiment, world = fleet.experiment, fleet.experiment.world
    assert isinstance(world, Processes)
    if world.transport == "ipc" and network is None:
        listens = f"ipc://peer-{peer}"  # in the run's own folder
    else:
        host = "127.0.0.1" if network is None else address(peer)
        listens = f"tcp://{host}:{world.port + peer if world.port else '*'}"
    itself = make_peer(fleet, peer, np.array(fleet.problem.initial, np.float32))
    return PeerSpec(
        peer=itself,
        peers=experiment.peers,
        links={neighbour: fleet.plan.link(peer, neighbour) for neighbour in sorted(fleet.graph.neighbors(peer))},
        shared=fleet.plan.shared(),
        device=fleet.devices[peer],
        strategy=experiment.strategy,
        problem=fleet.problem,
        arrays=arrays,
        seed=experiment.seed,
        room=room,
        address=listens,
        namespace="" if network is None else network.name(peer),
        run=run,
        realtime=realtime,
        dilation=world.dilation,
        stop_ns=fleet.stop_ns,
        every_ns=fleet.every_ns,
        membership=None if fleet.membership is None else experiment.membership,
        schedule=None if fleet.membership is None else fleet.membership.schedule,
        dies_ns=next((at_ns for at_ns, victim in kills(experiment.events) if victim == peer), None),
    )
