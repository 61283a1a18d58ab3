"""The debts of a peer to a neighbour that joins with weights taken over from others: what those weights do not hold yet."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from grapevine.peer.ledger import Ledger
from grapevine.peer.payloads import Payload

MOST_REMEMBERED, MOST_REMEMBERED_ELEMENTS = 8, 1 << 20
"""The last payments to one neighbour that are remembered: as many elements as this number of models, or this number of elements
(4 MiB) if that is more.  What is forgotten before the neighbour has used it is missing in the weights of a peer that joins."""
FORGOTTEN = "forgotten-payment"
"""The kind of error by which `Peer.errors` counts joining peers whose weights lack updates for this reason."""


class Handed(NamedTuple):
    """The state of this peer at the instant at which a joining peer asked for its weights."""

    weights: np.ndarray
    """float32 [size]."""
    step: int
    made: np.ndarray | None
    """The sum of this peer's updates until then, which the weights hold: float64 [size]; None without a ledger."""
    taken: dict[int, int]
    """The step of the newest message of each neighbour that the weights hold."""


class JoinerDebts:
    """The record from which one peer finds how much of its own updates a joining peer's weights hold already.

    A giver's weights hold all that the giver made.  Of another peer's updates they hold what that peer had paid to the giver,
    less the payments that the giver had not taken yet; each peer therefore remembers its last payments to each neighbour.
    """

    __slots__ = ("_elements", "_errors", "_forgotten", "_payments", "handed", "taken")

    def __init__(self, errors: Counter[str]) -> None:
        self._errors = errors
        self.handed: dict[int, Handed] = {}
        """By joining peer: what this peer hands over to it."""
        self.taken: dict[int, int] = {}
        """By neighbour: the step of its newest message that this peer has used."""
        self._payments: dict[int, deque[tuple[int, Payload]]] = {}
        self._elements: dict[int, int] = {}  # in those payments
        self._forgotten: dict[int, int] = {}  # the step of the newest payment that is forgotten

    def used(self, source: int, step: int) -> None:
        """Remember that a message of a neighbour was used."""
        self.taken[source] = max(step, self.taken.get(source, -1))

    def paid(self, neighbour: int, step: int, payload: Payload, size: int) -> None:
        """Remember a payment at a step; the oldest ones are forgotten beyond the bound for models of `size` elements."""
        payments = self._payments.setdefault(neighbour, deque())
        payments.append((step, payload))
        self._elements[neighbour] = self._elements.get(neighbour, 0) + payload.count
        while len(payments) > 1 and self._elements[neighbour] > max(MOST_REMEMBERED * size, MOST_REMEMBERED_ELEMENTS):
            self._forgotten[neighbour], forgotten = payments.popleft()
            self._elements[neighbour] -= forgotten.count

    def hand_over(self, joiner: int, weights: np.ndarray, step: int, made: np.ndarray | None) -> None:
        """Set a copy of this peer's weights aside for a joining peer, with what they hold."""
        self.handed[joiner] = Handed(weights.copy(), step, None if made is None else made.copy(), dict(self.taken))

    def held(self, joiner: int, owner: int, givers: Mapping[int, int], ledger: Ledger) -> np.ndarray | None:
        """Return what the joiner's weights hold of the owner's updates: float64 [size]; None = all of it.

        `owner` is the peer that keeps this record and the ledger.  `givers` maps each peer whose weights were taken over to the
        step of the owner's newest message that they hold (-1 = none); the joiner's weights are the mean of the givers'.
        """
        known = []
        for giver, taken in givers.items():
            if giver == owner:
                made = self.handed[joiner].made if joiner in self.handed else None
                if made is not None:
                    known.append(made)
            elif giver in ledger.paid:
                self._errors[FORGOTTEN] += self._forgotten.get(giver, -1) > taken
                paid = ledger.paid[giver].copy()
                for step, payload in self._payments.get(giver, ()):
                    if step > taken:
                        paid[payload.where()] -= payload.values
                known.append(paid)
        return np.asarray(np.mean(known, axis=0)) if known and len(known) == len(givers) else None

    def forget(self, neighbour: int) -> None:
        """Drop what is known of a lost neighbour."""
        for known in (self.handed, self.taken, self._payments, self._elements, self._forgotten):
            known.pop(neighbour, None)

    def clear(self) -> None:
        """Drop everything."""
        for known in (self.handed, self.taken, self._payments, self._elements, self._forgotten):
            known.clear()
