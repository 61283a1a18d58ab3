"""One peer's share of a task: its samples, and the work that its strategy asks for; the same in both worlds."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf
from typing import Any

import numpy as np

from grapevine.experiments.tasks.base import Cost, Problem
from grapevine.peer.effects import GRADIENTS, STANDARD, Work
from grapevine.peer.samples import Samples


class Costs(dict[tuple[str, int], int]):
    """The costs of the work that a problem offers: time on a device, in samples of a gradient.

    The costs of standard work, by name and number of samples, are kept after their first use.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.offers = problem.offers()

    def own(self, peer: int, work: Work) -> int:
        """Return a peer's cost of a piece of the task's own work."""
        return self._of(work.name, self._offer(work.name)(peer, **work.arguments))

    def __missing__(self, key: tuple[str, int]) -> int:
        name, count = key
        cost = self[key] = self._of(name, self._offer(name)(count))
        return cost

    def _offer(self, name: str) -> Cost:
        cost = self.offers.get(name)
        if cost is None:
            raise ValueError(f'the task does not offer the work "{name}": it offers {", ".join(self.offers)}')
        return cost

    def _of(self, name: str, samples: float) -> int:
        if not 0 <= samples < inf:
            raise ValueError(f'the task gives "{name}" a cost of {samples} samples: expected 0 or more, and finite')
        return ceil(samples)


class Share:
    """A peer's samples, and its work: the cost of each piece, and its result.

    The peer's minibatches are drawn from `rng`; several shares of a problem may use the same `costs`.
    """

    __slots__ = ("costs", "peer", "problem", "sampler")

    def __init__(self, problem: Problem, peer: int, rng: np.random.Generator, costs: Costs | None = None) -> None:
        self.problem = problem
        self.peer = peer
        self.sampler = problem.sampler(peer, rng)
        self.costs = Costs(problem) if costs is None else costs

    def draw(self, count: int) -> Samples:
        """Return the next minibatch."""
        return Samples(self.sampler.draw(count), count)

    def whole(self) -> Samples:
        """Return all training samples of the peer; raise ValueError for a server, which has none."""
        count = self.problem.samples[self.peer]
        if not count:
            raise ValueError(f"peer {self.peer} is a server without training samples: ask only peers that train")
        return Samples(self.sampler.over(self.problem.indices(self.peer)), count)

    def held_out(self) -> Samples:
        """Return the samples that the peer keeps apart."""
        indices = self.problem.indices(self.peer, "held_out")
        return Samples(self.sampler.over(indices), self.problem.held_out[self.peer], "held-out")

    def probe(self) -> Samples:
        """Return the samples that all peers share."""
        return Samples(self.sampler.over(self.problem.arrays["probe"]), self.problem.probe, "probe")

    def take_on(self, work: Work) -> int:
        """Return the cost of a piece of work, in samples of a gradient; draw its minibatch if it has none.

        Raises ValueError for work that the task does not offer, for a cost that is negative or not finite, and for a peer
        without samples to draw; exceptions of the task's own cost function are not caught.
        """
        count = work.count
        if count is None:
            return self.costs.own(self.peer, work)
        samples = self.costs[work.name, count]
        if work.batch is None:
            work.batch = self.sampler.draw(count)
        return samples

    def do(self, work: Work, weights: np.ndarray) -> Any:
        """Do a piece of work after `take_on` and return its result; `weights` (float32 [size]) are the peer's own.

        Exceptions of the task are not caught.
        """
        at, problem = weights if work.weights is None else work.weights, self.problem
        if work.count is None:
            return getattr(problem, work.name)(self.peer, at, **{name: _read(v) for name, v in work.arguments.items()})
        if work.name == "gradient":
            loss, gradient = problem.gradient(at, work.batch)
            return float(loss), np.asarray(gradient, np.float32)
        if work.name in GRADIENTS:
            losses, gradients = together(problem, [work], at[None])
            return float(losses[0]), gradients[0]
        assert work.name in STANDARD
        if work.name == "predict":
            return np.asarray(problem.predict(self.peer, at, work.batch), np.float32)
        loss, accuracy = problem.measure(self.peer, at, work.batch)
        return float(loss), float(accuracy)


def together(problem: Problem, works: Sequence[Work], weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return losses [k] and gradients float32 [k, size] of k pieces of work of one name, at `weights` float32 [k, size]."""
    name = works[0].name
    batches = [work.batch for work in works]
    if name == "gradient":
        return problem.gradients(weights, batches)
    given = [work.arguments[name] for work in works]
    if name == "clip":
        return problem.clipped_gradients(weights, batches, given)
    return problem.soft_gradients(weights, batches, given)


def _read(argument: Any) -> Any:
    """Return an argument for the task's own work: the batch of a `Samples`, any other argument unchanged."""
    return argument.batch if isinstance(argument, Samples) else argument
