"""The settling of ledgers when a peer takes over a share of another peer's weights.

The weights of peer i are the common start less eta / n times the sum over all peers m of R_i^m, the gradients of m that i has
used.  A peer has used all of its own gradients, R_m^m = T_m; the difference T_m - R_i^m is owed by m to i, or is under way.
When a takes over a share l of b's weights, x_a <- (1 - l) x_a + l x_b, then for every m

    R_a^m <- R_a^m + l (R_b^m - R_a^m)

The debts to a must change by the same amounts, else gradients that b had used and a had not count twice, and the opposite ones
are lost:

    m = b       b has used all of its own gradients, so the share l of b's debt to a is paid: b subtracts it when it sends
                the weights;
    m = a       a loses the share l of those of its own gradients that b had not used: it adds l (T_a - R_b^a) to its update
                at once;
    another m   subtracts l (R_b^m - R_a^m) from its debt to a (a negative amount increases the debt), once b has reported
                that it gave and a has reported that it took.

Gradients under way: a debt falls when it is paid, but R rises only when the message is used.  Each message therefore carries
the step of the receiver's newest message that its sender has used, and `Books` keeps the payments after that: R_i^m = paid -
sent since.  All of this holds for each element, so weights may be sent in slices, each at another time.

The account is exact for plain SGD without weight decay, with equal weights of all gradients, and links that keep the order of
messages (other links are refused before the start: `Strategy.needs_order`).  With momentum or Adam a gradient that is on its
way through the optimizer counts as used.  If gradients are weighed by batches, the share l of a debt counts by the giver's
weight in place of the taker's.  If a peer gives weights on that it has itself taken before a third peer has both reports about
them, the third peer credits it a slightly wrong amount.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from grapevine.peer.ledger import Ledger
from grapevine.peer.payloads import Payload

_Sent = tuple[int, slice | np.ndarray, np.ndarray]
_HandingOver = tuple[int, int, int, int, int]  # giver, taker, the giver's step, start and stop of the part
_MOST_HALF_REPORTED = 32  # for one giver and one taker: it bounds the memory that a neighbour can make this peer use


class Books:
    """The account of this peer's gradients that each neighbour has used; `rate` is l, the share of weights taken over."""

    def __init__(self, ledger: Ledger, rate: float) -> None:
        self._ledger = ledger
        self._rate = rate
        self._taken: dict[int, int] = {}
        self._unread: defaultdict[int, list[_Sent]] = defaultdict(list)
        self._half_reported: dict[_HandingOver, np.ndarray] = {}

    def taken(self, neighbour: int) -> int:
        """Return the step of a neighbour's newest gradients or weights that this peer has used; -1 = none yet."""
        return self._taken.get(neighbour, -1)

    def take_in(self, neighbour: int, step: int) -> None:
        """Record that gradients or weights which a neighbour sent at a step are used."""
        self._taken[neighbour] = max(step, self.taken(neighbour))

    def confirmed(self, neighbour: int, step: int) -> None:
        """Record that a neighbour has used all messages that were sent to it until a step."""
        self._unread[neighbour] = [sent for sent in self._unread[neighbour] if sent[0] > step]

    def pay(self, neighbour: int, step: int, payload: Payload) -> None:
        """Record that gradients were sent to a neighbour at a step, and subtracted from its debt."""
        self._unread[neighbour].append((step, payload.where(), payload.values))

    def give(self, neighbour: int, step: int, part: slice) -> None:
        """Record that a part of the weights was sent to a neighbour at a step, which pays a share of its debt."""
        if neighbour in self._ledger.paid:
            amount = self._rate * self._ledger.owed(neighbour)[part]
            self._ledger.credit(neighbour, part, amount)
            self._unread[neighbour].append((step, part, amount))

    def lost(self, giver: int, part: slice) -> np.ndarray:
        """Return what this peer's weights lose of its own gradients when it takes over a part of the giver's: float64."""
        owed: np.ndarray = self._rate * (self._ledger.total[part] - self._used(giver, part))
        return owed

    def gave(self, giver: int, taker: int, step: int, part: slice) -> None:
        """Record the report of a giver: it has sent a part of its weights to the taker at its step."""
        self._report((giver, taker, step, part.start, part.stop), self._used(giver, part))

    def took(self, giver: int, taker: int, step: int, part: slice) -> None:
        """Record the report of a taker: it has taken over a part of the giver's weights of this step."""
        self._report((giver, taker, step, part.start, part.stop), -self._used(taker, part))

    def _report(self, about: _HandingOver, used: np.ndarray) -> None:
        """Keep the first of the two reports about a transfer; at the second one credit the taker with the difference."""
        if about in self._half_reported:
            part = slice(*about[3:])
            self._ledger.credit(about[1], part, self._rate * (used + self._half_reported.pop(about)))
            return
        living = self._ledger.paid
        self._half_reported = {key: half for key, half in self._half_reported.items() if key[0] in living and key[1] in living}
        alike = [key for key in self._half_reported if key[:2] == about[:2]]
        if len(alike) >= _MOST_HALF_REPORTED:
            del self._half_reported[alike[0]]
        self._half_reported[about] = used

    def _used(self, neighbour: int, part: slice) -> np.ndarray:
        """Return this peer's gradients that a neighbour had used in a part when it sent its last message: float64."""
        used = self._ledger.paid[neighbour][part].copy()
        for _, where, amount in self._unread[neighbour]:
            if isinstance(where, slice):
                start, stop = max(where.start, part.start), min(where.stop, part.stop)
                if start < stop:
                    used[start - part.start : stop - part.start] -= amount[start - where.start : stop - where.start]
            else:
                first, end = np.searchsorted(where, (part.start, part.stop))
                used[where[first:end] - np.uint32(part.start)] -= amount[first:end]
        return used
