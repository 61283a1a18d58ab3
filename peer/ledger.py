"""The debts of a peer to its neighbours: the sum of all its updates, less the updates that it has paid to each neighbour.

The ledger keeps one running `total` for all neighbours and one vector `paid` for each neighbour, which changes only where
something was sent.  The debts are the same as with one accumulator for each neighbour, but a step costs one addition.
Conservation (total = paid + owed) holds by construction, because `owed` is never stored.  The rounding error of a codec is
subtracted from `paid`, so it is owed again: error feedback (Seide et al. 2014) without a residual of its own.  Sums are
float64, so that a long run does not lose small updates in a large total.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from grapevine.peer.blas import all_finite
from grapevine.peer.payloads import Dense, Payload, Sparse
from grapevine.peer.spaces import MODEL


@dataclass(frozen=True, slots=True)
class Next:
    """The next `count` elements in turn, round the vector; the ledger keeps a place in the vector for each neighbour."""

    count: int


@dataclass(frozen=True, slots=True)
class Largest:
    """The `count` elements with the largest absolute debts."""

    count: int


@dataclass(frozen=True, slots=True)
class Above:
    """All elements whose absolute debt exceeds a threshold."""

    threshold: float


@dataclass(frozen=True, slots=True)
class All:
    """All elements of the debt."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The elements at these indices: uint32, strictly ascending."""

    indices: np.ndarray


Pick = Next | Largest | Above | All | Chosen


class Ledger:
    """The debts of one peer to each of its neighbours, for one float32 space of `size` elements.

    The neighbours' places for `Next` begin at equal distances, so that different neighbours get different parts at a time.
    """

    def __init__(self, size: int, neighbours: Iterable[int], space: str = MODEL) -> None:
        self.space = space
        self.total = np.zeros(size)
        self.paid = {neighbour: np.zeros(size) for neighbour in neighbours}
        self._next = {neighbour: place * size // len(self.paid) for place, neighbour in enumerate(self.paid)}

    def add(self, update: np.ndarray) -> None:
        """Owe every neighbour one more update (float32 or float64 [size]); elements that are not finite count as 0.

        Raises ValueError for an update of another shape.
        """
        if update.shape != self.total.shape:
            raise ValueError(f"an update has the shape {list(update.shape)}: [{len(self.total)}] is needed")
        self.total += update if all_finite(update) else np.where(np.isfinite(update), update, 0.0)

    def owed(self, neighbour: int) -> np.ndarray:
        """Return the whole debt to a neighbour, float64 [size]."""
        return self.total - self.paid[neighbour]

    def take(self, neighbour: int, pick: Pick) -> Dense | Sparse:
        """Take the picked elements off the debt to a neighbour and return them, float32.

        A part taken by `Next` never wraps: at the end of the vector it is shorter, and the next part starts at element 0.
        """
        paid = self.paid[neighbour]
        if isinstance(pick, Next):
            start = self._next[neighbour] if pick.count < len(self.total) else 0  # the whole vector never wraps
            stop = min(start + max(pick.count, 0), len(self.total))
            self._next[neighbour] = stop % len(self.total)
            return self._pay(
                paid, Dense((self.total[start:stop] - paid[start:stop]).astype(np.float32), start, space=self.space)
            )
        owed = self.total - paid
        if isinstance(pick, All):
            return self._pay(paid, Dense(owed.astype(np.float32), space=self.space))
        if isinstance(pick, Largest):
            count = min(max(pick.count, 0), len(owed))
            order = np.argpartition(np.abs(owed), min(len(owed) - count, len(owed) - 1))
            indices = np.sort(order[len(owed) - count :].astype(np.uint32))
        elif isinstance(pick, Chosen):
            indices = pick.indices
        else:
            indices = np.flatnonzero(np.abs(owed) > pick.threshold).astype(np.uint32)
        return self._pay(paid, Sparse(indices, owed[indices].astype(np.float32), space=self.space))

    def refund(self, neighbour: int, payload: Payload, read: np.ndarray) -> None:
        """Owe a payload's rounding error again: its values less `read`, the values as the neighbour will read them."""
        if neighbour in self.paid:  # it may have been lost while it was sent to
            self.paid[neighbour][payload.where()] -= payload.values.astype(np.float64) - read

    def credit(self, neighbour: int, where: slice, amount: np.ndarray) -> None:
        """Take an amount (float64) off the debt to a neighbour that has got it in another way than by `take`."""
        if neighbour in self.paid:
            self.paid[neighbour][where] += amount

    def turn(self, neighbour: int, start: int) -> None:
        """Set the element at which a neighbour's next part by `Next` begins."""
        self._next[neighbour] = start % len(self.total)

    def settle(self, neighbour: int) -> None:
        """Cancel the whole debt to a neighbour: its elements will never be sent."""
        if neighbour in self.paid:
            self.paid[neighbour][:] = self.total

    def open(self, neighbour: int, paid: np.ndarray | None = None) -> None:
        """Open an account for a new neighbour: it is owed all later updates, and the earlier ones less `paid`.

        `paid` (float64 [size]) is the part of the earlier updates that the neighbour has already; None = all of them.
        """
        self._next[neighbour] = len(self.paid) * len(self.total) // (len(self.paid) + 1)
        self.paid[neighbour] = self.total.copy() if paid is None else paid

    def forget(self, neighbour: int) -> None:
        """Drop the account of a lost neighbour."""
        self.paid.pop(neighbour, None)
        self._next.pop(neighbour, None)

    @staticmethod
    def _pay(paid: np.ndarray, payload: Dense | Sparse) -> Dense | Sparse:
        paid[payload.where()] += payload.values
        return payload
