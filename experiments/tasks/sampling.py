"""Batches of one peer's samples: which ones, in which order."""

from typing import Any, NamedTuple, Protocol

import numpy as np


class Sampler(Protocol):
    """Where one peer's batches come from; only the problem that made the sampler can read them."""

    def draw(self, batch_size: int) -> Any:
        """Draw the next batch."""

    def over(self, indices: np.ndarray) -> Any:
        """A batch of these samples, with fresh draws of whatever the model draws itself."""


class Batch(NamedTuple):
    """Some samples by their indices, and a seed for whatever the model draws itself (dropout)."""

    indices: np.ndarray
    seed: int

    def part(self, positions: np.ndarray) -> "Batch":
        """Those at some positions."""
        return Batch(self.indices[positions], self.seed)


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
        if not len(self._shard):
            raise ValueError("this peer holds no training samples, because it serves: let only peers that train draw them")
        rest = self._order[start:]
        missing = batch_size - len(rest)
        epochs = -(-(missing + _AHEAD_OF_SMALL * (batch_size > len(self._shard))) // len(self._shard))
        self._order = self._rng.permuted(np.repeat(self._shard[None], epochs, axis=0), axis=1).reshape(-1)
        self._next = missing
        return Batch(np.concatenate([rest, self._order[:missing]]), self._seed)

    def over(self, indices: np.ndarray) -> Batch:
        """A batch of these samples; the stream of `draw` goes on where it was."""
        self._seed += 1
        return Batch(indices, self._seed)
