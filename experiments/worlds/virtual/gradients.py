"""Gradients in virtual time: computed when the first one is due, together with all others that are awaited.

A peer that awaits a gradient cannot change its weights meanwhile, so it does not matter when the gradient is computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from grapevine.experiments.tasks import Problem
from grapevine.experiments.tasks.share import together
from grapevine.peer.effects import GRADIENTS, Work

AT_ONCE = 128
"""At most this many gradients are computed in one call, so that they are used while they are in the processor's cache."""


class Gradients:
    """Gradients that peers await, and gradients that are computed and not yet due.

    `weights()` returns the peers' own models, float32 [peers, size].
    """

    def __init__(self, problem: Problem, weights: Callable[[], np.ndarray]) -> None:
        self._problem = problem
        self._weights = weights
        self.awaited: dict[str, dict[Work, int]] = {name: {} for name in GRADIENTS}
        """Kind of gradient -> awaited work -> peer; the world adds the entries."""
        self.computed: dict[Work, tuple[float, np.ndarray]] = {}
        """Work -> loss and gradient that are computed and not yet due; the world removes the entries."""

    def answer(self, work: Work) -> tuple[float, np.ndarray]:
        """Return the loss and gradient of work that is due and not yet computed.  Raises what the task raises for it."""
        self._compute(work, self.awaited[work.name])
        return self.computed.pop(work)

    def _compute(self, first: Work, awaited: dict[Work, int]) -> None:
        """Compute `first` and others of its kind in one call, in the order in which they were asked for.

        If the task raises, compute `first` alone, because another one may be at fault.
        """
        works, peers = [first], [awaited.pop(first)]
        others = dict(itertools.islice(awaited.items(), AT_ONCE - 1))
        try:
            losses, gradients = self._at_once([*works, *others], [*peers, *others.values()])
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - the task's own code: it may raise anything
            losses, gradients = self._at_once(works, peers)
        else:
            works += others
        for work, loss, gradient in zip(works, losses.tolist(), gradients, strict=True):
            awaited.pop(work, None)
            self.computed[work] = loss, gradient

    def _at_once(self, works: list[Work], peers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        models: np.ndarray = self._weights()[peers]
        for place, work in enumerate(works):
            if work.weights is not None:
                models[place] = work.weights
        return together(self._problem, works, models)
