"""The boards of colluding wrappers: one for each, handed to every peer that it stands at."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from grapevine.peer.peer import Peer
from grapevine.peer.spaces import Spaces
from grapevine.peer.wrappers import Wrapper
from grapevine.peer.wrappers.board import Board
from grapevine.peer.wrappers.wrapped import WrappedPeer

Buffer = Callable[[int, int], np.ndarray]
"""From a wrapper's place and a number of bytes to the memory of its board, uint8."""


def boards(
    wrappers: Iterable[tuple[int, Wrapper]], peers: int, spaces: Spaces, buffer: Buffer, new: bool = True
) -> dict[int, Board]:
    """A board for each wrapper that colludes, by its place; `new` where nothing lies in the memory yet."""
    made = {}
    for place, wrapper in wrappers:
        if wrapper.colludes:
            colluders = wrapper.among(peers)
            made[place] = Board(colluders, spaces, buffer(place, Board.bytes_needed(len(colluders), spaces)), new)
    return made


def put_up(peer: Peer, found: dict[int, Board]) -> None:
    """Let a peer see the boards of the wrappers that stand at it."""
    if isinstance(peer, WrappedPeer):
        for station in peer.stations:
            if station.place in found:
                station.put_up(found[station.place])
