"""Exact laws of ako, tfako, gaia, dgc and dlion, through the whole stack in virtual time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine.experiments.config.experiment import Stop
from grapevine.experiments.tasks import Digits, Quadratic
from grapevine.netem import Access, MixedDevices, Uniform, UniformDevices
from grapevine.peer.codecs import Float32, Int8
from grapevine.peer.ledger import Ledger
from grapevine.peer.message import Message
from grapevine.peer.optimizers import Sgd
from grapevine.peer.payloads import Dense, Marks, Sparse
from grapevine.peer.peer import Peer
from grapevine.peer.strategies import gaia
from grapevine.peer.strategies.ako import Ako, pay_round
from grapevine.peer.strategies.dgc import DGC
from grapevine.peer.strategies.dlion import DLion, Profile, _State
from grapevine.peer.strategies.full import Full
from grapevine.peer.strategies.gaia import Gaia
from grapevine.peer.strategies.tfako import TFAko
from tests.experiments.strategies.fleets import (
    RATE,
    TARGETS,
    Said,
    asked,
    carried_out,
    gradients,
    listen,
    longest_queue_s,
    make_world,
    unread,
)
from tests.helpers import make_peer, run_until_blocked

VECTORS = tuple(tuple(float(x) for x in row) for row in np.random.default_rng(5).normal(0, 3, (8, 240)))
WIDE = tuple(tuple(float(x) for x in row) for row in np.random.default_rng(6).normal(0, 3, (4, 20_000)))
NARROW = Uniform(rate="1 Mbit/s", delay="500 us")


# ---- ako ----------------------------------------------------------------------------------------------------------


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


# ---- tfako --------------------------------------------------------------------------------------------------------


def test_tfako_adapts_frequency_and_size_to_the_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """m = 80 kB, steps of 20 ms, 1 Mbit/s = 2.5 kB a step: R = 32, so with p_max = 8 every 4th step an eighth."""
    said = listen(monkeypatch)
    carried_out(
        tmp_path,
        asked(4, task=Quadratic(targets=WIDE), strategy=TFAko(parts_most=8), network=NARROW, stop=Stop(steps=160),
              devices=UniformDevices(speed="50 samples/s")),
    )  # fmt: skip
    to_one = [message for message in said if (message.source, message.target) == (0, 1) and message.step > 60]
    steps = sorted({message.step for message in to_one})
    assert np.median(np.diff(steps)) == pytest.approx(4, abs=1)
    elements = sum(len(message.payload.values) for message in to_one)
    assert elements / (steps[-1] - steps[0]) * 4 == pytest.approx(2500, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy",
    [Ako(), Ako(schedule="room"), Ako(schedule="fixed", parts=3), TFAko(), TFAko(scaling=True)],
    ids=str,
)
def test_all_peers_end_at_the_sum_of_everybodys_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: Any) -> None:
    """Once training has stopped and everything is delivered, every peer stands at x_0 - eta / n sum_j sum_t s_j(t) g_j(t).

    Speeds and batches differ: with `scaling` tfako's s is the peer's speed over the mean of those it has heard of; without it,
    and in ako, all gradients count alike.
    """
    scaled: list[np.ndarray] = []
    scales: list[float] = []
    gradient, scale = Peer.gradient, TFAko._scale

    async def twenty(peer: Peer) -> np.ndarray:
        found = await gradient(peer)
        if peer.step >= 20:
            return np.zeros_like(found)
        scaled.append(found.astype(float))
        peer.batch_size = 1 + (peer.step + peer.id) % 3
        return found

    def kept(self: TFAko, peer: Peer, speeds: dict[int, float]) -> tuple[float, tuple[float, ...]]:
        found = scale(self, peer, speeds)
        if peer.step < 20:
            scales.append(found[0])
            scaled[-1] *= found[0]
        return found

    monkeypatch.setattr(Peer, "gradient", twenty)
    monkeypatch.setattr(TFAko, "_scale", kept)
    devices = MixedDevices(speeds=("320 samples/s", "160 samples/s", "80 samples/s", "40 samples/s"))
    found, _ = carried_out(
        tmp_path,
        asked(4, task=Quadratic(targets=VECTORS[:4]), strategy=strategy, devices=devices, network=NARROW,
              stop=Stop(time="8 s"), optimizer=Sgd(learning_rate=0.01)),
    )  # fmt: skip
    assert len(scaled) == 80
    if strategy == TFAko(scaling=True):
        assert max(scales) > 1.5  # 8 : 4 : 2 : 1
        assert min(scales) < 0.5
    for peer in found:
        np.testing.assert_allclose(peer.weights, -0.01 / 4 * sum(scaled), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strategy", [Ako(), TFAko()], ids=["ako", "tfako"])
def test_after_a_loss_gradients_are_divided_by_the_living(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: Any
) -> None:
    """New gradients by the survivors' number, older ones as they were made: survivors end alike, but for what died."""
    owed: dict[int, list[np.ndarray]] = {}
    gradient = Peer.gradient

    async def forty(peer: Peer) -> np.ndarray:
        found = await gradient(peer)
        if peer.step >= 40 or peer.id == 3:  # the lost one adds nothing
            return np.zeros_like(found)
        owed.setdefault(peer.id, []).append(found.astype(float) / (1 + len(peer.neighbours)))
        return found

    monkeypatch.setattr(Peer, "gradient", forty)
    found, _ = carried_out(
        tmp_path,
        asked(4, task=Quadratic(targets=VECTORS[:4]), strategy=strategy, network=NARROW, stop=Stop(time="2 s"),
              optimizer=Sgd(learning_rate=0.01)),
        [(203_000_000, 3)],
    )  # fmt: skip
    total = sum(sum(each) for each in owed.values())
    for peer in found[:3]:
        np.testing.assert_allclose(peer.weights, -0.01 * total, rtol=1e-5, atol=1e-5)


# ---- gaia ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [Uniform(rate="100 Mbit/s", delay="1 ms"), Uniform(rate="200 kbit/s", delay="10 ms")])
@pytest.mark.parametrize("barrier", [True, False])
def test_gaia_keeps_what_it_does_not_send(tmp_path: Path, network: Any, barrier: bool) -> None:
    """x_i = what i has made + what others have paid to it, less what it has not read; residual + sent = total."""
    task = Quadratic(targets=VECTORS[:4], start=1.0, dimension=240)
    strategy = Gaia(threshold=0.05, barrier=barrier)
    found, _ = carried_out(tmp_path, asked(4, task=task, strategy=strategy, network=network))
    for peer in found:
        assert peer.ledger is not None
        paid = sum(other.ledger.paid[peer.id] for other in found if other is not peer and other.ledger is not None)
        moved = peer.weights.astype(float) - 1.0
        np.testing.assert_allclose(moved + unread(peer), peer.ledger.total + paid, atol=1e-4)


@pytest.mark.parametrize("decay", [True, False])
def test_gaia_sends_only_what_is_significant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decay: bool) -> None:
    """|update| > threshold |weight| for every value, and nothing significant stays behind where there is room."""
    said: list[float] = []
    pay = Peer.pay
    kept: list[int] = []

    async def checked(peer: Peer, neighbour: int, pick: Any, scalars: tuple[float, ...] = ()) -> Any:
        threshold = 0.3 / (np.sqrt(peer.step) if decay else 1.0)
        weights = peer.weights.copy()
        payload = await pay(peer, neighbour, pick, scalars)
        assert peer.ledger is not None
        said.extend(np.abs(payload.values) - threshold * np.abs(weights[payload.where()]))
        kept.append(int((np.abs(peer.ledger.owed(neighbour)) > 1.001 * threshold * np.abs(weights)).sum()))
        return payload

    monkeypatch.setattr(Peer, "pay", checked)
    task = Quadratic(targets=VECTORS[:4], start=1.0, dimension=240)
    strategy = Gaia(threshold=0.3, adapt=0.0, decay=decay)
    carried_out(tmp_path, asked(4, task=task, strategy=strategy, network=Uniform(rate="100 Mbit/s"), stop=Stop(steps=12)))
    assert len(said) > 500
    assert len(said) < 4 * 3 * 12 * 240 / 2
    assert min(said) > -1e-6
    assert max(kept) == 0


@pytest.mark.slow
@pytest.mark.parametrize("barrier", [True, False])
def test_gaia_lets_no_element_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, barrier: bool) -> None:
    """Over a thin link more is significant than fits at every step: all tenths of the vector go equally often."""
    said = listen(monkeypatch)
    strategy = Gaia(slack=100, adapt=0.0, threshold=0.0, barrier=barrier)
    carried_out(
        tmp_path,
        asked(3, task=Quadratic(targets=WIDE[:3], noise=3.0), strategy=strategy,
              network=Uniform(rate="300 kbit/s", delay="5 ms"), devices=UniformDevices(speed="20 samples/s"),
              stop=Stop(time="20 s")),
    )  # fmt: skip
    values, marks = ([m.payload.where() for m in said if isinstance(m.payload, kind)] for kind in (Sparse, Marks))
    for sent in (values, marks) if barrier else (values,):
        tenths = np.histogram(np.concatenate(sent), bins=10, range=(0, 20_000))[0]
        assert tenths.sum() > 20_000
        assert tenths.max() < 1.15 * tenths.min()


def test_gaia_divides_by_the_living(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, added = gradients(monkeypatch), []
    add = Ledger.add
    monkeypatch.setattr(Ledger, "add", lambda ledger, update: (added.append((ledger, update.copy())), add(ledger, update))[1])
    task = Quadratic(targets=VECTORS[:4])
    found, _ = carried_out(tmp_path, asked(4, task=task, strategy=Gaia()), [(105_000_000, 2)])
    mine = [update for ledger, update in added if ledger is found[0].ledger]
    assert len(mine) == 30
    living = [-RATE * gradient.mean() / update.mean() for gradient, update in zip(made[0], mine, strict=True)]
    np.testing.assert_allclose(living, sorted(np.rint(living), reverse=True), rtol=1e-4)
    assert set(np.rint(living)) == {4, 3}


@pytest.mark.parametrize("slack", [0, 1, 3])
@pytest.mark.parametrize("barrier", [True, False])
def test_gaia_keeps_the_clocks_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slack: int, barrier: bool) -> None:
    """Nobody begins a step more than `slack` steps ahead of anybody, and the fast ones do get that far."""
    steps, gaps = dict.fromkeys(range(4), 0), []
    gradient = Peer.gradient

    async def checked(peer: Peer) -> np.ndarray:
        gaps.append(peer.step - min(steps.values()))
        found = await gradient(peer)
        steps[peer.id] = peer.step + 1
        return found

    monkeypatch.setattr(Peer, "gradient", checked)
    devices = MixedDevices(speeds=("100 samples/s", "30 samples/s", "500 samples/s"))
    network = Uniform(rate="1 Mbit/s", delay="5 ms", jitter="5 ms")
    strategy = Gaia(slack=slack, barrier=barrier)
    carried_out(tmp_path, asked(4, task=Quadratic(targets=VECTORS[:4]), strategy=strategy, devices=devices, network=network))
    assert max(gaps) == slack


def test_gaia_announces_only_what_has_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that is announced says that its value stays behind: that follows, but never in the same instant."""
    said = listen(monkeypatch)
    found, _ = carried_out(
        tmp_path,
        asked(4, task=Quadratic(targets=WIDE), strategy=Gaia(barrier=True), network=Uniform(rate="2 Mbit/s", delay="5 ms"),
              stop=Stop(steps=12)),
    )  # fmt: skip
    assert any(isinstance(message.payload, Marks) for message in said)
    for source in range(4):
        for target in set(range(4)) - {source}:
            announced_ns: dict[int, int] = {}
            for message in said:
                if (message.source, message.target) == (source, target):
                    for index in message.payload.where().tolist():
                        if isinstance(message.payload, Marks):
                            assert index not in announced_ns
                            announced_ns[index] = message.now_ns
                        else:
                            assert announced_ns.pop(index, -1) < message.now_ns
            assert not announced_ns
    assert {peer.step for peer in found} == {12}


@pytest.mark.parametrize("barrier", [True, False])
def test_gaia_fills_no_more_of_a_link_than_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, barrier: bool) -> None:
    """Also with what was announced before: every look at a link's room is for the share `fill` of it."""
    fills: list[float] = []
    room = Peer.room

    def looked_at(peer: Peer, neighbour: int, fill: float = 1.0, **options: Any) -> int:
        fills.append(fill)
        return room(peer, neighbour, fill, **options)

    monkeypatch.setattr(Peer, "room", looked_at)
    network, strategy = Uniform(rate="2 Mbit/s", delay="5 ms"), Gaia(barrier=barrier, fill=0.6, slack=100)
    carried_out(tmp_path, asked(4, task=Quadratic(targets=WIDE), strategy=strategy, network=network, stop=Stop(steps=12)))
    assert set(fills) == {0.6}
    assert (len(fills) > 4 * 3 * 12) == barrier  # promises are kept between the steps too


def test_gaia_waits_from_an_announcement_to_later_values() -> None:
    """Not to earlier ones that came late, nor for values that were not finite and so never left, nor after them."""
    where = np.array([2, 5], np.uint32)
    marks, values, nothing = Marks(where), Sparse(where, np.ones(2, np.float32)), Dense(np.zeros(0, np.float32))

    def awaits(*messages: tuple[int, Any, int]) -> bool:
        mirror = gaia._Mirror(8)
        for number, payload, count in messages:
            mirror.came(Message(1, 0, payload, (float(number), float(count)), 0))
        return mirror.awaits

    assert not awaits((1, values, 2))
    assert awaits((1, marks, 2))
    assert not awaits((1, marks, 2), (2, values, 2))
    assert not awaits((2, values, 2), (1, marks, 2))
    assert awaits((2, marks, 2), (1, values, 2))
    assert awaits((1, marks, 2), (2, nothing, 0))  # a clock alone
    assert not awaits((1, marks, 2), (2, nothing, 2))


@pytest.mark.slow
@pytest.mark.parametrize("reorder", [False, True])
def test_gaia_begins_no_step_while_announced_values_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reorder: bool
) -> None:
    """In whatever order announcements and values arrive; what is announced after its values have come is not waited for."""
    announced, paid = np.zeros((4, 4, 20_000)), np.zeros((4, 4, 20_000))  # the newest message's number, by element
    waits = late = 0
    take_in, gradient, receive = gaia._take_in, Peer.gradient, Peer.receive

    def taken_in(peer: Peer, mirrors: Any, message: Any) -> None:
        nonlocal late
        where, number = message.payload.where(), message.scalars[0]
        newest = (announced if isinstance(message.payload, Marks) else paid)[peer.id, message.source]
        newest[where] = np.maximum(newest[where], number)
        late += isinstance(message.payload, Marks) and bool((paid[peer.id, message.source][where] > number).any())
        take_in(peer, mirrors, message)

    async def begun(peer: Peer) -> np.ndarray:
        assert not (announced[peer.id] > paid[peer.id]).any()
        return await gradient(peer)

    async def waited(peer: Peer, deadline_ns: int | None = None) -> Any:
        nonlocal waits
        waits += int((announced[peer.id] > paid[peer.id]).any())
        return await receive(peer, deadline_ns)

    monkeypatch.setattr(gaia, "_take_in", taken_in)
    monkeypatch.setattr(Peer, "gradient", begun)
    monkeypatch.setattr(Peer, "receive", waited)
    slow = Uniform(rate="2 Mbit/s", delay="30 ms", jitter="25 ms", reorder=reorder)
    strategy = Gaia(slack=100, barrier=True)  # so that nobody waits for clocks
    found, _ = carried_out(
        tmp_path, asked(4, task=Quadratic(targets=WIDE, noise=3.0), strategy=strategy, network=slow, stop=Stop(steps=40))
    )
    assert {peer.step for peer in found} == {40}
    assert waits > 20
    assert bool(late) == reorder


# ---- dgc ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nesterov", [False, True])
def test_dgc_at_sparsity_0_is_dense_momentum_sgd(tmp_path: Path, nesterov: bool) -> None:
    strategy = DGC(sparsity=0.0, momentum=0.9, nesterov=nesterov)
    found, _ = carried_out(
        tmp_path, asked(8, task=Quadratic(targets=VECTORS), strategy=strategy, optimizer=Sgd(learning_rate=0.02))
    )
    mean, weights, velocity = np.mean(VECTORS, axis=0), np.zeros(240), np.zeros(240)
    for _ in range(30):
        velocity = 0.9 * velocity + (weights - mean)
        weights = weights - 0.02 * (weights - mean + 0.9 * velocity if nesterov else velocity)
    for peer in found:
        assert np.array_equal(peer.weights, found[0].weights)
        np.testing.assert_allclose(peer.weights, weights, atol=2e-5)


@pytest.mark.parametrize("codec", [Float32(), Int8()], ids=["float32", "int8"])
def test_dgc_keeps_what_it_does_not_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: Any) -> None:
    """Residual + sent = all velocities; the weights are what was sent, nothing else; each sends its largest tenth."""
    said, made = listen(monkeypatch), gradients(monkeypatch)
    strategy = DGC(sparsity=0.9, warmup_steps=5, momentum=0.0)
    found, _ = carried_out(tmp_path, asked(4, task=Quadratic(targets=VECTORS[:4]), strategy=strategy, codec=codec))
    sent = np.zeros(240)
    for message in said:
        if message.target == (message.source + 1) % 4:
            assert isinstance(message.payload, Sparse)
            assert len(message.payload.values) == (60 if message.step < 5 else 24)
            sent[message.payload.where()] += message.payload.values
    for peer in found:
        assert peer.ledger is not None
        np.testing.assert_allclose(peer.ledger.total, sum(made[peer.id]), atol=1e-4)
        np.testing.assert_allclose(peer.weights, -RATE * sent / 4, atol=1e-5)
    paid = sum(peer.ledger.paid[peer.id] for peer in found if peer.ledger is not None)
    np.testing.assert_allclose(paid, sent, atol=1e-4)


@pytest.mark.parametrize("size", [1, 10, 100, 1000, 10_000, 123_457])
def test_dgc_sends_the_share_that_is_not_held_back_rounded_up(size: int) -> None:
    """ceil((1 - s) size) of the decimal s, not of the nearest number of base 2; never nothing."""
    for thousandths in range(1000):
        strategy = DGC(sparsity=thousandths / 1000, warmup_steps=0)
        assert strategy.count_at(0, size) == -(-(1000 - thousandths) * size // 1000)
    assert DGC(sparsity=1 - 1e-12, warmup_steps=0).count_at(0, size) == 1


def test_dgc_masks_the_velocity_of_what_was_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """u <- m u + g, v <- v + u, and both begin anew where something went out: replayed element by element."""
    said, made = listen(monkeypatch), gradients(monkeypatch)
    strategy = DGC(sparsity=0.8, warmup_steps=0, momentum=0.9, clip=10.0)
    carried_out(tmp_path, asked(4, task=Quadratic(targets=VECTORS[:4]), strategy=strategy, optimizer=Sgd(learning_rate=0.01)))
    velocity, residual = np.zeros(240), np.zeros(240)
    mine = {message.step: message.payload for message in said if (message.source, message.target) == (2, 0)}
    for step, gradient in enumerate(made[2]):
        norm = np.linalg.norm(gradient)
        velocity = 0.9 * velocity + gradient * min(1.0, 10.0 * 2 / norm)
        residual += velocity
        where = mine[step].where()
        np.testing.assert_allclose(mine[step].values, residual[where], rtol=1e-4, atol=1e-4)
        rest = np.delete(residual, where)
        assert np.abs(rest).max() <= np.abs(residual[where]).min() + 1e-4
        velocity[where] = residual[where] = 0


def test_dgc_clips_as_the_paper_does_where_gradients_are_averaged() -> None:
    """Section 3.2: sum over N of clip(1/(N b) sum over the batch, thr / sqrt(N)); here it is the mean of what was clipped."""
    rng, thr = np.random.default_rng(4), 0.7
    for peers in (1, 4, 9):
        batches = rng.normal(0, 1, (peers, 32, 10))  # the gradient of each sample
        local = batches.sum(axis=1) / (peers * 32)
        norms = np.linalg.norm(local, axis=1, keepdims=True)
        published = (local * np.minimum(1, thr / np.sqrt(peers) / norms)).sum(axis=0)
        clipped = [DGC(clip=thr)._clipped(batch.mean(axis=0), peers) for batch in batches]
        np.testing.assert_allclose(np.mean(clipped, axis=0), published, rtol=1e-5)
        orthogonal = 100 * np.eye(peers)  # all are clipped, and none looks where another does
        ours = [DGC(clip=thr)._clipped(gradient, peers) for gradient in orthogonal]
        assert np.linalg.norm(np.mean(ours, axis=0)) == pytest.approx(thr)


# ---- dlion --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_dlion_deals_batches_by_speed_so_that_steps_take_equally_long(tmp_path: Path) -> None:
    """Without an overhead batches are proportional to speed; with one the times are equal all the same."""
    speeds = (400, 200, 100, 100)
    for overhead in ("0 s", "20 ms"):
        devices = MixedDevices(speeds=tuple(f"{speed} samples/s" for speed in speeds), overhead=overhead)
        task = Digits(batch_size=32)
        world = make_world(
            tmp_path,
            asked(4, task=task, devices=devices, strategy=DLion(transfer_every=0), network=Uniform(rate="20 Mbit/s"),
                  stop=Stop(steps=60)),
        )  # fmt: skip
        assert world.run().completed
        batches = np.array([member.peer.batch_size for member in world.members])
        times = [member.device.step_ns(member.peer.batch_size) for member in world.members]
        assert max(times) <= 1.05 * min(times)
        if overhead == "0 s":
            np.testing.assert_allclose(batches / batches.sum(), np.array(speeds) / sum(speeds), atol=0.01)
        assert batches.sum() > 4 * 32  # and the global batch has grown


def test_dlion_grows_the_global_batch_in_two_phases() -> None:
    strategy = DLion(adjust_every=10, growth=1.5)
    sizes = [strategy.global_batch(40, step, 20_000) for step in range(0, 200, 10)]
    assert sizes[:6] == [40, 80, 120, 160, 200, 300]
    assert sizes[-1] == 2000
    assert strategy.global_batch(4, 1000, 4) == 4


@pytest.mark.parametrize("warm_share", [0.0, 0.05, 0.5, 1.0])
def test_dlion_never_grows_the_global_batch_above_its_bound(warm_share: float) -> None:
    """`full_share` of the training set, however long the first phase, or the first batch where that is more."""
    strategy = DLion(warm_share=warm_share, adjust_every=10, full_share=0.2)
    for first in (30, 100, 300):
        sizes = [strategy.global_batch(first, step, 1000) for step in range(0, 1000, 10)]
        assert sizes == sorted(sizes)
        assert sizes[-1] == max(first, 200)


def test_dlion_weighs_gradients_by_batches() -> None:
    """x_k <- x_k - eta / n sum_j (LBS_j / LBS_k) g_j; normalised the weights add up to n."""
    for weighting, expected in (("relative", 3.0), ("normalised", 1.5), ("none", 1.0)):
        strategy = DLion(weighting=weighting, batching=False)  # type: ignore[arg-type]
        peer = Peer(0, 2, {1: 0.5}, np.zeros(4, np.float32), 10)
        state = _State(peer, 0.75)
        for member, batch in ((0, 10.0), (1, 30.0)):
            state.profiles[member] = Profile(0.0, batch, 0.0, 1.0, 1.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0)
        assert strategy._weight(peer, state, 1) == np.float32(expected / 2)
        peer.lose(1)
        assert strategy._weight(peer, state, 0) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("keep", [True, False])
def test_dlion_sends_the_largest_that_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool) -> None:
    """Nothing that was left is larger than what was sent; sizes follow the link; kept gradients are conserved."""
    said = listen(monkeypatch)
    strategy = DLion(batching=False, weighting="none", transfer_every=0, keep=keep)
    found, _ = carried_out(
        tmp_path,
        asked(4, task=Quadratic(targets=WIDE), strategy=strategy, network=NARROW, devices=UniformDevices(speed="20 samples/s"),
              stop=Stop(steps=60)),
    )  # fmt: skip
    late = [message for message in said if message.step > 20]
    bytes_a_step = np.mean([8 * len(message.payload.values) for message in late])
    assert bytes_a_step == pytest.approx(0.9 * 125_000 * 0.05, rel=0.1)
    for peer in found:
        assert peer.ledger is not None
        if keep:
            paid = sum(other.ledger.paid[peer.id] for other in found if other is not peer and other.ledger is not None)
            used = -peer.weights.astype(float) * 4 / RATE
            np.testing.assert_allclose(used + unread(peer), peer.ledger.total + paid, rtol=1e-3, atol=2e-2)
        else:
            for neighbour in peer.neighbours:
                assert not peer.ledger.owed(neighbour).any()


@pytest.mark.slow
def test_dlion_hands_knowledge_from_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only who was asked gives weights, and x <- x - lambda (x - x_best) for the elements of every slice of them."""
    slow, blend, drawn = Uniform(rate="600 kbit/s", delay="500 us"), Peer.blend, []

    def measured(peer: Peer, message: Any, weight: float) -> None:
        away = peer.weights[message.payload.where()] - message.payload.values
        blend(peer, message, weight)
        drawn.append((away, peer.weights[message.payload.where()] - message.payload.values))

    for every in (0, 50):
        with monkeypatch.context() as patch:
            said = listen(patch)
            patch.setattr(Peer, "blend", measured)
            strategy = DLion(batching=False, transfer_every=every)
            carried_out(
                tmp_path,
                asked(4, task=Quadratic(targets=TARGETS[:4], dimension=2000, noise=2.0), strategy=strategy, network=slow,
                      stop=Stop(steps=100), devices=UniformDevices(speed="50 samples/s")),
            )  # fmt: skip
        given = [message for message in said if message.scalars[0] == 2.0]
        asks = [message for message in said if message.scalars[0] == 1.0]
        assert bool(given) == bool(asks) == bool(every)
        for ask in asks:
            if ask.step < 60:
                slices = [m for m in given if (m.source, m.target) == (ask.target, ask.source) and m.now_ns >= ask.now_ns]
                assert slices
                assert all(isinstance(m.payload, Dense) for m in slices)
    assert drawn
    for before, after in drawn:
        np.testing.assert_allclose(after, 0.25 * before, atol=1e-5)


# ---- everybody ----------------------------------------------------------------------------------------------------

ALL = [Ako(schedule="rates"), Ako(schedule="fixed"), TFAko(), Gaia(), DGC(warmup_steps=2), DLion(transfer_every=4),
       DLion(prioritized=False)]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ALL, ids=lambda strategy: type(strategy).__name__)
def test_the_others_go_on_when_peers_die(tmp_path: Path, strategy: Any) -> None:
    for at_ms in (3, 61, 118):
        losses = [(at_ms * 10**6, 2), (at_ms * 10**6 + 13_000_000, 0)]
        found, outcome = carried_out(tmp_path, asked(5, task=Quadratic(targets=VECTORS[:5]), strategy=strategy), losses)
        assert list(outcome.peers_lost) == [0, 2]
        assert all(peer.step == 30 for peer in found if peer.id in (1, 3, 4))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [Full(), DGC(sparsity=0.9, warmup_steps=0, momentum=0.0)], ids=["full", "dgc"])
def test_what_survivors_differ_by_after_a_loss_stays_as_it_is(tmp_path: Path, strategy: Any) -> None:
    """A peer is lost in the middle of a broadcast over unequal links: some got its last gradient, and nobody settles that."""
    network = Access(lines=("unlimited",), links=("4 Mbit/s", "1 Mbit/s", "500 kbit/s", "300 kbit/s"), delay="3 ms")
    apart = []
    for at_ms in range(50, 110, 4):
        found: dict[int, np.ndarray] = {}
        for steps in (15, 30):
            peers, _ = carried_out(
                tmp_path,
                asked(4, task=Quadratic(targets=VECTORS[:4], noise=1.0), strategy=strategy, network=network,
                      stop=Stop(steps=steps), optimizer=Sgd(learning_rate=0.02)),
                [(at_ms * 10**6, 0)],
            )  # fmt: skip
            found[steps] = np.array([peer.weights - peers[1].weights for peer in peers[2:]])
        np.testing.assert_allclose(found[15], found[30], atol=1e-5)
        apart.append(np.abs(found[30]).max())
    assert 0.01 < max(apart) < 0.2


def test_a_round_wraps_as_two_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    said = listen(monkeypatch)
    peer = make_peer(0, {1: 0.5}, size=10)
    peer.new_ledger().turn(1, 7)
    run_until_blocked(pay_round(peer, 1, 5))
    assert [(message.payload.start, len(message.payload.values)) for message in said] == [(7, 3), (0, 2)]
