"""Exact laws of dlion: its batches, what it sends, and its knowledge transfer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine import ConfigError
from grapevine.experiments.config.experiment import Stop
from grapevine.experiments.fleet import build
from grapevine.experiments.tasks import Digits, Quadratic
from grapevine.netem import MixedDevices, Uniform, UniformDevices
from grapevine.peer.optimizers import Sgd
from grapevine.peer.payloads import Dense
from grapevine.peer.peer import Peer
from grapevine.peer.strategies.dlion import DLion, Profile, _State
from tests.experiments.strategies.fleets import (
    NARROW,
    RATE,
    TARGETS,
    WIDE,
    asked,
    carried_out,
    gradients,
    listen,
    make_world,
    normal_targets,
    unread,
)

VECTORS = normal_targets(8, 600)


@pytest.mark.slow
@pytest.mark.parametrize(("peers", "rate"), [(2, 1.0), (3, 0.3), (4, 0.75)])
def test_a_transfer_counts_no_gradient_twice_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peers: int, rate: float
) -> None:
    """Training stops after 200 steps, exchange and transfers go on until nothing is owed: x_i = x_0 - eta / n (sum of all)."""
    made = [np.zeros(600) for _ in range(peers)]
    gradient = Peer.gradient

    async def ends(peer: Peer) -> np.ndarray:
        found = await gradient(peer)
        if peer.step >= 200:
            return np.zeros_like(found)
        made[peer.id] += found
        return found

    said = listen(monkeypatch)
    monkeypatch.setattr(Peer, "gradient", ends)
    strategy = DLion(batching=False, weighting="none", transfer_every=20, transfer_rate=rate)
    found, _ = carried_out(
        tmp_path,
        asked(peers, task=Quadratic(targets=VECTORS[:peers]), strategy=strategy, optimizer=Sgd(learning_rate=0.02),
              devices=MixedDevices(speeds=("100 samples/s", "70 samples/s")), stop=Stop(time="6 s"),
              network=Uniform(rate="300 kbit/s", delay="30 ms")),
    )  # fmt: skip
    given = [message for message in said if message.scalars[0] == 2.0]
    early = [message for message in given if message.step < 200]
    assert len(early) > 5 * (peers - 1)
    expected = -0.02 / peers * sum(made)
    for peer in found:
        np.testing.assert_allclose(peer.weights, expected, atol=2e-4)


@pytest.mark.slow
def test_dlion_that_drops_sends_of_the_newest_gradient_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after weights were handed over, which takes several steps: what was made meanwhile is dropped with the rest."""
    made = gradients(monkeypatch)
    said = listen(monkeypatch)
    targets = normal_targets(4, 2000, seed=6)
    strategy = DLion(batching=False, weighting="none", transfer_every=20, keep=False)
    carried_out(
        tmp_path,
        asked(4, task=Quadratic(targets=targets, noise=0.5), strategy=strategy, network=Uniform(rate="1 Mbit/s", delay="30 ms"),
              optimizer=Sgd(learning_rate=0.02), devices=MixedDevices(speeds=("100 samples/s", "70 samples/s")),
              stop=Stop(time="2 s")),
    )  # fmt: skip
    given: set[tuple[int, int]] = set()
    after_weights = 0
    for message in said:
        if message.scalars[0] == 2.0:
            given.add((message.source, message.target))
        elif message.scalars[0] == 0.0:
            newest = made[message.source][message.step - 1]  # `apply` has counted its step
            np.testing.assert_allclose(message.payload.values, newest[message.payload.where()], rtol=1e-5, atol=1e-6)
            after_weights += (message.source, message.target) in given
    assert after_weights >= 3


def test_dlion_that_settles_its_ledgers_is_refused_where_messages_overtake_each_other() -> None:
    """The books are exact only where messages keep their order; without a transfer, or without a debt, there are none."""
    disorder = Uniform(rate="300 kbit/s", delay="30 ms", jitter="25 ms", reorder=True)
    with pytest.raises(ConfigError, match=r"network\.reorder.*overtake.*leave reorder out"):
        build(asked(3, strategy=DLion(), network=disorder))
    for strategy in (DLion(transfer_every=0), DLion(keep=False)):
        build(asked(3, strategy=strategy, network=disorder))
    build(asked(3, strategy=DLion(), network=Uniform(rate="300 kbit/s", delay="30 ms", jitter="25 ms")))


def test_dlion_asks_the_peer_with_the_lowest_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every peer asks once a round of transfers, when all have told their losses of that round; the best asks nobody."""
    said = listen(monkeypatch)
    strategy = DLion(batching=False, weighting="none", transfer_every=20)
    targets = tuple((float(x),) * 40 for x in (1, 2, 3, -9))  # the mean, where all go, lies nearest to peer 0's target
    carried_out(
        tmp_path,
        asked(4, task=Quadratic(targets=targets), strategy=strategy, network=Uniform(rate="20 Mbit/s", delay="20 ms"),
              optimizer=Sgd(learning_rate=0.05), devices=MixedDevices(speeds=("100 samples/s", "50 samples/s")),
              stop=Stop(steps=200)),
    )  # fmt: skip
    asks = [message for message in said if message.scalars[0] == 1.0]
    assert {message.source for message in asks} == {1, 2, 3}
    assert {message.target for message in asks} == {0}
    losses: dict[int, dict[int, float]] = {peer: {} for peer in range(4)}
    for message in said:
        losses[message.source][message.step // 20] = message.scalars[5]
    assert all(told[0] == 0.0 for told in losses.values())
    assert min(losses, key=lambda peer: losses[peer][5]) == 0
    for source in (1, 2, 3):
        steps = [message.step for message in asks if message.source == source]
        assert len(steps) >= 4
        assert min(np.diff(steps)) >= 15


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.1, 1000.0], ids=["converging", "diverging"])
def test_dlion_tells_eleven_finite_numbers_within_their_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    said = listen(monkeypatch)
    experiment = asked(4, task=Quadratic(targets=VECTORS[:4]), strategy=DLion(transfer_every=5, batching=rate < 1),
                       optimizer=Sgd(learning_rate=rate), stop=Stop(steps=200))  # fmt: skip
    with np.errstate(all="ignore"):
        carried_out(tmp_path, experiment)
    assert {message.scalars[0] for message in said} == {0.0, 1.0, 2.0, 3.0, 4.0}
    low = (0, 1, 0, 0, 0, -1e30, -1, 0, 0, 0, 0)
    high = (4, 1e6, 1e12, 1e12, 1e9, 1e30, 400, 3, 400, 600, 600)
    for message in said:
        assert len(message.scalars) == 11
        assert all(least <= number <= most for least, number, most in zip(low, message.scalars, high, strict=True))
    if rate > 1:
        assert any(message.scalars[5] == 1e30 for message in said)


@pytest.mark.slow
def test_dlion_goes_on_when_the_giver_or_a_taker_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any moment of a transfer over slow links."""
    strategy = DLion(batching=False, transfer_every=4)
    for at_ms in range(900, 1300, 130):
        found, outcome = carried_out(
            tmp_path,
            asked(5, task=Quadratic(targets=VECTORS[:5]), strategy=strategy, stop=Stop(steps=150),
                  optimizer=Sgd(learning_rate=0.02), network=Uniform(rate="300 kbit/s", delay="10 ms")),
            [(at_ms * 10**6, 0), ((at_ms + 35) * 10**6, 3)],
        )  # fmt: skip
        assert sorted(outcome.peers_lost) == [0, 3]
        assert all(peer.step == 150 and np.isfinite(peer.weights).all() for peer in found if peer.id in (1, 2, 4))


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
