"""What a flat vector is made of: the model's tensors, one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import NamedTuple


class Tensor(NamedTuple):
    """One tensor of the model: its elements lie in row-major order from `start` on."""

    name: str
    start: int
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        """The element after its last one."""
        return self.start + prod(self.shape)


Layout = tuple[Tensor, ...]


def lay(tensors: Iterable[tuple[str, tuple[int, ...]]]) -> Layout:
    """Lay tensors of these names and shapes one after the other, from element 0 on."""
    laid: list[Tensor] = []
    for name, shape in tensors:
        laid.append(Tensor(name, laid[-1].stop if laid else 0, tuple(shape)))
    return tuple(laid)
