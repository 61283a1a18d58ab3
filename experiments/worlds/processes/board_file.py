"""The boards of colluding peers in different processes: for each board one file in memory, in the run's own folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from grapevine.experiments.worlds.processes.snapshots import reserve


def lay_board(room: Path, place: int, size_bytes: int) -> np.ndarray:
    """Make the file of the wrapper at this place, all zeros; return its bytes.  Raises OSError if there is no room."""
    with open(_path(room, place), "wb") as file:
        reserve(file.fileno(), size_bytes)
    return map_board(room, place, size_bytes)


def map_board(room: Path, place: int, size_bytes: int) -> np.ndarray:
    """Return the bytes of a board that the launcher has made, uint8 [size_bytes], shared by all processes that map it."""
    return np.memmap(_path(room, place), np.uint8, "r+", shape=(size_bytes,))


def _path(room: Path, place: int) -> Path:
    return room / f"board-{place}"
