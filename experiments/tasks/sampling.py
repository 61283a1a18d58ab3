"""Batches of one peer's samples, in random order."""

from typing import Any, NamedTuple, Protocol

import numpy as np


class Sampler(Protocol):
    """The source of one peer's batches; only the problem that made the sampler can read them."""

    def draw(self, batch_size: int) -> Any:
        """Return the next batch."""

    def over(self, indices: np.ndarray) -> Any:
        """Return a batch of these samples, with a new seed for random numbers of the model."""


_PART = 0x9E3779B97F4A7C15  # far from the small differences between the seeds of successive batches


class Batch(NamedTuple):
    """Samples by their indices, and a seed for random numbers of the model (dropout)."""

    indices: np.ndarray
    seed: int

    def part(self, positions: np.ndarray) -> "Batch":
        """Return a batch of the samples at these positions, with a seed of its own: other parts draw other random numbers."""
        first = int(positions[0]) if len(positions) else -1
        return Batch(self.indices[positions], (self.seed + _PART * (first + 1)) % (1 << 62))


_AHEAD_OF_SMALL = 256  # for a peer with fewer samples than a batch: shuffle so many samples, of several short epochs, at once


class Epochs:
    """Batches of one peer's samples, which are shuffled again for each epoch; an epoch has each sample once.

    Every batch is full: the last batch of an epoch takes its missing samples from the next, and for a peer with fewer samples
    than a batch a batch spans several epochs.
    """

    def __init__(self, shard: np.ndarray, rng: np.random.Generator):
        self._shard, self._rng = np.array(shard), rng
        self._order, self._next = rng.permutation(self._shard), 0
        self._seed = int(rng.integers(1 << 62))

    def draw(self, batch_size: int) -> Batch:
        """Return the next batch; later draws do not change it."""
        start, self._next = self._next, self._next + batch_size
        self._seed += 1
        if self._next <= len(self._order):
            return Batch(self._order[start : self._next], self._seed)
        if not len(self._shard):
            raise ValueError("this peer is a server without training samples: let only peers that train draw batches")
        rest = self._order[start:]
        missing = batch_size - len(rest)
        epochs = -(-(missing + _AHEAD_OF_SMALL * (batch_size > len(self._shard))) // len(self._shard))
        self._order = self._rng.permuted(np.repeat(self._shard[None], epochs, axis=0), axis=1).reshape(-1)
        self._next = missing
        return Batch(np.concatenate([rest, self._order[:missing]]), self._seed)

    def over(self, indices: np.ndarray) -> Batch:
        """Return a batch of these samples; the next `draw` is not affected."""
        self._seed += 1
        return Batch(indices, self._seed)
