"""The places of the model's tensors in the flat vector of weights, one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

import numpy as np


class Tensor(NamedTuple):
    """One tensor of the model: its elements stand in row-major order from element `start` of the flat vector on."""

    name: str
    start: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def stop(self) -> int:
        """The place after the last element."""
        return self.start + self.size

    def where(self) -> slice:
        """Return the tensor's elements as an index into the flat vector."""
        return slice(self.start, self.stop)

    def view(self, vector: np.ndarray) -> np.ndarray:
        """Return the tensor inside a flat vector, such as `peer.weights` or a gradient, in its own shape, without a copy.

        Writing to the view changes the vector.  Raises ValueError if the vector is not contiguous or ends before the tensor.
        """
        if vector.ndim != 1 or len(vector) < self.stop or not vector.flags.c_contiguous:
            raise ValueError(
                f"tensor {self.name!r} is elements {self.start} to {self.stop} of the model, and no view of an array of shape "
                f"{vector.shape}; give a contiguous vector of the model's size"
            )
        return vector[self.start : self.stop].reshape(self.shape)

    def flat(self, values: np.ndarray) -> np.ndarray:
        """Return values of the tensor's shape as a flat vector, [size]; without a copy if they are contiguous.

        Raises ValueError if they have another shape.
        """
        if values.shape != self.shape:
            raise ValueError(f"tensor {self.name!r} has the shape {self.shape}, and the values given have {values.shape}")
        return values.reshape(-1)


class Layout(tuple[Tensor, ...]):
    """The tensors of a model in order, without gaps: a tuple that also finds a tensor by its name."""

    __slots__ = ()

    def find(self, name: str) -> Tensor:
        """Return the tensor of a name; raise ValueError, which lists the known names, if there is none."""
        for tensor in self:
            if tensor.name == name:
                return tensor
        raise ValueError(f"the model has no tensor {name!r}; it has {', '.join(tensor.name for tensor in self)}")

    @property
    def largest(self) -> Tensor:
        """The tensor with the most elements; the first one if several have as many."""
        return max(self, key=lambda tensor: tensor.size)


def lay(tensors: Iterable[tuple[str, tuple[int, ...]]]) -> Layout:
    """Return a layout of tensors with these names and shapes, one after the other from element 0 on."""
    laid: list[Tensor] = []
    for name, shape in tensors:
        laid.append(Tensor(name, laid[-1].stop if laid else 0, tuple(shape)))
    return Layout(laid)
