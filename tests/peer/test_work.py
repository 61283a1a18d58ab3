"""The verbs by which a strategy asks for work, without any world: what they await, count and refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from grapevine.peer.effects import Work
from grapevine.peer.peer import Peer
from grapevine.peer.work import NoData
from tests.helpers import make_peer, run_until_blocked

ONES = np.ones(8, np.float32)


def asking(*asks: str) -> Peer:
    peer = make_peer(0, {}, held_out_samples=30)
    peer.asks = frozenset(asks)
    peer.outputs, peer.probe_samples = 3, 12
    return peer


def awaited(work: Any) -> Work:
    (effect,), _, _ = run_until_blocked(work)
    assert isinstance(effect, Work)
    return effect


def test_each_verb_awaits_its_work() -> None:
    peer = asking("clip", "targets", "predict", "solve")
    batch = peer.batch(5)
    found = [
        awaited(work)
        for work in (
            peer.gradient(batch=batch),
            peer.gradient(batch=peer.shard(), clip=2),
            peer.gradient(batch=batch, targets=np.zeros((5, 3))),
            peer.evaluate(),
            peer.evaluate(on="probe"),
            peer.predict(peer.probe()),
            peer.work("solve", rho=1.0),
        )
    ]
    names = ["gradient", "clip", "targets", "held-out", "probe", "predict", "solve"]
    assert [work.name for work in found] == names
    assert [work.count for work in found] == [5, 100, 5, 30, 12, 12, None]
    assert [work.weights for work in found] == [None] * 7
    assert found[0].batch is batch.batch
    assert found[1].arguments == {"clip": 2.0}
    assert found[2].arguments["targets"].dtype == np.float32
    assert found[6].arguments == {"rho": 1.0}


def test_weights_that_are_given_are_copied() -> None:
    peer, own = asking("predict", "solve"), np.arange(8.0)
    for ask in (
        lambda: peer.gradient(weights=own),
        lambda: peer.evaluate(weights=own),
        lambda: peer.predict(peer.batch(1), weights=own),
        lambda: peer.work("solve", weights=own),
    ):
        given = awaited(ask()).weights
        assert given is not None
        assert (given.dtype, given.tolist()) == (np.float32, list(range(8)))
        assert not np.shares_memory(given, own)


def test_fresh_minibatches_and_training_at_the_own_weights_are_counted() -> None:
    peer = asking("clip", "targets")
    batch = peer.batch(4)
    for counted, ask in (
        (True, lambda: peer.gradient()),
        (True, lambda: peer.gradient(batch=batch)),
        (True, lambda: peer.gradient(batch=peer.shard(), clip=1.0)),
        (True, lambda: peer.gradient(weights=ONES)),
        (False, lambda: peer.gradient(weights=ONES, batch=batch)),
        (False, lambda: peer.gradient(batch=peer.probe(), targets=np.zeros((12, 3)))),
        (False, lambda: peer.gradient(batch=batch, targets=np.zeros((4, 3)))),
    ):
        before, steps = peer.samples, peer.speed.steps
        work = ask()
        effect = awaited(work)
        peer.now_ns = peer.instant_ns + 100
        assert run_until_blocked(work, (0.25, ONES))[1] is ONES
        assert peer.samples - before == (effect.count if counted else 0)
        assert peer.speed.steps - steps == counted
        assert np.array_equal(peer.take_loss(), 0.25 if counted else np.nan, equal_nan=True)
        assert peer.loss == 0.25


def test_the_labels_of_the_probe_set_stay_hidden() -> None:
    peer = asking("clip", "targets")
    for ask in (
        lambda: peer.gradient(batch=peer.probe()),
        lambda: peer.gradient(batch=peer.probe(), clip=1.0),
        lambda: peer.gradient(batch=peer.probe(), weights=ONES),
    ):
        with pytest.raises(ValueError, match=r"labels of the probe samples: give targets .* or a handle from peer.batch"):
            run_until_blocked(ask())


def test_a_score_has_names() -> None:
    peer = asking()
    work = peer.evaluate(on="probe")
    run_until_blocked(work)
    _, score, _ = run_until_blocked(work, (0.5, 0.75))
    assert (score.loss, score.accuracy) == (0.5, 0.75)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda peer: peer.gradient(clip=1.0), r'"clip" but does not declare it: write asks = \("clip",\) on its class'),
        (lambda peer: peer.gradient(targets=ONES), r'asks = \("targets",\)'),
        (lambda peer: peer.predict(peer.batch(2)), r'asks = \("predict",\)'),
        (lambda peer: peer.work("histogram"), r'asks = \("histogram",\)'),
        (lambda peer: peer.work("predict"), "peer.predict"),
        (lambda peer: peer.gradient(weights=np.ones(7)), r"shape \[7\]: \[8\] is needed"),
        (lambda peer: peer.gradient(batch=np.arange(3)), "ndarray is not a handle of samples"),
        (lambda peer: peer.evaluate(on="test"), '"held-out" or on "probe"'),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_cure(ask: Callable[[Peer], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        run_until_blocked(ask(asking()))


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda peer: peer.gradient(clip=0.0), "above 0 and finite"),
        (lambda peer: peer.gradient(clip=float("nan")), "above 0 and finite"),
        (lambda peer: peer.gradient(clip=1.0, targets=np.zeros((32, 3))), "leave one of"),
        (lambda peer: peer.gradient(targets=np.zeros((32, 4))), r"\[32, 4\]: \[32, 3\] is needed"),
        (lambda peer: peer.gradient(targets=np.full((32, 3), np.inf)), "nan or infinity"),
    ],
)
def test_arguments_out_of_range_are_refused(ask: Callable[[Peer], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        run_until_blocked(ask(asking("clip", "targets")))


def test_what_there_is_none_of_is_refused() -> None:
    peer = make_peer(0, {})
    with pytest.raises(ValueError, match="held_out_share"):
        run_until_blocked(peer.evaluate())
    for ask in (peer.probe, lambda: run_until_blocked(peer.evaluate(on="probe"))):
        with pytest.raises(ValueError, match="probe_samples"):
            ask()
    with pytest.raises(ValueError, match="size = 0"):
        peer.batch(0)
    peer.data = NoData()
    with pytest.raises(RuntimeError, match="before a world"):
        peer.batch()
