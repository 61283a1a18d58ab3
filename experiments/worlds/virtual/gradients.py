"""Gradients in virtual time: computed when the first one falls due, together with all others that are awaited.

A peer that awaits a gradient cannot change its weights meanwhile, so that it does not matter when the gradient is computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from grapevine.experiments.tasks import Problem
from grapevine.experiments.tasks.share import together
from grapevine.peer.effects import GRADIENTS, Work

AT_ONCE = 128
"""Gradients in one call at most, so that they are used while they are still in the cache."""


class Gradients:
    """Gradients that were asked for, and those that are computed and not yet due.  `weights()` are the peers' own models,
    float32 [peers, size]."""

    def __init__(self, problem: Problem, weights: Callable[[], np.ndarray]) -> None:
        self._problem = problem
        self._weights = weights
        self._awaited: dict[str, dict[Work, int]] = {name: {} for name in GRADIENTS}  # name -> what was asked for -> by whom
        self._computed: dict[Work, tuple[float, np.ndarray]] = {}

    def ask(self, peer: int, work: Work) -> None:
        """A peer awaits a gradient from now on."""
        self._awaited[work.name][work] = peer

    def answer(self, work: Work) -> tuple[float, np.ndarray]:
        """The loss and gradient of what is due.  What the task raises comes through; the others stay awaited."""
        if work not in self._computed:
            self._compute(work, self._awaited[work.name])
        return self._computed.pop(work)

    def _compute(self, first: Work, awaited: dict[Work, int]) -> None:
        """Those of one name in one call, beginning with the one that is due, then in the order asked for."""
        works = [first, *itertools.islice((work for work in awaited if work is not first), AT_ONCE - 1)]
        peers = [awaited[work] for work in works]
        try:
            losses, gradients = together(self._problem, works, self._models(peers, works))
        except Exception:
            del awaited[first]
            raise
        for place, work in enumerate(works):
            del awaited[work]
            self._computed[work] = float(losses[place]), gradients[place]

    def _models(self, peers: list[int], works: list[Work]) -> np.ndarray:
        """At which weights each is asked for, float32 [k, size]."""
        models: np.ndarray = self._weights()[peers]
        for place, work in enumerate(works):
            if work.weights is not None:
                models[place] = work.weights
        return models
