"""The verbs by which a strategy gets work from its peer's task: gradients, losses, predictions, and pieces of the task."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from grapevine.peer.calls import Calls
from grapevine.peer.effects import STANDARD, Work
from grapevine.peer.meter import SpeedMeter
from grapevine.peer.samples import Samples

_PLAIN: Mapping[str, Any] = {}
_PREFIX = "this strategy asks its task for"


class Score(NamedTuple):
    """The loss and accuracy of a model on some samples; the accuracy is nan if the task has none."""

    loss: float
    accuracy: float


class NoData:
    """The data of a peer to which no world has given samples yet: every use raises RuntimeError."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("this peer has no samples before a world carries it out")


class Data(Protocol):
    """The samples that one peer may use, as handles."""

    def draw(self, count: int) -> Samples:
        """Return the next minibatch of `count` of the peer's own training samples."""

    def whole(self) -> Samples:
        """Return all of the peer's own training samples."""

    def held_out(self) -> Samples:
        """Return the samples that the peer keeps apart from training."""

    def probe(self) -> Samples:
        """Return the samples that all peers share and no peer trains on."""


class Worker(Calls):
    """The part of a `Peer` that gets work from its task.

    A strategy declares all work except plain gradients on its class, in `asks`; the verbs raise ValueError for other work.  The
    task gives the cost of each piece of work in samples of a gradient, and the work takes the device's time for so many
    samples.  No verb returns labels, not even those of the peer's own samples; a piece of the task's own work may (`work`).
    """

    weights: np.ndarray
    size: int
    batch_size: int
    data_samples: int
    held_out_samples: int
    speed: SpeedMeter
    samples: int
    loss: float
    loss_sum: float
    loss_count: int

    data: Data = NoData()  # a world replaces it
    asks: frozenset[str] = frozenset()
    outputs = 0
    """Number of outputs of the model for each sample (the classes); 0 if the task offers no predictions."""
    probe_samples = 0
    """Number of samples in the probe set; 0 = there is none."""

    # ---- samples --------------------------------------------------------------------------------------------------

    def batch(self, size: int | None = None) -> Samples:
        """Return the next minibatch of this peer's own training samples: `size` of them, by default `batch_size`.

        It comes from the stream of minibatches that `gradient()` uses, takes no time, and may be used any number of times.
        """
        if size is None:
            size = self.batch_size
        elif size < 1:
            raise ValueError(f"size = {size}: a batch needs at least one sample")
        return self.data.draw(size)

    def shard(self) -> Samples:
        """Return all training samples of this peer; raise ValueError if it holds none because it is a server."""
        return self.data.whole()

    def probe(self) -> Samples:
        """Return the samples that all peers share and no peer trains on, in the same order at every peer.

        Their labels are hidden: `predict` reads the inputs, `gradient` needs `targets`, `evaluate` gives the mean loss
        and accuracy.  Raises ValueError if there are none because the strategy's `probe_samples` is 0.
        """
        if not self.probe_samples:
            raise ValueError("there is no probe set: let the strategy's probe_samples be above 0")
        return self.data.probe()

    # ---- what a strategy awaits -----------------------------------------------------------------------------------

    async def gradient(
        self,
        weights: np.ndarray | None = None,
        batch: Samples | None = None,
        clip: float | None = None,
        targets: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the gradient of the mean loss over the next minibatch at the present weights, float32 [size].

        `weights` (float32 [size]) replace the present weights; they are copied.  `batch` is a handle from `batch` or `shard`,
        or, with `targets`, from `probe`, whose labels no peer may train with.  `clip` (above 0) scales each sample's gradient
        down to at most this L2 norm before the mean is taken (Abadi et al. 2016, arXiv 1607.00133, section 3.1, without the
        noise).  `targets` (float32 [len(batch), outputs]) replace the labels: the loss is the cross entropy -sum_c t_c log p_c.
        Raises ValueError for `clip` or `targets` that the strategy does not declare in its `asks`, for a probe handle without
        `targets`, and for a wrong shape.

        Minibatches are parts of shuffled epochs, not Poisson lots, so with `clip` and noise no privacy amplification by
        subsampling may be claimed.  A Poisson lot is `samples = shard()`, `samples[rng.random(len(samples)) < q]`; a handle
        without samples raises ValueError.

        Sets `loss` to the loss before any clipping.  The number, loss and time of training samples go into `samples`, the
        recorded training loss and `speed`: always for a fresh minibatch, for a given `batch` only at the present weights, and
        never with `targets`.
        """
        count, chosen = self.batch_size, None
        if batch is not None:
            count, chosen = _handle(batch).count, batch.batch
            if batch.source != "training" and targets is None:
                raise ValueError(
                    f"no peer trains with the labels of the {batch.source} samples: give targets (float32 [len(batch), "
                    "outputs]), such as the peers' predictions, or a handle from peer.batch or peer.shard"
                )
        name, arguments = "gradient", _PLAIN
        if clip is not None or targets is not None:
            name, arguments = self._variant(count, clip, targets)
        at = None if weights is None else self._model(weights)
        start_ns = self.instant_ns
        gradient: np.ndarray
        self.loss, gradient = await Work(name, count, chosen, at, arguments)
        self.calls = 0
        if targets is None and (batch is None or at is None):
            self.speed.computed(self.instant_ns - start_ns, count)
            self.loss_sum += self.loss
            self.loss_count += 1
            self.samples += count
        return gradient

    async def evaluate(self, weights: np.ndarray | None = None, on: Literal["held-out", "probe"] = "held-out") -> Score:
        """Return the loss and accuracy of a model on samples that this peer never trains with.

        The model is this peer's weights, or `weights` (float32 [size]).  `on` is "held-out", the samples that the peer keeps
        apart, or "probe", the samples that all peers share.  On emulated devices it takes as long as a gradient over a third as
        many samples (an assumption: a backward pass takes twice the time of a forward pass), the device's overhead included.
        Raises ValueError if there are no such samples.
        """
        self._count()
        if on == "held-out":
            if not self.held_out_samples:
                raise ValueError("this peer keeps no samples apart: let the strategy's held_out_share be above 0")
            samples = self.data.held_out()
        elif on == "probe":
            samples = self.probe()
        else:
            raise ValueError(f'on = {on!r}: a model is evaluated on "held-out" or on "probe"')
        at = None if weights is None else self._model(weights)
        return Score(*await Work(on, samples.count, samples.batch, at, _PLAIN))

    async def predict(self, inputs: Samples, weights: np.ndarray | None = None) -> np.ndarray:
        """Return the outputs of the model for some samples, before any softmax: float32 [len(inputs), outputs].

        `inputs` is a handle from `batch`, `shard` or `probe`; `weights` (float32 [size]) replace the peer's own.  It takes as
        long as `evaluate`.  Raises ValueError if the strategy's `asks` lack "predict".
        """
        self._count()
        self._declared("predict")
        at = None if weights is None else self._model(weights)
        outputs: np.ndarray = await Work("predict", _handle(inputs).count, inputs.batch, at, _PLAIN)
        return outputs

    async def work(self, name: str, /, weights: np.ndarray | None = None, **arguments: Any) -> Any:
        """Return the result of a piece of work that the task defines, by its name.

        The task's documentation lists the arguments and the result.  The work uses this peer's weights, or `weights` (float32
        [size]).  Raises ValueError if the strategy's `asks` lack the name.
        """
        self._count()
        if name in STANDARD:
            raise ValueError(f'"{name}" is not a piece of a task: await peer.gradient, peer.evaluate or peer.predict')
        self._declared(name)
        return await Work(name, None, None, None if weights is None else self._model(weights), arguments)

    # ---- checks of arguments -----------------------------------------------------------------------------------------

    def _declared(self, name: str) -> None:
        if name not in self.asks:
            raise ValueError(f'{_PREFIX} "{name}" but does not declare it: write asks = ("{name}",) on its class')

    def _variant(self, count: int, clip: float | None, targets: np.ndarray | None) -> tuple[str, dict[str, Any]]:
        """Return the name and arguments of a gradient that is clipped or towards soft targets."""
        if targets is None:
            self._declared("clip")
            if clip is None or not 0 < clip < inf:
                raise ValueError(f"clip = {clip}: the largest L2 norm of one sample's gradient is above 0 and finite")
            return "clip", {"clip": float(clip)}
        if clip is not None:
            raise ValueError("a gradient is either clipped or towards targets: leave one of clip and targets out")
        self._declared("targets")
        towards = np.array(targets, dtype=np.float32)
        if towards.shape != (count, self.outputs):
            wanted = f"[{count}, {self.outputs}]"
            raise ValueError(f"targets have the shape {list(towards.shape)}: {wanted} is needed, a row for each sample")
        if not np.isfinite(towards).all():
            raise ValueError("targets hold nan or infinity: every number must be finite")
        return "targets", {"targets": towards}

    def _model(self, weights: np.ndarray) -> np.ndarray:
        """Return a checked copy of the weights that a strategy gives."""
        own = np.array(weights, dtype=np.float32)
        if own.shape != (self.size,):
            raise ValueError(f"weights have the shape {list(own.shape)}: [{self.size}] is needed, as peer.weights have")
        return own


def _handle(given: Samples) -> Samples:
    if not isinstance(given, Samples):
        kind = type(given).__name__
        raise ValueError(
            f"a value of type {kind} is not a handle of samples: give one from peer.batch(size), peer.shard() or peer.probe()"
        )
    return given
