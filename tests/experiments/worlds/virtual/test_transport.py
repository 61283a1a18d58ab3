"""Messages in virtual time: what endpoints and records know at an instant, and links that come and go while a fleet runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine.experiments.config.experiment import Stop
from grapevine.experiments.config.sections import Record
from grapevine.experiments.worlds.peer_report import FINAL
from grapevine.experiments.worlds.virtual.world import VirtualWorld
from grapevine.netem import Uniform
from grapevine.peer.codecs import Float32
from grapevine.peer.effects import Send
from grapevine.peer.payloads import Dense, Parcel, encode
from grapevine.peer.strategies import DPSGD, Ako, Slices, Solo
from grapevine.peer.wire import HEADER_BYTES
from tests.experiments.strategies.fleets import asked, make_world

PRIVATE = Uniform(rate="1 Mbit/s", delay="5 ms")
SHARED = Uniform(rate="1 Mbit/s", delay="5 ms", uplink="1.5 Mbit/s")
MS = 1_000_000


def parcel(count: int) -> Parcel:
    return encode(Dense(np.ones(count, np.float32)), Float32(), 0)[0]


def transits(world: VirtualWorld, *sends: tuple[int, int, int, int]) -> list[tuple[int, int, int]]:
    """Let peers send (at_ns, source, target, elements), and tell what arrives: (source, target, arrived_ns)."""
    found: list[tuple[int, int, int]] = []

    def deliver(member: Any, message: Any) -> None:
        found.append((message.source, member.peer.id, message.arrived_ns))

    world.transport._deliver = deliver
    for at_ns, source, target, count in sends:
        member = world.members[source]
        world._at(at_ns, lambda *call: world.transport.send(*call, world.now_ns), member, Send((target,), parcel(count)))
    world._carry_out_events()
    return found


def idle(tmp_path: Path, network: Uniform) -> VirtualWorld:
    """A fleet whose strategies do nothing."""
    world = make_world(tmp_path, asked(3, dimension=20_000, strategy=Solo(), network=network, stop=Stop(time="10 s")))
    for member in world.members:
        member.strategy.close()
    return world


@pytest.mark.parametrize("network", [PRIVATE, SHARED])
def test_two_peers_part_and_meet_again(tmp_path: Path, network: Uniform) -> None:
    """What was under way dies; over the new links a message travels as over those of a new fleet, and counts go on."""
    ((_, _, first_ns),) = transits(idle(tmp_path, network), (0, 0, 1, 5_000))
    world = idle(tmp_path, network)
    transport = world.transport
    world._at(100 * MS, transport.drop, 1, 0)  # a message of 20 kB takes 160 ms
    world._at(300 * MS, transport.add, 0, 1)
    found = transits(world, (0, 0, 1, 5_000), (300 * MS + 1, 0, 1, 5_000))
    assert found == [(0, 1, pytest.approx(first_ns + 300 * MS + 1, abs=2))]
    assert transport.links[0, 1].back is transport.links[1, 0]
    size_bytes = parcel(5_000).size_bytes + 2 * HEADER_BYTES
    sent = transport.sent[0][1]
    assert (sent.messages, sent.bytes) == ((2, 2 * size_bytes) if network is PRIVATE else (1, size_bytes))
    assert len(transport.received[1][0].delays_ns) == 1
    assert all(not member.endpoint.errors for member in world.members)


@pytest.mark.parametrize("network", [PRIVATE, SHARED])
def test_a_peer_that_has_left_frees_its_share_of_a_segment(tmp_path: Path, network: Uniform) -> None:
    """Two messages of 20 kB and the like over one uplink: from the cut on the other one has the link's whole rate."""
    alone = transits(idle(tmp_path, network), (0, 0, 2, 5_000))
    world = idle(tmp_path, network)
    world._at(1, world.transport.drop, 0, 1)
    assert transits(world, (0, 0, 1, 5_000), (1, 0, 2, 5_000)) == [(0, 2, alone[0][2] + 1)]


@pytest.mark.parametrize("network", [PRIVATE, SHARED])
@pytest.mark.parametrize("strategy", [DPSGD(), Slices(), Ako()])
def test_a_record_holds_all_acknowledgements_that_arrived_before_it(tmp_path: Path, network: Uniform, strategy: Any) -> None:
    """Also the last one, and also where the strategy has not looked at its meters for long; and nothing is counted twice."""
    world = make_world(
        tmp_path, asked(3, strategy=strategy, network=network, stop=Stop(time="415 ms"), record=Record(every="100 ms"))
    )
    said, reports, sent_bytes = world.collector.report, {}, 0

    def reporting(report: Any) -> Any:
        reports[report.peer] = report
        for link in report.outgoing:
            meter = world.members[report.peer].endpoint.meters[link.target]
            laid = world.transport.links[report.peer, link.target]
            assert all(due_ns > report.time_ns for due_ns, *_ in laid.answers)
            assert all(told_ns > report.time_ns for told_ns, *_ in laid.reports)
            assert link.rate_bytes_per_s == meter.rate_bytes_per_s or math.isnan(link.rate_bytes_per_s)
        nonlocal sent_bytes
        sent_bytes += sum(link.bytes for link in report.outgoing)
        return said(report)

    world.collector.report = reporting  # type: ignore[method-assign]
    outcome = world.run()
    assert outcome.completed, outcome.reason
    assert {report.index for report in reports.values()} == {FINAL}
    assert all(report.time_ns == 415 * MS for report in reports.values())
    assert sent_bytes == outcome.bytes_sent == sum(count.bytes for sent in world.transport.sent for count in sent.values())
    assert any(not math.isnan(link.rate_bytes_per_s) for report in reports.values() for link in report.outgoing)


def test_meters_are_settled_however_they_are_looked_up(tmp_path: Path) -> None:
    for look in (
        lambda meters: meters[1],
        lambda meters: meters.get(1),
        lambda meters: dict(meters.items())[1],
        lambda meters: next(iter(meters.values())),
    ):
        world = idle(tmp_path, PRIVATE)
        transits(world, (0, 0, 1, 5_000))
        peer = world.members[0].peer
        assert world.transport.links[0, 1].answers
        peer.now_ns = world.now_ns + 10 * MS
        assert look(peer.meters).rate_bytes_per_s == pytest.approx(125_000, rel=1e-3)
        assert set(peer.meters) == {1, 2}


def test_an_answer_to_nothing_is_counted_as_in_real_time(tmp_path: Path) -> None:
    world = idle(tmp_path, PRIVATE)
    transits(world, (0, 0, 1, 5_000))
    link = world.transport.links[0, 1]
    link.answers.append((0, 99, 0, 0))
    link.catch_up(10**12)
    assert world.members[0].endpoint.errors == {"acknowledgement": 1}
    assert world.members[0].endpoint.meters[1].in_flight_bytes == 0


@pytest.mark.parametrize("dimension", [100, 3_000])
def test_steps_in_lockstep_measure_the_rate_of_the_link_exactly(tmp_path: Path, dimension: int) -> None:
    """Each acknowledgement leaves at the instant of the next message: it delays that message and does not stretch it."""
    network = Uniform(rate="2 Mbit/s", delay="20 ms")
    world = make_world(tmp_path, asked(3, dimension=dimension, strategy=DPSGD(), network=network, stop=Stop(time="1 s")))
    world.train()
    rates = [meter.rate_bytes_per_s for member in world.members for meter in member.endpoint.meters.values()]
    assert rates == pytest.approx([250_000.0] * 6, rel=1e-5)
