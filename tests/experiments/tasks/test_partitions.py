"""Every index once, the minimum kept, the same seed the same split; and refusals in words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grapevine import Experiment
from grapevine.experiments.config.experiment import Virtual
from grapevine.experiments.fleet import build
from grapevine.experiments.tasks.partitions import AnyPartition, Bootstrap, Dirichlet, Iid, Shards, Spared, skew
from grapevine.peer.strategies import AllReduce, FedAvg, ParameterServer, Strategy
from grapevine.topology.graphs.menu import Complete

seeds = st.integers(0, 2**31)


@st.composite
def splits(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Labels, and a number of peers that they suffice for."""
    labels = np.array(draw(st.lists(st.integers(0, 6), min_size=1, max_size=200)))
    return labels, draw(st.integers(1, min(len(labels), 30)))


def used_once(shards: list[np.ndarray], count: int) -> bool:
    return np.array_equal(np.sort(np.concatenate(shards)), np.arange(count))


@settings(max_examples=60, deadline=None)
@given(splits(), seeds)
def test_iid_uses_every_index_once_in_equal_shares(case: tuple[np.ndarray, int], seed: int) -> None:
    labels, peers = case
    shards = Iid().split(labels, peers, seed)
    sizes = [len(shard) for shard in shards]
    assert len(shards) == peers
    assert used_once(shards, len(labels))
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=100, deadline=None)
@given(splits(), seeds, st.sampled_from([1e-6, 0.01, 0.1, 1.0, 100.0]), st.booleans())
def test_dirichlet_uses_every_index_once_and_keeps_its_minimum(
    case: tuple[np.ndarray, int], seed: int, alpha: float, half: bool
) -> None:
    labels, peers = case
    minimum = None if half else len(labels) // peers  # as tight as can be: mending must do it
    shards = Dirichlet(alpha=alpha, minimum=minimum).split(labels, peers, seed)
    least = minimum or max(1, len(labels) // (2 * peers))
    assert len(shards) == peers
    assert used_once(shards, len(labels))
    assert min(len(shard) for shard in shards) >= least


@settings(max_examples=60, deadline=None)
@given(splits(), seeds, st.integers(1, 4))
def test_shards_use_every_index_once_and_few_classes(case: tuple[np.ndarray, int], seed: int, per_peer: int) -> None:
    labels, peers = case
    peers = max(1, peers // per_peer)
    if peers * per_peer > len(labels):
        per_peer = 1
    shards = Shards(per_peer=per_peer).split(labels, peers, seed)
    assert used_once(shards, len(labels))
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= per_peer  # each shard differs by one at most


def test_shards_of_whole_classes_give_two_labels_a_peer() -> None:
    labels = np.repeat(np.arange(10), 30)
    shards = Shards().split(labels, 5, seed=3)
    assert all(len(np.unique(labels[shard])) == 2 for shard in shards)


@pytest.mark.parametrize("partition", [Iid(), Dirichlet(alpha=0.1), Shards()])
def test_same_seed_same_split_and_another_seed_another(partition: AnyPartition) -> None:
    labels = np.random.default_rng(0).integers(0, 10, 500)
    first, again, other = (partition.split(labels, 7, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert all(np.all(np.diff(shard) > 0) for shard in first)


def test_smaller_alpha_is_more_skew_and_a_large_one_nearly_none() -> None:
    labels = np.random.default_rng(0).integers(0, 10, 5000)

    def distance(alpha: float) -> float:
        found = [skew(labels, Dirichlet(alpha=alpha).split(labels, 8, seed)) for seed in range(5)]
        return float(np.mean([row.distances for row in found if row]))

    distances = [distance(alpha) for alpha in (0.05, 0.5, 5.0, 1000.0)]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.6
    assert distances[-1] < 0.05


def test_every_peer_is_treated_alike_by_dirichlet() -> None:
    """The expected share of every peer is the same: no peer and no class has a place of its own."""
    labels = np.repeat(np.arange(5), 20)
    runs = 400
    sizes = np.mean([[len(s) for s in Dirichlet(alpha=0.3).split(labels, 4, seed)] for seed in range(runs)], axis=0)
    assert np.abs(sizes - 25).max() < 1.5  # sizes deviate by 8 or so: five standard errors are 2


def test_skew_is_known_for_one_class_a_peer_and_for_equal_shares() -> None:
    labels = np.repeat(np.arange(4), 6)
    apart = skew(labels, [np.flatnonzero(labels == label) for label in range(4)])
    alike = skew(labels, [np.arange(start, 24, 6) for start in range(6)])
    assert apart is not None
    assert alike is not None
    assert apart.sizes == [6] * 4
    assert apart.classes == [1] * 4
    assert apart.distances == pytest.approx([1 - 1 / 4] * 4)
    assert alike.classes == [4] * 6
    assert alike.distances == pytest.approx([0.0] * 6)
    assert skew(np.linspace(0, 1, 24), [np.arange(24)]) is None


@pytest.mark.parametrize(
    ("partition", "peers", "words"),
    [
        (Iid(), 21, ["21 peers", "20 training samples", "at most 20 peers"]),
        (Dirichlet(minimum=5), 5, ["minimum = 5", "set minimum to 4", "at most 4 peers"]),
        (Shards(per_peer=3), 7, ["per_peer = 3", "21 shards", "at most 6 peers"]),
    ],
)
def test_too_many_peers_are_refused_with_the_cure(partition: AnyPartition, peers: int, words: list[str]) -> None:
    with pytest.raises(ValueError, match="peers") as refusal:
        partition.split(np.arange(20) % 3, peers, 0)
    assert all(word in str(refusal.value) for word in words)


@pytest.mark.parametrize("partition", [Dirichlet(), Shards()])
def test_labels_that_are_no_classes_are_refused(partition: AnyPartition) -> None:
    with pytest.raises(ValueError, match='use "iid"'):
        partition.split(np.linspace(0, 1, 20), 2, 0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Dirichlet(alpha=0), "alpha = 0"),
        (lambda: Dirichlet(alpha=float("nan")), "alpha = nan"),
        (lambda: Dirichlet(minimum=0), "minimum = 0"),
        (lambda: Shards(per_peer=0), "per_peer = 0"),
    ],
)
def test_bad_fields_are_refused(make: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()  # type: ignore[operator]


def test_bootstrap_serves_more_peers_than_samples() -> None:
    labels = np.arange(10) % 3
    shards = Bootstrap(samples=40).split(labels, 50, seed=0)
    assert [len(shard) for shard in shards] == [40] * 50
    counts = np.bincount(np.concatenate(shards), minlength=10)
    assert len(counts) == 10
    assert np.all(np.abs(counts - 200) < 6 * np.sqrt(200))  # each of 2,000 draws hits each sample alike
    again = Bootstrap(samples=40).split(labels, 50, seed=0)
    assert all(np.array_equal(one, two) for one, two in zip(shards, again, strict=True))
    with pytest.raises(ValueError, match="expected 1 to 1,000,000"):
        Bootstrap(samples=0)


def test_peers_that_serve_hold_no_data() -> None:
    """The workers share all samples, as they would without the server."""
    labels = np.repeat(np.arange(10), 20)
    rule = Dirichlet(alpha=0.5)
    shards = Spared(partition=rule, servers=2).split(labels, 6, 3)
    assert [len(shard) for shard in shards[:2]] == [0, 0]
    for mine, alone in zip(shards[2:], rule.split(labels, 4, 3), strict=True):
        assert np.array_equal(mine, alone)
    found = skew(labels, shards)
    assert found is not None
    assert found.distances[:2] == [0.0, 0.0]


@pytest.mark.parametrize(("strategy", "servers"), [(ParameterServer(servers=2), 2), (FedAvg(), 1), (AllReduce(), 0)])
def test_a_fleet_gives_its_servers_no_data(strategy: Strategy, servers: int) -> None:
    experiment = Experiment(peers=5, world=Virtual(), topology=Complete(), strategy=strategy)
    samples = build(experiment).problem.samples
    assert samples[:servers] == [0] * servers
    assert min(samples[servers:]) > 200
    assert sum(samples) == 1437
