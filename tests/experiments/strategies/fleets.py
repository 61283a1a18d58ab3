"""Virtual fleets for the laws of strategies: small quadratics, spies on what peers say, links that change."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from grapevine import Experiment
from grapevine.experiments.config.experiment import Stop, Virtual
from grapevine.experiments.fleet import build
from grapevine.experiments.results.outcome import Outcome
from grapevine.experiments.results.recorder import Recorder
from grapevine.experiments.tasks import Quadratic
from grapevine.experiments.worlds.collector import Collector
from grapevine.experiments.worlds.interrupt import Interrupt
from grapevine.experiments.worlds.virtual.world import VirtualWorld
from grapevine.netem import Uniform, UniformDevices
from grapevine.peer.message import Message
from grapevine.peer.optimizers import Sgd
from grapevine.peer.payloads import Marks, Payload, decode, decode_head
from grapevine.peer.peer import Peer
from grapevine.topology.graphs.menu import Complete

RATE = 0.1
TARGETS = (3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, -6.0)


def normal_targets(peers: int, dimension: int, seed: int = 5) -> tuple[tuple[float, ...], ...]:
    """Targets of a quadratic task, one vector for each peer, drawn from a normal law of standard deviation 3."""
    return tuple(tuple(float(x) for x in row) for row in np.random.default_rng(seed).normal(0, 3, (peers, dimension)))


WIDE = normal_targets(4, 20_000, seed=6)
NARROW = Uniform(rate="1 Mbit/s", delay="500 us")


def asked(peers: int = 4, dimension: int = 64, **changes: Any) -> Experiment:
    """An experiment with a complete graph and steps of 10 ms."""
    base = Experiment(
        peers=peers,
        world=Virtual(),
        topology=Complete(),
        task=Quadratic(targets=TARGETS[:peers], dimension=dimension),
        devices=UniformDevices(speed="100 samples/s"),
        network=Uniform(rate="1 Mbit/s", delay="5 ms"),
        optimizer=Sgd(learning_rate=RATE),
        stop=Stop(steps=30),
    )
    return base.replace(**changes)


class Unread(Recorder):
    """Keeps its tables in memory, since nobody reads their files."""

    def flush(self, force: bool = False) -> None:
        pass


def make_world(tmp_path: Path, experiment: Experiment, losses: list[tuple[int, int]] | None = None) -> VirtualWorld:
    """A world that has not begun; its records go to a folder that nobody reads."""
    fleet = build(experiment)
    recorder = Unread(tmp_path / f"run-{len(list(tmp_path.iterdir()))}", "", {})
    return VirtualWorld(fleet, Collector(fleet, recorder, lambda status: None), Interrupt(), losses or [])


def carried_out(
    tmp_path: Path, experiment: Experiment, losses: list[tuple[int, int]] | None = None
) -> tuple[list[Peer], Outcome]:
    """Run to the end: the peers as they are then, and how it ended."""
    world = make_world(tmp_path, experiment, losses)
    outcome = world.run()
    assert outcome.completed, outcome.reason
    return [member.peer for member in world.members], outcome


class Said(NamedTuple):
    """One message as it was sent."""

    source: int
    target: int
    step: int
    now_ns: int
    payload: Payload
    scalars: tuple[float, ...]


def listen(monkeypatch: pytest.MonkeyPatch) -> list[Said]:
    """Everything that peers say from now on, in order; payloads as they are on the wire."""
    said: list[Said] = []
    send, broadcast = Peer.send, Peer.broadcast

    async def heard_send(peer: Peer, neighbour: int, payload: Payload, scalars: tuple[float, ...] = ()) -> np.ndarray:
        read = await send(peer, neighbour, payload, scalars)
        said.append(Said(peer.id, neighbour, peer.step, peer.now_ns, _as_read(payload, read), scalars))
        return read

    async def heard_broadcast(peer: Peer, payload: Payload, scalars: tuple[float, ...] = ()) -> np.ndarray:
        targets, read = list(peer.neighbours), await broadcast(peer, payload, scalars)
        said.extend(Said(peer.id, target, peer.step, peer.now_ns, _as_read(payload, read), scalars) for target in targets)
        return read

    monkeypatch.setattr(Peer, "send", heard_send)
    monkeypatch.setattr(Peer, "broadcast", heard_broadcast)
    return said


def gradients(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[np.ndarray]]:
    """The gradients that each peer computes from now on."""
    made: dict[int, list[np.ndarray]] = {}
    gradient = Peer.gradient

    async def kept(peer: Peer) -> np.ndarray:
        found = await gradient(peer)
        made.setdefault(peer.id, []).append(found.astype(float))
        return found

    monkeypatch.setattr(Peer, "gradient", kept)
    return made


def unread(peer: Peer) -> np.ndarray:
    """The sum of what lies in a peer's inbox."""
    total = np.zeros(peer.size)
    for item in peer.inbox:
        payload = item.payload if isinstance(item, Message) else decode(decode_head(item.head), item.body, peer.spaces)
        total[payload.where()] += payload.values
    return total


def longest_queue_s(world: VirtualWorld) -> float:
    """How long the longest queue of any link would take to leave now."""
    return max((link.sender.link.free_ns - world.now_ns) / 1e9 for link in world.transport.links.values())


def _as_read(payload: Payload, read: np.ndarray) -> Payload:
    kept = copy(payload)
    if not isinstance(kept, Marks):
        kept.values = read.copy()
    return kept
