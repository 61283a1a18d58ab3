"""How far apart d-psgd keeps its models, from the mixing matrices and three numbers about the gradients.

Each peer's gradient is taken to be that of the fleet at the average model, plus a difference of its own that stays, plus noise
that is new at every step. Then the distances Delta of the models from their mean follow a linear recursion, which for
x <- W x - eta g (combine then adapt) reads

    Delta(t+1) = W Delta(t) - eta (difference + pull Delta + noise)

and the expected consensus distance is eta^2 (sigma^2 N(t) + zeta^2 Z(t)): sigma^2 is the noise's squared length, zeta^2 that of
the differences (means over the peers), N and Z depend on the mixing alone. For a symmetric W that stays, with eigenvalues l_k
beside the 1 of the mean, they end at

    N = 1/n sum_k 1 / (1 - l_k^2)              Z = 1/(n-1) sum_k 1 / (1 - l_k + eta pull)^2

Both are exact for `quadratic`, whose pull is 1, with 1 - (l_k - eta pull)^2 below the line of N. Elsewhere `pull` says how
strongly a peer's own data pull it back, the further it is from the mean, to where its own loss is lowest; there noise is
taken to feel none, since it points everywhere and most directions are flat.

The recursion for the noise is that of Xiao, Boyd and Kim, "Distributed average consensus with least-mean-square deviation"
(2007), which has n N as the steady-state deviation; with adapt then combine N is (1/n_W - 1/n) / (1 - decay) for the
effective neighbours n_W of Vogels, Hendrikx and Jaggi 2022 (arXiv 2206.03093) at decay (1 - eta pull)^2. The differences'
fixed point is that of D-PSGD on quadratics. Departures: differences are taken to lie on the peers at random; in combine then
adapt their pull is taken at the new model, which has the same fixed point and cannot overshoot.
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
"""Minibatches of each peer that the statistics are taken from."""
SYMMETRIC = 1e-12


class Gains(NamedTuple):
    """What the mixing makes of gradients that differ: the consensus distance over eta^2 and their squared length."""

    noise: np.ndarray
    """N after 0, 1, ..., steps steps, float64 [steps + 1]."""
    difference: np.ndarray
    """Z after as many."""


class Gradients(NamedTuple):
    """What the peers' gradients have in them beside the fleet's own, as squared lengths, means over the peers."""

    noise: float
    """sigma^2: of a minibatch's gradient about that of all the peer's data."""
    difference: float
    """zeta^2: of the peers' gradients about their mean, at the same model."""
    pull: float
    """By how much a peer's gradient grows with its distance from the mean model, along that distance; 0 or more."""


def gains(
    mixing: np.ndarray | Schedule,
    steps: int,
    rate: float,
    pull: float = 0.0,
    noise_pull: float = 0.0,
    adapt_first: bool = False,
) -> Gains:
    """The gains of d-psgd over so many steps from equal models, for W [n, n], or a schedule whose rounds are the steps.

    `rate` is the learning rate eta; `adapt_first` tells "adapt-then-combine" from "combine-then-adapt".
    """
    if isinstance(mixing, Schedule) and mixing.period == 1:
        mixing = mixing.matrix(0)
    if not isinstance(mixing, Schedule) and np.abs(mixing - mixing.T).max() <= SYMMETRIC:
        return _of_spectrum(mixing, steps, rate, pull, noise_pull, adapt_first)
    return _of_rounds(mixing, steps, rate, pull, noise_pull, adapt_first)


def predicted(found: Gains, gradients: Gradients, rate: float) -> np.ndarray:
    """The expected consensus distance after 0, 1, ... steps, float64 [steps + 1]."""
    return rate**2 * (gradients.noise * found.noise + gradients.difference * found.difference)


def measured_gradients(problem: Problem, weights: np.ndarray, batch_size: int, seed: int = 0) -> Gradients:
    """The three numbers at the models float32 [peers, size] of a fleet, from 32 minibatches of each peer.

    Noise and differences are those at the average model; the pull compares each peer's gradient there with that at its own
    model, on the same minibatches.
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
    difference = float((apart**2).sum()) / peers - noise / DRAWS * (peers - 1) / peers  # what the draws alone would show
    grown, distance = there - here, weights - average
    grown -= grown.mean(axis=0)
    length = float((distance**2).sum())
    pull = float((grown * distance).sum()) / length if length else 0.0
    return Gradients(max(0.0, noise), max(0.0, difference), max(0.0, pull))


def _of_spectrum(mixing: np.ndarray, steps: int, rate: float, pull: float, noise_pull: float, adapt_first: bool) -> Gains:
    """Each eigenvector goes its own way."""
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
    """The whole covariance, and the whole response to differences that stay, [n, n] each, round by round."""
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
    """The sparse matrix of each round; those of a schedule that repeats are made once."""
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
    """Each column less its mean."""
    return np.asarray(values - values.mean(axis=0))
