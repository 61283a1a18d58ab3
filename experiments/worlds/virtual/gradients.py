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
        """The loss and gradient of what is due.  What the task raises for it comes through."""
        answer = self._computed.pop(work, None)
        if answer is None:
            self._compute(work, self._awaited[work.name])
            answer = self._computed.pop(work)
        return answer

    def _compute(self, first: Work, awaited: dict[Work, int]) -> None:
        """Those of one name in one call, beginning with the one that is due, then in the order asked for.

        Where the task raises, the one that is due is computed alone: another may be at fault.
        """
        works, peers = [first], [awaited.pop(first)]
        others = dict(itertools.islice(awaited.items(), AT_ONCE - 1))
        try:
            losses, gradients = self._at_once([*works, *others], [*peers, *others.values()])
        except Exception:  # noqa: BLE001 - the task's own code: it may raise anything
            losses, gradients = self._at_once(works, peers)
        else:
            works += others
        for work, loss, gradient in zip(works, losses.tolist(), gradients, strict=True):
            awaited.pop(work, None)
            self._computed[work] = loss, gradient

    def _at_once(self, works: list[Work], peers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        models: np.ndarray = self._weights()[peers]
        for place, work in enumerate(works):
            if work.weights is not None:
                models[place] = work.weights
        return together(self._problem, works, models)
