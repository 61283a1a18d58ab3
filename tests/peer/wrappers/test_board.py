"""The board of colluding peers: everything comes back as it was posted, in order, a bounded number of it, and nothing torn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from grapevine.experiments.worlds.processes.board_file import lay_board, map_board
from grapevine.peer.codecs import Int8
from grapevine.peer.payloads import Dense, Marks, Sparse
from grapevine.peer.spaces import Space, Spaces
from grapevine.peer.wrappers.board import LIMIT_BYTES, MOST_SLOTS, Board, Posted

SPACES = Spaces(8, Int8(), [Space("votes", 5, "uint32")])
COLLUDERS = [1, 4, 6]


def board(spaces: Spaces = SPACES) -> Board:
    return Board(COLLUDERS, spaces, np.zeros(Board.bytes_needed(3, spaces), np.uint8))


def post(peer: int, time_ns: int, value: float = 0.0) -> Posted:
    return Posted(peer, time_ns, peer, peer, 3, Dense(np.full(8, value, np.float32)))


def test_what_is_posted_comes_back_exactly() -> None:
    """Whatever the experiment's codec: the board is no wire."""
    given = [
        Posted(4, 10, 2, 4, 7, Dense(np.linspace(0, 1, 4, dtype=np.float32), 3), (0.5, -1.0)),
        Posted(4, 11, 4, 2, 8, Sparse(np.array([1, 4], np.uint32), np.array([2**32 - 1, 0], np.uint32), space="votes")),
        Posted(4, 12, 4, 4, 9, Marks(np.array([0, 2], np.uint32), "votes")),
    ]
    found = board()
    for each in given:
        found.post(each)
    for back, each in zip(found.read(12), given, strict=True):
        assert back._replace(payload=None) == each._replace(payload=None)  # type: ignore[arg-type]
        assert type(back.payload) is type(each.payload)
        assert back.payload.space == each.payload.space
        assert np.array_equal(back.payload.values, each.payload.values)
        assert np.array_equal(np.r_[back.payload.where()], np.r_[each.payload.where()])


def test_posts_are_copies() -> None:
    found, values = board(), np.ones(8, np.float32)
    found.post(Posted(1, 0, 1, 1, 0, Dense(values)))
    values[:] = 7
    (first,) = found.read(0)
    first.payload.values[:] = 9
    assert found.read(0)[0].payload.values.tolist() == [1.0] * 8


def test_posts_come_in_order_of_time_and_never_before_it() -> None:
    found = board()
    for peer, time_ns in [(6, 5), (1, 9), (6, 7), (4, 7), (1, 12)]:
        found.post(post(peer, time_ns))
    told = [(each.time_ns, each.peer) for each in found.read(9)]
    assert told == [(5, 6), (7, 4), (7, 6), (9, 1)]
    assert found.read(4) == []


def test_a_board_keeps_the_last_posts_of_each() -> None:
    found = board()
    assert found.slots == MOST_SLOTS
    for number in range(3 * MOST_SLOTS + 5):
        found.post(post(4, number, number))
    found.post(post(1, 0))
    kept = [each.payload.values[0] for each in found.read(10**9) if each.peer == 4]
    assert kept == list(range(2 * MOST_SLOTS + 5, 3 * MOST_SLOTS + 5))
    assert len(found.read(10**9)) == MOST_SLOTS + 1


def test_a_board_never_takes_more_than_its_limit() -> None:
    for size in (10, 10**5, 10**7, 10**9):
        spaces = Spaces(size)
        assert Board.bytes_needed(5, spaces) <= LIMIT_BYTES
        assert (Board.slots_of(5, spaces) == 0) == (size == 10**9)


def test_what_is_being_written_is_not_read() -> None:
    found = board()
    for number in range(3):
        found.post(post(4, number))
    found._stamps[1, 2] = -2  # as while the third is written
    assert [each.time_ns for each in found.read(9)] == [0, 1]


@pytest.mark.parametrize("place", [8, 20, 36, 40, 45, 60])
def test_what_is_spoilt_is_left_out(place: int) -> None:
    found = board()
    found.post(post(4, 0))
    found.post(post(4, 1))
    found._slots[1, 0, place] ^= 0xFF
    assert [each.time_ns for each in found.read(9)][-1] == 1


def test_processes_share_a_board_by_a_file(tmp_path: Path) -> None:
    needed = Board.bytes_needed(3, SPACES)
    Board(COLLUDERS, SPACES, lay_board(tmp_path, 2, needed))
    writer, reader = (Board(COLLUDERS, SPACES, map_board(tmp_path, 2, needed), new=False) for _ in range(2))
    writer.post(post(6, 3, 4.5))
    assert [each.payload.values[0] for each in reader.read(3)] == [4.5]
