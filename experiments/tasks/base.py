"""What every task is (`Task`), and what it becomes for one run (`Problem`).

A task of one's own needs five members at most: its name and fields, `Task.problem`, `Problem.gradient`, `Problem.evaluate`, and
`Problem.offers` where it offers more than the standard work. All others have defaults here.
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
"""Data that nobody trains on: runs are stopped and settings chosen by the first, figures are of the second."""
Part = Literal["shards", "held_out"]
Cost = Callable[..., float]
"""What a piece of work takes of a device's time, in samples of a gradient."""

_HELD_OUT, _PROBE = 0x4E1D, 0x9B0E  # keep what is drawn here apart from everything else that is drawn from the seed
_OWN_ARRAYS = ("initial", "shards", "held_out", "probe")


class Task(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """What the fleet learns."""

    batch_size: int = 32
    """Samples in one gradient (1 to a million)."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size = {self.batch_size}: a gradient needs at least one sample; set it to 1 or more")
        if self.batch_size > MOST_SAMPLES:
            raise ValueError(f"batch_size = {self.batch_size}: more than {MOST_SAMPLES:,} samples are no batch; set it lower")

    @abstractmethod
    def problem(self, peers: int, partition: Partition, seed: int) -> "Problem":
        """Make the task concrete for `peers` peers: the same seed gives the same problem, bit for bit.

        Raises ValueError where the data cannot be split among so many peers.
        """
        raise NotImplementedError


def plain(samples: int) -> float:
    """The cost of a gradient over so many samples."""
    return samples


def forward(samples: int) -> float:
    """The cost of a forward pass alone: about a third of forward and backward together."""
    return samples / 3


def clipped(samples: int) -> float:
    """The cost of a gradient that is clipped sample by sample: one forward and two backward passes (Lee and Kifer 2021,
    "Scaling up differentially private deep learning with fast per-example gradient clipping", arXiv 2009.03106)."""
    return 5 * samples / 3


class Problem:
    """A task made concrete: start, samples, gradients and scores of one run.

    `initial` is where every peer starts: float [size], taken as float32. `shards` holds for each peer the indices of its
    training samples, as `partition.split` gives them; what an index means is for the task to say. `arrays` is the big data by
    name: read it from `self.arrays` in use, where it is read-only. `layout` names the tensors of the weights; one called
    "weights" when left out. Raises ValueError where these do not fit.

    A problem can be handed to another process by multiprocessing; it travels without its arrays, and `attach` gives them back
    there. One problem may serve any number of peers, one after the other, in one thread.
    """

    size: int
    """Number of parameters."""
    layout: Layout
    """The tensors that the parameters are made of, in order and without gaps."""
    samples: list[int]
    """Training samples of each peer."""
    held_out: list[int]
    """Samples that each peer keeps apart from its training: none before `hold_out`."""
    probe: int
    """Samples that all peers share and nobody trains with: none before `take_probe`."""
    outputs: int = 0
    """Numbers that `predict` gives for a sample; 0 where it is not offered."""
    arrays: dict[str, np.ndarray]
    """The big data, read-only in use, by name."""
    preload: tuple[str, ...] = ()
    """Modules that the gradient needs and the task itself has not imported, by name: a launcher may load them once and fork."""
    notes: list[str]
    """What a user should know about how this problem is computed; may grow during the run."""

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
            raise ValueError(f"the initial weights are {kind}: give a flat vector of finite numbers, float32 [size]")
        for name in arrays or ():
            if name in _OWN_ARRAYS or not name.isidentifier():
                raise ValueError(f'"{name}" cannot name an array: use a Python name other than {", ".join(_OWN_ARRAYS)}')
        self.size = len(start)
        self.layout = layout or lay([("weights", (self.size,))])
        self.notes = []
        self.probe = 0
        self.arrays = {name: np.asarray(array) for name, array in (arrays or {}).items()} | {"initial": start}
        self._ends: dict[str, np.ndarray] = {}
        self._split(shards=list(shards))
        self.samples, self.held_out = self._lengths("shards"), [0] * len(shards)

    # ---- what a task of one's own says ----------------------------------------------------------------------------

    def gradient(self, weights: np.ndarray, batch: Any) -> tuple[float, np.ndarray]:
        """The mean loss over a batch and its gradient: float32 [size] in, float32 [size] out, in a new array.

        The batch holds `indices` of samples, as the shards do, and a `seed` for whatever the model draws itself. The gradient
        may be kept: its memory is used again only once nobody holds it.
        """
        raise NotImplementedError

    def evaluate(self, weights: np.ndarray, data: HeldOut = "test") -> tuple[np.ndarray, np.ndarray]:
        """Score k models, float32 [k, size]: loss [k] and accuracy [k] on those data, nan where there is no such thing."""
        raise NotImplementedError

    def offers(self) -> dict[str, Cost]:
        """The work that a strategy may ask for, and what each takes of a device's time, in samples of a gradient.

        The cost of standard work is a function of the number of samples. A piece of the task's own, such as "solve", is a
        method of that name, `solve(peer, weights, **arguments)`, and its cost a function `(peer, **arguments)`. To offer
        more: `return {**super().offers(), "solve": lambda peer, rho: 10 * self.samples[peer]}`.
        """
        looks = {"clip": clipped, "held-out": forward, "probe": forward}
        return {"gradient": plain} | (looks if type(self).sampler is Problem.sampler else {})

    def predict(self, peer: int, weights: np.ndarray, batch: Any) -> np.ndarray:
        """What the model of a peer gives for the samples of a batch: float32 [samples, outputs], in a new array."""
        raise NotImplementedError

    # ---- what has a default ---------------------------------------------------------------------------------------

    @property
    def initial(self) -> np.ndarray:
        """Where every peer starts: float32 [size]; not to be written to."""
        return self.arrays["initial"]

    def attach(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Give the arrays back after the trip to another process; memory-mapped ones will do."""
        self.arrays = read_only(arrays)

    def sampler(self, peer: int, rng: np.random.Generator) -> Sampler:
        """Make the source of one peer's batches, with randomness of its own: epochs over its training samples."""
        return Epochs(self.indices(peer), rng)

    def gradients(self, weights: np.ndarray, batches: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """The losses [k] and gradients float32 [k, size] of k peers at once: what `gradient` gives, but for rounding.

        Both are new arrays.
        """
        losses, found = np.empty(len(batches)), np.empty((len(batches), self.size), dtype=np.float32)
        for k, batch in enumerate(batches):
            losses[k], found[k] = self.gradient(weights[k], batch)
        return losses, found

    def clipped_gradients(
        self, weights: np.ndarray, batches: Sequence[Any], clips: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Likewise, where each sample's gradient is scaled down to an L2 norm of at most `clips[k]` before the mean is taken.

        The losses are those before clipping.
        """
        return per_example(self.gradients, weights, batches, clips)

    def soft_gradients(
        self, weights: np.ndarray, batches: Sequence[Any], targets: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Likewise, towards `targets[k]`, float32 [samples, outputs], in the place of the labels."""
        raise NotImplementedError

    def measure(self, peer: int, weights: np.ndarray, batch: Any) -> tuple[float, float]:
        """The loss and accuracy (nan where there is none) of one model of a peer on a batch."""
        return self.gradient(weights, batch)[0], float("nan")

    def optimum(self) -> np.ndarray | None:
        """The exact minimum of the mean of the peers' objectives, float64 [size], where it is known."""
        return None

    def least_loss(self) -> float | None:
        """The test loss at the optimum; None where no optimum is known."""
        best = self.optimum()
        return None if best is None else float(self.evaluate(np.asarray(best, dtype=np.float32)[None], "test")[0][0])

    # ---- which samples --------------------------------------------------------------------------------------------

    def indices(self, peer: int, part: Part = "shards") -> np.ndarray:
        """The samples that a peer trains with, or keeps apart."""
        ends = self._ends[part]
        return self.arrays[part][ends[peer - 1] if peer else 0 : ends[peer]]

    def take_probe(self, samples: int, seed: int) -> None:
        """Take so many training samples away from all peers, for all of them to share; before `hold_out` and any sampler.

        Which ones is drawn from the seed, all alike, among those that any peer holds; all copies of a sample go. Raises
        ValueError where a peer would have nothing left to train with.
        """
        shards = [self.indices(peer) for peer in range(len(self.samples))]
        pool = np.unique(np.concatenate(shards))
        if not 1 <= samples < len(pool):
            raise ValueError(
                f"{samples} samples for the probe set out of {len(pool)} to train with: ask for 1 or more, and fewer"
            )
        chosen = np.sort(np.random.default_rng([seed, _PROBE]).choice(pool, samples, replace=False))
        left = [shard[~np.isin(shard, chosen)] for shard in shards]
        for peer, (before, after) in enumerate(zip(shards, left, strict=True)):
            if len(before) and not len(after):
                raise ValueError(
                    f"the {samples} samples of the probe set are all that peer {peer} has: ask for fewer, use fewer peers, or "
                    "a partition with a larger minimum"
                )
        self.probe = samples
        self.arrays = {**self.arrays, "probe": chosen}
        self._split(shards=left)
        self.samples = self._lengths("shards")

    def hold_out(self, share: float, seed: int) -> None:
        """Let every peer that has samples keep a share of them apart from its training, at least one; before any sampler.

        Which ones is drawn from the seed; all copies of a sample that a peer holds more than once go together. Raises
        ValueError where a peer would have nothing left to train with.
        """
        kept, trained = [], []
        for peer in range(len(self.samples)):
            shard = self.indices(peer)
            own = np.unique(shard)
            if len(own) == 1:
                raise ValueError(
                    f"peer {peer} has 1 training sample, and the strategy keeps a part of each peer's samples apart: "
                    "every peer needs 2 or more, so use fewer peers, or a partition with a larger minimum"
                )
            count = max(1, round(share * len(own))) if len(own) else 0
            apart = np.isin(shard, np.random.default_rng([seed, _HELD_OUT, peer]).choice(own, count, replace=False))
            kept.append(shard[apart])
            trained.append(shard[~apart])
        self._split(shards=trained, held_out=kept)
        self.samples, self.held_out = self._lengths("shards"), self._lengths("held_out")

    def _split(self, **parts: Sequence[np.ndarray]) -> None:
        """Keep parts of the peers' samples in one array each."""
        for name, split in parts.items():
            self._ends[name] = np.cumsum([len(part) for part in split])
            self.arrays[name] = np.concatenate([np.asarray(part, dtype=np.int64) for part in split])
        self.arrays = read_only(self.arrays)

    def _lengths(self, part: Part) -> list[int]:
        return [int(count) for count in np.diff(self._ends[part], prepend=0)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "arrays": {}}


def read_only(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Views of the arrays that cannot be written to."""
    views = {name: array.view() for name, array in arrays.items()}
    for view in views.values():
        view.flags.writeable = False
    return views
