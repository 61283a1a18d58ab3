"""The trial of a user's own task before anything starts: one gradient and one score of each kind."""

import traceback
from typing import Any

import numpy as np

from grapevine.experiments.tasks.base import Problem

_TRIED = 32  # samples of the gradient that is tried
_INHERITED = {"gradient", "clip", "held-out", "probe"}
"""The work that needs no more than `gradient`."""


def try_out(problem: Any, peers: int, batch_size: int) -> None:
    """Raise ValueError, with the expected result, if a problem's gradient or one of its scores fails or has a wrong shape."""
    if not isinstance(problem, Problem):
        kind = type(problem).__name__
        raise ValueError(f"problem(...) returned {kind}: it must return an instance of your subclass of Problem")
    name = type(problem).__name__
    _refuse_unkept(problem, name)
    if len(problem.samples) != peers:
        raise ValueError(f"{name} has shards for {len(problem.samples)} peers, and there are {peers} peers: give one for each")
    trains = next((peer for peer, samples in enumerate(problem.samples) if samples), None)
    if trains is None:
        raise ValueError(f"{name} has no training samples for any peer: fill its shards, as partition.split does")
    try:
        batch = problem.sampler(trains, np.random.default_rng(0)).draw(min(batch_size, _TRIED))
        loss, gradient = problem.gradient(problem.initial, batch)
        scores = [problem.evaluate(problem.initial[None], data) for data in ("validation", "test")]
        best = problem.optimum()
    except Exception as error:  # the user's own code: it may raise anything
        raised = " ".join(traceback.format_exception_only(error)[-1].split())
        raise ValueError(
            f"{name} raised {raised}; gradient(weights, batch) and evaluate(weights, data) must work on its arrays"
        ) from error
    _refuse(f"{name}.gradient returned a gradient", np.shape(gradient), (problem.size,))
    _refuse(f"{name}.gradient returned a loss", np.shape(loss), ())
    if not (np.isfinite(loss) and np.isfinite(gradient).all()):
        raise ValueError(f"{name}.gradient returned nan or infinity at the initial weights: correct it, or the data")
    for found in scores:
        if not isinstance(found, tuple) or len(found) != 2:
            kind = type(found).__name__
            raise ValueError(f"{name}.evaluate returned {kind}: expected a pair of arrays, losses [k] and accuracies [k]")
        losses, accuracies = found
        _refuse(f"{name}.evaluate returned losses", np.shape(losses), (1,))
        _refuse(f"{name}.evaluate returned accuracies", np.shape(accuracies), (1,))
        if not (np.isnan(accuracies) | ((np.asarray(accuracies) >= 0) & (np.asarray(accuracies) <= 1))).all():
            raise ValueError(
                f"{name}.evaluate returned an accuracy of {float(accuracies[0]):g}: expected a share from 0 to 1, or nan; "
                "the first array holds losses, the second accuracies"
            )
    if best is not None:
        _refuse(f"{name}.optimum returned weights", np.shape(best), (problem.size,))


def _refuse(result: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise ValueError(f"{result} of shape {list(shape)}: expected {list(expected)}")


def _refuse_unkept(problem: Problem, name: str) -> None:
    """Raise ValueError if a problem's class lacks the method of a piece of work that it offers."""
    for work in problem.offers():
        method = "soft_gradients" if work == "targets" else work
        if work not in _INHERITED and getattr(type(problem), method, None) is getattr(Problem, method, None):
            raise ValueError(f'{name} offers "{work}" and does not define {method}; write it, or take "{work}" out of offers()')
