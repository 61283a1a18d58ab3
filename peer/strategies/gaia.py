"""Gaia: only significant updates cross the wide-area network (Hsieh et al., NSDI 2017)."""

from __future__ import annotations

from math import ceil, sqrt
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

from grapevine.peer.expected import COUNT, Expected
from grapevine.peer.ledger import Chosen, Ledger
from grapevine.peer.message import Message
from grapevine.peer.payloads import Marks
from grapevine.peer.peer import Peer
from grapevine.peer.strategies.base import Strategy

_STEP_OF_ADAPTATION, _TOLERANCE = 0.005, 0.1
_ANNOUNCED = 4  # one in 4 of the elements that a link has room for may be announced
_NUMBERS = (1.0, 2.0**31 - 1)


class Gaia(Strategy, frozen=True, tag="gaia"):
    """Every peer sends only its significant updates, with a mirror clock and an optional selective barrier (Hsieh et al. 2017).

    Source: K. Hsieh et al., "Gaia: Geo-Distributed Machine Learning Approaching LAN Speeds", NSDI 2017, sections 4 and 5.

    When: after every step.  Sends: the elements of the accumulated update that are significant, |update / weight| > threshold,
    with a threshold that falls with 1 / sqrt(t).  To: all other peers.  How: updates that are not significant accumulate;
    receivers add what arrives.  The selective barrier (`barrier = true`): some of the significant updates that the link cannot
    take now are announced, by their indices alone, and the receiver does not begin a step while announced values are missing.
    The mirror clock: a peer does not begin a step more than `slack` steps ahead of the slowest peer, as far as it knows; every
    step sends the peer's own clock, if necessary in a message without values.

    A peer takes the place of a data centre of the paper: it holds a whole copy of the model, without servers and workers
    inside.

    Departures: updates are scaled by 1/n, with n the number of living peers when they are made (the authors' code adds them
    up), so that the learning rate means the same for any number of peers.  The authors' code sends every significant element,
    and queues it while an earlier sending is under way; here, if more elements qualify than the link has room for, those that
    are sent (announced, paid) are drawn at random by the peer's own generator, so that no element waits for ever.  To adapt to
    bandwidth, the authors' code changes the threshold by 0.005 when the bytes sent differ by more than a tenth from a
    *configured* limit; the rule here changes it by the same amount when the significant elements differ by more than a tenth
    from the *measured* room of each link, and its bound `adapt` is ours.  Only elements that are not sent now are announced, as
    many as a quarter of the room holds (their indices take an eighth of it); they are sent first as soon as there is room, also
    while their sender itself waits.  Messages are numbered, so that announcements and values may arrive in any order.  The
    paper's overlay and hubs between groups of data centres are left out.  The barrier is off by default (the paper: on),
    because it costs more than it gains here.  Measured with four peers on the digits (Dirichlet 0.3, steps of 50 ms, 10 s, mean
    test accuracy over five seeds), without and with it: at 100 kbit/s 89.6 % after 66 steps and 81.0 % after 47; at 300 kbit/s
    93.4 % after 157 and 93.5 % after 131.
    """

    shares: ClassVar[Literal["nothing", "parameters", "gradients"]] = "gradients"
    membership: ClassVar[Literal["fixed", "at-once", "by-step"]] = "at-once"

    threshold: Annotated[float, msgspec.Meta(ge=0.0)] = 0.01
    """Relative change above which an update is significant, at the first step; >= 0."""
    decay: bool = True
    """Whether the threshold falls with 1 / sqrt(step), as in the paper."""
    adapt: Annotated[float, msgspec.Meta(ge=0.0)] = 0.2
    """Largest amount that a link with too little room adds to the threshold; 0 = no adaptation; >= 0."""
    fill: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.9
    """Share of a link's measured room that may be used, 0 < fill <= 1."""
    barrier: bool = False
    """Whether a peer announces updates that wait for room, and receivers wait for them; costs steps on slow links."""
    slack: Annotated[int, msgspec.Meta(ge=0)] = 1
    """Steps that a peer may be ahead of the slowest one when it begins a step; >= 0."""

    @property
    def link_share(self) -> float:
        return self.fill

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        about = (_NUMBERS, COUNT)
        return Expected("chosen", about), Expected("marks", about), Expected("none", about)

    async def run(self, peer: Peer) -> None:
        ledger = peer.new_ledger()
        mirrors = _Mirrors(peer)
        while peer.running:
            await self._wait_for_others(peer, mirrors)
            gradient = await peer.gradient()
            before = peer.weights.copy()
            peer.apply(gradient)
            update = (peer.weights - before) / np.float32(1 + len(peer.neighbours))
            np.add(before, update, out=peer.weights)
            ledger.add(update)
            for message in peer.arrived():
                _take_in(peer, mirrors, message)
            for neighbour in list(peer.neighbours):
                await self._share(peer, ledger, neighbour, mirrors[neighbour])
        for neighbour in list(peer.neighbours) if peer.leaving else []:
            await _pay(peer, neighbour, mirrors[neighbour], np.arange(peer.size, dtype=np.uint32))
        while await self._send_announced(peer, mirrors):  # neighbours wait for values that were announced to them
            await _receive(peer, mirrors, peer.now_ns + int(peer.horizon_ns))

    async def _wait_for_others(self, peer: Peer, mirrors: dict[int, _Mirror]) -> None:
        """Wait by mirror clock and selective barrier: until no peer is too far behind and no announced value is missing."""
        while True:
            for message in peer.arrived():
                _take_in(peer, mirrors, message)
            living = [mirrors[neighbour] for neighbour in peer.neighbours]
            lead = peer.step - min((mirror.clock for mirror in living), default=peer.step)
            if lead <= self.slack and not any(mirror.awaits for mirror in living):
                return
            left = await self._send_announced(peer, mirrors)
            await _receive(peer, mirrors, peer.now_ns + int(peer.horizon_ns) if left else None)

    async def _send_announced(self, peer: Peer, mirrors: dict[int, _Mirror]) -> bool:
        """Send announced values as far as there is room now; return whether some are still to be sent."""
        for neighbour in list(peer.neighbours):
            mirror = mirrors[neighbour]
            if mirror.announced.any() and (room := peer.room(neighbour, self.fill, index_bytes=4)):
                await _pay(peer, neighbour, mirror, _chosen(peer, mirror.announced, room))
        return any(mirrors[neighbour].announced.any() for neighbour in peer.neighbours)

    async def _share(self, peer: Peer, ledger: Ledger, neighbour: int, mirror: _Mirror) -> None:
        """Send significant updates as far as there is room, and announce some of the rest; at least send the clock."""
        room = peer.room(neighbour, self.fill, index_bytes=4)
        if neighbour not in peer.mixing:
            return
        threshold = self.threshold / (sqrt(peer.step) if self.decay else 1.0) + mirror.raised
        peer.note("threshold", threshold)
        significant = np.abs(ledger.owed(neighbour)) > threshold * np.abs(peer.weights)
        wanted = significant | mirror.announced
        count = int(wanted.sum())
        if self.adapt:
            mirror.adapt(count, room, self.adapt)
        if not self.barrier or count <= room:
            await _pay(peer, neighbour, mirror, _chosen(peer, wanted, room))
            return
        most = room // _ANNOUNCED
        room -= ceil(most / 2)
        announced_first = _chosen(peer, mirror.announced, room)
        others = significant & ~mirror.announced
        chosen = _chosen(peer, others, room - len(announced_first))
        await _pay(peer, neighbour, mirror, np.sort(np.concatenate([announced_first, chosen])))
        others[chosen] = False
        await _announce(peer, neighbour, mirror, _chosen(peer, others, most - int(mirror.announced.sum())))


class _Mirror:
    """The state that a peer keeps of one neighbour: its clock, and the elements announced to it, bool [size]."""

    def __init__(self, size: int) -> None:
        self.clock = 0
        self.announced = np.zeros(size, bool)
        self.raised = 0.0
        self.sent = 0
        self._newest = np.zeros(size, np.uint32)  # by element, from the newest message: 2 x its number, + 1 for an announcement

    @property
    def awaits(self) -> bool:
        """Whether announced values of the neighbour are missing."""
        return bool((self._newest & 1).any())

    def number(self, count: int) -> tuple[float, float]:
        """Return the scalars of the next message to the neighbour: its number, from 1, and its intended number of elements."""
        self.sent += 1
        return float(self.sent), float(count)

    def came(self, message: Message) -> None:
        """Record the clock and the elements of a message; an announcement that came after its values is ignored."""
        number, count = message.scalars
        self.clock = max(self.clock, message.step)
        where = message.payload.where() if message.payload.count or not count else slice(None)  # else not finite: all
        newest = self._newest[where]
        self._newest[where] = np.maximum(newest, np.uint32(2 * number + isinstance(message.payload, Marks)))

    def adapt(self, wanted: int, room: int, most: float) -> None:
        """Raise the threshold if more updates are significant than the link takes, lower it if the link takes more."""
        if wanted > (1 + _TOLERANCE) * room:
            self.raised = min(self.raised + _STEP_OF_ADAPTATION, most)
        elif wanted < (1 - _TOLERANCE) * room:
            self.raised = max(self.raised - _STEP_OF_ADAPTATION, 0.0)


class _Mirrors(dict[int, _Mirror]):
    """One mirror for each neighbour; the clock of a new neighbour begins at this peer's step."""

    def __init__(self, peer: Peer) -> None:
        super().__init__()
        self._peer = peer

    def __missing__(self, neighbour: int) -> _Mirror:
        mirror = self[neighbour] = _Mirror(self._peer.size)
        mirror.clock = self._peer.step
        return mirror


def _chosen(peer: Peer, qualified: np.ndarray, most: int) -> np.ndarray:
    """Return the indices (uint32, ascending) of the elements that qualify (bool [size]), at most `most` of them.

    If more elements qualify, `most` of them are drawn, each equally likely.
    """
    indices = np.flatnonzero(qualified).astype(np.uint32)
    if len(indices) > most:
        indices = np.sort(peer.rng.choice(indices, max(0, most), replace=False))
    return indices


async def _pay(peer: Peer, neighbour: int, mirror: _Mirror, indices: np.ndarray) -> None:
    if neighbour in peer.mixing:
        mirror.announced[indices] = False
        await peer.pay(neighbour, Chosen(indices), mirror.number(len(indices)))


async def _announce(peer: Peer, neighbour: int, mirror: _Mirror, indices: np.ndarray) -> None:
    if len(indices) and neighbour in peer.mixing:
        mirror.announced[indices] = True
        await peer.send(neighbour, Marks(indices), mirror.number(len(indices)))


async def _receive(peer: Peer, mirrors: dict[int, _Mirror], deadline_ns: int | None) -> None:
    message = await peer.receive(deadline_ns=deadline_ns)
    if message is not None:
        _take_in(peer, mirrors, message)


def _take_in(peer: Peer, mirrors: dict[int, _Mirror], message: Message) -> None:
    mirrors[message.source].came(message)
    if not isinstance(message.payload, Marks):
        peer.weights[message.payload.where()] += message.payload.values
