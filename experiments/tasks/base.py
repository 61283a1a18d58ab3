"""What every task is (`Task`), and what it becomes for one run (`Problem`, `Sampler`)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec
import numpy as np

from grapevine.experiments.tasks.partitions import Partition
from grapevine.peer.layout import Layout

MOST_SAMPLES = 1_000_000
HeldOut = Literal["validation", "test"]
"""Data that nobody trains on: runs are stopped and settings chosen by the first, figures are of the second."""


class Task(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """What the fleet learns."""

    batch_size: int = 32
    """Samples in one gradient (1 to a million)."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size = {self.batch_size}: a gradient needs at least one sample; set it to 1 or more")
        if self.batch_size > MOST_SAMPLES:
            raise ValueError(f"batch_size = {self.batch_size}: more than {MOST_SAMPLES:,} samples are no batch; set it lower")

    def problem(self, peers: int, partition: Partition, seed: int) -> "Problem":
        """Make the task concrete for `peers` peers: the same seed gives the same problem, bit for bit.

        Raises ValueError where the data cannot be split among so many peers.
        """
        raise NotImplementedError


class Sampler(Protocol):
    """Where one peer's batches come from."""

    def draw(self, batch_size: int) -> Any:
        """Draw the next batch; only the problem that made the sampler can read it."""


class Problem(Protocol):
    """A task made concrete: start, samples, gradients and scores of one run.

    A problem can be handed to another process by multiprocessing; it travels without its arrays, and `attach` gives
    them back there. One problem may serve any number of peers, one after the other, in one thread.
    """

    size: int
    """Number of parameters."""
    layout: Layout
    """The tensors that the parameters are made of, in order and without gaps."""
    samples: list[int]
    """Training samples of each peer."""
    held_out: list[int]
    """Samples that each peer keeps apart from its training: none before `hold_out`."""
    arrays: dict[str, np.ndarray]
    """The big data, read-only in use, by name."""
    preload: tuple[str, ...]
    """Modules that the gradient needs and the task itself has not imported, by name: a launcher may load them once and fork."""
    notes: list[str]
    """What a user should know about how this problem is computed; may grow during the run."""

    @property
    def initial(self) -> np.ndarray:
        """Where every peer starts: float32 [size]; not to be written to."""

    def attach(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Give the arrays back after the trip to another process; memory-mapped ones will do."""

    def hold_out(self, share: float, seed: int) -> None:
        """Let every peer that has samples keep a share of them apart from its training, at least one; before any sampler.

        Which ones is drawn from the seed.  Raises ValueError where a peer would have nothing left to train with.
        """

    def held_out_loss(self, peer: int, weights: np.ndarray) -> float:
        """The loss of weights float32 [size] over the samples that a peer keeps apart."""

    def sampler(self, peer: int, rng: np.random.Generator) -> Sampler:
        """Make the source of one peer's batches, with randomness of its own."""

    def gradient(self, weights: np.ndarray, batch: Any) -> tuple[float, np.ndarray]:
        """Compute one peer's loss and gradient: float32 [size] in, float32 [size] out.

        The gradient may be kept: its memory is used again only once nobody holds it.
        """

    def gradients(self, weights: np.ndarray, batches: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Compute k peers' losses [k] and gradients float32 [k, size] at once: what `gradient` gives, but for rounding.

        Both are new arrays.
        """

    def evaluate(self, weights: np.ndarray, data: HeldOut = "test") -> tuple[np.ndarray, np.ndarray]:
        """Score k models, float32 [k, size]: loss [k] and accuracy [k] on those data, nan where there is no such thing."""

    def optimum(self) -> np.ndarray | None:
        """The exact minimum of the mean of the peers' objectives, float64 [size], where it is known."""
