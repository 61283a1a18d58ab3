"""Joining and leaving, as one peer sees it: how it takes weights over, how it gives them, and its whole life as a coroutine.

A peer that joins says hello to its neighbours to be.  Each answers with its step and its training loss; the joiner chooses from
whom to take the weights and asks for them part by part, a few parts at a time; they are all of one instant, that of the first
question.  All of this travels over the emulated links, as
messages that the strategy does not see: their heads begin with a byte that no other message's head begins with.  A giver
answers whatever it is doing, as a disk would; its strategy does not notice.  Where a giver is lost, or leaves, the joiner asks
the next; where there is none, it begins with what it has.
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
"""What the head of an errand begins with: a byte that msgpack, in which all other heads are written, never uses."""
PART = 16_384  # elements of weights in a message, 64 KiB: a few of them fill a link, and none holds another message up for long
WINDOW = 4  # parts that are asked for at a time
_HELLO, _TOLD, _ASK, _GIVEN = range(4)
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
    """One message between a peer that joins and a peer that gives; `values` float32 are those of a part."""

    __slots__ = ("head", "values")
    finite = True

    def __init__(self, head: _Head, values: np.ndarray = _NOTHING) -> None:
        self.head = head
        self.values = values

    def parcel(self) -> Parcel:
        """The errand ready for the wire; its values are copied."""
        values = np.array(self.values, "<f4")
        errand: Any = Errand(self.head, values)
        return Parcel(MARK + _write(self.head), values.view(np.uint8), self.head.step, errand)


def is_errand(head: Any) -> bool:
    """Whether a message's head, as it came off the wire, is one of an errand."""
    return bytes(head[:1]) == MARK


def read_errand(head: Any, body: np.ndarray, size: int) -> Errand:
    """Read an errand about a vector of `size` elements; raises WireError for anything that is not exactly one."""
    if len(head) > HEAD_LIMIT_BYTES:
        raise WireError("head", f"a head of {len(head)} bytes; at most {HEAD_LIMIT_BYTES} are allowed")
    try:
        about = _read(bytes(head[1:]))
    except (msgspec.MsgspecError, ValueError) as error:
        raise WireError("head", f"not the head of an errand: {error}") from None
    count = about.stop - about.start if about.kind == _GIVEN else 0
    if about.stop > size or about.start > about.stop or body.nbytes != 4 * count:
        raise WireError("range", f"elements {about.start}..{about.stop} of a vector of {size}, and {body.nbytes} bytes")
    return Errand(about, np.frombuffer(body.tobytes(), "<f4"))


class Welcome(NamedTuple):
    """What a peer is told that is to join: its neighbours to be, and from whom to take the weights."""

    neighbours: dict[int, float]
    choice: Literal["nearest", "best", "mean"]
    givers: int
    from_step: int | None = None
    """Where all peers hold the same weights: the step from which it is a member, and of which it needs the weights."""


class Away(Effect):
    """The peer is absent from now on; answers with a Welcome when it is to join."""

    __slots__ = ()


class Enter(Effect):
    """The peer has weights, of these givers and of that step, and may be made a member; answers once it is one."""

    __slots__ = ("givers", "step")

    def __init__(self, givers: tuple[int, ...], step: int) -> None:
        self.givers = givers
        self.step = step


class Handover:
    """The errands of one peer: what it answers as a giver, and what has come in for it as a joiner."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.came: deque[tuple[int, Errand]] = deque()
        self.on_give: Callable[[int], None] = lambda joiner: None
        """Called when this peer begins to give its weights to another."""
        self.taking = False  # whether this peer takes weights over itself, and so has none to give

    def take(self, source: int, errand: Errand) -> Parcel | None:
        """Take an errand in that has come from a peer; what to send back to it, if anything."""
        about, peer = errand.head, self.peer
        if about.kind in (_TOLD, _GIVEN):
            if self.taking:
                self.came.append((source, errand))
            return None
        if self.taking or not peer.member or about.stop > peer.size or about.start > about.stop:
            return None
        if about.kind == _HELLO:
            peer.joiner_debts.handed.pop(source, None)
            return Errand(_Head(_TOLD, peer.step, peer.loss if isfinite(peer.loss) else inf)).parcel()
        part = slice(about.start, min(about.stop, about.start + PART))
        if source not in peer.joiner_debts.handed:
            peer.hand_over(source)
            self.on_give(source)
        weights, step = peer.joiner_debts.handed[source].weights, peer.joiner_debts.handed[source].step
        return Errand(_Head(_GIVEN, step, 0.0, part.start, part.stop), weights[part]).parcel()


async def life(peer: Peer, strategy: Strategy, handover: Handover) -> None:
    """All that a peer does in a fleet whose members change: train while it is a member, leave politely, join, train again."""

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
        handover.taking = True
        givers, step = await _take_over(peer, welcome, handover)
        handover.taking = False
        await Enter(givers, step)


async def _all_arrived(peer: Peer) -> None:
    """Wait until everything that was sent has arrived."""
    while not peer.stopped and not all(peer.idle(neighbour) for neighbour in peer.neighbours):
        await peer.sleep(LEAST_HORIZON_NS)


async def _take_over(peer: Peer, welcome: Welcome, handover: Handover) -> tuple[tuple[int, ...], int]:
    """Take weights over: from whom they are, and of which step; from nobody where nobody is there."""
    handover.came.clear()
    if welcome.from_step is None:
        peer.neighbours, peer.mixing = sorted(welcome.neighbours), dict(welcome.neighbours)
    spoiled: set[int] = set()  # those whose weights were not finite
    taken: dict[int, tuple[np.ndarray, int]] = {}
    told: dict[int, float] = {}
    if welcome.from_step is None:
        for neighbour in peer.neighbours:
            await Send((neighbour,), Errand(_Head(_HELLO)).parcel())
    while True:
        _note_told(peer, welcome, handover, told)
        living = [neighbour for neighbour in peer.neighbours if neighbour not in spoiled]
        wanted = min(welcome.givers, len(living)) if welcome.choice == "mean" else min(1, len(living))
        taken = {giver: of for giver, of in taken.items() if giver in peer.mixing}
        if len(taken) >= wanted:
            break
        giver = _chosen(welcome, living, taken, told)
        if giver is None:
            await Receive()
            continue
        found = await _all_parts(peer, giver, handover, told)
        if found is None or not all_finite(found[0]):
            spoiled.add(giver)
        else:
            taken[giver] = found
    if not taken:
        return (), peer.step
    peer.weights[:] = np.mean([weights for weights, _ in taken.values()], axis=0, dtype=np.float64)
    return tuple(sorted(taken)), max(step for _, step in taken.values())


def _note_told(peer: Peer, welcome: Welcome, handover: Handover, told: dict[int, float]) -> None:
    """Note who has answered, in order of time; where all weights are alike, who has come to the step that counts."""
    while handover.came:
        source, errand = handover.came.popleft()
        if errand.head.kind == _TOLD:
            told.setdefault(source, errand.head.loss)
    if welcome.from_step is not None:
        for source, step in peer.waiting_steps():
            if step >= welcome.from_step:
                told.setdefault(source, 0.0)


def _chosen(
    welcome: Welcome, living: list[int], taken: dict[int, tuple[np.ndarray, int]], told: dict[int, float]
) -> int | None:
    """Whom to take weights from next; None while too little is known."""
    answered = [source for source in told if source in living and source not in taken]
    if not answered or (welcome.choice == "best" and welcome.from_step is None and len(answered) < len(living)):
        return None
    return min(answered, key=lambda source: told[source]) if welcome.choice == "best" else answered[0]


async def _all_parts(peer: Peer, giver: int, handover: Handover, told: dict[int, float]) -> tuple[np.ndarray, int] | None:
    """Another's weights, part by part: float32 [size], and its step at the last part; None where it is gone meanwhile."""
    weights, step = np.empty(peer.size, np.float32), 0
    missing = deque(range(0, peer.size, PART))
    awaited: set[int] = set()
    while missing or awaited:
        while missing and len(awaited) < WINDOW:
            start = missing.popleft()
            awaited.add(start)
            await Send((giver,), Errand(_Head(_ASK, 0, 0.0, start, min(start + PART, peer.size))).parcel())
        await Receive()
        while handover.came:
            source, errand = handover.came.popleft()
            about = errand.head
            if about.kind == _TOLD:
                told.setdefault(source, about.loss)
            if source == giver and about.kind == _GIVEN and about.start in awaited:
                if about.stop != min(about.start + PART, peer.size):
                    return None
                weights[about.start : about.stop] = errand.values
                awaited.discard(about.start)
                step = about.step
        if giver not in peer.mixing:
            return None
    return weights, step


class Row:
    """Who a peer averages with, and by how much, from one step to another: W_ij by neighbour, ascending."""

    def __init__(self, weights: dict[int, float]) -> None:
        self._weights = weights

    def targets(self, t: int, peer: int) -> list[int]:
        return list(self._weights)

    def weights(self, t: int, peer: int) -> dict[int, float]:
        return self._weights


class Rows:
    """The rounds of one peer whose neighbours change from one step on: for strategies that wait for the messages of a step.

    A neighbour that no row from the present step on has any more is parted with when the peer comes to that step, not before:
    until then its messages of earlier steps are still to be used.
    """

    def __init__(self, peer: Peer, rounds: Rounds) -> None:
        self._peer = peer
        self._rows: list[tuple[int, Rounds, frozenset[int]]] = [(0, rounds, frozenset(peer.mixing))]

    def plan(self, from_step: int, rounds: Rounds, neighbours: Sequence[int]) -> None:
        """Let other rounds hold from a step on, which this peer has not come to yet."""
        replaced = [row for row in self._rows if row[0] >= from_step]
        self._rows = [row for row in self._rows if row[0] < from_step]
        if replaced and self._rows:  # nobody has come to those: who is in them alone is parted with as if it had been here
            first, before, known = self._rows[-1]
            self._rows[-1] = first, before, known.union(*(row[2] for row in replaced))
        self._rows.append((from_step, rounds, frozenset(neighbours)))

    def targets(self, t: int, peer: int) -> list[int]:
        self._go_on()
        return self._at(t).targets(t, peer)

    def weights(self, t: int, peer: int) -> dict[int, float]:
        return self._at(t).weights(t, peer)

    def _at(self, t: int) -> Rounds:
        found = self._rows[0][1]
        for from_step, rounds, _ in self._rows[1:]:
            if from_step <= t:
                found = rounds
        return found

    def _go_on(self) -> None:
        """Forget the rows that are over, and part with neighbours that no later row has."""
        while len(self._rows) > 1 and self._rows[1][0] <= self._peer.step:
            gone = self._rows.pop(0)[2]
            for neighbour in gone.difference(*(row[2] for row in self._rows)):
                self._peer.lose(neighbour)


__all__ = [
    "Away", "Enter", "Errand", "Handover", "Row", "Rows", "Welcome", "is_errand", "life", "read_errand",
]  # fmt: skip
