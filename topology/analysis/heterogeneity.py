"""How unlike the fleet's data are those that a peer gets to hear of, under a mixing matrix."""

from __future__ import annotations

import numpy as np

from grapevine.topology.graphs.cliques import checked_counts


def neighbourhood_heterogeneity(matrix: np.ndarray, label_counts: np.ndarray) -> float:
    """(1/n) |W P - J P|^2 for the peers' shares of labels P: 0 where every neighbourhood holds what the fleet holds.

    `matrix` is W [n, n], `label_counts` [n, classes] the samples of each label that each peer holds. The bias that is left
    of a gradient after averaging with one's neighbours (Le Bars, Bellet, Tommasi, Lavoie and Kermarrec 2023, arXiv
    2204.04452, equation 4); with W = I, the heterogeneity of the peers themselves.

    Raises ValueError where the two do not fit each other, or a peer holds nothing.
    """
    weights = np.asarray(matrix, dtype=np.float64)
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1]:
        raise ValueError(f"expected a mixing matrix [n, n], not an array of shape {weights.shape}")
    counts = checked_counts(label_counts, len(weights))
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(np.sum((weights @ shares - shares.mean(axis=0)) ** 2) / len(weights))
