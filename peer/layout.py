"""What a flat vector is made of: the model's tensors, one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

import numpy as np


class Tensor(NamedTuple):
    """One tensor of the model: its elements lie in row-major order from `start` on."""

    name: str
    start: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many elements it has."""
        return prod(self.shape)

    @property
    def stop(self) -> int:
        """The element after its last one."""
        return self.start + self.size

    def where(self) -> slice:
        """Its elements as an index into the flat vector."""
        return slice(self.start, self.stop)

    def view(self, vector: np.ndarray) -> np.ndarray:
        """The tensor inside a flat vector such as `peer.weights` or a gradient, in its own shape, without a copy.

        What is written to the view is written to the vector.  Raises ValueError where the vector is not a contiguous one that
        reaches as far as the tensor.
        """
        if vector.ndim != 1 or len(vector) < self.stop or not vector.flags.c_contiguous:
            raise ValueError(
                f"tensor {self.name!r} is elements {self.start} to {self.stop} of the model, and no view of an array of shape "
                f"{vector.shape}; give a contiguous vector of the model's size"
            )
        return vector[self.start : self.stop].reshape(self.shape)

    def flat(self, values: np.ndarray) -> np.ndarray:
        """Values in the tensor's shape as they lie in the flat vector, [size]; without a copy where they are contiguous.

        Raises ValueError where they have another shape.
        """
        if values.shape != self.shape:
            raise ValueError(f"tensor {self.name!r} has the shape {self.shape}, and the values given have {values.shape}")
        return values.reshape(-1)


class Layout(tuple[Tensor, ...]):
    """The tensors of a model in order, without gaps: a tuple that finds them by name too."""

    __slots__ = ()

    def find(self, name: str) -> Tensor:
        """The tensor of this name; raises ValueError, with the names that there are, where there is none."""
        for tensor in self:
            if tensor.name == name:
                return tensor
        raise ValueError(f"the model has no tensor {name!r}; it has {', '.join(tensor.name for tensor in self)}")

    @property
    def largest(self) -> Tensor:
        """The tensor with the most elements; the first of several."""
        return max(self, key=lambda tensor: tensor.size)


def lay(tensors: Iterable[tuple[str, tuple[int, ...]]]) -> Layout:
    """Lay tensors of these names and shapes one after the other, from element 0 on."""
    laid: list[Tensor] = []
    for name, shape in tensors:
        laid.append(Tensor(name, laid[-1].stop if laid else 0, tuple(shape)))
    return Layout(laid)
