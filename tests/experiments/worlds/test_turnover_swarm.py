"""The swarm with members that come and go: seeded random scenarios in virtual time, and what must hold after every one.

A failing seed N replays with `python -m pytest "tests/experiments/worlds/test_turnover_swarm.py::test_turnover[N]"`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from grapevine import Experiment
from grapevine.experiments.config.events import Event, JoinEvent, KillEvent, LeaveEvent
from grapevine.experiments.config.experiment import Stop, Virtual
from grapevine.experiments.config.membership import Always, Arrivals, Availability
from grapevine.experiments.config.sections import Record
from grapevine.experiments.config.wrappers import Delay, Scale
from grapevine.experiments.results.outcome import Outcome
from grapevine.experiments.tasks import Quadratic
from grapevine.experiments.worlds.members import Members
from grapevine.netem import MixedDevices, Uniform
from grapevine.peer.codecs import Float32, Int8
from grapevine.peer.message import Message
from grapevine.peer.optimizers import Sgd
from grapevine.peer.peer import Peer
from grapevine.peer.strategies import ADPSGD, DGC, DPSGD, Ako, DLion, Full, Gaia, Slices, Solo, TFAko
from grapevine.topology.graphs.menu import BarabasiAlbert, Complete, ErdosRenyi, RandomRegular, Ring, Star
from grapevine.topology.graphs.menu import Path as PathGraph
from grapevine.topology.graphs.places import Geographic
from grapevine.topology.schedules.menu import OnePeerExponential, RandomMatching
from tests.experiments.worlds.watched import (
    WatchedWorld,
    carried_out,
    conserved,
    every_byte_is_accounted_for,
    links_keep_their_rate_and_order,
    watch,
)

SEEDS = range(45)
STRATEGIES = [
    Solo(), DPSGD(), DPSGD(), DPSGD(order="adapt-then-combine"), Slices(), ADPSGD(), Full(), DGC(), Ako(), TFAko(), DLion(),
    Gaia(), Gaia(barrier=True), Ako(schedule="fixed", when_busy="wait"), DLion(keep=False),
]  # fmt: skip


def script(rng: np.random.Generator, peers: int, end_s: float, dying: bool) -> list[Event]:
    """Up to a dozen joinings and leavings at random times; somebody always stays."""
    members = {peer for peer in range(peers) if peer < 3 or rng.random() < 0.5}
    absent = set(range(peers)) - members
    events: list[Event] = []
    dead: set[int] = set()
    for at_s in np.sort(rng.uniform(0, 0.8 * end_s, size=rng.integers(1, 12))):
        at = f"{at_s:.6f} s"
        if dying and len(members) > 4 and rng.random() < 0.2:
            peer = int(rng.choice(sorted(members)))
            members.discard(peer)
            dead.add(peer)
            events.append(KillEvent(at=at, peer=peer))
        elif absent and (len(members) < 4 or rng.random() < 0.5):
            peer = int(rng.choice(sorted(absent)))
            absent.discard(peer)
            members.add(peer)
            events.append(JoinEvent(at=at, peer=peer))
        elif len(members) > 3:
            peer = int(rng.choice(sorted(members)))
            members.discard(peer)
            absent.add(peer)
            events.append(LeaveEvent(at=at, peer=peer))
    first_says = {}
    for event in events:
        first_says.setdefault(event.peer, event)  # type: ignore[attr-defined]
    never = [peer for peer in sorted(absent) if peer not in first_says]
    events += [JoinEvent(at=f"{0.8 * end_s + 0.001:.6f} s", peer=peer) for peer in never]
    return events


def scenario(seed: int) -> Experiment:
    """A random experiment whose members come and go."""
    rng = np.random.default_rng([0x70B, seed])
    peers = int(rng.integers(5, 11))
    strategy: Any = STRATEGIES[seed % len(STRATEGIES)]
    graphs: list[Any] = [
        Ring(), Ring(), PathGraph(), Star(), Complete(), ErdosRenyi(p=0.5), RandomRegular(degree=2), BarabasiAlbert(m=1),
        Geographic(nearest=1),
    ]  # fmt: skip
    graphs += [OnePeerExponential(), RandomMatching()] if strategy.follows_rounds else []
    graph = Complete() if strategy.shares == "gradients" else graphs[rng.integers(len(graphs))]
    end_s = float(rng.uniform(2, 6))
    law: dict[str, Any] = {}
    if (choice := rng.random()) < 0.2:
        law = {"membership": Arrivals(first=3, every="500 ms", lifetime="2 s", least=3)}
    elif choice < 0.4:
        law = {"membership": Availability(present="2 s", absent="1 s", least=3, weights="best")}
    else:
        weights: Any = str(rng.choice(["nearest", "best", "mean"]))
        law = {
            "membership": Always(weights=weights),
            "events": tuple(script(rng, peers, end_s, bool(rng.random() < 0.4))),
        }
    return Experiment(
        name=f"turnover-{seed}",
        seed=seed,
        peers=peers,
        world=Virtual(),
        topology=graph,
        network=Uniform(
            rate=f"{rng.choice([500, 5000])} kbit/s",
            delay=f"{rng.choice([0, 5, 60])} ms",
            loss=float(rng.choice([0, 0.01])),
            uplink=str(rng.choice(["unlimited", "unlimited", "1 Mbit/s"])),
        ),
        devices=MixedDevices(speeds=tuple(f"{speed} samples/s" for speed in rng.choice([20, 50, 100], size=3))),
        task=Quadratic(targets=tuple(rng.normal(size=peers).tolist()), dimension=int(rng.choice([1, 40, 20_000]))),
        strategy=strategy,
        codec=[Float32(), Int8()][int(rng.random() < 0.2)],
        optimizer=Sgd(learning_rate=0.05),
        stop=Stop(time=f"{end_s:.3f} s", steps=None if rng.random() < 0.7 else int(rng.integers(30, 80))),
        record=Record(every="500 ms"),
        **law,
    )


def crowded(seed: int) -> Experiment:
    """A random experiment of few peers whose events often come at the same instant, or before the last one is carried out.

    One member stays at least; some peers may be late, by a wrapper.
    """
    rng = np.random.default_rng([0x70C, seed])
    peers = int(rng.integers(2, 7))
    strategy: Any = STRATEGIES[seed % len(STRATEGIES)]
    graphs: list[Any] = [Complete(), Ring(), OnePeerExponential(), RandomMatching()]
    choice = 0 if strategy.shares == "gradients" or peers == 2 else rng.integers(4 if strategy.follows_rounds else 2)
    members = {peer for peer in range(peers) if peer == 0 or rng.random() < 0.6}
    alive = set(range(peers))
    events: list[Event] = []
    for at_ms in np.sort(rng.choice([100, 200, 200, 200, 300, 500, 700], size=rng.integers(3, 12))):
        peer = int(rng.choice(sorted(alive)))
        kind: Any = JoinEvent
        if peer in members:
            kind = KillEvent if rng.random() < 0.2 else LeaveEvent
            if len(members) == 1:
                continue
            alive -= {peer} if kind is KillEvent else set()
        members ^= {peer}
        events.append(kind(at=f"{at_ms} ms", peer=peer))
    late = (Delay(time="70 ms", peers=tuple(range(0, peers, 2))), Scale(factor=0.9, peers=(0,)))
    return Experiment(
        name=f"crowded-{seed}",
        seed=seed,
        peers=peers,
        world=Virtual(),
        topology=graphs[choice],
        network=Uniform(rate=f"{rng.choice([50, 500, 5000])} kbit/s", delay=f"{rng.choice([0, 1, 30, 200])} ms"),
        devices=MixedDevices(speeds=tuple(f"{speed} samples/s" for speed in rng.choice([50, 100, 200], size=3))),
        task=Quadratic(targets=tuple(rng.normal(size=peers).tolist()), dimension=int(rng.choice([1, 40, 3000]))),
        strategy=strategy,
        optimizer=Sgd(learning_rate=0.05),
        events=tuple(events),
        membership=Always(weights=("nearest", "best", "mean")[rng.integers(3)]),
        wrappers=late if rng.random() < 0.4 else (),
        stop=Stop(time="2 s") if rng.random() < 0.5 else Stop(steps=30),
        record=Record(every="500 ms"),
    )


class Mixed:
    """What every peer mixed at every step: by step and peer, the weight of each source, and the change of its weights."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: dict[int, dict[int, dict[int, float]]] = defaultdict(dict)
        self.moved: dict[int, dict[int, np.ndarray]] = defaultdict(dict)
        mix = Peer.mix

        def noted(peer: Peer, models: list[Message], own: np.ndarray) -> None:
            before = peer.weights.astype(float)
            mix(peer, models, own)
            self.rows[peer.step][peer.id] = {message.source: peer.weight(message) for message in models}
            self.moved[peer.step][peer.id] = peer.weights - before

        monkeypatch.setattr(Peer, "mix", noted)

    def check(self, lost: Collection[int], ended_s: bool) -> None:
        """W is symmetric and its rows sum to one, at every step at which all who sent it lived to mix it."""
        for step, rows in self.rows.items():
            whole = all(set(row) <= rows.keys() for row in rows.values())
            for peer, row in rows.items():
                assert sum(row.values()) <= 1 + 1e-12
                for source, weight in row.items():
                    if source in rows and peer in rows[source]:
                        assert rows[source][peer] == pytest.approx(weight, abs=1e-12), (step, peer, source)
                    else:
                        assert source in lost or ended_s, f"{peer} used what {source} sent at step {step}, but not the reverse"
            if whole and not lost:
                total = np.sum([self.moved[step][peer] for peer in rows], axis=0)
                np.testing.assert_allclose(total, 0, atol=1e-4)


def watch_members(monkeypatch: pytest.MonkeyPatch, killed: bool) -> None:
    """At every change W is doubly stochastic over the members, and joins them all."""
    renew = Members.renew

    def checked(members: Members, apart_from: Collection[int] = ()) -> Any:
        before, after = renew(members, apart_from)
        assert after.keys() == members.present
        graph = nx.Graph()
        graph.add_nodes_from(after)
        for peer, row in after.items():
            assert sum(row.values()) <= 1 + 1e-12
            for other, weight in row.items():
                assert weight > 0
                assert after[other][peer] == pytest.approx(weight, abs=1e-15)
                graph.add_edge(peer, other)
        assert killed or apart_from or not graph or nx.is_connected(graph)
        return before, after

    monkeypatch.setattr(Members, "renew", checked)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_turnover(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links, carried, forgiven = watch(monkeypatch)
    experiment = scenario(seed)
    killed = {event.peer for event in experiment.events if isinstance(event, KillEvent)}
    watch_members(monkeypatch, bool(killed))
    mixed = Mixed(monkeypatch)
    world, outcome, _ = carried_out(experiment, [], tmp_path / "run")
    endings(world, outcome)
    links_keep_their_rate_and_order(links, carried)
    every_byte_is_accounted_for(world, outcome, links, carried, forgiven)
    conserved(world)
    if isinstance(experiment.strategy, DPSGD):
        mixed.check(outcome.peers_lost, ended_s=experiment.stop.time is not None)


@pytest.mark.slow
@pytest.mark.parametrize("seed", list(SEEDS)[:30])
def test_turnover_in_a_crowd(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links, carried, forgiven = watch(monkeypatch)
    world, outcome, _ = carried_out(crowded(seed), [], tmp_path / "run")
    endings(world, outcome)
    links_keep_their_rate_and_order(links, carried)
    every_byte_is_accounted_for(world, outcome, links, carried, forgiven)
    conserved(world)


def endings(world: WatchedWorld, outcome: Outcome) -> None:
    """Every run ends; nobody who left is lost, and nobody waits for one that has."""
    script = world.fleet.script
    ended_ns = outcome.emulated_s * 1e9
    assert set(outcome.peers_lost) == {
        event.peer for event in script if isinstance(event, KillEvent) and event.at_ns <= ended_ns
    }
    assert outcome.peers_lost_unasked == []
    assert outcome.completed, outcome.reason
    members = [world.members[peer] for peer in sorted(world.turnover.members.present)]  # type: ignore[union-attr]
    living = {member.peer.id for member in members}
    for member in members:
        assert member.peer.member or member.handover.taking
        assert set(member.peer.neighbours) <= {peer.peer.id for peer in world.members if peer.alive}
    assert living.isdisjoint(outcome.peers_lost)
    if world.fleet.experiment.strategy.membership == "at-once":
        for member in members:
            assert set(member.peer.mixing) <= living
            assert all(member.peer.id in world.members[other].peer.mixing for other in member.peer.mixing)
    for at_s, count in outcome.members:
        assert 0 <= at_s <= outcome.emulated_s
        assert 0 <= count <= world.fleet.experiment.peers


@pytest.mark.slow
@pytest.mark.parametrize("seed", list(SEEDS)[:3])
def test_a_scenario_replays_to_the_byte(seed: int, tmp_path: Path) -> None:
    first, second = (carried_out(scenario(seed), [], tmp_path / name)[1] for name in "ab")
    assert np.array_equal(first.weights, second.weights)
    assert (first.bytes_sent, first.emulated_s, first.steps, first.members) == (
        second.bytes_sent, second.emulated_s, second.steps, second.members,
    )  # fmt: skip
