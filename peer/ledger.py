"""What each neighbour is owed: everything that this peer made, less what it has paid to that neighbour.

One running `total` and one `paid` a neighbour, touched only where something was sent, hold the same debt as an accumulator a
neighbour for one addition a step.  Conservation (total = paid + owed) holds by construction: `owed` is never stored.  What a
codec's rounding lost is taken back out of `paid`, so it is owed again: error feedback (Seide et al. 2014) without a residual
of its own.  Sums are float64, so that a long run does not lose small updates in a large total.
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
    """The next `count` elements in turn, going round the vector; each neighbour has its own place in the round."""

    count: int


@dataclass(frozen=True, slots=True)
class Largest:
    """The `count` elements of the largest absolute debt."""

    count: int


@dataclass(frozen=True, slots=True)
class Above:
    """All elements whose absolute debt is above a threshold."""

    threshold: float


@dataclass(frozen=True, slots=True)
class All:
    """Everything that is owed."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """These elements: indices uint32, strictly ascending."""

    indices: np.ndarray


Pick = Next | Largest | Above | All | Chosen


class Ledger:
    """The debts of one peer to each of its neighbours, for a vector of `size` elements: that of a space of float32.

    The neighbours' rounds (`Next`) begin at equal distances, so that different neighbours get different parts at a time.
    """

    def __init__(self, size: int, neighbours: Iterable[int], space: str = MODEL) -> None:
        self.space = space
        self.total = np.zeros(size)
        self.paid = {neighbour: np.zeros(size) for neighbour in neighbours}
        self._next = {neighbour: place * size // len(self.paid) for place, neighbour in enumerate(self.paid)}

    def add(self, update: np.ndarray) -> None:
        """Owe every neighbour one more update (float32 or float64 [size]); elements that are not finite are owed to nobody."""
        self.total += update if all_finite(update) else np.where(np.isfinite(update), update, 0.0)

    def owed(self, neighbour: int) -> np.ndarray:
        """The whole debt to a neighbour, float64 [size]."""
        return self.total - self.paid[neighbour]

    def take(self, neighbour: int, pick: Pick) -> Dense | Sparse:
        """Pay a part of the debt: the picked elements leave the debt and are returned, float32.

        With `Next` the part never wraps: at the end of the vector it is shorter, and the next one starts at zero.
        """
        paid = self.paid[neighbour]
        if isinstance(pick, Next):
            start = self._next[neighbour] if pick.count < len(self.total) else 0  # all of it never wraps
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
        """Owe again what the neighbour will not read: the payload's values less `read`, what the codec left of them."""
        if neighbour in self.paid:  # it may have been lost while it was sent to
            self.paid[neighbour][payload.where()] -= payload.values.astype(np.float64) - read

    def credit(self, neighbour: int, where: slice, amount: np.ndarray) -> None:
        """Take an amount (float64) off the debt to a neighbour, which has got it in another way than by `take`."""
        if neighbour in self.paid:
            self.paid[neighbour][where] += amount

    def turn(self, neighbour: int, start: int) -> None:
        """Let a neighbour's round (`Next`) go on at an element."""
        self._next[neighbour] = start % len(self.total)

    def settle(self, neighbour: int) -> None:
        """Let the whole debt to a neighbour drop: what was not sent until now never will be."""
        if neighbour in self.paid:
            self.paid[neighbour][:] = self.total

    def open(self, neighbour: int, paid: np.ndarray | None = None) -> None:
        """Owe a new neighbour what comes from now on, and what it lacks of all until now: `paid` (float64 [size]) is what it
        has of that, None = everything."""
        self._next[neighbour] = len(self.paid) * len(self.total) // (len(self.paid) + 1)
        self.paid[neighbour] = self.total.copy() if paid is None else paid

    def forget(self, neighbour: int) -> None:
        """Drop a lost neighbour's account."""
        self.paid.pop(neighbour, None)
        self._next.pop(neighbour, None)

    @staticmethod
    def _pay(paid: np.ndarray, payload: Dense | Sparse) -> Dense | Sparse:
        paid[payload.where()] += payload.values
        return payload
