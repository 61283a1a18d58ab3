"""The problem of a model learnt from data (`LearningProblem`), and the interface of its learner (`Learner`)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from grapevine.experiments.tasks.base import Cost, HeldOut, Problem, forward, plain
from grapevine.experiments.tasks.partitions import Partition, Skew, count_labels, skew
from grapevine.experiments.tasks.sampling import Batch
from grapevine.peer.layout import Layout

Many = tuple[np.ndarray, np.ndarray]


class Learner(Protocol):
    """A model with its loss, which computes gradients and scores from flat weights; built in the process that uses it."""

    notes: list[str]

    def gradient(self, weights: np.ndarray, batch: Batch) -> tuple[float, np.ndarray]: ...

    def gradients(self, weights: np.ndarray, batches: Sequence[Batch]) -> Many: ...

    def clipped_gradients(self, weights: np.ndarray, batches: Sequence[Batch], clips: Sequence[float]) -> Many: ...

    def soft_gradients(self, weights: np.ndarray, batches: Sequence[Batch], targets: Sequence[np.ndarray]) -> Many: ...

    def measure(self, weights: np.ndarray, indices: np.ndarray, trained_on: np.ndarray) -> tuple[float, float]: ...

    def predict(self, weights: np.ndarray, indices: np.ndarray, trained_on: np.ndarray) -> np.ndarray: ...

    def evaluate(self, weights: np.ndarray, data: HeldOut = "test") -> Many: ...


class LearningProblem(Problem):
    """A model, its initial weights, training data split among the peers, a validation set and a test set.

    `make(arrays)` builds the learner, at its first use in each process; other processes must be able to import `make`. `data`
    holds `train_x`, `train_y`, and likewise `validation_` and `test_`, with samples along the first axis. The probe set is a
    part of the training data. The task that makes the problem sets `outputs`, if the model predicts, and `without`.
    """

    def __init__(
        self,
        *,
        initial: np.ndarray,
        layout: Layout,
        data: Mapping[str, np.ndarray],
        make: Callable[[Mapping[str, np.ndarray]], Learner],
        partition: Partition,
        peers: int,
        seed: int,
        preload: tuple[str, ...],
    ):
        super().__init__(initial, partition.split(data["train_y"], peers, seed), data, layout)
        self.preload = preload
        self.without: frozenset[str] = frozenset()
        """The standard work that this model does not offer."""
        self._make = make
        self._learner: Learner | None = None

    @property
    def label_counts(self) -> np.ndarray | None:
        """The number of samples of each label with which each peer trains, float64 [peers, classes]; None without classes.

        Samples of the probe set, and those that a peer keeps apart, do not count.
        """
        return count_labels(self.arrays["train_y"], self._shards())

    @property
    def skew(self) -> Skew | None:
        """The differences between the data with which the peers train; None if the labels are not classes."""
        return skew(self.arrays["train_y"], self._shards())

    def _shards(self) -> list[np.ndarray]:
        return [self.indices(peer) for peer in range(len(self.samples))]

    def offers(self) -> dict[str, Cost]:
        """Return all standard work except that in `without`."""
        by_outputs: dict[str, Cost] = {"targets": plain, "predict": forward} if self.outputs else {}
        return {name: cost for name, cost in {**super().offers(), **by_outputs}.items() if name not in self.without}

    def attach(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set the arrays after the problem has come to another process."""
        super().attach(arrays)
        self._learner = None

    def gradient(self, weights: np.ndarray, batch: Batch) -> tuple[float, np.ndarray]:
        """Return one peer's loss and gradient; the caller may keep the gradient (see Problem.gradient)."""
        return (self._learner or self._learn()).gradient(weights, batch)

    def gradients(self, weights: np.ndarray, batches: Sequence[Batch]) -> Many:
        """Return the losses [k] and gradients [k, size] of k peers, in new arrays."""
        return (self._learner or self._learn()).gradients(weights, batches)

    def clipped_gradients(self, weights: np.ndarray, batches: Sequence[Batch], clips: Sequence[float]) -> Many:
        """Return the same, with each sample's gradient clipped."""
        return (self._learner or self._learn()).clipped_gradients(weights, batches, clips)

    def soft_gradients(self, weights: np.ndarray, batches: Sequence[Batch], targets: Sequence[np.ndarray]) -> Many:
        """Return the same, towards soft targets: the loss is the cross entropy -sum_c t_c log p_c, its mean over the batch."""
        return (self._learner or self._learn()).soft_gradients(weights, batches, targets)

    def measure(self, peer: int, weights: np.ndarray, batch: Batch) -> tuple[float, float]:
        """Return the loss and accuracy of one model of a peer in evaluation mode: without dropout."""
        return (self._learner or self._learn()).measure(weights, batch.indices, self._trained_on(peer, batch))

    def predict(self, peer: int, weights: np.ndarray, batch: Batch) -> np.ndarray:
        """Return the model's outputs before any softmax, without dropout: float32 [samples, outputs]."""
        return (self._learner or self._learn()).predict(weights, batch.indices, self._trained_on(peer, batch))

    def evaluate(self, weights: np.ndarray, data: HeldOut = "test") -> Many:
        """Return the loss [k] and accuracy [k] of k models on the validation or the test set."""
        return (self._learner or self._learn()).evaluate(weights, data)

    def _trained_on(self, peer: int, batch: Batch) -> np.ndarray:
        """Return the samples for the statistics of batch normalisation: the peer's own, or the batch's for a server."""
        return self.indices(peer) if self.samples[peer] else batch.indices

    def _learn(self) -> Learner:
        assert self.arrays, "attach() the arrays before the problem is used in another process"
        self._learner = self._make(self.arrays)
        self._learner.notes = self.notes
        return self._learner

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_learner": None}
