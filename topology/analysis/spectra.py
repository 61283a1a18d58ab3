"""Eigenvalues of graphs: all of them for up to a few thousand peers, the extreme ones for more."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

DENSE = 1500
"""Peers up to which all eigenvalues are computed, in seconds; above, only the extreme ones."""

PROBES = 64
STEPS = 128
KNOWN = 40


def laplacian(beside: csr_array) -> csr_array:
    """Return D - A for a symmetric sparse array A of 0 and 1."""
    from scipy.sparse import csr_array, diags_array

    return csr_array(diags_array(beside.sum(axis=1)) - beside)


def extreme_laplacian_eigenvalues(beside: csr_array) -> tuple[float, float]:
    """Return the second smallest and the largest eigenvalue of the Laplacian."""
    matrix = laplacian(beside)
    if matrix.shape[0] <= DENSE:
        values = np.linalg.eigvalsh(matrix.toarray())
        return float(values[min(1, len(values) - 1)]), float(values[-1])
    return float(smallest(matrix, 2)[1]), largest(matrix)


def largest(matrix: csr_array, count: int = 1) -> float:
    """Return the `count`-th largest eigenvalue of a large sparse symmetric array."""
    return float(-smallest(-matrix, count)[count - 1])


def smallest(matrix: csr_array, count: int) -> np.ndarray:
    """Return the smallest eigenvalues of a large sparse symmetric array, ascending: float64 [count].

    Lanczos' method is fast if they are well separated, as in random graphs. If it does not converge soon, it is applied to
    the inverse, which is fast for rings, grids and trees.
    """
    values = _quickly(matrix, count)
    return _inverted(matrix, count)[0] if values is None else values


def inverse_trace(matrix: csr_array) -> float:
    """Estimate the sum of 1 / x over the non-zero eigenvalues x of a large connected graph's Laplacian, to a few percent.

    Random vectors, with one linear system each, give the trace of the inverse (Hutchinson 1989); the error is small if no
    single 1 / x dominates the sum. If the smallest eigenvalues do dominate, they are computed first, and the random vectors
    are made orthogonal to their eigenvectors.
    """
    from scipy.sparse import diags_array

    n = matrix.shape[0]
    rng = np.random.default_rng([3, n])
    solve: Callable[[np.ndarray], np.ndarray]
    if _quickly(matrix, 2) is None:
        values, known, solve = _inverted(matrix, KNOWN)
        total = float(np.sum(1.0 / values[1:]))
    else:
        known, total = np.full((n, 1), 1.0 / np.sqrt(n)), 0.0
        scale = diags_array(1.0 / matrix.diagonal())
        solve = partial(_conjugate_gradients, matrix, scale)
    others = 0.0
    for _ in range(PROBES):
        vector = rng.choice([-1.0, 1.0], size=n)
        vector = vector - known @ (known.T @ vector)
        others += float(vector @ solve(vector))
    return total + others / PROBES


def _conjugate_gradients(matrix: csr_array, scale: csr_array, vector: np.ndarray) -> np.ndarray:
    from scipy.sparse.linalg import cg

    solution: np.ndarray = cg(matrix, vector, rtol=1e-8, M=scale)[0]
    return solution


def _quickly(matrix: csr_array, count: int) -> np.ndarray | None:
    """Return the smallest eigenvalues if Lanczos' method converges soon, else None."""
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh

    start = np.random.default_rng([1, matrix.shape[0]]).standard_normal(matrix.shape[0])
    try:
        found = eigsh(matrix, k=count, which="SA", maxiter=10, ncv=80, tol=1e-11, v0=start, return_eigenvectors=False)
    except ArpackNoConvergence:
        return None
    return np.sort(found)


def _inverted(matrix: csr_array, count: int) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return the smallest eigenvalues, their vectors [n, count], and a solver for the matrix, shifted very slightly."""
    from scipy.sparse import eye_array
    from scipy.sparse.linalg import LinearOperator, eigsh, splu

    n = matrix.shape[0]
    # Gershgorin: no eigenvalue is below this; the shifted array is therefore positive definite, and solving is stable
    radius = abs(matrix).sum(axis=1) - np.abs(matrix.diagonal())
    low = float((matrix.diagonal() - radius).min())
    shift = low - 1e-7 * max(1.0, abs(low))
    factor = splu((matrix - shift * eye_array(n)).tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    inverse = LinearOperator((n, n), matvec=factor.solve, dtype=np.float64)
    start = np.random.default_rng([1, n]).standard_normal(n)
    values, vectors = eigsh(inverse, k=count, which="LA", ncv=max(40, 2 * count + 1), tol=1e-11, v0=start)
    order = np.argsort(-values)
    return shift + 1.0 / values[order], vectors[:, order], factor.solve


def mean_share_kept(matrix: csr_array, decay: float) -> float:
    """Estimate the mean of x^2 / (1 - decay x^2) over all eigenvalues x of a large sparse symmetric array.

    Stochastic Lanczos quadrature (Ubaru, Chen and Saad 2017) with fixed random vectors: the same result at every call. The
    error is about one percent for a decay up to 0.9 and a few percent for 0.999.
    """
    n = matrix.shape[0]
    starts = np.random.default_rng([2, n]).choice([-1.0, 1.0], size=(n, PROBES)) / np.sqrt(n)
    nodes, weights = quadrature(matrix, starts)
    squares = np.minimum(nodes**2, 1.0)
    return float(np.sum(weights * squares / (1.0 - decay * squares)) / PROBES)


def density(matrix: csr_array, bins: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Estimate a histogram of the eigenvalues of a large sparse symmetric array; all lie between -1 and 1.

    Returns the ends of equal bins from -1 to 1, [bins + 1], and the share of all eigenvalues in each, [bins], with sum 1.
    Stochastic Lanczos quadrature as in `mean_share_kept`: the error is about one percent of all eigenvalues.
    """
    n = matrix.shape[0]
    starts = np.random.default_rng([2, n]).choice([-1.0, 1.0], size=(n, PROBES)) / np.sqrt(n)
    nodes, weights = quadrature(matrix, starts)
    shares, edges = np.histogram(np.clip(nodes, -1.0, 1.0), bins=bins, range=(-1.0, 1.0), weights=weights / PROBES)
    return edges, shares


def walk_variance(matrix: csr_array, decay: float) -> float:
    """Estimate the sum over k of decay^k |W^(k+1)|^2 / n for a large sparse array that is not symmetric, to a few percent.

    The norm is estimated by the mean squared length of W^(k+1) z over fixed random vectors z.
    """
    n = matrix.shape[0]
    vectors = np.random.default_rng([2, n]).choice([-1.0, 1.0], size=(n, PROBES))
    total, weight = 0.0, 1.0
    while weight > 1e-10:
        vectors = matrix @ vectors
        total += weight * float(np.sum(vectors**2)) / (n * PROBES)
        weight *= decay
    return total


def second_modulus(matrix: csr_array) -> float:
    """Return the second largest modulus of the eigenvalues of a large sparse array whose largest is 1."""
    from scipy.sparse.linalg import eigs

    n = matrix.shape[0]
    start = np.random.default_rng([1, n]).standard_normal(n)
    values = eigs(matrix, k=3, which="LM", ncv=80, v0=start, return_eigenvectors=False)
    return float(np.abs(np.delete(values, np.argmin(np.abs(values - 1.0)))).max())


def quadrature(matrix: csr_array, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Gauss nodes and weights for a symmetric array and start vectors of length 1, [n, m]: both float64 [m, steps].

    The sum of weight f(node) approximates v' f(matrix) v for every start v and smooth function f; except for round-off it is
    exact for polynomials of degree up to 2 steps - 1.
    """
    from scipy.linalg import eigh_tridiagonal

    steps = min(STEPS, len(starts))
    diagonal, beside = np.zeros((steps, starts.shape[1])), np.zeros((steps, starts.shape[1]))
    before, now = np.zeros_like(starts), starts
    for step in range(steps):
        following = matrix @ now
        diagonal[step] = np.einsum("ij,ij->j", following, now)
        following -= diagonal[step] * now + beside[step - 1] * before
        beside[step] = np.linalg.norm(following, axis=0)
        # a start made of k eigenvectors is exhausted after k steps; further steps are round-off
        going_on = beside[step] > 1e-10
        beside[step] *= going_on
        before, now = now, following / np.where(going_on, beside[step], 1.0) * going_on
    found = [eigh_tridiagonal(diagonal[:, i], beside[:-1, i]) for i in range(starts.shape[1])]
    return np.array([nodes for nodes, _ in found]), np.array([vectors[0] ** 2 for _, vectors in found])
