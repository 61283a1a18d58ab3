"""Multi-layer perceptrons with softmax cross entropy: gradients written in numpy, directly on the flat weights.

Numpy instead of torch, by measurement: a batch of 32 at 4,810 parameters on one thread takes 31 us here, 58 us
in torch without autograd and 150 us with it; at a million parameters numpy's OpenBLAS takes 2.1 ms and torch's MKL 1.7
to 2.0 ms. Besides, a peer without torch starts a second earlier.

Layout of the flat vector: layer after layer, each a matrix [inputs + 1, outputs] in row-major order whose last row is
the bias. The inputs and all hidden activations have a last column of ones, so that one product gives a layer with its bias, and
one product the gradient of both.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from grapevine.experiments.tasks.base import HeldOut
from grapevine.experiments.tasks.buffers import Vectors
from grapevine.experiments.tasks.clipping import factors
from grapevine.experiments.tasks.sampling import Batch
from grapevine.peer.layout import Layout, lay

_CHUNK_FLOATS = 1 << 19  # a chunk of peers needs about 2 MB, so it stays in the cache


class Layer(NamedTuple):
    """The place of one layer in the flat vector."""

    start: int
    stop: int
    rows: int
    columns: int


def layers(widths: Sequence[int]) -> list[Layer]:
    """Return the layers of a perceptron of these widths, inputs first: `[64, 64, 10]` has 4,810 parameters."""
    laid, start = [], 0
    for inputs, outputs in itertools.pairwise(widths):
        stop = start + (inputs + 1) * outputs
        laid.append(Layer(start, stop, inputs + 1, outputs))
        start = stop
    return laid


def layout(widths: Sequence[int]) -> Layout:
    """Return the tensors: for each layer the weights [inputs, outputs], then the bias, which is the last row of its matrix."""
    return lay(
        (f"{number}.{name}", shape)
        for number, layer in enumerate(layers(widths))
        for name, shape in (("weight", (layer.rows - 1, layer.columns)), ("bias", (layer.columns,)))
    )


def initial(widths: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Return random initial weights and biases, uniform in +-1/sqrt(inputs) as in torch.nn.Linear: float32 [size]."""
    return np.concatenate(
        [
            rng.uniform(-1, 1, layer.stop - layer.start).astype(np.float32) / np.float32(np.sqrt(layer.rows - 1))
            for layer in layers(widths)
        ]
    )


class Perceptron:
    """The learner: relu between the layers, softmax cross entropy at the end, mean over the batch.

    `arrays`: `train_x`, `validation_x` and `test_x` float32 [samples, widths[0] + 1] whose last column is one, `train_y`,
    `validation_y` and `test_y` int64 [samples].
    """

    def __init__(self, widths: Sequence[int], arrays: Mapping[str, np.ndarray]):
        self.notes: list[str] = []
        self._layers = layers(widths)
        self.size = self._layers[-1].stop
        self._activations = sum(layer.rows + layer.columns for layer in self._layers)
        self._x, self._y = arrays["train_x"], arrays["train_y"]
        self._arrays = arrays
        self._vectors = Vectors(self.size, lambda flat: self._parts(flat[None]))
        self._spaces: dict[tuple[int, int], _Workspace] = {}

    def gradient(self, weights: np.ndarray, batch: Batch) -> tuple[float, np.ndarray]:
        """Return the loss and gradient of one peer."""
        slot = self._vectors.take()
        space = self._space(1, len(batch.indices))
        losses = self._step(space, self._parts(weights[None]), batch.indices[None], slot.parts)
        return float(losses[0]), slot.vector

    def gradients(
        self,
        weights: np.ndarray,
        batches: Sequence[Batch],
        targets: Sequence[np.ndarray] | None = None,
        clips: Sequence[float] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the losses and gradients of k peers; those with batches of one size are computed together."""
        losses, out = np.empty(len(batches), dtype=np.float32), np.empty((len(batches), self.size), dtype=np.float32)
        start = 0
        while start < len(batches):
            length = len(batches[start].indices)
            stop = start + 1
            most = start + max(1, _CHUNK_FLOATS // (2 * self.size + 2 * length * self._activations))
            while stop < min(len(batches), most) and len(batches[stop].indices) == length:
                stop += 1
            indices = np.stack([batch.indices for batch in batches[start:stop]])
            space = self._space(stop - start, length)
            losses[start:stop] = self._step(
                space,
                self._parts(weights[start:stop]),
                indices,
                self._parts(out[start:stop]),
                None if targets is None else np.stack(targets[start:stop]),
                None if clips is None else np.array(clips[start:stop]),
            )
            start = stop
        return losses, out

    def soft_gradients(
        self, weights: np.ndarray, batches: Sequence[Batch], targets: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the same, towards soft targets, float32 [samples, outputs] each."""
        return self.gradients(weights, batches, targets=targets)

    def clipped_gradients(
        self, weights: np.ndarray, batches: Sequence[Batch], clips: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the same, with each sample's gradient clipped to an L2 norm of at most `clips[k]`."""
        return self.gradients(weights, batches, clips=clips)

    def measure(self, weights: np.ndarray, indices: np.ndarray, trained_on: np.ndarray) -> tuple[float, float]:
        """Return the loss and accuracy of one model on chosen training samples."""
        space, labels = self._space(1, len(indices)), self._y.take(indices)
        with np.errstate(all="ignore"):
            self._forward(space, self._parts(weights[None]), indices[None])
            right = (space.logits[0].argmax(axis=1) == labels).mean()
            losses, _ = space.softmax(labels[None])
        return float(losses[0]), float(right)

    def predict(self, weights: np.ndarray, indices: np.ndarray, trained_on: np.ndarray) -> np.ndarray:
        """Return the logits of one model for chosen training samples: float32 [samples, classes]."""
        space = self._space(1, len(indices))
        with np.errstate(all="ignore"):
            self._forward(space, self._parts(weights[None]), indices[None])
        logits: np.ndarray = space.logits[0].copy()
        return logits

    def evaluate(self, weights: np.ndarray, data: HeldOut = "test") -> tuple[np.ndarray, np.ndarray]:
        """Return the loss and accuracy of k models on the validation or the test set."""
        inputs, labels = self._arrays[f"{data}_x"], self._arrays[f"{data}_y"]
        models, samples = len(weights), len(labels)
        loss, accuracy = np.empty(models), np.empty(models)
        step = max(1, _CHUNK_FLOATS * 8 // (samples * self._activations))
        with np.errstate(all="ignore"):  # scores of a diverged model are nan, not an error
            for start in range(0, models, step):
                chunk = slice(start, start + step)
                logits = self._logits(self._parts(weights[chunk]), inputs)
                logits -= logits.max(axis=2, keepdims=True)
                right = logits[:, np.arange(samples), labels]
                loss[chunk] = (np.log(np.exp(logits).sum(axis=2)) - right).mean(axis=1, dtype=np.float64)
                accuracy[chunk] = (logits.argmax(axis=2) == labels).mean(axis=1)
        return loss, accuracy

    def _logits(self, matrices: list[np.ndarray], inputs: np.ndarray) -> np.ndarray:
        for matrix in matrices[:-1]:
            hidden = np.ones((len(matrix), inputs.shape[-2], matrix.shape[2] + 1), dtype=np.float32)
            np.maximum(np.matmul(inputs, matrix), 0, out=hidden[:, :, :-1])
            inputs = hidden
        logits: np.ndarray = np.matmul(inputs, matrices[-1])
        return logits

    def _parts(self, flat: np.ndarray) -> list[np.ndarray]:
        """Return views of the layers' matrices in the flat vectors [k, size]."""
        return [flat[:, start:stop].reshape(-1, rows, columns) for start, stop, rows, columns in self._layers]

    def _space(self, peers: int, batch_size: int) -> "_Workspace":
        space = self._spaces.get((peers, batch_size))
        if space is None:
            if len(self._spaces) == 4:  # the sizes vary in virtual time; a few workspaces are kept
                del self._spaces[next(iter(self._spaces))]
            space = self._spaces[peers, batch_size] = _Workspace(self._layers, peers, batch_size)
        return space

    def _forward(self, space: "_Workspace", matrices: list[np.ndarray], indices: np.ndarray) -> None:
        """Fill the workspace's activations and logits."""
        matmul, last = np.matmul, len(matrices) - 1
        self._x.take(indices, axis=0, out=space.inputs[0], mode="clip")  # numpy's unbuffered way; no index is outside
        for layer in range(last):
            hidden = space.hidden[layer]
            matmul(space.inputs[layer], matrices[layer], out=hidden)
            np.maximum(hidden, 0, out=hidden)
        matmul(space.inputs[last], matrices[last], out=space.logits)

    def _step(
        self,
        space: "_Workspace",
        matrices: list[np.ndarray],
        indices: np.ndarray,
        gradients: list[np.ndarray],
        targets: np.ndarray | None = None,
        clips: np.ndarray | None = None,
    ) -> np.ndarray:
        """Losses [k]; the gradients are written into the given matrices [k, rows, columns].

        `targets` float32 [k, samples, outputs] take the place of the labels; `clips` [k] bound the samples' gradients.
        """
        matmul, errors, last = np.matmul, space.errors, len(matrices) - 1
        with np.errstate(all="ignore"):
            self._forward(space, matrices, indices)
            losses = space.softmax(self._y.take(indices, mode="clip"))[0] if targets is None else space.soften(targets)
            for layer in range(last, -1, -1):
                if clips is None:  # at once, while the errors are in the cache
                    matmul(space.transposed[layer], errors[layer], out=gradients[layer])
                if layer:
                    back, mask = errors[layer - 1], space.masks[layer - 1]
                    matmul(errors[layer], matrices[layer][:, :-1].transpose(0, 2, 1), out=back)
                    np.greater(space.hidden[layer - 1], 0, out=mask)
                    np.multiply(back, mask, out=back)
            if clips is not None:
                space.clip(clips)
                for layer in range(last, -1, -1):
                    matmul(space.transposed[layer], errors[layer], out=gradients[layer])
        return losses


class _Workspace:
    """The memory for the gradients of k batches of one size."""

    def __init__(self, laid: list[Layer], peers: int, batch_size: int):
        shape = (peers, batch_size)
        self.inputs = [np.ones((*shape, layer.rows), dtype=np.float32) for layer in laid]
        self.transposed = [inputs.transpose(0, 2, 1) for inputs in self.inputs]
        self.hidden = [inputs[:, :, :-1] for inputs in self.inputs[1:]]
        self.masks = [np.empty(hidden.shape, dtype=np.bool_) for hidden in self.hidden]
        self.logits = np.empty((*shape, laid[-1].columns), dtype=np.float32)
        self.errors = [*(np.empty(hidden.shape, dtype=np.float32) for hidden in self.hidden), self.logits]
        self._flat = self.logits.reshape(-1)
        self._rows = (np.arange(peers * batch_size) * laid[-1].columns).reshape(shape)
        self._column = np.empty((*shape, 1), dtype=np.float32)

    def softmax(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean losses [k] and their gradient with respect to the logits, which overwrites the logits."""
        logits, column, batch_size = self.logits, self._column, self.logits.shape[1]
        np.maximum.reduce(logits, axis=2, keepdims=True, out=column)
        np.subtract(logits, column, out=logits)
        places = self._rows + labels
        right = self._flat.take(places)
        np.exp(logits, out=logits)
        np.add.reduce(logits, axis=2, keepdims=True, out=column)
        losses = np.add.reduce(np.log(column[:, :, 0]) - right, axis=1) / batch_size
        np.multiply(column, batch_size, out=column)
        np.divide(logits, column, out=logits)
        self._flat[places] -= np.float32(1 / batch_size)
        return losses, logits

    def soften(self, targets: np.ndarray) -> np.ndarray:
        """Return the mean losses [k] towards soft targets [k, samples, outputs]; their gradient overwrites the logits."""
        logits, batch_size = self.logits, self.logits.shape[1]
        logits -= logits.max(axis=2, keepdims=True)
        right, mass = np.einsum("kbc,kbc->kb", targets, logits), targets.sum(axis=2)
        np.exp(logits, out=logits)
        total = logits.sum(axis=2)
        logits *= (mass / total)[:, :, None]
        logits -= targets
        logits /= batch_size
        losses: np.ndarray = (mass * np.log(total) - right).sum(axis=1) / batch_size
        return losses

    def clip(self, clips: np.ndarray) -> None:
        """Scale the errors of each sample so that its gradient has an L2 norm of at most clips [k].

        A layer's gradient of one sample is the outer product of its inputs and its errors, so its squared norm is the product
        of their squared norms (Goodfellow 2015, "Efficient per-example gradient computations", arXiv 1510.01799).
        """
        squares = np.zeros(self.logits.shape[:2])
        for inputs, errors in zip(self.inputs, self.errors, strict=True):
            squares += np.einsum("kbi,kbi->kb", inputs, inputs).astype(float) * np.einsum("kbi,kbi->kb", errors, errors)
        norms = self.logits.shape[1] * np.sqrt(squares)  # the errors are of the mean loss, 1 / samples of a sample's own
        scale = factors(norms, clips[:, None]).astype(np.float32)[:, :, None]
        for errors in self.errors:
            errors *= scale
