"""The trial of a user's own task before anything starts: one gradient and one score of each kind."""

from typing import Any

import numpy as np

from grapevine.experiments.tasks.base import Problem

_TRIED = 32  # samples of the gradient that is tried


def try_out(problem: Any, peers: int, batch_size: int) -> None:
    """Raise ValueError, with the expected result, if a problem's gradient or one of its scores fails or has a wrong shape."""
    if not isinstance(problem, Problem):
        kind = type(problem).__name__
        raise ValueError(f"problem(...) returned {kind}: it must return an instance of your subclass of Problem")
    name = type(problem).__name__
    if len(problem.samples) != peers:
        raise ValueError(f"{name} has shards for {len(problem.samples)} peers, and there are {peers} peers: give one for each")
    trains = next((peer for peer, samples in enumerate(problem.samples) if samples), None)
    if trains is None:
        raise ValueError(f"{name} has no training samples for any peer: fill its shards, as partition.split does")
    try:
        batch = problem.sampler(trains, np.random.default_rng(0)).draw(min(batch_size, _TRIED))
        loss, gradient = problem.gradient(problem.initial, batch)
        scores = [problem.evaluate(problem.initial[None], data) for data in ("validation", "test")]
    except NotImplementedError as error:
        message = str(error) or "not implemented"
        raise ValueError(
            f"{name} raised {type(error).__name__}: {message}; gradient(weights, batch) and evaluate(weights, data) must work "
            "on its arrays"
        ) from error
    _refuse(f"{name}.gradient returned a gradient", np.shape(gradient), (problem.size,))
    _refuse(f"{name}.gradient returned a loss", np.shape(loss), ())
    if not (np.isfinite(loss) and np.isfinite(gradient).all()):
        raise ValueError(f"{name}.gradient returned nan or infinity at the initial weights: correct it, or the data")
    for found in scores:
        if not isinstance(found, tuple) or len(found) != 2:
            raise ValueError(
                f"{name}.evaluate returned {type(found).__name__}: expected a pair of arrays, losses [k], accuracies [k]"
            )
        losses, accuracies = found
        _refuse(f"{name}.evaluate returned losses", np.shape(losses), (1,))
        _refuse(f"{name}.evaluate returned accuracies", np.shape(accuracies), (1,))


def _refuse(result: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise ValueError(f"{result} of shape {list(shape)}: expected {list(expected)}")
