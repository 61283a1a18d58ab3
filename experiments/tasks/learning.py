"""A model learnt from data that are split among the peers: `LearningProblem`, and what it asks of a `Learner`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from grapevine.experiments.tasks.base import HeldOut
from grapevine.experiments.tasks.partitions import Partition, Skew, count_labels, skew
from grapevine.peer.layout import Layout

_STREAM = 0x4E1D  # keeps the draws of `hold_out` apart from everything else that is drawn from the experiment's seed


class Batch(NamedTuple):
    """Some training samples, and a seed for whatever the model draws itself (dropout)."""

    indices: np.ndarray
    seed: int


class Learner(Protocol):
    """A model with its loss: computes gradients and scores from flat weights. It is made in the process that uses it."""

    notes: list[str]

    def gradient(self, weights: np.ndarray, batch: Batch) -> tuple[float, np.ndarray]: ...

    def gradients(self, weights: np.ndarray, batches: Sequence[Batch]) -> tuple[np.ndarray, np.ndarray]: ...

    def loss(self, weights: np.ndarray, indices: np.ndarray, trained_on: np.ndarray) -> float: ...

    def evaluate(self, weights: np.ndarray, data: HeldOut = "test") -> tuple[np.ndarray, np.ndarray]: ...


class LearningProblem:
    """A model, its initial weights, training data split among the peers, a validation set and a test set.

    `make(arrays)` builds the learner, at its first use in each process; it travels to other processes, so it must be
    importable there. `data` holds `train_x`, `train_y`, and likewise `validation_` and `test_`, sample by sample along the
    first axis.
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
        labels = data["train_y"]
        shards = partition.split(labels, peers, seed)
        self.size: int = len(initial)
        self.layout = layout
        self.samples: list[int] = [len(shard) for shard in shards]
        self.held_out: list[int] = [0] * peers
        self._ends: dict[str, np.ndarray] = {"shards": np.cumsum(self.samples)}
        self.skew: Skew | None = skew(labels, shards)
        self.label_counts: np.ndarray | None = count_labels(labels, shards)
        self.arrays = read_only({**data, "initial": initial, "shards": np.concatenate(shards)})
        self.preload = preload
        self.notes: list[str] = []
        self._make = make
        self._learner: Learner | None = None

    @property
    def initial(self) -> np.ndarray:
        """Where every peer starts."""
        return self.arrays["initial"]

    def attach(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Give the arrays back after the trip to another process."""
        self.arrays = dict(arrays)
        self._learner = None

    def sampler(self, peer: int, rng: np.random.Generator) -> "Epochs":
        """Make the source of one peer's batches."""
        return Epochs(self._shard(peer), rng)

    def hold_out(self, share: float, seed: int) -> None:
        """Let every peer keep a share of its samples apart; all copies of a sample that it holds more than once go together."""
        kept, trained = [], []
        for peer, shard in enumerate(np.split(self.arrays["shards"], self._ends["shards"][:-1])):
            own = np.unique(shard)
            if len(own) == 1:
                raise ValueError(
                    f"peer {peer} has 1 training sample, and the strategy keeps a part of each peer's samples apart: "
                    "every peer needs 2 or more, so use fewer peers, or a partition with a larger minimum"
                )
            count = max(1, round(share * len(own))) if len(own) else 0
            apart = np.isin(shard, np.random.default_rng([seed, _STREAM, peer]).choice(own, count, replace=False))
            kept.append(shard[apart])
            trained.append(shard[~apart])
        self.samples, self.held_out = [len(part) for part in trained], [len(part) for part in kept]
        self._ends = {"shards": np.cumsum(self.samples), "held_out": np.cumsum(self.held_out)}
        self.arrays = read_only({**self.arrays, "shards": np.concatenate(trained), "held_out": np.concatenate(kept)})

    def held_out_loss(self, peer: int, weights: np.ndarray) -> float:
        """The loss of one model over the samples that a peer keeps apart."""
        return (self._learner or self._learn()).loss(weights, self._shard(peer, "held_out"), self._shard(peer))

    def _shard(self, peer: int, which: Literal["shards", "held_out"] = "shards") -> np.ndarray:
        ends = self._ends[which]
        return self.arrays[which][ends[peer - 1] if peer else 0 : ends[peer]]

    def gradient(self, weights: np.ndarray, batch: Batch) -> tuple[float, np.ndarray]:
        """One peer's loss and gradient; it may be kept, its memory is used again only once nobody holds it."""
        return (self._learner or self._learn()).gradient(weights, batch)

    def gradients(self, weights: np.ndarray, batches: Sequence[Batch]) -> tuple[np.ndarray, np.ndarray]:
        """The losses [k] and gradients [k, size] of k peers, in new arrays."""
        return (self._learner or self._learn()).gradients(weights, batches)

    def evaluate(self, weights: np.ndarray, data: HeldOut = "test") -> tuple[np.ndarray, np.ndarray]:
        """The loss [k] and accuracy [k] of k models on the validation or the test set."""
        return (self._learner or self._learn()).evaluate(weights, data)

    def optimum(self) -> None:
        """Unknown."""

    def _learn(self) -> Learner:
        assert self.arrays, "attach() the arrays before the problem is used in another process"
        self._learner = self._make(self.arrays)
        self._learner.notes = self.notes
        return self._learner

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "arrays": {}, "_learner": None}


def read_only(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Views of the arrays that cannot be written to."""
    views = {name: array.view() for name, array in arrays.items()}
    for view in views.values():
        view.flags.writeable = False
    return views


_AHEAD_OF_SMALL = 256  # samples shuffled ahead for a peer that has less than a batch: many short epochs in one go


class Epochs:
    """Batches of one peer's samples: shuffled anew each epoch, each sample once in it.

    Every batch is full: what an epoch lacks for it comes from the next, and a peer with fewer samples than a batch goes
    round several times within it.
    """

    def __init__(self, shard: np.ndarray, rng: np.random.Generator):
        self._shard, self._rng = np.array(shard), rng
        self._order, self._next = rng.permutation(self._shard), 0
        self._seed = int(rng.integers(1 << 62))

    def draw(self, batch_size: int) -> Batch:
        """The next batch; it stays as it is however many are drawn after it."""
        start, self._next = self._next, self._next + batch_size
        self._seed += 1
        if self._next <= len(self._order):
            return Batch(self._order[start : self._next], self._seed)
        rest = self._order[start:]
        missing = batch_size - len(rest)
        epochs = -(-(missing + _AHEAD_OF_SMALL * (batch_size > len(self._shard))) // len(self._shard))
        self._order = self._rng.permuted(np.repeat(self._shard[None], epochs, axis=0), axis=1).reshape(-1)
        self._next = missing
        return Batch(np.concatenate([rest, self._order[:missing]]), self._seed)
