"""The base of all wrappers: a frozen configuration, and methods for outgoing messages, arriving messages and gradients."""

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
    """One message to one neighbour before it leaves; `leaves_ns` is the emulated time at which it leaves."""

    target: int
    payload: Payload
    scalars: tuple[float, ...]
    step: int
    leaves_ns: int


class Station:
    """One wrapper at one peer: its access to the peer, its memory and its random numbers.

    `peer` is the object that the strategy sees (weights, step, neighbours), `now_ns` the emulated time.  `rng` is a stream of
    random numbers for this wrapper alone, seeded by the experiment, the wrapper's place and the peer.  `memory` is kept from
    call to call.
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
        """Set the board that the wrapper's peers share; a world calls this."""
        self._board = board

    def post(self, message: Outgoing | Message | np.ndarray) -> None:
        """Post a message or a computed vector (float32 [size], such as a gradient) of this peer on the colluders' board.

        The board keeps copies of the last posts of each colluder (`Board.slots`).  Raises ValueError if the wrapper's class
        does not set `colludes`.
        """
        self._shared().post(self._posted(message))

    def posted(self) -> list[Posted]:
        """Return the posts of all colluders, also of this one, until now, the oldest first.

        In virtual time these are all posts until this instant.  In real time, too, a post appears only when this peer's
        emulated time has reached the post's; the newest posts are missing until the process of their peer has made them.
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
    """A fault, an attack or an observer that stands between the strategies of some peers and their world.

    Its fields are its configuration; its state belongs into `station.memory`.  Each method gets a message or a gradient and
    returns the messages or the gradient that pass on; here they pass on unchanged.  Payloads and arrays are shared with other
    peers: never change one in place, return a new one.  Of several wrappers the first stands next to the strategy: outgoing
    messages pass it first, arriving messages and gradients pass it last.  With `colludes` the wrapper's peers share a board.
    """

    colludes: ClassVar[bool] = False

    peers: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] | None = None
    """The peers that have this wrapper, such as [0, 3]; left out = all."""

    def stands_at(self, peer: int) -> bool:
        """Whether a peer has this wrapper."""
        return self.peers is None or peer in self.peers

    def among(self, peers: int) -> list[int]:
        """Return the peers that have this wrapper in a fleet of `peers` peers, ascending."""
        return list(range(peers)) if self.peers is None else sorted(set(self.peers))

    def sending(self, station: Station, message: Outgoing) -> Iterable[Outgoing]:
        """Return the messages that leave, now or later, in place of a message to one neighbour: none, one or more."""
        return (message,)

    def arriving(self, station: Station, message: Message) -> Iterable[Message]:
        """Return the messages that the strategy gets in place of a message that has arrived: none, one or more."""
        return (message,)

    def computed(self, station: Station, gradient: np.ndarray) -> np.ndarray:
        """Return the gradient that the strategy gets in place of a computed one (float32 [size], read-only)."""
        return gradient
