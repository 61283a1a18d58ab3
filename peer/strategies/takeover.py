"""How the ledgers are settled when a peer takes over a share of another's weights.

Weights are the common start less eta / n times the sum of what was taken in of the gradients of every peer m: R_i^m at peer i.
Of its own a peer has everything, R_m^m = T_m, and T_m - R_i^m is what m owes to i or has on its way there.  When a takes over
a share l of b's weights, x_a <- (1 - l) x_a + l x_b, then for every m

    R_a^m <- R_a^m + l (R_b^m - R_a^m)

and unless what is owed to a changes by as much, gradients count twice (those that b had and a had not), or never:
    m = b       b has all of its own, so the share l of b's debt to a is paid: b takes it off when it sends the weights;
    m = a       a loses the share l of those of its own that b had not: it takes l (T_a - R_b^a) in again, at once;
    another m   takes l (R_b^m - R_a^m) off its debt to a (adds to it, if that is negative), once b has said that it gave and a
                that it took.

What is on its way: a debt falls when it is paid, R rises when that is taken in.  So every message says of which step the newest
was that its sender has taken in of the receiver's, and `Books` keeps what was sent after that: R_i^m = paid - sent since.  All
of this holds element by element, so weights may come in slices, each at a time of its own.

Exact for plain SGD without weight decay, equal weights and links that keep the order of messages (others are refused before
the start: `Strategy.needs_order`).  With momentum or Adam a
gradient that is on its way through the optimizer counts as one that has had its effect; where gradients are weighed by
batches the share l of a debt counts by the giver's weight in place of the taker's.  A peer that gives on what it has taken
itself, before a third one has heard of that from both sides, is credited a little wrong.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from grapevine.peer.ledger import Ledger
from grapevine.peer.payloads import Payload

_Sent = tuple[int, slice | np.ndarray, np.ndarray]
_HandingOver = tuple[int, int, int, int, int]  # giver, taker, the giver's step, the part's first element and the one after it
_MOST_HALF_TOLD = 32  # of one giver and one taker: a neighbour must not make this peer remember without end


class Books:
    """What each neighbour has read of this peer's gradients; `rate` is l, the share of weights that is taken over."""

    def __init__(self, ledger: Ledger, rate: float) -> None:
        self._ledger = ledger
        self._rate = rate
        self._taken: dict[int, int] = {}
        self._unread: defaultdict[int, list[_Sent]] = defaultdict(list)
        self._half_told: dict[_HandingOver, np.ndarray] = {}

    def taken(self, neighbour: int) -> int:
        """The step of the newest gradients or weights that were taken in of a neighbour's; -1 = none yet."""
        return self._taken.get(neighbour, -1)

    def take_in(self, neighbour: int, step: int) -> None:
        """Gradients or weights that a neighbour sent at a step are taken in."""
        self._taken[neighbour] = max(step, self.taken(neighbour))

    def heard(self, neighbour: int, step: int) -> None:
        """A neighbour says that it has taken in what was sent to it until a step."""
        self._unread[neighbour] = [sent for sent in self._unread[neighbour] if sent[0] > step]

    def pay(self, neighbour: int, step: int, payload: Payload) -> None:
        """Gradients were sent to a neighbour at a step, and taken off the debt."""
        self._unread[neighbour].append((step, payload.where(), payload.values))

    def give(self, neighbour: int, step: int, part: slice) -> None:
        """A part of the weights was sent to a neighbour at a step: so much of what it is owed goes with them."""
        if neighbour in self._ledger.paid:
            amount = self._rate * self._ledger.owed(neighbour)[part]
            self._ledger.credit(neighbour, part, amount)
            self._unread[neighbour].append((step, part, amount))

    def lost(self, giver: int, part: slice) -> np.ndarray:
        """What this peer's weights lose of its own gradients when it takes over a part of a neighbour's: float64."""
        owed: np.ndarray = self._rate * (self._ledger.total[part] - self._had(giver, part))
        return owed

    def gave(self, giver: int, taker: int, step: int, part: slice) -> None:
        """A neighbour says that it has given a part of its weights to another, at its step."""
        self._tell((giver, taker, step, part.start, part.stop), self._had(giver, part))

    def took(self, giver: int, taker: int, step: int, part: slice) -> None:
        """A neighbour says that it has taken over a part of another's weights, which that has sent at its step."""
        self._tell((giver, taker, step, part.start, part.stop), -self._had(taker, part))

    def _tell(self, about: _HandingOver, had: np.ndarray) -> None:
        """Of both sides of a handing over one is told after the other: credit the taker with the difference."""
        if about in self._half_told:
            part = slice(*about[3:])
            self._ledger.credit(about[1], part, self._rate * (had + self._half_told.pop(about)))
            return
        living = self._ledger.paid
        self._half_told = {key: half for key, half in self._half_told.items() if key[0] in living and key[1] in living}
        alike = [key for key in self._half_told if key[:2] == about[:2]]
        if len(alike) >= _MOST_HALF_TOLD:
            del self._half_told[alike[0]]
        self._half_told[about] = had

    def _had(self, neighbour: int, part: slice) -> np.ndarray:
        """What a neighbour had in a part of its weights of this peer's gradients when it sent its last message: float64."""
        had = self._ledger.paid[neighbour][part].copy()
        for _, where, amount in self._unread[neighbour]:
            if isinstance(where, slice):
                start, stop = max(where.start, part.start), min(where.stop, part.stop)
                if start < stop:
                    had[start - part.start : stop - part.start] -= amount[start - where.start : stop - where.start]
            else:
                first, end = np.searchsorted(where, (part.start, part.stop))
                had[where[first:end] - np.uint32(part.start)] -= amount[first:end]
        return had
