"""The symmetric mixing matrix with the smallest SLEM on a graph, found by an interior-point method."""

from __future__ import annotations

import numpy as np

MOST_EDGES = 1500  # a step of Newton's method takes time proportional to the number of edges cubed
PRECISE = 1e-10  # how far the SLEM found may be above the smallest possible
MOST_STEPS = 200


def fastest_weights(n: int, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return the weights of the edges (i[e], j[e]), float64 [m], that minimise the largest |eigenvalue| of W - J.

    Xiao and Boyd 2004, "Fast linear iterations for distributed averaging", section 4.2: minimise s where
    -s I <= W - J <= s I and W = I - sum_e w_e b_e b_e' (b_e: +1 and -1 at the ends of e). Solved by the barrier
    t s - log det(s I - W + J) - log det(s I + W - J): Newton's method for growing t, which ends within 2 n / t of the best.
    Of several best matrices the most central is returned: symmetric edges get equal weights.

    Raises ValueError for a graph that is not connected or has more than 1500 edges.
    """
    if len(i) > MOST_EDGES:
        raise ValueError(
            f"the mixing rule 'fastest' is for graphs of at most {MOST_EDGES} edges, and this one has {len(i)}; "
            "choose 'best-constant' or 'metropolis'"
        )
    degree = np.bincount(np.r_[i, j], minlength=n).astype(np.float64)
    weights = 1.0 / (1.0 + np.maximum(degree[i], degree[j]))
    apart = _apart(n, i, j, weights)
    slowest = float(np.abs(np.linalg.eigvalsh(apart)).max())
    if slowest > 1.0 - 1e-12:
        raise ValueError("the mixing rule 'fastest' needs a connected graph; add edges, or choose 'metropolis'")
    bound = slowest + 0.1 * (1.0 - slowest) + 1e-3
    sharpness = 2.0 * n
    while True:
        weights, bound = _centred(n, i, j, weights, bound, sharpness)
        if 2.0 * n / sharpness < PRECISE:
            return weights
        sharpness *= 12.0


def _centred(
    n: int, i: np.ndarray, j: np.ndarray, weights: np.ndarray, bound: float, sharpness: float
) -> tuple[np.ndarray, float]:
    """Run Newton's method for one value of t, from a feasible point to the point on the central path."""
    value = _barrier(n, i, j, weights, bound, sharpness)
    for _ in range(MOST_STEPS):
        apart = _apart(n, i, j, weights)
        upper, lower = np.linalg.inv(bound * np.eye(n) - apart), np.linalg.inv(bound * np.eye(n) + apart)
        # W falls by b b' per unit of weight: s I - (W - J) grows by it, s I + (W - J) falls by it
        over, under = _between(upper, i, j), _between(lower, i, j)
        upper_twice, lower_twice = _ends(upper @ upper, i, j), _ends(lower @ lower, i, j)
        gradient = np.r_[np.diag(under) - np.diag(over), sharpness - np.trace(upper) - np.trace(lower)]
        hessian = np.empty((len(i) + 1, len(i) + 1))
        hessian[:-1, :-1] = over**2 + under**2
        hessian[-1, :-1] = hessian[:-1, -1] = upper_twice - lower_twice
        hessian[-1, -1] = np.sum(upper**2) + np.sum(lower**2)
        scale = 1.0 / np.sqrt(np.diag(hessian))
        scaled = hessian * scale[:, None] * scale + 1e-14 * np.eye(len(scale))
        step = -scale * np.linalg.solve(scaled, scale * gradient)
        decrement = float(-gradient @ step)
        if decrement < 1e-9:
            break
        length = 1.0
        while True:
            trial = _barrier(n, i, j, weights + length * step[:-1], bound + length * step[-1], sharpness)
            if trial <= value - 0.1 * length * decrement:
                break
            length *= 0.5
            if length < 1e-10:
                return weights, bound
        weights, bound, value = weights + length * step[:-1], bound + length * float(step[-1]), trial
    return weights, bound


def _barrier(n: int, i: np.ndarray, j: np.ndarray, weights: np.ndarray, bound: float, sharpness: float) -> float:
    values = np.linalg.eigvalsh(_apart(n, i, j, weights))
    room = np.r_[bound - values, bound + values]
    return float(sharpness * bound - np.log(room).sum()) if room.min() > 0.0 else np.inf


def _apart(n: int, i: np.ndarray, j: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """W - J."""
    matrix = np.zeros((n, n))
    matrix[i, j] = matrix[j, i] = weights
    matrix[np.diag_indices(n)] = 1.0 - matrix.sum(axis=1)
    return matrix - 1.0 / n


def _between(inverse: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """b_e' inverse b_f for all pairs of edges: float64 [m, m]."""
    half = inverse[i] - inverse[j]
    differences: np.ndarray = half[:, i] - half[:, j]
    return differences


def _ends(matrix: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """b_e' matrix b_e: float64 [m]."""
    traces: np.ndarray = matrix[i, i] + matrix[j, j] - 2.0 * matrix[i, j]
    return traces
