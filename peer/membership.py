"""Joining and leaving of one peer: a joiner takes weights over, a giver hands them over, and `life` runs the whole peer.

A joiner sends a hello to each of its future neighbours.  Each answers with its step and its training loss.  The joiner chooses
its givers and requests their weights part by part, a few parts at a time; a giver's parts are all of one instant, that of the
first request.  These messages, called errands, travel over the emulated links, but the strategy does not see them: their heads
begin with a byte that no other head begins with.  A giver answers at once, also during a gradient; its strategy does not
notice.  If a giver is lost or leaves, the joiner takes the next one; without any giver it begins with its own weights.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import inf, isfinite
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np

from grapevine.peer.blas import all_finite
from grapevine.peer.effects import Effect, Receive, Send
from grapevine.peer.neighbourhood import LEAST_HORIZON_NS, Rounds
from grapevine.peer.payloads import Parcel
from grapevine.peer.peer import Peer
from grapevine.peer.wire import HEAD_LIMIT_BYTES, WireError

if TYPE_CHECKING:
    from grapevine.peer.strategies.base import Strategy

MARK = b"\xc1"
"""The first byte of an errand's head: msgpack, the format of all other heads, never uses it."""
PART = 16_384  # elements of weights in a message, 64 KiB: a few messages fill a link, and none delays another message for long
WINDOW = 4  # parts that are requested at a time
_HELLO, _STATUS, _REQUEST, _PART = range(4)
_UInt = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
_NOTHING = np.zeros(0, np.float32)


class _Head(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    kind: Annotated[int, msgspec.Meta(ge=0, le=3)]
    step: _UInt = 0
    loss: float = 0.0
    start: _UInt = 0
    stop: _UInt = 0


_write = msgspec.msgpack.Encoder().encode
_read = msgspec.msgpack.Decoder(_Head).decode


class Errand:
    """One message between a joiner and a giver; `values` (float32) are those of a part of the weights."""

    __slots__ = ("head", "values")
    finite = True

    def __init__(self, head: _Head, values: np.ndarray = _NOTHING) -> None:
        self.head = head
        self.values = values

    def parcel(self) -> Parcel:
        """Return the errand ready for the wire; its values are copied."""
        values = np.array(self.values, "<f4")
        errand: Any = Errand(self.head, values)
        return Parcel(MARK + _write(self.head), values.view(np.uint8), self.head.step, errand)


def is_errand(head: Any) -> bool:
    """Whether the head of a message, in bytes, belongs to an errand."""
    return bytes(head[:1]) == MARK


def read_errand(head: Any, body: np.ndarray, size: int) -> Errand:
    """Decode an errand about a vector of `size` elements; raise WireError if it is not exactly one valid errand."""
    if len(head) > HEAD_LIMIT_BYTES:
        raise WireError("head", f"a head of {len(head)} bytes; at most {HEAD_LIMIT_BYTES} are allowed")
    try:
        about = _read(bytes(head[1:]))
    except (msgspec.MsgspecError, ValueError) as error:
        raise WireError("head", f"not the head of an errand: {error}") from None
    count = about.stop - about.start if about.kind == _PART else 0
    if about.stop > size or about.start > about.stop or body.nbytes != 4 * count:
        raise WireError("range", f"elements {about.start}..{about.stop} of a vector of {size}, and {body.nbytes} bytes")
    return Errand(about, np.frombuffer(body.tobytes(), "<f4"))


class Welcome(NamedTuple):
    """The instructions for a peer that is to join: its future neighbours, and the rule that chooses its givers."""

    neighbours: dict[int, float]
    choice: Literal["nearest", "best", "mean"]
    givers: int
    from_step: int | None = None
    """The step from which it is a member and whose weights it needs; None unless all peers hold the same weights."""

    @property
    def wanted(self) -> int:
        """The number of givers whose weights it averages: one if all peers hold the same weights."""
        return self.givers if self.choice == "mean" and self.from_step is None else 1


class Away(Effect):
    """The absence of the peer from now on; returns a Welcome when it is to join."""

    __slots__ = ()


class Enter(Effect):
    """The entry of a peer that holds the weights of these givers and of this step; returns once it is a member."""

    __slots__ = ("givers", "step")

    def __init__(self, givers: tuple[int, ...], step: int) -> None:
        self.givers = givers
        self.step = step


class Handover:
    """The errands of one peer: its answers as a giver, and the errands that it has received as a joiner."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.came: deque[tuple[int, Errand]] = deque()
        self.on_give: Callable[[int], None] = lambda joiner: None
        """Called when this peer begins to give its weights to another."""
        self.taking = False  # whether this peer is a joiner now: it then gives no weights
        self.refused: set[int] = set()  # peers from which this joiner takes no weights (any more)

    def begin(self, welcome: Welcome) -> None:
        """Make this peer a joiner with its future neighbours, at the instant of the welcome: neighbours may be lost at once."""
        self.taking = True
        self.refused.clear()
        self.came.clear()
        if welcome.from_step is None:
            self.peer.neighbours, self.peer.mixing = sorted(welcome.neighbours), dict(welcome.neighbours)

    def refuse(self, giver: int) -> None:
        """Take no weights from a peer, which gives none any more; the joiner's wait for its answer ends."""
        self.refused.add(giver)
        self.peer.departures += 1

    def take(self, source: int, errand: Errand) -> Parcel | None:
        """Take in an errand of a peer; return the answer to send back, None if there is none."""
        about, peer = errand.head, self.peer
        if about.kind in (_STATUS, _PART):
            if self.taking:
                self.came.append((source, errand))
            return None
        if self.taking or not peer.member or about.stop > peer.size or about.start > about.stop:
            return None
        if about.kind == _HELLO:
            peer.joiner_debts.handed.pop(source, None)
            return Errand(_Head(_STATUS, peer.step, peer.loss if isfinite(peer.loss) else inf)).parcel()
        part = slice(about.start, min(about.stop, about.start + PART))
        if source not in peer.joiner_debts.handed:
            peer.hand_over(source)
            self.on_give(source)
        weights, step = peer.joiner_debts.handed[source].weights, peer.joiner_debts.handed[source].step
        return Errand(_Head(_PART, step, 0.0, part.start, part.stop), weights[part]).parcel()


async def life(peer: Peer, strategy: Strategy, handover: Handover) -> None:
    """Run a peer in a fleet whose members change: train while it is a member, leave politely, join, train again."""

    def renew() -> None:
        peer.expected = strategy.expects(peer)

    peer.renew_expected = renew
    peer.may_leave = strategy.leaves
    while True:
        if peer.member:
            await peer.begin(strategy)
            if peer.stopped or not peer.leaving:
                return
            await _all_arrived(peer)
        welcome: Welcome = await Away()
        givers, step = await _take_over(peer, welcome, handover)
        handover.taking = False
        await Enter(givers, step)


async def _all_arrived(peer: Peer) -> None:
    """Wait until all sent messages have arrived."""
    while not peer.stopped and not all(peer.idle(neighbour) for neighbour in peer.neighbours):
        await peer.sleep(LEAST_HORIZON_NS)


async def _take_over(peer: Peer, welcome: Welcome, handover: Handover) -> tuple[tuple[int, ...], int]:
    """Take weights over; return their givers, none if no giver is there, and the step of the weights."""
    taken: dict[int, tuple[np.ndarray, int]] = {}
    losses: dict[int, float] = {}
    if welcome.from_step is None:
        for neighbour in peer.neighbours:
            await Send((neighbour,), Errand(_Head(_HELLO)).parcel())
    while True:
        _note_answers(peer, welcome, handover, losses)
        living = [neighbour for neighbour in peer.neighbours if neighbour not in handover.refused]
        wanted = min(welcome.wanted, len(living))
        taken = {giver: found for giver, found in taken.items() if giver in living}
        if len(taken) >= wanted:
            break
        giver = _chosen(welcome, living, taken, losses)
        if giver is None:
            await Receive()
            continue
        found = await _all_parts(peer, giver, handover, losses)
        if found is None or not all_finite(found[0]):
            handover.refused.add(giver)
        else:
            taken[giver] = found
    if not taken:
        return (), peer.step
    peer.weights[:] = np.mean([weights for weights, _ in taken.values()], axis=0, dtype=np.float64)
    return tuple(sorted(taken)), max(step for _, step in taken.values())


def _note_answers(peer: Peer, welcome: Welcome, handover: Handover, losses: dict[int, float]) -> None:
    """Add the neighbours that have answered to `losses`; if all weights are alike, those that have come to `from_step`."""
    while handover.came:
        source, errand = handover.came.popleft()
        if errand.head.kind == _STATUS:
            losses.setdefault(source, errand.head.loss)
    if welcome.from_step is not None:
        for source, step in peer.waiting_steps():
            if step >= welcome.from_step:
                losses.setdefault(source, 0.0)


def _chosen(
    welcome: Welcome, living: list[int], taken: dict[int, tuple[np.ndarray, int]], losses: dict[int, float]
) -> int | None:
    """Return the next giver; None while too few neighbours have answered."""
    answered = [source for source in losses if source in living and source not in taken]
    if not answered or (welcome.choice == "best" and welcome.from_step is None and len(answered) < len(living)):
        return None
    return min(answered, key=lambda source: losses[source]) if welcome.choice == "best" else answered[0]


async def _all_parts(peer: Peer, giver: int, handover: Handover, losses: dict[int, float]) -> tuple[np.ndarray, int] | None:
    """Fetch a giver's weights part by part: float32 [size] and their step; None if the giver is gone meanwhile."""
    weights, step = np.empty(peer.size, np.float32), 0
    missing = deque(range(0, peer.size, PART))
    awaited: set[int] = set()
    while missing or awaited:
        while missing and len(awaited) < WINDOW:
            start = missing.popleft()
            awaited.add(start)
            await Send((giver,), Errand(_Head(_REQUEST, 0, 0.0, start, min(start + PART, peer.size))).parcel())
        if giver not in peer.mixing or giver in handover.refused:
            return None
        await Receive()
        while handover.came:
            source, errand = handover.came.popleft()
            about = errand.head
            if about.kind == _STATUS:
                losses.setdefault(source, about.loss)
            if source == giver and about.kind == _PART and about.start in awaited:
                if about.stop != min(about.start + PART, peer.size):
                    return None
                weights[about.start : about.stop] = errand.values
                awaited.discard(about.start)
                step = about.step
    return weights, step


class Row:
    """The rounds of a peer whose row of W does not change from step to step: W_ij by neighbour, ascending."""

    def __init__(self, weights: dict[int, float]) -> None:
        self._weights = weights

    def targets(self, t: int, peer: int) -> list[int]:
        return list(self._weights)

    def weights(self, t: int, peer: int) -> dict[int, float]:
        return self._weights


class Rows:
    """The rounds of one peer whose neighbours change at given steps, for strategies that wait for the messages of each step.

    A neighbour that is in no row from a step on is dropped when the peer comes to that step, not before: until then its
    messages of earlier steps are still used.
    """

    def __init__(self, peer: Peer, rounds: Rounds) -> None:
        self._peer = peer
        self._rows: list[tuple[int, Rounds, frozenset[int]]] = [(0, rounds, frozenset(peer.mixing))]

    def plan(self, from_step: int, rounds: Rounds, neighbours: Sequence[int]) -> None:
        """Replace the rounds from a step on, to which this peer has not come yet."""
        replaced = [row for row in self._rows if row[0] >= from_step]
        self._rows = [row for row in self._rows if row[0] < from_step]
        if replaced and self._rows:  # a neighbour in these rows alone is dropped like one of the last row
            first, before, known = self._rows[-1]
            self._rows[-1] = first, before, known.union(*(row[2] for row in replaced))
        self._rows.append((from_step, rounds, frozenset(neighbours)))

    def targets(self, t: int, peer: int) -> list[int]:
        self._drop_past_rows()
        return self._at(t).targets(t, peer)

    def weights(self, t: int, peer: int) -> dict[int, float]:
        return self._at(t).weights(t, peer)

    def _at(self, t: int) -> Rounds:
        found = self._rows[0][1]
        for from_step, rounds, _ in self._rows[1:]:
            if from_step <= t:
                found = rounds
        return found

    def _drop_past_rows(self) -> None:
        """Forget the rows that are over, and drop neighbours that are in no later row."""
        while len(self._rows) > 1 and self._rows[1][0] <= self._peer.step:
            gone = self._rows.pop(0)[2]
            for neighbour in gone.difference(*(row[2] for row in self._rows)):
                self._peer.lose(neighbour)


__all__ = [
    "Away", "Enter", "Errand", "Handover", "Row", "Rows", "Welcome", "is_errand", "life", "read_errand",
]  # fmt: skip
