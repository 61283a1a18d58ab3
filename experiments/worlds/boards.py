"""The boards of colluding wrappers: one for each wrapper, given to each of its peers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from grapevine.peer.peer import Peer
from grapevine.peer.spaces import Spaces
from grapevine.peer.wrappers import Wrapper
from grapevine.peer.wrappers.board import Board
from grapevine.peer.wrappers.wrapped import WrappedPeer

Buffer = Callable[[int, int], np.ndarray]
"""Returns the memory of a wrapper's board, uint8, from the wrapper's place in the list and the number of bytes."""


def boards(
    wrappers: Iterable[tuple[int, Wrapper]], peers: int, spaces: Spaces, buffer: Buffer, new: bool = True
) -> dict[int, Board]:
    """Return the board of each wrapper that colludes, by the wrapper's place; `new`: the memory holds no board yet."""
    made = {}
    for place, wrapper in wrappers:
        if wrapper.colludes:
            colluders = wrapper.among(peers)
            made[place] = Board(colluders, spaces, buffer(place, Board.bytes_needed(len(colluders), spaces)), new)
    return made


def put_up(peer: Peer, found: dict[int, Board]) -> None:
    """Give a peer the boards of its wrappers."""
    if isinstance(peer, WrappedPeer):
        for station in peer.stations:
            if station.place in found:
                station.put_up(found[station.place])
