"""The task `quadratic`: every peer has its own target, and the optimum is known exactly."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from grapevine.experiments.tasks.base import Cost, HeldOut, Problem, Task, clipped, forward
from grapevine.experiments.tasks.clipping import factors
from grapevine.experiments.tasks.partitions import Iid, Partition, Spared
from grapevine.peer.layout import lay

MOST_PARAMETERS = 10_000_000  # at this size the target of each peer takes 80 MB
Point = float | tuple[float, ...]


class Quadratic(Task, frozen=True, tag="quadratic"):
    """Each peer i minimises |x - b_i|^2 / 2 with its own target b_i; the exact optimum is the mean target.

    There are no data, so no partition and no accuracy. The gradient is x - b_i plus noise; the loss is without noise. The
    gradient over the whole shard is without noise. The task's own work: "solve" with `towards` (float32 [size]) and `rho` (0 or
    more) returns the exact minimiser of |x - b_i|^2 / 2 + rho |x - towards|^2 / 2, for ADMM, and costs one sample.
    """

    batch_size: int = 1
    """Samples of one gradient for the time on an emulated device (at least 1); it changes nothing else."""
    targets: tuple[Point, ...] | None = None
    """The optimum b_i of each peer's own loss: a list of one number or vector for each peer; left out = the peers' numbers."""
    noise: float = 0.0
    """Standard deviation of the Gaussian noise on each coordinate of each gradient (0 or more)."""
    start: Point = 0.0
    """Initial weights of every peer: a number (for all coordinates) or a vector."""
    dimension: int | None = None
    """Number of parameters (1 to 10 million) if targets and start are all numbers; left out = 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets is not None:  # from Python they may come as lists or arrays
            msgspec.structs.force_setattr(self, "targets", tuple(_plain(point) for point in self.targets))
        msgspec.structs.force_setattr(self, "start", _plain(self.start))
        if not 0 <= self.noise < float("inf"):
            raise ValueError(f"noise = {self.noise}: expected a standard deviation of 0 or more, and finite")
        if self.targets is not None and len(self.targets) == 0:
            raise ValueError("targets is empty: give one target for each peer, or leave targets out")
        if self.dimension is not None and self.dimension < 1:
            raise ValueError(f"dimension = {self.dimension}: expected 1 or more")
        if self.dimension is not None and self.dimension > MOST_PARAMETERS:
            raise ValueError(f"dimension = {self.dimension}: is too large; expected {MOST_PARAMETERS:,} at most")
        self._size()
        for name, points in (("targets", self.targets or ()), ("start", (self.start,))):
            for place, point in enumerate(points):
                with np.errstate(over="ignore"):
                    finite = np.isfinite(np.asarray(point, dtype=np.float32)).all()
                if not finite:
                    where = f"{name}[{place}]" if name == "targets" else name
                    raise ValueError(f"{where} = {point}: every number must be finite in float32, up to 3.4e38; correct it")

    def problem(self, peers: int, partition: Partition, seed: int) -> "QuadraticProblem":
        """Return the problem.

        Raises ValueError if the number of targets is not that of peers, and for any partition except the default.
        """
        rule = partition.partition if isinstance(partition, Spared) else partition
        if not isinstance(rule, Iid):
            raise ValueError("the task quadratic has no data to split: leave the partition out")
        if self.targets is not None and len(self.targets) != peers:
            raise ValueError(
                f"targets has {len(self.targets)} entries for {peers} peers: give one for each peer, or leave targets out"
            )
        points: Sequence[Point] = range(peers) if self.targets is None else self.targets
        size = self._size()
        targets = np.stack([np.broadcast_to(np.asarray(point, dtype=np.float64), size) for point in points])
        return QuadraticProblem(targets, np.broadcast_to(np.asarray(self.start, dtype=np.float64), size), self.noise)

    def _size(self) -> int:
        """Return the number of parameters; all vectors must have it."""
        given = [np.shape(point) for point in (*(self.targets or ()), self.start)]
        if any(len(shape) > 1 or shape == (0,) for shape in given):
            raise ValueError("targets and start must be numbers, or flat lists of one number or more")
        lengths = {shape[0] for shape in given if shape} | ({self.dimension} if self.dimension is not None else set())
        if len(lengths) > 1:
            raise ValueError(
                f"targets, start and dimension have different numbers of parameters: {sorted(lengths)}; make them equal"
            )
        return lengths.pop() if lengths else 1


def _plain(point: Any) -> Point:
    """Return a number as float, a vector as tuple of floats."""
    values = np.asarray(point, dtype=np.float64).tolist()
    return tuple(values) if isinstance(values, list) else values


class Pull(NamedTuple):
    """A batch of the quadratic: the peer with the target, and the noise drawn; None = no noise."""

    peer: int
    noise: np.ndarray | None


class QuadraticProblem(Problem):
    """The quadratic made concrete: targets float64 [peers, size]."""

    def __init__(self, targets: np.ndarray, start: np.ndarray, noise: float):
        own = [np.array([peer]) for peer in range(len(targets))]  # the only sample of a peer is its objective
        super().__init__(start, own, {"targets": targets}, lay([("x", (targets.shape[1],))]))
        self._noise = noise
        self.attach(self.arrays)

    def attach(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set the arrays after the problem has come to another process."""
        super().attach(arrays)
        self._targets = self.arrays["targets"].astype(np.float32)

    def offers(self) -> dict[str, Cost]:
        """Return the costs of gradients, also clipped, of the peer's own objective, and of "solve"."""
        return {**super().offers(), "clip": clipped, "held-out": forward, "solve": lambda peer, towards, rho: 1}

    def solve(self, peer: int, weights: np.ndarray, towards: np.ndarray, rho: float) -> np.ndarray:
        """Return the minimiser of |x - b_i|^2 / 2 + rho |x - towards|^2 / 2, (b_i + rho towards) / (1 + rho)."""
        if not 0 <= rho < float("inf"):
            raise ValueError(f"rho = {rho}: expected 0 or more, and finite")
        there = np.asarray(towards, dtype=np.float64)
        if there.shape != (self.size,):
            raise ValueError(f"towards has the shape {list(there.shape)}: expected [{self.size}], the shape of peer.weights")
        solution: np.ndarray = (self.arrays["targets"][peer] + rho * there) / (1 + rho)
        return solution.astype(np.float32)

    def hold_out(self, share: float, seed: int) -> None:
        """Use each peer's exact objective as its held-out data, as there are no samples to keep apart; it costs one sample."""
        self._split(held_out=[self.indices(peer) for peer in range(len(self.samples))])
        self.held_out = self._lengths("held_out")

    def sampler(self, peer: int, rng: np.random.Generator) -> "Pulls":
        """Return the source of one peer's noise."""
        return Pulls(peer, self.size, self._noise, rng)

    def gradient(self, weights: np.ndarray, batch: Pull) -> tuple[float, np.ndarray]:
        """Return |x - b_i|^2 / 2, and x - b_i plus the noise, in a new array."""
        gradient = weights - self._targets[batch.peer]
        loss = 0.5 * float(np.dot(gradient, gradient))
        if batch.noise is not None:
            gradient += batch.noise
        return loss, gradient

    def gradients(self, weights: np.ndarray, batches: Sequence[Pull]) -> tuple[np.ndarray, np.ndarray]:
        """Return the losses [k] and gradients [k, size] of k peers."""
        gradients = weights - self._targets[[batch.peer for batch in batches]]
        losses = 0.5 * np.einsum("ks,ks->k", gradients, gradients)
        if self._noise:
            for gradient, batch in zip(gradients, batches, strict=True):
                if batch.noise is not None:
                    gradient += batch.noise
        return losses, gradients

    def clipped_gradients(
        self, weights: np.ndarray, batches: Sequence[Pull], clips: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the same, scaled down to an L2 norm of at most `clips[k]`; each gradient counts as one sample's."""
        losses, gradients = self.gradients(weights, batches)
        scale = factors(np.linalg.norm(gradients, axis=1), np.asarray(clips))
        return losses, gradients * scale[:, None].astype(np.float32)

    def evaluate(self, weights: np.ndarray, data: HeldOut = "test") -> tuple[np.ndarray, np.ndarray]:
        """Return the mean of the peers' objectives at each of k models, [k], and nan for the accuracy.

        The objective is known exactly, so the result is the same for validation and test data.
        """
        targets = self.arrays["targets"]
        spread = 0.5 * ((targets - self.optimum()) ** 2).sum(axis=1).mean()
        return 0.5 * ((weights - self.optimum()) ** 2).sum(axis=1) + spread, np.full(len(weights), np.nan)

    def optimum(self) -> np.ndarray:
        """Return the mean target."""
        result: np.ndarray = self.arrays["targets"].mean(axis=0)
        return result

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__getstate__().items() if key != "_targets"}


class Pulls:
    """The source of the noise of one peer's gradients."""

    def __init__(self, peer: int, size: int, noise: float, rng: np.random.Generator):
        self._peer, self._size, self._noise, self._rng = peer, size, noise, rng

    def draw(self, batch_size: int) -> Pull:
        """Return the next noise; its deviation does not depend on the batch size."""
        if not self._noise:
            return Pull(self._peer, None)
        return Pull(self._peer, (self._noise * self._rng.standard_normal(self._size)).astype(np.float32))

    def over(self, indices: np.ndarray) -> Pull:
        """Return the peer's objective, without noise."""
        return Pull(self._peer, None)
