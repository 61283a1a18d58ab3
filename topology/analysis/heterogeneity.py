"""How much the data of a neighbourhood differ from those of the fleet, under a mixing matrix."""

from __future__ import annotations

import numpy as np

from grapevine.topology.graphs.cliques import checked_counts


def neighbourhood_heterogeneity(matrix: np.ndarray, label_counts: np.ndarray) -> float:
    """Return (1/n) |W P - J P|^2 for the peers' label shares P: 0 if every neighbourhood has the fleet's label shares.

    `matrix` is W [n, n], `label_counts` [n, classes] the samples of each label that each peer holds. The result is the bias
    of a gradient that remains after averaging with the neighbours (Le Bars, Bellet, Tommasi, Lavoie and Kermarrec 2023,
    arXiv 2204.04452, equation 4); with W = I, the heterogeneity of the peers themselves.

    Raises ValueError if the shapes do not fit each other, and if a peer holds no samples.
    """
    weights = np.asarray(matrix, dtype=np.float64)
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1]:
        raise ValueError(f"expected a mixing matrix [n, n], not an array of shape {weights.shape}")
    counts = checked_counts(label_counts, len(weights))
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(np.sum((weights @ shares - shares.mean(axis=0)) ** 2) / len(weights))
