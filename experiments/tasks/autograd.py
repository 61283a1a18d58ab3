"""A torch module behind one flat vector: the only file that imports torch.

Only trainable parameters are part of the vector, in the order of `module.parameters()`. Buffers are not: each gradient
is computed with the initial buffers of the module, so that it depends only on weights and batch. Batch normalisation
therefore takes its running statistics, before a model is scored, from a fixed sample of the training data (as Wu and
Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3.2).
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from grapevine.experiments.tasks.base import HeldOut
from grapevine.experiments.tasks.buffers import Vectors
from grapevine.experiments.tasks.clipping import per_example
from grapevine.experiments.tasks.sampling import Batch
from grapevine.peer.layout import Layout, lay

Loss = Callable[[Any, Tensor], Tensor]

_TOGETHER_FROM = 8  # fewer models are faster one by one: measured at 4,810 and at 10,026 parameters
_TOGETHER_MOST = 32
_SCORED_AT_ONCE = 512
_STATISTICS = 1024

_ON_BUFFERS = (
    "the module has buffers: they are neither trained nor exchanged, and each gradient is computed with their initial values; "
    "running statistics of batch normalisation are taken from the training data before a model is scored"
)


def build(factory: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Return the module, built with torch's generator seeded; the generator's state is restored.

    Raises ValueError if the factory does not return a module, or returns one that a flat float32 vector cannot hold.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = factory()
    if not isinstance(module, nn.Module):
        raise ValueError(f"factory() returned {type(module).__name__}: it must return a torch.nn.Module")
    trainable = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not trainable:
        raise ValueError("factory() returned a module without trainable parameters: add parameters that require a gradient")
    for name, parameter in trainable.items():
        if isinstance(parameter, nn.UninitializedParameter):
            raise ValueError(f"parameter {name} has no shape yet: call a lazy module with an input in the factory")
        if parameter.dtype != torch.float32 or parameter.device.type != "cpu":
            kind = f"{parameter.dtype} on {parameter.device}"
            raise ValueError(f"parameter {name} is {kind}: expected torch.float32 on cpu")
        if not parameter.isfinite().all():
            raise ValueError(f"parameter {name} holds nan or infinity at the start: correct its initialisation in the factory")
    return module


def flat(module: nn.Module) -> np.ndarray:
    """Return the trainable parameters of a module: float32 [size]."""
    return np.concatenate([p.detach().numpy().reshape(-1) for p in module.parameters() if p.requires_grad])


def layout(module: nn.Module) -> Layout:
    """Return the places of a module's trainable parameters in that vector, by their names in the module."""
    return lay((name, tuple(p.shape)) for name, p in module.named_parameters() if p.requires_grad)


class ModuleLearner:
    """The learner: autograd on a module whose parameters and gradients are views of flat vectors.

    `loss(output, labels)` is a mean over the batch, softmax cross entropy when None.
    """

    def __init__(self, factory: Callable[[], nn.Module], loss: Loss | None, seed: int, arrays: Mapping[str, np.ndarray]):
        self.notes: list[str] = []
        self._module = build(factory, seed).train()
        self._loss: Loss = loss or nn.functional.cross_entropy
        self._arrays = arrays
        named = [(name, p) for name, p in self._module.named_parameters() if p.requires_grad]
        self._names, self._parameters = [name for name, _ in named], [p for _, p in named]
        self._buffers = [(buffer, buffer.clone()) for buffer in self._module.buffers()]
        self._normalised = [m for m in self._module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        self._weights = flat(self._module)
        self.size = len(self._weights)
        for parameter, view in zip(self._parameters, self._cut(self._weights), strict=True):
            parameter.data = view
        self._vectors = Vectors(self.size, self._cut)
        self._together = vmap(grad_and_value(self._loss_at), chunk_size=_TOGETHER_MOST)
        self._refused = False
        if self._buffers:
            self.notes.append(_ON_BUFFERS)

    @property
    def couples_samples(self) -> bool:
        """Whether the module's output for one sample depends on the others of its batch, as with batch normalisation."""
        return any(isinstance(module, _BatchNorm) for module in self._module.modules())

    def outputs(self, weights: np.ndarray, indices: np.ndarray) -> int:
        """Return the number of outputs for a sample; 0 if the module's output is not a matrix [samples, outputs]."""
        output = self._used(weights, indices, indices, lambda chunk, output: output)[0]
        return output.shape[1] if isinstance(output, Tensor) and output.ndim == 2 and output.is_floating_point() else 0

    def gradient(self, weights: np.ndarray, batch: Batch, targets: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        """Return the loss and gradient of one peer, towards soft targets if given."""
        np.copyto(self._weights, weights)
        slot = self._vectors.take()
        slot.vector.fill(0)
        for parameter, view in zip(self._parameters, slot.parts, strict=True):
            parameter.grad = view  # autograd adds to this view, in place
        x, y = self._samples(batch.indices)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(batch.seed)
            loss = self._loss(self._module(x), y if targets is None else torch.from_numpy(targets))
            torch.autograd.backward(loss)
        self._restore()
        return loss.item(), slot.vector

    def gradients(
        self, weights: np.ndarray, batches: Sequence[Batch], targets: Sequence[np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the losses and gradients of k peers: at once if torch can, else one by one (a note gives the reason)."""
        equal = len({len(batch.indices) for batch in batches}) == 1
        if len(batches) >= _TOGETHER_FROM and equal and not self._refused:
            try:
                return self._at_once(weights, batches, targets)
            except Exception as problem:  # noqa: BLE001 - if the module is wrong, computing one by one raises too
                answer = self._one_by_one(weights, batches, targets)
                self._refuse(problem)
                return answer
        return self._one_by_one(weights, batches, targets)

    def soft_gradients(
        self, weights: np.ndarray, batches: Sequence[Batch], targets: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the same, towards soft targets, float32 [samples, outputs] each."""
        return self.gradients(weights, batches, targets)

    def clipped_gradients(
        self, weights: np.ndarray, batches: Sequence[Batch], clips: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the same, with each sample's gradient clipped to an L2 norm of at most `clips[k]`."""
        return per_example(self.gradients, weights, batches, clips)

    def measure(self, weights: np.ndarray, indices: np.ndarray, trained_on: np.ndarray) -> tuple[float, float]:
        """Return the loss and accuracy of one model on chosen training samples in evaluation mode: without dropout.

        Batch normalisation takes its running statistics from samples of `trained_on`.
        """

        def look(chunk: np.ndarray, output: Any) -> tuple[float, float]:
            y = self._samples(chunk)[1]
            return self._loss(output, y).item() * len(chunk), _right(output, y) * len(chunk)

        found = self._used(weights, indices, trained_on, look)
        return sum(loss for loss, _ in found) / len(indices), sum(right for _, right in found) / len(indices)

    def predict(self, weights: np.ndarray, indices: np.ndarray, trained_on: np.ndarray) -> np.ndarray:
        """Return the outputs of one model for chosen training samples, likewise: float32 [samples, outputs]."""
        return np.concatenate(self._used(weights, indices, trained_on, lambda chunk, output: output.numpy().astype(np.float32)))

    def _used(
        self, weights: np.ndarray, indices: np.ndarray, trained_on: np.ndarray, look: Callable[[np.ndarray, Any], Any]
    ) -> list[Any]:
        """Return `look(indices, output)` of the module's output for chosen training samples, some hundreds at a time."""
        self._module.eval()
        try:
            with torch.no_grad():
                np.copyto(self._weights, weights)
                self._settle(np.resize(trained_on, max(2, len(trained_on))))  # one value has no deviation
                chunks = (indices[start : start + _SCORED_AT_ONCE] for start in range(0, len(indices), _SCORED_AT_ONCE))
                return [look(chunk, self._module(self._samples(chunk)[0])) for chunk in chunks]
        finally:
            self._module.train()
            self._restore()

    def evaluate(self, weights: np.ndarray, data: HeldOut = "test") -> tuple[np.ndarray, np.ndarray]:
        """Return the loss and accuracy of k models on the validation or the test set.

        The models are scored one after the other: with vmap it took two to three times as long.
        """
        self._module.eval()
        try:
            with torch.no_grad():
                scores = [self._score(model, data) for model in weights]
        finally:
            self._module.train()
            self._restore()
        losses, accuracies = np.array(scores, dtype=np.float64).reshape(-1, 2).T
        return losses, accuracies

    def _refuse(self, problem: Exception) -> None:
        self._refused = True
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0].partition(". ")[0]
        self.notes.append(
            f"the peers' gradients are computed one by one, which is slower: torch.func.vmap cannot run this module ({reason})"
        )

    def _one_by_one(
        self, weights: np.ndarray, batches: Sequence[Batch], targets: Sequence[np.ndarray] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        losses = np.empty(len(batches), dtype=np.float32)
        gradients = np.empty((len(batches), self.size), dtype=np.float32)
        for k, batch in enumerate(batches):
            losses[k], gradients[k] = self.gradient(weights[k], batch, None if targets is None else targets[k])
        return losses, gradients

    def _at_once(
        self, weights: np.ndarray, batches: Sequence[Batch], targets: Sequence[np.ndarray] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        own = np.array(weights, dtype=np.float32)
        parameters = dict(zip(self._names, self._cut(own), strict=True))
        x, y = self._samples(np.stack([batch.indices for batch in batches]))
        if targets is not None:
            y = torch.from_numpy(np.stack(targets))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # "performance drop": slower, not wrong
                found, losses = self._together(parameters, x, y)
        finally:
            self._restore()
        gradients = np.empty_like(own)
        for name, view in zip(self._names, self._cut(gradients), strict=True):
            view.copy_(found[name])
        return losses.detach().numpy(), gradients

    def _loss_at(self, parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return self._loss(functional_call(self._module, parameters, (x,)), y)

    def _score(self, weights: np.ndarray, data: HeldOut) -> tuple[float, float]:
        np.copyto(self._weights, weights)
        self._settle(np.arange(len(self._arrays["train_y"])))
        count, loss, right = len(self._arrays[f"{data}_y"]), 0.0, 0.0
        for start in range(0, count, _SCORED_AT_ONCE):
            chunk = np.arange(start, min(count, start + _SCORED_AT_ONCE))
            x, y = self._samples(chunk, data)
            output = self._module(x)
            loss += self._loss(output, y).item() * len(chunk)
            right += _right(output, y) * len(chunk)
        return loss / count, right / count

    def _settle(self, samples: np.ndarray) -> None:
        """Compute the running statistics of batch normalisation for the present weights, from some of these samples."""
        if not self._normalised:
            return
        sample = np.random.default_rng(0).permutation(samples)[:_STATISTICS]
        before = [layer.momentum for layer in self._normalised]
        for layer in self._normalised:
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean over the chunks
            layer.train()
        for chunk in np.array_split(sample, -(-len(sample) // _SCORED_AT_ONCE)):
            self._module(self._samples(chunk)[0])
        for layer, momentum in zip(self._normalised, before, strict=True):
            layer.momentum = momentum
            layer.eval()

    def _samples(self, indices: np.ndarray, which: str = "train") -> tuple[Tensor, Tensor]:
        x, y = self._arrays[f"{which}_x"], self._arrays[f"{which}_y"]
        return torch.from_numpy(x.take(indices, axis=0)), torch.from_numpy(y.take(indices, axis=0))

    def _cut(self, vectors: np.ndarray) -> list[Tensor]:
        """Return views of the parameters in flat vectors [size] or [k, size]."""
        whole, views, start = torch.from_numpy(vectors), [], 0
        for parameter in self._parameters:
            stop = start + parameter.numel()
            views.append(whole[..., start:stop].view(*vectors.shape[:-1], *parameter.shape))
            start = stop
        return views

    def _restore(self) -> None:
        with torch.no_grad():
            for buffer, built in self._buffers:
                buffer.copy_(built)


def _right(output: Any, labels: Tensor) -> float:
    """Return the share of samples whose largest output is that of their label; nan if the labels are not classes."""
    if not isinstance(output, Tensor) or labels.is_floating_point() or output.ndim < 2:
        return float("nan")
    best = output.argmax(dim=1)
    return (best == labels).double().mean().item() if best.shape == labels.shape else float("nan")
