"""The scores of a fleet so far: the latest of each peer, and the history of their means."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from grapevine.experiments.results.recorder import FLEET, Recorder
from grapevine.experiments.worlds.peer_report import FINAL
from grapevine.experiments.worlds.scoring import Evaluate, Score

KINDS = ("loss", "accuracy", "validation_loss", "validation_accuracy")


class ScoreHistory:
    """Takes the score of each record, in any order, and writes it into the run's tables."""

    def __init__(self, peers: int, recorder: Recorder) -> None:
        self.recorder = recorder
        self.latest: dict[str, list[float]] = {kind: [math.nan] * peers for kind in KINDS}
        """Kind -> each peer's latest score; nan = not scored."""
        self.accuracy_of_mean = math.nan
        self.validation_accuracy_mean = math.nan
        self.validation_accuracy_of_mean = math.nan
        self.loss_initial: float | None = None
        self.records_unscored = 0
        self._newest = -1.0  # the place of the record that the latest scores belong to
        self._history: list[tuple[float, float, float, float]] = []  # place, seconds, accuracy, validation accuracy

    def take(self, score: Score, steps: dict[int, int], bytes_sent: int) -> None:
        """Write one record's scores; `steps` (peer -> step) and `bytes_sent` (by all peers) are those of that record."""
        time_s, place = score.time_ns / 1e9, _place(score.index)
        found = (score.losses, score.accuracies, score.validation_losses, score.validation_accuracies)
        means = {f"{kind}_mean": float(np.mean(values)) for kind, values in zip(KINDS, found, strict=True)}
        newest = place > self._newest
        for kind, values in zip(KINDS, found, strict=True):
            for peer, value in zip(score.peers, values, strict=True):
                if newest:
                    self.latest[kind][peer] = value
                if kind.endswith("loss") or not math.isnan(value):
                    self.recorder.metric(time_s, peer, steps.get(peer, 0), kind, value)
        if newest:
            self._newest = place
            self.accuracy_of_mean = score.accuracy_of_mean
            self.validation_accuracy_mean = means["validation_accuracy_mean"]
            self.validation_accuracy_of_mean = score.validation_accuracy_of_mean
        if score.index == 0:
            self.loss_initial = means["loss_mean"]
        if not math.isnan(means["accuracy_mean"]):
            self._history.append((place, time_s, means["accuracy_mean"], means["validation_accuracy_mean"]))
        fleet = {
            **means,
            "accuracy_of_mean": score.accuracy_of_mean,
            "validation_accuracy_of_mean": score.validation_accuracy_of_mean,
            "consensus_distance": score.consensus_distance,
            "bytes_sent": float(bytes_sent),
        }
        step = int(np.mean(list(steps.values()))) if steps else 0
        for name, value in fleet.items():
            if not math.isnan(value):
                self.recorder.metric(time_s, FLEET, step, name, value)

    def skip(self, task: Evaluate) -> None:
        """Note a record whose scores are not known."""
        self.records_unscored += 1
        self._history.append((_place(task.index), task.time_ns / 1e9, math.nan, math.nan))

    def for_outcome(self) -> dict[str, Any]:
        """Return the fields of the outcome that are scores."""
        history = sorted(self._history)
        return {
            **self.latest,
            "accuracy_of_mean": self.accuracy_of_mean,
            "validation_accuracy_of_mean": self.validation_accuracy_of_mean,
            "accuracy_history": [(time_s, accuracy) for _, time_s, accuracy, _ in history],
            "validation_accuracy_history": [(time_s, accuracy) for _, time_s, _, accuracy in history],
            "loss_initial": self.loss_initial,
            "records_unscored": self.records_unscored,
        }


def _place(index: int) -> float:
    """Return the place of a record in the order of time; the record at the end comes last."""
    return math.inf if index == FINAL else float(index)
