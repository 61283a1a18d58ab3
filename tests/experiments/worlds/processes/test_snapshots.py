"""Files in memory that the launcher shares with its peers: whole weights, and room for them."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from grapevine.experiments.worlds.peer_report import FINAL
from grapevine.experiments.worlds.processes import snapshots
from grapevine.experiments.worlds.processes.snapshots import Snapshots


def test_the_last_weights_are_those_that_were_written_whole(tmp_path: Path) -> None:
    """Of a lost peer those of its last record, not those with which it began."""
    written = snapshots.Snapshots(tmp_path, 4, 2, create=True)
    for index in range(written.slots + 2):  # the first two are written over
        for peer in range(3):
            written.write(index, peer, np.full(2, 10 * index + peer, np.float32))
    written.write(FINAL, 0, np.full(2, -1, np.float32))
    newest = written.slots + 1
    written._stamps[newest % written.slots, 2] = snapshots.UNWRITTEN  # peer 2 died while it wrote
    last = written.last(np.full(2, 7, np.float32))
    assert last[:, 0].tolist() == [-1, 10 * newest + 1, 10 * (newest - 1) + 2, 7]
    assert last.dtype == np.float32


def test_shared_files_go_where_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the places in their order the first that holds all of it; nothing stays in the others."""
    places = [tmp_path / name for name in ("full", "missing", "wide", "more")]
    for place in places:
        if place.name != "missing":
            place.mkdir()
    monkeypatch.setattr(snapshots, "places", lambda: places)

    def lay(room: Path) -> None:
        (room / "half").write_bytes(b"x")
        if room.parent.name == "full":
            raise OSError(errno.ENOSPC, "full")

    assert snapshots.make_room(10, lay).parent == places[2]
    assert [len(list(place.iterdir())) for place in places if place.is_dir()] == [0, 1, 0]
    places[:] = places[:2]
    with pytest.raises(OSError, match=r"share 2 MB, and neither .*full nor .*missing has enough room"):
        snapshots.make_room(2_000_000, lay)
    assert not list(places[0].iterdir())


def test_shared_files_have_their_room_before_anybody_writes_to_them(tmp_path: Path) -> None:
    """A mapped file that finds the file system full later ends the process that writes to it, without a word."""
    Snapshots(tmp_path, 50, 1_000, create=True)
    files = list(tmp_path.iterdir())
    assert sum(file.stat().st_size for file in files) == Snapshots.needed_bytes(50, 1_000)
    assert all(file.stat().st_blocks * 512 >= file.stat().st_size for file in files)
