"""Gradient vectors whose memory is used again after the last reference to them is gone."""

import sys
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

Parts = TypeVar("Parts")


class Slot(Generic[Parts]):
    """A float32 vector, and its views, which are made once."""

    def __init__(self, size: int, cut: Callable[[np.ndarray], Parts]):
        self.vector = np.zeros(size, dtype=np.float32)
        self.parts = cut(self.vector)
        self._own = self._references()

    def free(self) -> bool:
        """Return whether there is no reference to the vector, or to a view of it, outside the slot."""
        return self._references() == self._own

    def _references(self) -> int:
        return sys.getrefcount(self.vector)  # a numpy view of the vector counts too


class Vectors(Generic[Parts]):
    """A stock of vectors for callers; no new memory is taken while a caller keeps at most one vector.

    Two are in stock, because a loop asks for the next gradient while its variable still refers to the last one.
    """

    def __init__(self, size: int, cut: Callable[[np.ndarray], Parts]):
        self._size, self._cut = size, cut
        self._stock: list[Slot[Parts]] = []

    def take(self) -> Slot[Parts]:
        """Return a slot with an unused vector; the vector still has its old values."""
        for slot in self._stock:
            if slot.free():
                return slot
        slot = Slot(self._size, self._cut)
        self._stock = [*self._stock[-1:], slot]
        return slot
