"""Scores of models: the loss and accuracy of each peer and of their mean, on the test set and on the validation set."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from grapevine.experiments.results.outcome import consensus_distance


class Evaluate(msgspec.Struct, array_like=True, tag=True, frozen=True):
    """An order to score the snapshot with this index."""

    index: int
    time_ns: int
    peers: list[int]


class Score(msgspec.Struct, array_like=True, tag=True, frozen=True):
    """The scores of one snapshot on the test set and on the validation set; lists are in the order of `peers`."""

    index: int
    time_ns: int
    peers: list[int]
    losses: list[float]
    accuracies: list[float]
    accuracy_of_mean: float
    validation_losses: list[float]
    validation_accuracies: list[float]
    validation_accuracy_of_mean: float
    consensus_distance: float


def score(problem: Any, weights: np.ndarray, task: Evaluate) -> Score:
    """Score several peers' weights (float32 [k, size]) and their mean, on the test and the validation set."""
    mean = weights.mean(axis=0, dtype=np.float64).astype(np.float32)
    models = np.concatenate([weights, mean[None]])
    losses, accuracies = problem.evaluate(models, "test")
    validation_losses, validation_accuracies = problem.evaluate(models, "validation")
    return Score(
        task.index,
        task.time_ns,
        task.peers,
        [float(value) for value in losses[:-1]],
        [float(value) for value in accuracies[:-1]],
        float(accuracies[-1]),
        [float(value) for value in validation_losses[:-1]],
        [float(value) for value in validation_accuracies[:-1]],
        float(validation_accuracies[-1]),
        consensus_distance(weights),
    )
