"""Gradient vectors that are used again as soon as nobody holds them any more."""

import sys
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

Parts = TypeVar("Parts")


class Slot(Generic[Parts]):
    """A float32 vector, and views into it that are made once."""

    def __init__(self, size: int, cut: Callable[[np.ndarray], Parts]):
        self.vector = np.zeros(size, dtype=np.float32)
        self.parts = cut(self.vector)
        self._own = self._holders()

    def free(self) -> bool:
        """Whether nobody outside holds the vector, or a view of it."""
        return self._holders() == self._own

    def _holders(self) -> int:
        return sys.getrefcount(self.vector)  # a numpy view of the vector holds it too


class Vectors(Generic[Parts]):
    """Lends vectors out: a caller may keep one as long as it likes, and no memory is taken anew while it keeps at most one.

    Two are in stock, since a loop asks for the next gradient while its variable still holds the last.
    """

    def __init__(self, size: int, cut: Callable[[np.ndarray], Parts]):
        self._size, self._cut = size, cut
        self._stock: list[Slot[Parts]] = []

    def take(self) -> Slot[Parts]:
        """A slot whose vector nobody holds; what is in it is left over from before."""
        for slot in self._stock:
            if slot.free():
                return slot
        slot = Slot(self._size, self._cut)
        self._stock = [*self._stock[-1:], slot]
        return slot
