"""What processes share: snapshots of all peers' weights, and the task's big arrays; files that live in memory."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

from experiments.worlds.messages import FINAL

SNAPSHOT_LIMIT_BYTES = 256 << 20


def make_room() -> Path:
    """A folder of one run for its shared files, in memory where the system has such a place."""
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    return Path(tempfile.mkdtemp(prefix="grapevine-", dir=base))


def clear_room(room: Path) -> None:
    """Remove the folder; what is still mapped stays readable for who mapped it."""
    shutil.rmtree(room, ignore_errors=True)


def spool(room: Path, arrays: dict[str, np.ndarray]) -> None:
    """Put a task's arrays where every process can map them."""
    for name, array in arrays.items():
        np.save(room / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)


def unspool(room: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Map a task's arrays, read-only."""
    return {name: np.load(room / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names}


class Snapshots:
    """Weights of all peers at the last few record instants and at the end: float32 [slots + 1, peers, size] in one file.

    A peer writes its own row; whoever reads a slot is told when it is complete, and discards what was overwritten since.
    """

    def __init__(self, room: Path, peers: int, size: int, create: bool = False) -> None:
        each = max(1, 4 * peers * size)
        self.slots = int(max(2, min(16, SNAPSHOT_LIMIT_BYTES // each)))
        self._array = np.memmap(
            room / "snapshots", np.float32, mode="w+" if create else "r+", shape=(self.slots + 1, peers, size)
        )

    def write(self, index: int, peer: int, weights: np.ndarray) -> None:
        """Keep one peer's weights under a record index (or FINAL)."""
        self._array[self._slot(index), peer] = weights

    def read(self, index: int) -> np.ndarray:
        """All peers' weights under a record index, a view, float32 [peers, size]."""
        return self._array[self._slot(index)]

    def _slot(self, index: int) -> int:
        return self.slots if index == FINAL else index % self.slots
