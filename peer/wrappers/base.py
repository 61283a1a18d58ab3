"""What every wrapper is: a frozen configuration, and a method for each thing that passes between a strategy and its world."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec
import numpy as np

from grapevine.peer.message import Message
from grapevine.peer.payloads import Payload
from grapevine.peer.peer import Peer
from grapevine.peer.wrappers.board import Board, Posted


class Outgoing(NamedTuple):
    """One message to one neighbour, before it leaves; `leaves_ns` is the emulated time at which it does."""

    target: int
    payload: Payload
    scalars: tuple[float, ...]
    step: int
    leaves_ns: int


class Station:
    """Where one wrapper stands at one peer, and what it has there.

    `peer` is all that the strategy sees (weights, step, neighbours), `now_ns` the emulated time, `rng` a stream of the
    wrapper's own, seeded by the experiment, the wrapper's place and the peer, and `memory` is kept from call to call.
    """

    __slots__ = ("_board", "memory", "now_ns", "peer", "place", "rng", "wrapper")

    def __init__(self, wrapper: Wrapper, place: int, peer: Peer, rng: np.random.Generator) -> None:
        self.wrapper = wrapper
        self.place = place
        self.peer = peer
        self.rng = rng
        self.memory: dict[str, Any] = {}
        self.now_ns = 0
        self._board: Board | None = None

    def put_up(self, board: Board) -> None:
        """A world hands over the board that the wrapper's peers share."""
        self._board = board

    def post(self, message: Outgoing | Message | np.ndarray) -> None:
        """Put on the colluders' board what this peer sends, has received or has computed (float32 [size], such as a gradient).

        The board keeps the last few posts of each colluder (`Board.slots`), as copies.  Raises ValueError where the wrapper's
        class does not set `colludes`.
        """
        self._shared().post(self._posted(message))

    def posted(self) -> list[Posted]:
        """What all colluders, this one too, have put on the board by now, the oldest first.

        In virtual time that is all that was posted until this instant.  In real time nothing is seen before the emulated time
        at which it was posted either; what its poster's process has not reached on the real clock yet is missing until it has.
        """
        return self._shared().read(self.now_ns)

    def _shared(self) -> Board:
        if self._board is None:
            raise ValueError(f"{type(self.wrapper).__name__} has no board: set `colludes: ClassVar[bool] = True` in its class")
        return self._board

    def _posted(self, message: Outgoing | Message | np.ndarray) -> Posted:
        own, now_ns = self.peer.id, self.now_ns
        if isinstance(message, Outgoing):
            return Posted(own, now_ns, own, message.target, message.step, message.payload, message.scalars)
        if isinstance(message, Message):
            arrived_ns, payload = message.arrived_ns, message.payload
            return Posted(own, arrived_ns, message.source, own, message.step, payload, message.scalars)
        return Posted.computed(own, now_ns, self.peer.step, message)


class Wrapper(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """What stands between the strategies of some peers and their world: a fault, an attack or an observer.

    Its fields are its configuration; what it remembers belongs into `station.memory`.  Every method gets what passes and
    answers with what passes on: as it is here.  Payloads and arrays are shared with other peers: never change one in place,
    answer with a new one.  Of several wrappers the first stands next to the strategy: what is sent passes it first, what
    arrives or is computed passes it last.  `colludes` gives the peers that the wrapper stands at a board that they share.
    """

    colludes: ClassVar[bool] = False

    peers: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] | None = None
    """The peers that it stands at, such as [0, 3]; left out = all."""

    def stands_at(self, peer: int) -> bool:
        """Whether it stands at a peer."""
        return self.peers is None or peer in self.peers

    def among(self, peers: int) -> list[int]:
        """Those of so many peers that it stands at, ascending."""
        return list(range(peers)) if self.peers is None else sorted(set(self.peers))

    def sending(self, station: Station, message: Outgoing) -> Iterable[Outgoing]:
        """A message is about to leave to one neighbour; answers with the messages that do, now or later: none, one or more."""
        return (message,)

    def arriving(self, station: Station, message: Message) -> Iterable[Message]:
        """A message has arrived; answers with those that the strategy gets: none, one or more."""
        return (message,)

    def computed(self, station: Station, gradient: np.ndarray) -> np.ndarray:
        """A gradient has been computed (float32 [size], read-only); answers with the one that the strategy gets."""
        return gradient
