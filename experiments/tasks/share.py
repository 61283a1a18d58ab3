"""One peer's share of a task: its samples, and what its strategy may ask to be done; the same in every world."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf
from typing import Any

import numpy as np

from grapevine.experiments.tasks.base import Cost, Problem
from grapevine.peer.effects import GRADIENTS, STANDARD, Work
from grapevine.peer.samples import Samples


class Costs(dict[tuple[str, int], int]):
    """What the work that a problem offers takes of a device's time, in samples of a gradient.

    Keeps the costs of standard work, by name and number of samples, once they were asked for.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.offers = problem.offers()

    def own(self, peer: int, work: Work) -> int:
        """The cost of a piece of the task's own for a peer."""
        return self._of(work.name, self._offer(work.name)(peer, **work.arguments))

    def __missing__(self, key: tuple[str, int]) -> int:
        name, count = key
        cost = self[key] = self._of(name, self._offer(name)(count))
        return cost

    def _offer(self, name: str) -> Cost:
        cost = self.offers.get(name)
        if cost is None:
            raise ValueError(f'the task does not offer "{name}": it offers {", ".join(self.offers)}')
        return cost

    def _of(self, name: str, samples: float) -> int:
        if not 0 <= samples < inf:
            raise ValueError(f'the task says that "{name}" costs {samples} samples: a cost is 0 or more, and finite')
        return ceil(samples)


class Share:
    """Names a peer's samples, knows what a piece of work costs, and does it.

    `rng` is what the peer's minibatches are drawn from; many shares of a problem may have their `costs` in common.
    """

    __slots__ = ("costs", "peer", "problem", "sampler")

    def __init__(self, problem: Problem, peer: int, rng: np.random.Generator, costs: Costs | None = None) -> None:
        self.problem = problem
        self.peer = peer
        self.sampler = problem.sampler(peer, rng)
        self.costs = Costs(problem) if costs is None else costs

    def draw(self, count: int) -> Samples:
        """The next minibatch."""
        return Samples(self.sampler.draw(count), count)

    def whole(self) -> Samples:
        """All training samples of the peer.  Raises ValueError where it has none, because it serves."""
        count = self.problem.samples[self.peer]
        if not count:
            raise ValueError(f"peer {self.peer} holds no training samples, because it serves: ask only peers that train")
        return Samples(self.sampler.over(self.problem.indices(self.peer)), count)

    def held_out(self) -> Samples:
        """The samples that the peer keeps apart."""
        indices = self.problem.indices(self.peer, "held_out")
        return Samples(self.sampler.over(indices), self.problem.held_out[self.peer], "held-out")

    def probe(self) -> Samples:
        """The samples that all peers share."""
        return Samples(self.sampler.over(self.problem.arrays["probe"]), self.problem.probe, "probe")

    def take_on(self, work: Work) -> int:
        """What a piece of work takes of the device's time, in samples of a gradient; draws its minibatch where that is fresh.

        Raises ValueError for what the task does not offer, for a cost that no time can be made of, and where there is nothing
        to draw; what the cost of a piece of the task's own raises comes through.
        """
        count = work.count
        if count is None:
            return self.costs.own(self.peer, work)
        samples = self.costs[work.name, count]
        if work.batch is None:
            work.batch = self.sampler.draw(count)
        return samples

    def do(self, work: Work, weights: np.ndarray) -> Any:
        """Do a piece of work that was taken on; `weights` (float32 [size]) are the peer's own.

        What the task raises comes through.
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
    """The losses [k] and gradients float32 [k, size] of k pieces of work of one name, at `weights` float32 [k, size]."""
    name = works[0].name
    batches = [work.batch for work in works]
    if name == "gradient":
        return problem.gradients(weights, batches)
    given = [work.arguments[name] for work in works]
    if name == "clip":
        return problem.clipped_gradients(weights, batches, given)
    return problem.soft_gradients(weights, batches, given)


def _read(argument: Any) -> Any:
    """What the task gets for an argument of a piece of its own: the batch that a handle stands for, all else as it is."""
    return argument.batch if isinstance(argument, Samples) else argument
