"""Max N: the choice of the gradient entries to send if the link cannot take all (DLion, HPDC 2021)."""

from __future__ import annotations

import numpy as np

from grapevine.peer.layout import Layout


class MaxN:
    """The rule that chooses, in every tensor of the model, the entries within N percent of its largest absolute value.

    In the paper's terms these are, for each weight variable, the entries with |g| >= (1 - N / 100) max |g|; N = 100 chooses
    all.  N is the same for all tensors, and the largest one for each link at which the chosen entries fit.  Departure: an entry
    that is 0 is never sent, not even at N = 100.
    """

    def __init__(self, layout: Layout) -> None:
        filled = [tensor for tensor in layout if tensor.stop > tensor.start]
        self._starts = np.array([tensor.start for tensor in filled])
        self._lengths = np.array([tensor.stop - tensor.start for tensor in filled])

    def choose(self, vector: np.ndarray, room: int, n_least: float) -> np.ndarray:
        """Return the indices (uint32, ascending) of the entries of a vector (float64 [size]) by the largest N that fits.

        At most `room` (>= 0) entries fit; the entries by N = `n_least` (0 to 100) are chosen even if they do not fit.
        """
        relative = self._relative(vector)
        chosen = relative > 0
        if np.count_nonzero(chosen) > room:
            first_too_many = np.partition(relative, len(relative) - room - 1)[len(relative) - room - 1]
            chosen &= (relative > first_too_many) | (relative >= 1 - n_least / 100)
        return np.flatnonzero(chosen).astype(np.uint32)

    def _relative(self, vector: np.ndarray) -> np.ndarray:
        """Return |g| divided by the largest |g| of its tensor, float64 [size]; 0 in a tensor of zeros."""
        sizes = np.abs(vector)
        largest = np.repeat(np.maximum.reduceat(sizes, self._starts), self._lengths)
        with np.errstate(invalid="ignore"):  # a diverged gradient is not an error here
            shares: np.ndarray = np.divide(sizes, largest, out=np.zeros_like(sizes), where=largest > 0)
            return shares
