"""Gradients clipped sample by sample (Abadi et al. 2016, arXiv 1607.00133, section 3.1, without the noise)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_AT_ONCE = 32  # gradients of single samples in memory at a time

Gradients = Callable[[np.ndarray, Sequence[Any]], tuple[np.ndarray, np.ndarray]]


def per_example(
    gradients: Gradients, weights: np.ndarray, batches: Sequence[Any], clips: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses [k] and clipped gradients float32 [k, size] of k peers, computed with batches of one sample each.

    `gradients` returns losses and gradients of many models on as many batches; each batch has `indices` and `part`. The
    gradient is 1/B sum_i g_i min(1, clip / |g_i|) for the B samples' own gradients g_i.
    """
    losses, clipped = np.zeros(len(batches)), np.zeros(weights.shape, dtype=np.float32)
    for k, (batch, clip) in enumerate(zip(batches, clips, strict=True)):
        count = len(batch.indices)
        for start in range(0, count, _AT_ONCE):
            singles = [batch.part(np.array([place])) for place in range(start, min(count, start + _AT_ONCE))]
            found_losses, found = gradients(np.broadcast_to(weights[k], (len(singles), weights.shape[1])), singles)
            losses[k] += found_losses.sum() / count
            clipped[k] += (factors(np.linalg.norm(found, axis=1), clip) / count).astype(np.float32) @ found
    return losses, clipped


def factors(norms: np.ndarray, clip: float | np.ndarray) -> np.ndarray:
    """Return the factors that scale vectors of these norms to at most `clip`: min(1, clip / norm), 1 for a norm of 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.minimum(1.0, clip / norms)
