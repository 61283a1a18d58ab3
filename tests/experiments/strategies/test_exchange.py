"""Exact laws of all-reduce and ad-psgd, through the whole stack in virtual time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine import ConfigError
from grapevine.experiments.config.experiment import Stop
from grapevine.experiments.fleet import build
from grapevine.experiments.tasks import Quadratic
from grapevine.netem import MixedDevices, Uniform
from grapevine.peer.codecs import Float16
from grapevine.peer.peer import Peer
from grapevine.peer.strategies.adpsgd import ADPSGD
from grapevine.peer.strategies.all_reduce import AllReduce
from grapevine.peer.wire import HEADER_BYTES
from grapevine.topology.graphs.menu import Complete, ErdosRenyi, Ring, Torus
from tests.experiments.strategies.fleets import RATE, TARGETS, asked, carried_out, gradients, listen, make_world, normal_targets

VECTORS = normal_targets(8, 50)


@pytest.mark.parametrize("peers", [1, 2, 3, 8])
def test_all_reduce_walks_on_the_exact_mean(tmp_path: Path, peers: int) -> None:
    task = Quadratic(targets=VECTORS[:peers])
    found, _ = carried_out(tmp_path, asked(peers, task=task, strategy=AllReduce(), stop=Stop(steps=20)))
    expected = np.mean(VECTORS[:peers], axis=0) * (1 - (1 - RATE) ** 20)
    for peer in found:
        assert np.array_equal(peer.weights, found[0].weights)
        np.testing.assert_allclose(peer.weights, expected, atol=1e-6 * np.abs(expected).max() * 5)


@pytest.mark.parametrize("peers", [2, 3, 5, 8])
def test_all_reduce_is_the_mean_to_a_millionth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peers: int) -> None:
    """What a step applies is the mean of the gradients of all peers, to 1e-6 of the largest; sizes that n does not divide."""
    made = gradients(monkeypatch)
    applied: dict[int, list[np.ndarray]] = {}
    apply = Peer.apply
    monkeypatch.setattr(Peer, "apply", lambda peer, mean: applied.setdefault(peer.id, []).append(mean) or apply(peer, mean))
    carried_out(tmp_path, asked(peers, task=Quadratic(targets=VECTORS[:peers], noise=1.0), strategy=AllReduce()))
    for peer in range(peers):
        assert len(applied[peer]) == 30
        for step, mean in enumerate(applied[peer]):
            exact = np.mean([made[other][step] for other in range(peers)], axis=0)
            np.testing.assert_allclose(mean, exact, rtol=0, atol=1e-6 * max(np.abs(made[other][step]).max() for other in made))


def test_all_reduce_moves_the_least_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 m (n - 1) / n bytes a peer and step, and at most 2 (n - 1) heads and headers around them."""
    n, steps, size = 8, 3, 16_000
    said = listen(monkeypatch)
    _, outcome = carried_out(
        tmp_path, asked(n, size, strategy=AllReduce(), stop=Stop(steps=steps), network=Uniform(rate="100 Mbit/s"))
    )
    numbers = sum(4 * len(message.payload.values) for message in said)
    assert numbers == steps * n * 2 * (4 * size) * (n - 1) // n
    turns = [message for message in said if message.scalars[0] == 0.0]
    assert len(turns) == steps * n * 2 * (n - 1)
    framing = outcome.bytes_sent - numbers
    assert 0 < framing < len(said) * (4 * HEADER_BYTES + 64)


@pytest.mark.parametrize("peers", [2, 5])
def test_all_reduce_walks_on_the_exact_mean_where_messages_overtake_each_other(tmp_path: Path, peers: int) -> None:
    """Parts are taken by their turn, so links may change the order: mean (1 - (1 - eta)^t), the same bits everywhere."""
    network = Uniform(rate="1 Mbit/s", delay="20 ms", jitter="19 ms", reorder=True)
    task = Quadratic(targets=VECTORS[:peers])
    found, _ = carried_out(tmp_path, asked(peers, task=task, strategy=AllReduce(), network=network, stop=Stop(steps=40)))
    expected = np.mean(VECTORS[:peers], axis=0) * (1 - (1 - RATE) ** 40)
    for peer in found:
        assert np.array_equal(peer.weights, found[0].weights)
        np.testing.assert_allclose(peer.weights, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_all_reduce_with_a_rounding_codec_keeps_equal_weights(tmp_path: Path) -> None:
    task = Quadratic(targets=VECTORS)
    found, _ = carried_out(tmp_path, asked(8, task=task, strategy=AllReduce(), codec=Float16(), stop=Stop(steps=200)))
    for peer in found:
        assert np.array_equal(peer.weights, found[0].weights)
    np.testing.assert_allclose(found[0].weights, np.mean(VECTORS, axis=0), atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("reorder", [False, True])
@pytest.mark.parametrize("at_ms", range(1, 160, 6))
def test_all_reduce_goes_on_with_the_survivors(tmp_path: Path, at_ms: int, reorder: bool) -> None:
    """Whenever one or two die, in whatever turn of the ring, whether or not messages overtake each other: the others end with
    equal weights, all steps made."""
    task = Quadratic(targets=VECTORS[:5])
    losses = [(at_ms * 10**6, 3), (at_ms * 10**6 + 7_300_000, 1)][: 1 + at_ms % 2]
    found, outcome = carried_out(
        tmp_path,
        asked(
            5,
            task=task,
            strategy=AllReduce(),
            stop=Stop(steps=6),
            network=Uniform(rate="1 Mbit/s", delay="2 ms", jitter="2 ms" if reorder else "1 ms", reorder=reorder),
        ),
        losses,
    )
    alive = [peer for peer in found if peer.id not in outcome.peers_lost]
    assert len(alive) == 5 - len(losses)
    for peer in alive:
        assert peer.step == 6
        assert np.array_equal(peer.weights, alive[0].weights)


def test_all_reduce_on_a_ring_is_refused_with_the_cure() -> None:
    with pytest.raises(ConfigError, match=r"every peer needs a link to every other peer.*complete"):
        build(asked(8, topology=Ring(), strategy=AllReduce()))


@pytest.mark.slow
@pytest.mark.parametrize("graph", [Ring(), Torus(), ErdosRenyi(p=0.5)])
def test_adpsgd_keeps_the_sum(tmp_path: Path, graph: object) -> None:
    """Without gradients (all targets where the peers are) nothing moves; with them the sum moves by gradients alone."""
    peers = 9 if isinstance(graph, Torus) else 8
    targets = np.array([*TARGETS, 7.0][:peers])
    devices = MixedDevices(speeds=("100 samples/s", "70 samples/s", "310 samples/s"))
    found, _ = carried_out(
        tmp_path,
        asked(peers, topology=graph, devices=devices, strategy=ADPSGD(), stop=Stop(steps=400),
              task=Quadratic(targets=tuple(targets), dimension=3)),
    )  # fmt: skip
    weights = np.array([peer.weights for peer in found]).astype(float)
    assert weights.min() >= targets.min() - 1e-4
    assert weights.max() <= targets.max() + 1e-4
    assert weights.std(axis=0).max() < 0.75 * targets.std()


def test_adpsgd_moves_the_sum_by_gradients_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = gradients(monkeypatch)
    found, _ = carried_out(tmp_path, asked(8, topology=Ring(), strategy=ADPSGD(), task=Quadratic(targets=VECTORS)))
    total = sum(peer.weights.astype(float) for peer in found)
    np.testing.assert_allclose(total, -RATE * sum(sum(each) for each in made.values()), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("graph", "peers", "edges"), [(Complete(), 4, 6), (Ring(), 5, 5)], ids=["complete", "ring"])
@pytest.mark.parametrize("speeds", [("100 samples/s",), ("100 samples/s", "70 samples/s", "310 samples/s")], ids=len)
def test_adpsgd_meets_along_every_edge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: Any, peers: int, edges: int, speeds: tuple[str, ...]
) -> None:
    """Also on an odd ring, and between peers that a bipartition would put on one side; no edge twice as often as another."""
    said = listen(monkeypatch)
    devices = MixedDevices(speeds=speeds)
    carried_out(tmp_path, asked(peers, 2, topology=graph, devices=devices, strategy=ADPSGD(), stop=Stop(steps=200)))
    met = Counter(frozenset(message[:2]) for message in said if message.scalars[0] == 1.0)
    assert len(met) == edges
    assert max(met.values()) < 2 * min(met.values())
    assert sum(met.values()) > 200 * peers / 3


@pytest.mark.slow
def test_adpsgd_keeps_the_sum_and_the_hull_without_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Averaging alone, from unequal models: whoever meets whom while it waits, sums stay and all models stay between them."""
    gradient = Peer.gradient

    async def none(peer: Peer) -> np.ndarray:
        return np.zeros_like(await gradient(peer))

    monkeypatch.setattr(Peer, "gradient", none)
    start = np.random.default_rng(3).normal(size=(6, 5)).astype(np.float32)
    for seed in range(20):
        speeds = tuple(f"{speed} samples/s" for speed in np.random.default_rng(seed).integers(20, 500, 6))
        world = make_world(
            tmp_path,
            asked(6, 5, seed=seed, devices=MixedDevices(speeds=speeds), strategy=ADPSGD(), stop=Stop(steps=8)),
        )
        world.weights[:] = start
        assert world.run().completed
        np.testing.assert_allclose(world.weights.sum(axis=0), start.sum(axis=0), atol=1e-5)
        assert (world.weights <= start.max(axis=0) + 1e-6).all()
        assert (world.weights >= start.min(axis=0) - 1e-6).all()


@pytest.mark.slow
def test_adpsgd_ends_in_hundreds_of_schedules(tmp_path: Path) -> None:
    """Any graph, speed, jitter, and peers that die meanwhile: nobody waits for ever."""
    rng = np.random.default_rng(11)
    for seed in range(200):
        peers = int(rng.integers(3, 7))
        graph = [Ring(), ErdosRenyi(p=0.7), Complete()][seed % 3]
        speeds = tuple(f"{speed} samples/s" for speed in rng.integers(20, 500, peers))
        losses = [(int(rng.integers(0, 10**8)), int(rng.integers(peers)))] if seed % 4 == 0 else []
        experiment = asked(
            peers, 2, seed=seed, topology=graph, devices=MixedDevices(speeds=speeds), strategy=ADPSGD(), stop=Stop(steps=4),
            network=Uniform(rate="1 Mbit/s", delay="8 ms", jitter="8 ms"),
        )  # fmt: skip
        found, outcome = carried_out(tmp_path, experiment, losses)
        assert all(peer.step == 4 for peer in found if peer.id not in outcome.peers_lost)
