"""The base class of tasks (`Task`), and of a task made concrete for one run (`Problem`).

A user's own task needs five members at most: its name and fields, `Task.problem`, `Problem.gradient`, `Problem.evaluate`, and
`Problem.offers` if it offers more than the standard work. All others have defaults here.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from grapevine.experiments.tasks.clipping import per_example
from grapevine.experiments.tasks.partitions import Partition
from grapevine.experiments.tasks.sampling import Epochs, Sampler
from grapevine.peer.layout import Layout, lay

MOST_SAMPLES = 1_000_000
HeldOut = Literal["validation", "test"]
"""Data outside the training: validation data stop runs and choose settings, test data give the figures."""
Part = Literal["shards", "held_out"]
Cost = Callable[..., float]
"""The time of a piece of work on a device, in samples of a gradient."""

_HELD_OUT, _PROBE = 0x4E1D, 0x9B0E  # keep these random numbers apart from those that other parts draw from the same seed
_OWN_ARRAYS = ("initial", "shards", "held_out", "probe")


class Task(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """The task that the fleet learns."""

    batch_size: int = 32
    """Samples in one gradient (1 to a million)."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size = {self.batch_size}: a gradient needs at least one sample; set it to 1 or more")
        if self.batch_size > MOST_SAMPLES:
            raise ValueError(f"batch_size = {self.batch_size}: is too large; set it to {MOST_SAMPLES:,} or less")

    @abstractmethod
    def problem(self, peers: int, partition: Partition, seed: int) -> "Problem":
        """Return the problem for `peers` peers; the same seed gives the same problem, bit for bit.

        Raises ValueError if the data cannot be split among so many peers.
        """
        raise NotImplementedError


def plain(samples: int) -> float:
    """Return the cost of a gradient over `samples` samples."""
    return samples


def forward(samples: int) -> float:
    """Return the cost of a forward pass: about a third of forward and backward together."""
    return samples / 3


def clipped(samples: int) -> float:
    """Return the cost of a gradient clipped sample by sample: one forward and two backward passes (Lee and Kifer 2021,
    "Scaling up differentially private deep learning with fast per-example gradient clipping", arXiv 2009.03106)."""
    return 5 * samples / 3


class Problem:
    """A task made concrete: initial weights, samples, gradients and scores of one run.

    `initial` is the weights at the start of every peer: float [size], converted to float32. `shards` holds for each peer the
    indices of its training samples, as `partition.split` returns them; the task defines the meaning of an index. `arrays` is
    the large data by name: read it from `self.arrays`, where it is read-only. `layout` names the tensors of the weights; left
    out = one tensor "weights". Raises ValueError if these do not fit together.

    A problem can be sent to another process by multiprocessing; its arrays stay behind, and `attach` sets them there. One
    problem may serve any number of peers, one after the other, in one thread.
    """

    size: int
    """Number of parameters."""
    layout: Layout
    """The tensors that make up the parameters, in order and without gaps."""
    samples: list[int]
    """Training samples of each peer."""
    held_out: list[int]
    """The number of samples that each peer keeps apart from its training: 0 before `hold_out`."""
    probe: int
    """The number of samples that all peers share and none trains with: 0 before `take_probe`."""
    outputs: int = 0
    """The number of values that `predict` returns for a sample; 0 = the task does not offer predictions."""
    arrays: dict[str, np.ndarray]
    """The large data by name; read-only."""
    preload: tuple[str, ...] = ()
    """Names of modules that the gradient needs and the task has not imported: a launcher may load them once and fork."""
    notes: list[str]
    """Notes for the user about the computation of this problem; may grow during the run."""

    def __init__(
        self,
        initial: np.ndarray,
        shards: Sequence[np.ndarray],
        arrays: Mapping[str, np.ndarray] | None = None,
        layout: Layout | None = None,
    ):
        start = np.array(initial, dtype=np.float32)
        if start.ndim != 1 or not len(start) or not np.isfinite(start).all():
            kind = f"of shape {list(start.shape)}" if start.ndim != 1 or not len(start) else "not finite"
            raise ValueError(f"the initial weights are {kind}: expected a flat vector of finite numbers, float32 [size]")
        for name in arrays or ():
            if name in _OWN_ARRAYS or not name.isidentifier():
                raise ValueError(f'an array cannot be named "{name}": use a Python name other than {", ".join(_OWN_ARRAYS)}')
        self.size = len(start)
        self.layout = layout or lay([("weights", (self.size,))])
        self.notes = []
        self.probe = 0
        self.arrays = {name: np.asarray(array) for name, array in (arrays or {}).items()} | {"initial": start}
        self._ends: dict[str, np.ndarray] = {}
        self._split(shards=list(shards))
        self.samples, self.held_out = self._lengths("shards"), [0] * len(shards)

    # ---- members of a user's own task -----------------------------------------------------------------------------

    @abstractmethod
    def gradient(self, weights: np.ndarray, batch: Any) -> tuple[float, np.ndarray]:
        """Return the mean loss over a batch and its gradient, float32 [size], in a new array; `weights` is float32 [size].

        The batch holds `indices` of samples, as the shards do, and a `seed` for random numbers of the model. The caller may
        keep the gradient: its memory is used again only after the last reference to it is gone.
        """
        raise NotImplementedError

    @abstractmethod
    def evaluate(self, weights: np.ndarray, data: HeldOut = "test") -> tuple[np.ndarray, np.ndarray]:
        """Return loss [k] and accuracy [k] of k models, float32 [k, size], on these data; nan = the task has no such figure."""
        raise NotImplementedError

    def offers(self) -> dict[str, Cost]:
        """Return the work that a strategy may ask for, by name, and its cost: time on a device, in samples of a gradient.

        The cost of standard work is a function of the number of samples. A piece of the task's own, such as "solve", is a
        method of that name, `solve(peer, weights, **arguments)`, and its cost a function `(peer, **arguments)`. To offer
        more: `return {**super().offers(), "solve": lambda peer, rho: 10 * self.samples[peer]}`.
        """
        looks = {"clip": clipped, "held-out": forward, "probe": forward}
        return {"gradient": plain} | (looks if type(self).sampler is Problem.sampler else {})

    def predict(self, peer: int, weights: np.ndarray, batch: Any) -> np.ndarray:
        """Return the outputs of a peer's model for the samples of a batch: float32 [samples, outputs], in a new array.

        Needed only if the task offers "predict".
        """
        raise NotImplementedError(f'{type(self).__name__} does not define predict, which a task that offers "predict" needs')

    # ---- members with defaults ------------------------------------------------------------------------------------

    @property
    def initial(self) -> np.ndarray:
        """The initial weights of every peer: float32 [size]; read-only."""
        return self.arrays["initial"]

    def attach(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set the arrays after the problem has come to another process; they may be memory-mapped."""
        self.arrays = read_only(arrays)

    def sampler(self, peer: int, rng: np.random.Generator) -> Sampler:
        """Return the source of one peer's batches, with its own random numbers: epochs over its training samples."""
        return Epochs(self.indices(peer), rng)

    def gradients(self, weights: np.ndarray, batches: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return losses [k] and gradients float32 [k, size] of k peers at once, in new arrays.

        They equal those of `gradient`, up to rounding.
        """
        losses, found = np.empty(len(batches)), np.empty((len(batches), self.size), dtype=np.float32)
        for k, batch in enumerate(batches):
            losses[k], found[k] = self.gradient(weights[k], batch)
        return losses, found

    def clipped_gradients(
        self, weights: np.ndarray, batches: Sequence[Any], clips: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the same, with each sample's gradient scaled down to an L2 norm of at most `clips[k]` before the mean.

        The losses are those before clipping.
        """
        return per_example(self.gradients, weights, batches, clips)

    def soft_gradients(
        self, weights: np.ndarray, batches: Sequence[Any], targets: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the same, towards `targets[k]`, float32 [samples, outputs], in place of the labels.

        Needed only if the task offers "targets".
        """
        name = type(self).__name__
        raise NotImplementedError(f'{name} does not define soft_gradients, which a task that offers "targets" needs')

    def measure(self, peer: int, weights: np.ndarray, batch: Any) -> tuple[float, float]:
        """Return the loss and accuracy (nan = the task has none) of one model of a peer on a batch."""
        return self.gradient(weights, batch)[0], float("nan")

    def optimum(self) -> np.ndarray | None:
        """Return the exact minimum of the mean of the peers' objectives, float64 [size]; None = unknown."""
        return None

    def least_loss(self) -> float | None:
        """Return the test loss at the optimum; None = unknown."""
        best = self.optimum()
        return None if best is None else float(self.evaluate(np.asarray(best, dtype=np.float32)[None], "test")[0][0])

    # ---- samples --------------------------------------------------------------------------------------------------

    def indices(self, peer: int, part: Part = "shards") -> np.ndarray:
        """Return the indices of the samples that a peer trains with ("shards") or keeps apart ("held_out")."""
        ends = self._ends[part]
        return self.arrays[part][ends[peer - 1] if peer else 0 : ends[peer]]

    def take_probe(self, samples: int, seed: int) -> None:
        """Move `samples` training samples from the peers to the probe set; call it before `hold_out` and any sampler.

        The samples are drawn from the seed, uniformly among those that any peer holds; all copies of a sample go. Raises
        ValueError if a peer would have no training sample left.
        """
        shards = [self.indices(peer) for peer in range(len(self.samples))]
        pool = np.unique(np.concatenate(shards))
        if not 1 <= samples < len(pool):
            raise ValueError(
                f"a probe set of {samples} samples: expected 1 to {len(pool) - 1}, since there are {len(pool)} training samples"
            )
        chosen = np.sort(np.random.default_rng([seed, _PROBE]).choice(pool, samples, replace=False))
        left = [shard[~np.isin(shard, chosen)] for shard in shards]
        for peer, (before, after) in enumerate(zip(shards, left, strict=True)):
            if len(before) and not len(after):
                raise ValueError(
                    f"the probe set of {samples} samples takes all samples of peer {peer}: use a smaller probe set, fewer "
                    "peers, or a partition with a larger minimum"
                )
        self.probe = samples
        self.arrays = {**self.arrays, "probe": chosen}
        self._split(shards=left)
        self.samples = self._lengths("shards")

    def hold_out(self, share: float, seed: int) -> None:
        """Keep a share of each peer's samples apart from its training, at least one; call it before any sampler.

        The samples are drawn from the seed; all copies of a sample that a peer holds more than once go together. Raises
        ValueError if a peer would have no training sample left.
        """
        kept, trained = [], []
        for peer in range(len(self.samples)):
            shard = self.indices(peer)
            own = np.unique(shard)
            if len(own) == 1:
                raise ValueError(
                    f"peer {peer} has 1 training sample, but the strategy keeps a part of each peer's samples apart: "
                    "every peer needs 2 or more; use fewer peers, or a partition with a larger minimum"
                )
            count = max(1, round(share * len(own))) if len(own) else 0
            apart = np.isin(shard, np.random.default_rng([seed, _HELD_OUT, peer]).choice(own, count, replace=False))
            kept.append(shard[apart])
            trained.append(shard[~apart])
        self._split(shards=trained, held_out=kept)
        self.samples, self.held_out = self._lengths("shards"), self._lengths("held_out")

    def _split(self, **parts: Sequence[np.ndarray]) -> None:
        """Store each part of the peers' samples in one array."""
        for name, split in parts.items():
            self._ends[name] = np.cumsum([len(part) for part in split])
            self.arrays[name] = np.concatenate([np.asarray(part, dtype=np.int64) for part in split])
        self.arrays = read_only(self.arrays)

    def _lengths(self, part: Part) -> list[int]:
        return [int(count) for count in np.diff(self._ends[part], prepend=0)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "arrays": {}}


def read_only(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return read-only views of the arrays."""
    views = {name: array.view() for name, array in arrays.items()}
    for view in views.values():
        view.flags.writeable = False
    return views
