"""A task of a user's own, tried out before anything starts: what is wrong with it is said in words."""

from typing import Any

import numpy as np

from grapevine.experiments.tasks.base import Problem

_TRIED = 32  # samples of one gradient are enough to see


def try_out(problem: Any, peers: int, batch_size: int) -> None:
    """Refuse a problem that cannot be trained with: one gradient, and one score of each kind, are tried.

    Raises ValueError, with what was expected.
    """
    if not isinstance(problem, Problem):
        kind = type(problem).__name__
        raise ValueError(f"its problem(...) gave {kind}: it must return an instance of a class of yours that extends Problem")
    name = type(problem).__name__
    if len(problem.samples) != peers:
        raise ValueError(f"{name} has shards for {len(problem.samples)} peers, and there are {peers}: give one for each")
    trains = next((peer for peer, samples in enumerate(problem.samples) if samples), None)
    if trains is None:
        raise ValueError(f"{name} gives no peer any training samples: fill its shards, as partition.split does")
    try:
        batch = problem.sampler(trains, np.random.default_rng(0)).draw(min(batch_size, _TRIED))
        loss, gradient = problem.gradient(problem.initial, batch)
        scores = [problem.evaluate(problem.initial[None], data) for data in ("validation", "test")]
        best = problem.optimum()
    except Exception as error:  # the user's own code: it may raise anything
        said = str(error) or "it is not there"
        raise ValueError(
            f"{name} cannot be trained with: {type(error).__name__}: {said}; gradient(weights, batch) and evaluate(weights, "
            "data) must work on its arrays"
        ) from error
    _refuse(f"{name}.gradient gives a gradient", np.shape(gradient), (problem.size,))
    _refuse(f"{name}.gradient gives a loss", np.shape(loss), ())
    if not (np.isfinite(loss) and np.isfinite(gradient).all()):
        raise ValueError(f"{name}.gradient gives nan or infinity at the initial weights: correct it, or the data")
    for losses, accuracies in scores:
        _refuse(f"{name}.evaluate gives losses", np.shape(losses), (1,))
        _refuse(f"{name}.evaluate gives accuracies", np.shape(accuracies), (1,))
    if best is not None:
        _refuse(f"{name}.optimum gives weights", np.shape(best), (problem.size,))


def _refuse(what: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if shape != wanted:
        raise ValueError(f"{what} of shape {list(shape)}: {list(wanted)} is needed")
