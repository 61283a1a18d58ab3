"""Joining and leaving in virtual time, held against closed forms; what cannot be is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import networkx as nx
import numpy as np
import pytest

from grapevine import ConfigError, Dense, Experiment, Peer, Result, run, topology
from grapevine.experiments.config.events import Event, JoinEvent, KillEvent, LeaveEvent
from grapevine.experiments.config.experiment import Stop, Virtual
from grapevine.experiments.config.membership import Always, Arrivals, Availability
from grapevine.experiments.config.sections import Record
from grapevine.experiments.exit_status import ExitStatus
from grapevine.experiments.fleet import build
from grapevine.experiments.run import run_experiment
from grapevine.experiments.tasks import Quadratic
from grapevine.experiments.worlds.virtual.world import VirtualWorld
from grapevine.netem import Uniform, UniformDevices
from grapevine.peer.optimizers import Sgd
from grapevine.peer.strategies import (
    ADPSGD,
    DGC,
    DPSGD,
    Ako,
    AllReduce,
    DLion,
    FedAvg,
    Full,
    Gaia,
    ParameterServer,
    Slices,
    Solo,
    TFAko,
)
from grapevine.topology.graphs.menu import Complete, Ring, Torus
from grapevine.topology.schedules.menu import OnePeerExponential
from tests.experiments.strategies.fleets import make_world

RATE = 0.1
TARGETS = (3.0, -1.0, 4.0, 1.0, -5.0, 9.0)
BASE = Experiment(
    peers=6,
    seed=2,
    world=Virtual(),
    topology=Ring(),
    network=Uniform(rate="8 Mbit/s", delay="5 ms"),
    devices=UniformDevices(speed="50 samples/s"),
    task=Quadratic(targets=TARGETS, dimension=40),
    strategy=DPSGD(),
    optimizer=Sgd(learning_rate=RATE),
    stop=Stop(steps=300),
    record=Record(every="1 s", report=False),
)
COMING = (JoinEvent(at="1 s", peer=4), LeaveEvent(at="2 s", peer=1))


def world_of(tmp_path: Path, *events: Event, **changes: Any) -> VirtualWorld:
    world = make_world(tmp_path, BASE.replace(events=events, **changes))
    outcome = world.run()
    assert outcome.completed, outcome.reason
    return world


def carried_out(tmp_path: Path, *events: Event, **changes: Any) -> Result:
    result = run(BASE.replace(events=events, **changes), out=tmp_path / "run")
    assert result.summary["completed"], result.summary["reason"]
    return result


def happened(result: Result, kind: str) -> list[dict[str, Any]]:
    return [event for event in result.events if event["kind"] == kind]


# ---- closed forms ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("order", ["combine-then-adapt", "adapt-then-combine"])
@pytest.mark.parametrize("choice", ["nearest", "best", "mean"])
def test_the_mean_goes_to_the_optimum_of_those_that_are_members_at_the_end(order: Any, choice: Any, tmp_path: Path) -> None:
    result = carried_out(tmp_path, *COMING, strategy=DPSGD(order=order), membership=Always(weights=choice))
    assert result.summary["peers_absent"] == [1]
    members = [0, 2, 3, 4, 5]
    expected = np.mean([TARGETS[peer] for peer in members])
    np.testing.assert_allclose(result.weights[members].mean(axis=0), expected, atol=1e-4)


def test_between_changes_the_mean_walks_as_one_machine_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mean x(t + 1) - b = (1 - rate) (mean x(t) - b), b the mean target of those that make step t, across joins and leaves."""
    made: dict[int, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
    apply = Peer.apply

    def noted(peer: Peer, gradient: np.ndarray) -> None:
        mixed = peer.weights.astype(float)
        apply(peer, gradient)
        made.setdefault(peer.step, {})[peer.id] = mixed, peer.weights.astype(float)

    monkeypatch.setattr(Peer, "apply", noted)
    world_of(tmp_path, *COMING, JoinEvent(at="3 s", peer=1))
    sizes = set()
    for step in range(2, 301):
        before, now = made[step - 1], made[step]
        sizes.add(len(now))
        if before.keys() == now.keys():
            target = np.mean([TARGETS[peer] for peer in now])
            was, came = (np.mean([of[1] for of in at.values()], axis=0) for at in (before, now))
            np.testing.assert_allclose(came - target, (1 - RATE) * (was - target), atol=2e-5)
    assert sizes == {5, 6}


def test_mixing_keeps_the_mean_of_those_that_stay_when_one_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the step from which it is gone the others mix among themselves alone."""
    moved: dict[int, dict[int, np.ndarray]] = {}
    mix = Peer.mix

    def noted(peer: Peer, models: Any, own: np.ndarray) -> None:
        before = peer.weights.astype(float)
        mix(peer, models, own)
        moved.setdefault(peer.step, {})[peer.id] = peer.weights - before

    monkeypatch.setattr(Peer, "mix", noted)
    world = world_of(tmp_path, LeaveEvent(at="1 s", peer=2))
    last = world.members[2].peer.step
    assert moved[last - 1].keys() == set(range(6))
    assert moved[last].keys() == {0, 1, 3, 4, 5}
    for changes in moved.values():
        np.testing.assert_allclose(np.sum(list(changes.values()), axis=0), 0, atol=1e-5)


def test_full_exchange_and_dgc_hold_the_same_weights_everywhere_also_after_a_join(tmp_path: Path) -> None:
    for place, strategy in enumerate((Full(), DGC(sparsity=0.5, warmup_steps=0))):
        world = world_of(tmp_path, *COMING, topology=Complete(), strategy=strategy, stop=Stop(steps=150))
        weights = [member.peer.weights for member in world.members if member.peer.member]
        assert len(weights) == 5, place
        assert all(np.array_equal(weights[0], other) for other in weights)


def test_a_ring_has_the_expected_links(tmp_path: Path) -> None:
    fleet = build(BASE.replace(events=COMING))
    plan = fleet.membership
    assert plan is not None
    assert sorted(map(sorted, plan.graph.edges)) == [[0, 1], [0, 5], [1, 2], [2, 3], [3, 5]]
    first, second = plan.changes
    (taken,) = first.removed
    assert first.added == {tuple(sorted((end, 4))) for end in taken}
    world = world_of(tmp_path, *COMING)
    members = {member.peer.id: member.peer.neighbours for member in world.members if member.peer.member}
    ring = nx.Graph((peer, other) for peer, others in members.items() for other in others)
    assert set(ring) == {0, 2, 3, 4, 5}
    assert set(dict(ring.degree).values()) == {2}
    assert nx.is_connected(ring)
    assert second.removed <= {tuple(sorted(edge)) for edge in fleet.graph.edges}


@pytest.mark.slow
def test_what_a_leaver_made_reaches_everybody_and_nothing_counts_twice(tmp_path: Path) -> None:
    """Peers without data of their own move by what the others make alone: by the same, each gradient once."""
    world = world_of(
        tmp_path, LeaveEvent(at="1 s", peer=0), topology=Complete(), strategy=Ako(), network=Uniform(rate="300 kbit/s"),
        stop=Stop(time="6 s"),
    )  # fmt: skip
    leaver, others = world.members[0].peer, [member.peer for member in world.members[1:]]
    assert leaver.ledger is not None
    for neighbour in range(1, 6):
        assert np.abs(leaver.ledger.total).max() > 0.01
        assert neighbour not in leaver.mixing
    assert all(0 not in peer.mixing for peer in others)
    assert all(peer.ledger is not None and 0 not in peer.ledger.paid for peer in others)


@pytest.mark.slow
def test_a_joiners_distance_from_the_others_is_that_of_those_that_stayed(tmp_path: Path) -> None:
    """The ledgers owe a joiner what its weights lack: it ends where the others do, and not where it would be if it had got
    twice what the giver had, or had never got what the giver lacked."""
    changes: dict[str, Any] = {
        "topology": Complete(), "strategy": Ako(), "network": Uniform(rate="200 kbit/s", delay="20 ms"),
        "devices": UniformDevices(speed="20 samples/s"), "task": Quadratic(targets=TARGETS, dimension=2000),
        "optimizer": Sgd(learning_rate=0.02), "stop": Stop(time="30 s"),
    }  # fmt: skip
    stayed = carried_out(tmp_path / "a", **changes).summary["consensus_distance"]
    joined = carried_out(tmp_path / "b", JoinEvent(at="3 s", peer=5), **changes).summary["consensus_distance"]
    assert joined < 1.5 * stayed


# ---- how it goes ----------------------------------------------------------------------------------------------------------


def test_leaving_is_no_loss_and_is_recorded(tmp_path: Path) -> None:
    status, folder = None, tmp_path / "run"
    result, status = run_experiment(BASE.replace(events=COMING), folder, quiet=True)
    summary = result.summary
    assert status is ExitStatus.DONE
    assert (summary["peers_lost"], summary["peers_absent"]) == ([], [1])
    assert [count for _, count in summary["members"]] == [5, 6, 5]
    (join,), (leave,) = happened(result, "join"), happened(result, "leave")
    assert (join["peer"], leave["peer"]) == (4, 1)
    assert 1.0 < join["time_s"] < 1.2
    assert 2.0 < leave["time_s"] < 2.2
    assert [event["text"] for event in happened(result, "script")] == ["peer 4 joins", "peer 1 leaves"]
    assert not happened(result, "lost")
    assert np.abs(result.weights[1]).max() > 0, "its last weights are kept"


def test_steps_before_a_peer_joined_are_not_its_own(tmp_path: Path) -> None:
    result = carried_out(tmp_path, JoinEvent(at="1 s", peer=4))
    (join,) = happened(result, "join")
    assert result.summary["steps_min"] == 300 - join["step"]
    assert result.summary["steps_total"] == 6 * 300 - join["step"]


def test_weights_take_the_time_of_the_links(tmp_path: Path) -> None:
    """8 kB over 80 kbit/s take 0.8 s and a little; there and back twice 2 x 2 x 50 ms."""
    slow = Uniform(rate="80 kbit/s", delay="50 ms")
    result = carried_out(
        tmp_path, JoinEvent(at="1 s", peer=4), network=slow, strategy=Solo(), task=Quadratic(targets=TARGETS, dimension=2000)
    )
    (join,) = happened(result, "join")
    assert 1.0 + 0.8 + 0.2 <= join["time_s"] < 1.0 + 0.8 + 0.3


def test_where_the_giver_dies_the_next_one_is_asked(tmp_path: Path) -> None:
    slow = Uniform(rate="80 kbit/s", delay="50 ms")
    changes: dict[str, Any] = {
        "network": slow, "strategy": Solo(), "task": Quadratic(targets=TARGETS, dimension=2000), "topology": Complete(),
    }  # fmt: skip
    (plain,) = happened(carried_out(tmp_path / "a", JoinEvent(at="1 s", peer=4), **changes), "join")
    giver = int(plain["text"].rpartition(" ")[2])
    killed = carried_out(tmp_path / "b", JoinEvent(at="1 s", peer=4), KillEvent(at="1.5 s", peer=giver), **changes)
    (join,) = happened(killed, "join")
    assert f"peer {giver}" not in join["text"].partition("with")[2]
    assert join["time_s"] > 1.5 + 0.8, "all of them anew"


def test_a_joiner_without_a_living_neighbour_begins_with_its_own_weights(tmp_path: Path) -> None:
    events = [LeaveEvent(at=f"{1 + peer / 10} s", peer=peer) for peer in range(1, 5)]
    kill = KillEvent(at="2 s", peer=0)
    result = run(
        BASE.replace(events=(JoinEvent(at="3 s", peer=5), *events, kill), strategy=Solo(), stop=Stop(time="5 s")),
        out=tmp_path / "run",
    )
    (join,) = happened(result, "join")
    assert join["text"].endswith("with its own weights")
    assert result.summary["completed"]


class Restless(DPSGD, frozen=True, tag="restless"):
    """Peer 2 leaves by its own decision, and comes back."""

    leaves: ClassVar[bool] = True

    async def run(self, peer: Peer) -> None:
        while peer.running:
            if peer.id == 2 and peer.step == 20:
                await peer.leave(2_000_000_000)
            own = await peer.broadcast(Dense(peer.weights))
            gradient = await peer.gradient()
            peer.mix(await peer.gather(step=peer.step), own)
            peer.apply(gradient)


@pytest.mark.slow
def test_a_strategy_may_leave_and_come_back(tmp_path: Path) -> None:
    result = carried_out(tmp_path, strategy=Restless())
    (join,), (leave,) = happened(result, "join"), happened(result, "leave")
    assert (join["peer"], leave["peer"]) == (2, 2)
    assert 2.0 < join["time_s"] - leave["time_s"] < 2.2
    np.testing.assert_allclose(result.weights.mean(axis=0), np.mean(TARGETS), atol=1e-3)


def test_a_schedule_is_laid_over_the_members(tmp_path: Path) -> None:
    result = carried_out(tmp_path, *COMING, topology=OnePeerExponential())
    members = [0, 2, 3, 4, 5]
    np.testing.assert_allclose(result.weights[members].mean(axis=0), np.mean([TARGETS[p] for p in members]), atol=1e-4)


def test_a_graph_of_ones_own_keeps_its_links_among_the_living(tmp_path: Path) -> None:
    result = carried_out(tmp_path, *COMING, topology=nx.wheel_graph(6))
    assert [count for _, count in result.summary["members"]] == [5, 6, 5]
    pairs = set(zip(result.links.source, result.links.target, strict=True))
    assert pairs <= {pair for u, v in nx.wheel_graph(6).edges for pair in ((u, v), (v, u))}


# ---- laws -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", [Arrivals(every="1 s", lifetime="5 s"), Availability(present="3 s", absent="2 s")])
def test_another_peer_changes_nothing_of_what_a_peer_draws(law: Any) -> None:
    few, many = law._spans(4, 3, 10**10), law._spans(9, 3, 10**10)
    assert {peer: many[peer] for peer in few} == few


def test_arrivals_and_lifetimes_have_their_means() -> None:
    law = Arrivals(first=0, every="2 s", lifetime="7 s")
    spans = [times[0] for times in law._spans(4000, 1, 10**13).values()]
    assert np.mean(np.diff([0, *(since for since, _ in spans)])) == pytest.approx(2e9, rel=0.06)
    assert np.mean([until - since for since, until in spans]) == pytest.approx(7e9, rel=0.06)


def test_availability_is_present_its_share_of_the_time_from_the_start_on() -> None:
    law = Availability(present="6 s", absent="3 s")
    spans = law._spans(300, 1, 10**11)
    there = [sum(min(until, 10**11) - since for since, until in times) / 1e11 for times in spans.values()]
    assert np.mean(there) == pytest.approx(2 / 3, abs=0.02)
    assert np.mean([times[0][0] == 0 for times in spans.values() if times]) == pytest.approx(2 / 3, abs=0.08)


@pytest.mark.parametrize("least", [1, 3])
def test_a_law_leaves_as_many_members_as_asked(least: int) -> None:
    first, events = Availability(present="1 s", absent="4 s", least=least).events(5, 1, 10**11)
    members, fewest = set(first), len(first)
    for event in events:
        assert isinstance(event, JoinEvent | LeaveEvent)
        assert isinstance(event, JoinEvent) == (event.peer not in members)
        members ^= {event.peer}
        fewest = min(fewest, len(members))
    assert fewest == least


def test_a_fleet_under_a_law_trains(tmp_path: Path) -> None:
    result = carried_out(tmp_path, membership=Availability(present="2 s", absent="1 s", least=3), stop=Stop(time="8 s"))
    counts = [count for _, count in result.summary["members"]]
    assert min(counts) >= 3
    assert len(counts) > 5


def test_a_file_lists_the_members() -> None:
    law = 'name = "arrivals"\nfirst = 3\nevery = "5 s"\nlifetime = "20 s"\nweights = "mean"'
    text = f'[membership]\n{law}\n[stop]\ntime = "60 s"\n'
    assert Experiment.parse(text).membership == Arrivals(first=3, every="5 s", lifetime="20 s", weights="mean")


# ---- what cannot be -------------------------------------------------------------------------------------------------------


def test_every_strategy_says_whether_members_may_change() -> None:
    allowed = {Solo, DPSGD, Slices, Ako, TFAko, DLion, Gaia, ADPSGD, Full, DGC}
    for strategy in (*allowed, AllReduce, ParameterServer, FedAvg):
        graph = Complete()
        experiment = BASE.replace(events=COMING, strategy=strategy(), topology=graph)
        if strategy in allowed:
            assert build(experiment).membership is not None
        else:
            with pytest.raises(ConfigError, match=r"needs the same members from start to end.*d-psgd"):
                build(experiment)


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"events": (JoinEvent(at="1 s", peer=1), JoinEvent(at="2 s", peer=1))}, r"events\[1\].peer", "is a member already"),
        ({"events": (LeaveEvent(at="1 s", peer=1), LeaveEvent(at="2 s", peer=1))}, r"events\[1\].peer", "is not a member"),
        ({"events": (KillEvent(at="1 s", peer=1), LeaveEvent(at="2 s", peer=1))}, r"events\[1\].peer", "kills peer"),
        ({"events": (JoinEvent(at="1 s", peer=9),)}, r"events\[0\].peer", "peers"),
        ({"events": tuple(JoinEvent(at="1 s", peer=peer) for peer in range(6))}, "events", "no member at the start"),
        ({"events": tuple(LeaveEvent(at="1 s", peer=peer) for peer in range(6))}, r"events\[5\].peer", "the last member"),
        ({"events": COMING, "topology": Ring(mixing="fastest")}, "topology.mixing", "metropolis"),
        ({"events": COMING, "topology": topology.schedule("base", 6)}, "topology", "fixed number of peers"),
        ({"events": COMING, "topology": nx.DiGraph(nx.cycle_graph(6, create_using=nx.DiGraph))}, "topology", "go one way"),
        ({"events": (LeaveEvent(at="1 s", peer=0),), "topology": nx.star_graph(5)}, r"events\[0\].peer", "pieces"),
        ({"events": COMING, "membership": Arrivals(), "stop": Stop(time="9 s")}, "membership.name", "this law draws joining"),
        ({"membership": Arrivals()}, "stop.time", "the law of membership"),
    ],
)
def test_what_cannot_be_is_refused_with_a_cure(changes: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}.*{words}"):
        build(BASE.replace(**changes))


def test_a_graph_that_is_not_there_for_so_many_members_is_refused() -> None:
    nine = BASE.replace(peers=9, topology=Torus(), task=Quadratic(targets=tuple(range(9)), dimension=2))
    with pytest.raises(ConfigError, match=r"peer 3 leaves at 1 s: torus needs"):
        build(nine.replace(events=(LeaveEvent(at="1 s", peer=3),)))


def test_gradients_need_all_members_joined() -> None:
    with pytest.raises(ConfigError, match="gradients"):
        build(BASE.replace(events=COMING, strategy=Ako()))
