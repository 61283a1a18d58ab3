"""Exact laws of ako, through the whole stack in virtual time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine.experiments.config.experiment import Stop
from grapevine.experiments.tasks import Quadratic
from grapevine.netem import Uniform, UniformDevices
from grapevine.peer.codecs import Float32, Int8
from grapevine.peer.optimizers import Sgd
from grapevine.peer.peer import Peer
from grapevine.peer.strategies.ako import Ako, pay_round
from tests.experiments.strategies.fleets import (
    NARROW,
    RATE,
    WIDE,
    Said,
    asked,
    carried_out,
    gradients,
    listen,
    longest_queue_s,
    make_world,
    normal_targets,
    unread,
)
from tests.helpers import make_peer, run_until_blocked

VECTORS = normal_targets(8, 240)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"schedule": "fixed", "parts": 3}, {"schedule": "rates"}, {"schedule": "room"}], ids=str)
@pytest.mark.parametrize("codec", [Float32(), Int8()], ids=["float32", "int8"])
def test_ako_delivers_every_gradient_exactly_once(tmp_path: Path, options: dict[str, Any], codec: Any) -> None:
    """(x_0 - x_i) / eta = what i owes to everybody + what others paid to it, less what it has not read."""
    task = Quadratic(targets=VECTORS)
    found, _ = carried_out(
        tmp_path, asked(8, task=task, codec=codec, strategy=Ako(**options), network=Uniform(rate="1 Mbit/s"))
    )
    for peer in found:
        assert peer.ledger is not None
        paid = sum(other.ledger.paid[peer.id] for other in found if other is not peer and other.ledger is not None)
        used = -peer.weights.astype(float) / RATE
        np.testing.assert_allclose(used + unread(peer), peer.ledger.total + paid, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("parts", "size"), [(1, 240), (3, 240), (7, 240), (240, 240)])
def test_ako_is_at_most_p_minus_1_rounds_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int, size: int) -> None:
    """Every element goes to every neighbour once in p rounds, a different part to each where there are as many parts."""
    said = listen(monkeypatch)
    task = Quadratic(targets=VECTORS[:4])
    strategy = Ako(schedule="fixed", when_busy="wait", parts=parts)
    carried_out(tmp_path, asked(4, task=task, strategy=strategy, stop=Stop(steps=3 * parts)))
    assert _rounds_between(said, size) <= parts
    first = [message.payload.start for message in said if message.source == 0 and message.step == 0]
    assert len(set(first)) == min(3, parts)


@pytest.mark.parametrize("parts", [3, (2, 3, 5, 6)])
def test_ako_sends_part_t_plus_q_mod_p(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: Any) -> None:
    """In round t the q-th neighbour gets part (t + q) mod p; with a list each peer has its own p."""
    said = listen(monkeypatch)
    strategy = Ako(schedule="fixed", when_busy="wait", parts=parts)
    carried_out(tmp_path, asked(4, task=Quadratic(targets=VECTORS[:4]), strategy=strategy))
    assert len(said) == 30 * 12
    for message in said:
        p = parts if isinstance(parts, int) else parts[message.source]
        q = sorted({0, 1, 2, 3} - {message.source}).index(message.target)
        assert message.payload.start == (message.step + q) % p * (240 // p)
        assert len(message.payload.values) == 240 // p


@pytest.mark.slow
@pytest.mark.parametrize(("when_busy", "step_s"), [("wait", 0.42), ("skip", 0.1), ("queue", 0.1)])
def test_ako_with_parts_too_large_for_the_link(tmp_path: Path, when_busy: Any, step_s: float) -> None:
    """A half of 80 kB takes 0.32 s of 1 Mbit/s, a step 0.1 s: steps wait, or parts do, or the queue grows; nothing is lost."""
    strategy = Ako(schedule="fixed", parts=2, when_busy=when_busy)
    world = make_world(
        tmp_path,
        asked(4, task=Quadratic(targets=WIDE), strategy=strategy, network=NARROW, devices=UniformDevices(speed="10 samples/s"),
              stop=Stop(time="16 s"), optimizer=Sgd(learning_rate=0.001)),
    )  # fmt: skip
    queues_s: list[float] = []
    for second in range(1, 16):
        world._at(second * 10**9, lambda: queues_s.append(longest_queue_s(world)))
    assert world.run().completed
    found = [member.peer for member in world.members]
    for peer in found:
        assert peer.step == pytest.approx(16 / step_s, rel=0.1)
        assert peer.ledger is not None
        for other in found:
            if other is not peer:
                paid = peer.ledger.paid[other.id]
                np.testing.assert_allclose(paid + peer.ledger.owed(other.id), peer.ledger.total)
    assert (max(queues_s) < 0.7) == (when_busy != "queue")
    assert max(queues_s) > 0.1


def test_ako_keeps_its_bound_under_any_interleaving_of_partition_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """p drawn anew for every message: nothing is later than the largest p allows, and nothing is lost."""
    rng, most = np.random.default_rng(3), 9

    class Restless(Ako, frozen=True, tag="restless"):
        def _count(self, peer: Peer, neighbour: int) -> int:
            return -(-peer.size // int(rng.integers(1, most + 1)))

    said = listen(monkeypatch)
    found, _ = carried_out(tmp_path, asked(4, task=Quadratic(targets=VECTORS[:4]), strategy=Restless(), stop=Stop(steps=80)))
    assert _rounds_between(said, 240) <= most
    for peer in found:
        paid = sum(other.ledger.paid[peer.id] for other in found if other is not peer and other.ledger is not None)
        used = -peer.weights.astype(float) / RATE  # gradients are divided by 4 where they are made
        np.testing.assert_allclose(used + unread(peer), peer.ledger.total + paid, rtol=1e-4, atol=3e-3)  # type: ignore[union-attr]


def _rounds_between(said: list[Said], size: int) -> int:
    """The most rounds from one delivery of an element to a neighbour to the next one (or from the first round)."""
    last: dict[tuple[int, int], np.ndarray] = {}
    longest = 0
    for message in said:
        seen = last.setdefault((message.source, message.target), np.full(size, -1))
        where = message.payload.where()
        longest = max(longest, int((message.step - seen[where]).max(initial=0)))
        seen[where] = message.step
    return longest


def test_ako_by_rates_measures_p(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """80,000 bytes over 1 Mbit/s in steps of 100 ms: p = ceil(80000 / 12500) = 7, within what measuring costs."""
    said = listen(monkeypatch)
    carried_out(
        tmp_path,
        asked(4, task=Quadratic(targets=WIDE), strategy=Ako(schedule="rates", fill=1.0), network=NARROW,
              devices=UniformDevices(speed="10 samples/s")),
    )  # fmt: skip
    sent: Counter[tuple[int, int, int]] = Counter()
    for message in said:
        sent[message.source, message.target, message.step] += len(message.payload.values)
    late = [count for (*_, step), count in sent.items() if step > 20]
    assert np.median(late) == pytest.approx(20_000 / 7, rel=0.05)


def test_ako_without_accumulation_drops_what_it_does_not_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, made = listen(monkeypatch), gradients(monkeypatch)
    strategy = Ako(schedule="fixed", when_busy="wait", parts=4, accumulate=False)
    carried_out(tmp_path, asked(4, task=Quadratic(targets=VECTORS[:4]), strategy=strategy))
    for message in said:
        np.testing.assert_allclose(
            message.payload.values, made[message.source][message.step][message.payload.where()] / 4, atol=1e-4
        )


def test_a_round_wraps_as_two_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    said = listen(monkeypatch)
    peer = make_peer(0, {1: 0.5}, size=10)
    peer.new_ledger().turn(1, 7)
    run_until_blocked(pay_round(peer, 1, 5))
    assert [(message.payload.start, len(message.payload.values)) for message in said] == [(7, 3), (0, 2)]
