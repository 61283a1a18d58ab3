"""Scores of live fleets: late, without an evaluator, and where there is no room to keep what is to be scored."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from grapevine import Experiment, Result
from grapevine.experiments.config.experiment import Processes, Record, Stop, Virtual
from grapevine.experiments.fleet import build
from grapevine.experiments.results.recorder import Recorder
from grapevine.experiments.results.summary import summarise
from grapevine.experiments.run import run
from grapevine.experiments.tasks import Quadratic, QuadraticProblem
from grapevine.experiments.tasks.base import HeldOut
from grapevine.experiments.worlds.collector import Collector
from grapevine.experiments.worlds.interrupt import Interrupt
from grapevine.experiments.worlds.peer_report import FINAL, Report
from grapevine.experiments.worlds.processes import control, evaluation, snapshots
from grapevine.experiments.worlds.processes.evaluation import Kept, Scoring
from grapevine.experiments.worlds.processes.launcher import ProcessesWorld
from grapevine.experiments.worlds.processes.snapshots import Snapshots
from grapevine.experiments.worlds.scoring import Evaluate, Score, score
from grapevine.netem.devices.menu import UniformDevices
from grapevine.peer.strategies import Solo
from grapevine.topology.graphs.menu import Complete
from tests.experiments.worlds.processes.stand import Stand

RECORDS = 40  # more than the files that the peers share hold here


@pytest.fixture(autouse=True)
def few_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "MANY_SLOTS", 2)


def weights_at(index: int, peer: int, size: int) -> np.ndarray:
    """The weights of a made-up peer: other ones at every record."""
    return np.random.default_rng([index + 1, peer]).normal(size=size).astype(np.float32)


def time_ns(index: int) -> int:
    """When a record is: one a second, and the end after all of them."""
    return (RECORDS if index == FINAL else index) * 10**9


class Live:
    """A live world of two peers without processes; `step` is what happens at a record instant."""

    def __init__(self, folder: Path, accuracy: float | None = None) -> None:
        stop = Stop(steps=RECORDS, accuracy=accuracy)
        self.fleet = build(Experiment(peers=2, topology=Complete(), strategy=Solo(), world=Processes(), stop=stop))
        self.collector = Collector(self.fleet, Recorder(folder / "run", "", {}), lambda status: None)
        self.world = ProcessesWorld(self.fleet, self.collector, Interrupt())
        self.world.peers = {peer: Stand(f"peer {peer}") for peer in range(2)}
        self.world.evaluator = self.evaluator = Stand("evaluator")
        self.snapshots = Snapshots(folder, 2, self.fleet.problem.size, create=True)
        self.world.scoring.snapshots = self.snapshots

    def step(self, index: int) -> None:
        for peer, child in self.world.peers.items():
            self.snapshots.write(index, peer, weights_at(index, peer, self.fleet.problem.size))
            step = RECORDS if index == FINAL else index
            report = Report(peer, index, time_ns(index), step, 1.0, 1e6, [], [], [], 0, 0, {})
            self.world._take(child, report)

    def train(self) -> None:
        for index in (*range(RECORDS), FINAL):
            self.step(index)

    def end(self) -> dict[str, Any]:
        self.world._score_the_end()
        weights = np.array(self.snapshots.last(self.fleet.problem.initial))
        outcome = self.collector.outcome(self.world.completed, self.world.reason, 1.0, weights)
        summary = summarise(outcome, self.fleet.experiment, spectral_gap=1.0)
        self.collector.recorder.finish(summary, weights)
        return summary

    def scores(self, index: int) -> Score:
        """The scores of a record, worked out from its own weights."""
        weights = np.stack([weights_at(index, peer, self.fleet.problem.size) for peer in range(2)])
        return score(self.fleet.problem, weights, Evaluate(index, time_ns(index), [0, 1]))

    def recorded(self, name: str, peer: int = -1) -> list[float]:
        """What was written down under a name, in order of time."""
        metrics = Result.read(self.collector.recorder.folder).metrics.sort_values("time_s", kind="stable")
        return metrics.query("peer == @peer and name == @name")["value"].tolist()


def killed(live: Live) -> None:
    live.evaluator.process.exitcode = 3
    live.evaluator.theirs.close()


def silent(live: Live) -> None:
    live.world.attention.s = 1e9


def raising(live: Live) -> None:
    live.evaluator.speak(control.Failed("Traceback (most recent call last):\nMemoryError: no room"))
    live.evaluator.theirs.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loses", "why"), [(killed, "ended with status 3"), (silent, "no sign of life"), (raising, "MemoryError: no room")]
)
def test_without_an_evaluator_every_record_is_scored_from_its_own_weights(
    tmp_path: Path, loses: Callable[[Live], None], why: str
) -> None:
    """It answers nothing, and is gone at the end: the peers have long written over what it was given."""
    live = Live(tmp_path)
    live.train()
    assert live.snapshots.read(0, [0, 1]) is None
    loses(live)
    summary = live.end()
    expected = [live.scores(index) for index in (*range(RECORDS), FINAL)]
    for name, field in (("accuracy_mean", "accuracies"), ("validation_loss_mean", "validation_losses")):
        assert live.recorded(name) == [float(np.mean(getattr(score, field))) for score in expected]
    assert live.recorded("validation_accuracy", peer=1) == [score.validation_accuracies[1] for score in expected]
    assert summary["completed"]
    assert summary["accuracy_mean"] == float(np.mean(expected[-1].accuracies))  # not those of the record scored last
    assert summary["validation_accuracy_of_mean"] == expected[-1].validation_accuracy_of_mean
    assert [warning for warning in summary["warnings"] if "evaluator was lost" in warning and why in warning]
    assert not [warning for warning in summary["warnings"] if "have no scores" in warning]


def test_what_the_evaluator_came_too_late_for_is_scored_at_the_end(tmp_path: Path) -> None:
    live = Live(tmp_path)
    live.train()
    given = sorted(live.world.scoring.given - {FINAL})
    for index in given:
        live.evaluator.speak(control.Unscored(index))
    live.evaluator.speak(live.scores(FINAL))
    live.end()
    assert given
    assert live.recorded("loss_mean")[:-1] == [float(np.mean(live.scores(index).losses)) for index in range(RECORDS)]


def test_an_evaluator_that_keeps_up_leaves_nothing_to_keep(tmp_path: Path) -> None:
    live = Live(tmp_path)
    for index in range(RECORDS):
        live.step(index)
        live.world._take(live.evaluator, live.scores(index))
        assert not live.world.scoring.due
    assert live.world.scoring.kept._file is None


def test_without_room_no_time_to_accuracy_is_invented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = Live(tmp_path)
    live.world.scoring.kept = Kept(limit_bytes=0)
    end_ns, loss, share = time_ns(FINAL), [0.1] * 2, [0.96] * 2
    good = Score(FINAL, end_ns, [0, 1], loss, share, 0.96, loss, share, 0.96, 0.0)
    live.train()
    live.world._take(live.evaluator, good)
    killed(live)
    summary = live.end()
    assert summary["accuracy_mean"] == 0.96
    assert set(summary["time_to_accuracy_s"].values()) == {None}
    assert set(summary["time_to_validation_accuracy_s"].values()) == {None}
    lost = RECORDS - live.snapshots.slots
    assert any(f"{lost} of {RECORDS + 1} records have no scores" in warning for warning in summary["warnings"])


def test_a_task_that_cannot_be_scored_is_the_named_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = Live(tmp_path)

    def evaluate(*_: Any) -> Any:
        raise RuntimeError("a model of the wrong shape")

    monkeypatch.setattr(live.fleet.problem, "evaluate", evaluate)
    live.train()
    raising(live)
    summary = live.end()
    assert not summary["completed"]
    line = evaluate.__code__.co_firstlineno + 1
    place = f"tests/experiments/worlds/processes/test_evaluation.py, line {line}, in evaluate"
    assert summary["reason"] == f"scoring raised RuntimeError: a model of the wrong shape ({place})"
    assert not [warning for warning in summary["warnings"] if "had neither the time" in warning]
    assert summary["accuracy_mean"] is None
    assert [warning for warning in summary["warnings"] if "a model of the wrong shape" in warning]


def test_after_an_interrupt_nothing_is_scored_here(tmp_path: Path) -> None:
    live = Live(tmp_path)
    live.train()
    killed(live)
    live.world.interrupt.requested = True
    live.end()
    assert live.recorded("loss_mean") == []


def test_an_evaluator_is_silent_once_the_launcher_has_listened_long_enough() -> None:
    evaluator, waits = Stand("evaluator"), Scoring(silence_s=10.0, setup_s=100.0)
    evaluator.heard_s = 2.0
    assert not waits.is_silent(evaluator, 12.0)
    assert waits.is_silent(evaluator, 12.1)
    evaluator.heard_s = 12.2
    assert not waits.is_silent(evaluator, 12.3)


def test_one_that_is_set_up_may_take_longer() -> None:
    evaluator, waits = Stand("evaluator"), Scoring(silence_s=10.0, setup_s=100.0)
    assert not waits.is_silent(evaluator, 100.0)
    assert waits.is_silent(evaluator, 100.1)


def test_a_score_stops_the_run_by_validation_and_not_by_test(tmp_path: Path) -> None:
    live = Live(tmp_path, accuracy=0.9)
    by_test = Score(0, 0, [0, 1], [0.1] * 2, [1.0] * 2, 1.0, [0.1] * 2, [0.89] * 2, 0.99, 0.0)
    live.world._take(live.evaluator, by_test)
    assert live.world.reason == ""
    by_validation = Score(1, 10**9, [0, 1], [0.1] * 2, [0.0] * 2, 0.0, [0.1] * 2, [0.875, 0.9375], 0.0, 0.0)
    live.world._take(live.evaluator, by_validation)
    assert live.world.reason == "validation accuracy 0.9 reached at 1 s (90.6%)"


@pytest.mark.slow
def test_a_virtual_run_stops_by_validation_and_tells_times_by_test(tmp_path: Path) -> None:
    devices, record = UniformDevices(speed="2000 samples/s"), Record(every="1 ms", report=False)
    stop = Stop(steps=400, accuracy=0.8)
    result = run(Experiment(peers=4, world=Virtual(), devices=devices, stop=stop, record=record), out=tmp_path / "run")
    fleet = result.metrics.query("peer == -1").drop_duplicates(["time_s", "name"])
    lines = fleet.pivot(index="time_s", columns="name", values="value")
    validation, test = lines["validation_accuracy_mean"], lines["accuracy_mean"]
    assert result.summary["reason"].startswith("validation accuracy 0.8 reached")
    assert (validation.iloc[:-1] < 0.8).all()
    assert validation.iloc[-1] >= 0.8
    for line, key in ((test, "time_to_accuracy_s"), (validation, "time_to_validation_accuracy_s")):
        for level, told in result.summary[key].items():
            reached = line[line >= float(level)]
            assert told == (reached.index[0] if len(reached) else None)
    assert test.tolist() != validation.tolist()
    assert result.summary["record_every_s"] == 0.001


class Spoilt(Quadratic, frozen=True):
    """Gives nan whatever the weights are, as data with nan in them do."""

    def problem(self, *given: Any) -> Any:
        return SpoiltProblem(np.ones((2, 1)), np.zeros(1), 0.0)


class SpoiltProblem(QuadraticProblem):
    def gradients(self, weights: np.ndarray, batches: Any) -> tuple[np.ndarray, np.ndarray]:
        return np.full(len(weights), np.nan), np.full_like(weights, np.nan)

    def evaluate(self, weights: np.ndarray, data: HeldOut = "test") -> tuple[np.ndarray, np.ndarray]:
        return np.full(len(weights), np.nan), np.full(len(weights), np.nan)


def test_a_task_that_gives_nan_from_the_start_is_not_blamed_on_the_learning_rate(tmp_path: Path) -> None:
    result = run(Experiment(peers=2, topology=Complete(), task=Spoilt(), world=Virtual(), stop=Stop(steps=3)), tmp_path / "run")
    said = [warning for warning in result.summary["warnings"] if "nan" in warning]
    assert len(said) == 1
    assert "before the first step already" in said[0]
    assert "learning_rate" not in said[0]


def test_kept_weights_come_back_and_room_is_used_again() -> None:
    rows = {index: np.random.default_rng(index).normal(size=(2, 3)).astype(np.float32) for index in range(4)}
    kept = Kept(limit_bytes=3 * 24)
    assert [kept.put(index, rows[index]) for index in range(4)] == [True, True, True, False]
    kept.drop(1)
    kept.drop(3)  # never there
    assert kept.put(3, rows[3][:1])
    assert (1 in kept, 3 in kept) == (False, True)
    for index, k in ((0, 2), (2, 2), (3, 1)):
        assert np.array_equal(kept.get(index), rows[index][:k])


def test_a_full_disk_keeps_nothing_and_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    assert kept.put(0, np.ones((2, 3), np.float32))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(kept, "_file", SimpleNamespace(seek=lambda at: None, write=full, flush=lambda: None))
    assert not kept.put(1, np.ones((2, 3), np.float32))
    assert 1 not in kept
    monkeypatch.setattr(evaluation.shutil, "disk_usage", lambda place: SimpleNamespace(free=60))
    assert [Kept().put(0, np.ones((rows, 3), np.float32)) for rows in (2, 3)] == [True, False]


def test_times_are_in_order_however_late_the_scores_come(tmp_path: Path) -> None:
    live = Live(tmp_path)
    shares = [0.1, 0.55, 0.65, 0.72]
    for index in (3, 1, 0, 2):
        share = [shares[index]] * 2
        live.collector.scored(Score(index, index * 10**9, [0, 1], [1.0] * 2, share, 0.5, [1.0] * 2, share, 0.5, 0.0))
    outcome = live.collector.outcome(True, "", 1.0, np.zeros((2, 1), np.float32))
    assert outcome.accuracy_history == [(float(index), share) for index, share in enumerate(shares)]
    assert outcome.accuracy == [0.72, 0.72]
    assert live.collector.scores.validation_accuracy_mean == pytest.approx(0.72)
    assert outcome.loss_initial == 1.0
    assert math.isnan(live.collector.train_loss[0])
