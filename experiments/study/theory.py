"""Predict the consensus distance of d-psgd from the mixing matrices and three numbers about the gradients.

The model: each peer's gradient is the fleet's gradient at the average model, plus a constant difference of its own, plus
noise that is new at every step. The distances Delta of the models from their mean then follow a linear recursion; for
x <- W x - eta g (combine then adapt) it is

    Delta(t+1) = W Delta(t) - eta (difference + pull Delta + noise)

and the expected consensus distance is eta^2 (sigma^2 N(t) + zeta^2 Z(t)): sigma^2 is the noise's squared length, zeta^2 that of
the differences (means over the peers); N and Z depend on the mixing only. For a constant symmetric W, with eigenvalues l_k
besides the 1 of the mean, they converge to

    N = 1/n sum_k 1 / (1 - l_k^2)              Z = 1/(n-1) sum_k 1 / (1 - l_k + eta pull)^2

Both are exact for `quadratic`, whose pull is 1, with 1 - (l_k - eta pull)^2 as the denominator of N. For other tasks `pull` is
the strength, per distance from the mean model, with which a peer's own data pull its model towards its own minimum; the noise
is assumed to feel no pull, since it has all directions and most directions are flat.

The recursion for the noise is that of Xiao, Boyd and Kim, "Distributed average consensus with least-mean-square deviation"
(2007), which has n N as the steady-state deviation; with adapt then combine N is (1/n_W - 1/n) / (1 - decay) for the
effective neighbours n_W of Vogels, Hendrikx and Jaggi 2022 (arXiv 2206.03093) at decay (1 - eta pull)^2. The differences'
fixed point is that of D-PSGD on quadratics. Departures: the differences are assumed to be assigned to the peers at random; in
combine then adapt their pull is taken at the new model, which has the same fixed point and cannot overshoot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from grapevine.experiments.tasks import Problem
from grapevine.topology import Schedule

if TYPE_CHECKING:
    from scipy.sparse import csr_array

DRAWS = 32
"""Number of minibatches of each peer from which the statistics are computed."""
SYMMETRIC = 1e-12


class Gains(NamedTuple):
    """The consensus distance per eta^2 and per squared length of the noise (N) and of the differences (Z)."""

    noise: np.ndarray
    """N after 0, 1, ..., steps steps, float64 [steps + 1]."""
    difference: np.ndarray
    """Z after 0, 1, ..., steps steps, float64 [steps + 1]."""


class Gradients(NamedTuple):
    """Noise and differences of the peers' gradients as squared lengths, and the pull; means over the peers."""

    noise: float
    """sigma^2: squared distance of a minibatch's gradient from the gradient of all the peer's data."""
    difference: float
    """zeta^2: squared distance of the peers' gradients from their mean, at the same model."""
    pull: float
    """Growth of a peer's gradient per distance from the mean model, along that distance; 0 or more."""


def gains(
    mixing: np.ndarray | Schedule,
    steps: int,
    rate: float,
    pull: float = 0.0,
    noise_pull: float = 0.0,
    adapt_first: bool = False,
) -> Gains:
    """Return the gains of d-psgd over `steps` steps from equal models, for W [n, n] or a schedule with one round per step.

    `rate` is the learning rate eta; `adapt_first` is true for "adapt-then-combine", false for "combine-then-adapt".
    """
    if isinstance(mixing, Schedule) and mixing.period == 1:
        mixing = mixing.matrix(0)
    if not isinstance(mixing, Schedule) and np.abs(mixing - mixing.T).max() <= SYMMETRIC:
        return _of_spectrum(mixing, steps, rate, pull, noise_pull, adapt_first)
    return _of_rounds(mixing, steps, rate, pull, noise_pull, adapt_first)


def predicted(found: Gains, gradients: Gradients, rate: float) -> np.ndarray:
    """Return the expected consensus distance after 0, 1, ... steps, float64 [steps + 1]."""
    return rate**2 * (gradients.noise * found.noise + gradients.difference * found.difference)


def measured_gradients(problem: Problem, weights: np.ndarray, batch_size: int, seed: int = 0) -> Gradients:
    """Measure noise, difference and pull at the models of a fleet, float32 [peers, size], from 32 minibatches per peer.

    Noise and differences are measured at the average model; the pull compares each peer's gradient there with the one at
    its own model, on the same minibatches.
    """
    average = weights.mean(axis=0, dtype=np.float64).astype(np.float32)
    peers, size = weights.shape
    here, there = np.zeros((peers, size)), np.zeros((peers, size))
    within = np.zeros(peers)
    for peer in range(peers):
        sampler = problem.sampler(peer, np.random.default_rng([seed, 0xC0, peer]))
        squares = 0.0
        for _ in range(DRAWS):
            batch = sampler.draw(batch_size)
            gradient = np.array(problem.gradient(average, batch)[1], dtype=np.float64)
            here[peer] += gradient / DRAWS
            squares += float(gradient @ gradient) / DRAWS
            there[peer] += np.asarray(problem.gradient(weights[peer], batch)[1], dtype=np.float64) / DRAWS
        within[peer] = (squares - float(here[peer] @ here[peer])) * DRAWS / (DRAWS - 1)
    noise = float(within.mean())
    apart = here - here.mean(axis=0)
    difference = float((apart**2).sum()) / peers - noise / DRAWS * (peers - 1) / peers  # less the part caused by sampling
    grown, distance = there - here, weights - average
    grown -= grown.mean(axis=0)
    length = float((distance**2).sum())
    pull = float((grown * distance).sum()) / length if length else 0.0
    return Gradients(max(0.0, noise), max(0.0, difference), max(0.0, pull))


def _of_spectrum(mixing: np.ndarray, steps: int, rate: float, pull: float, noise_pull: float, adapt_first: bool) -> Gains:
    """Return the gains for a constant symmetric W, with one recursion per eigenvalue."""
    n = len(mixing)
    values = np.linalg.eigvalsh(mixing)
    kept = np.delete(values, np.argmin(np.abs(values - 1.0)))
    noise, difference = np.zeros(steps + 1), np.zeros(steps + 1)
    variance, shift = np.zeros(n - 1), np.zeros(n - 1)
    for t in range(steps):
        if adapt_first:
            variance = kept**2 * ((1.0 - rate * noise_pull) ** 2 * variance + 1.0)
            shift = kept * ((1.0 - rate * pull) * shift + 1.0)
        else:
            variance = (kept - rate * noise_pull) ** 2 * variance + 1.0
            shift = (kept * shift + 1.0) / (1.0 + rate * pull)
        noise[t + 1] = variance.sum() / n
        difference[t + 1] = (shift**2).sum() / max(n - 1, 1)
    return Gains(noise, difference)


def _of_rounds(
    mixing: np.ndarray | Schedule, steps: int, rate: float, pull: float, noise_pull: float, adapt_first: bool
) -> Gains:
    """Return the gains for any rounds: the covariance of the noise and the response to the differences, [n, n], per round."""
    round_of = _rounds(mixing)
    n = mixing.n if isinstance(mixing, Schedule) else len(mixing)
    apart = np.eye(n) - 1.0 / n
    noise, difference = np.zeros(steps + 1), np.zeros(steps + 1)
    covariance, response = np.zeros((n, n)), np.zeros((n, n))
    for t in range(steps):
        w = round_of(t + 1 if adapt_first else t)
        if adapt_first:
            both = (1.0 - rate * noise_pull) ** 2 * covariance + apart
            covariance = _apart(w @ _apart(w @ both).T)
            response = _apart(w @ ((1.0 - rate * pull) * response + apart))
        else:
            once = _apart(w @ covariance) - rate * noise_pull * covariance
            covariance = _apart(w @ once.T) - rate * noise_pull * once.T + apart
            response = (_apart(w @ response) + apart) / (1.0 + rate * pull)
        noise[t + 1] = float(np.trace(covariance)) / n
        difference[t + 1] = float((response**2).sum()) / max(n - 1, 1)
    return Gains(noise, difference)


def _rounds(mixing: np.ndarray | Schedule) -> Callable[[int], csr_array]:
    """Return the function from a round to its sparse matrix; the matrices of a periodic schedule are made once."""
    from scipy.sparse import csr_array

    if not isinstance(mixing, Schedule):
        still = csr_array(mixing)
        return lambda t: still
    if mixing.period is None:
        return lambda t: csr_array(mixing.matrix(t))
    period = mixing.period
    kept = [csr_array(mixing.matrix(t)) for t in range(period)]
    return lambda t: kept[t % period]


def _apart(values: np.ndarray) -> np.ndarray:
    """Return the values with the mean of each column subtracted."""
    return np.asarray(values - values.mean(axis=0))
