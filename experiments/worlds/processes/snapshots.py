"""The files in memory that processes share: snapshots of all peers' weights, and the task's large arrays."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from grapevine.experiments.worlds.peer_report import FINAL
from grapevine.experiments.worlds.processes.folders import make_folder, places, remove_folder
from grapevine.netem.units import show_bytes

FEW_SLOTS, FEW_SLOTS_LIMIT_BYTES = 16, 256 << 20
MANY_SLOTS, MANY_SLOTS_LIMIT_BYTES = 256, 32 << 20
"""The number of snapshots that are held, and the most bytes for them; more of small models, for a launcher that is late."""
UNWRITTEN = -2


def make_room(needed_bytes: int, lay: Callable[[Path], None]) -> Path:
    """Return a new folder for the shared files of one run, filled by `lay(folder)`; it is in memory if the system allows it.

    If `lay` raises OSError, as without room, the next place is tried.  Raises OSError if no place is left.
    """
    for place in places():
        try:
            folder = make_folder(place)
        except OSError:
            continue
        try:
            lay(folder)
            return folder
        except OSError:
            remove_folder(folder)
        except BaseException:
            remove_folder(folder)
            raise
    known = " nor ".join(str(place) for place in places())
    raise OSError(f"the peers share {show_bytes(needed_bytes)}, and neither {known} has enough room: free some")


def reserve(file: int, size_bytes: int) -> None:
    """Reserve a file's room now, because writing to a mapped file without room kills the process.  Raises OSError."""
    os.posix_fallocate(file, 0, size_bytes)


def spool(room: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a task's arrays into files that every process can map."""
    for name, array in arrays.items():
        np.save(room / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)


def unspool(room: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Return a task's arrays, mapped read-only."""
    return {name: np.load(room / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names}


class Snapshots:
    """Weights of all peers at the last few record instants and at the end: float32 [slots + 1, peers, size] in one file.

    A peer writes its own row, with UNWRITTEN as its stamp before and the record's index after. A slot with another stamp is
    not read: its row was not written yet, or overwritten already.
    """

    def __init__(self, room: Path, peers: int, size: int, create: bool = False) -> None:
        self.slots = self._slots(peers, size)
        if create:
            for name, row_bytes in (("snapshots", 4 * size), ("stamps", 8)):
                with open(room / name, "wb") as file:
                    reserve(file.fileno(), (self.slots + 1) * peers * row_bytes)
        self._array = np.memmap(room / "snapshots", np.float32, "r+", shape=(self.slots + 1, peers, size))
        self._stamps = np.memmap(room / "stamps", np.int64, "r+", shape=(self.slots + 1, peers))
        if create:
            self._stamps[:] = UNWRITTEN

    @classmethod
    def needed_bytes(cls, peers: int, size: int) -> int:
        """Return the size of the files."""
        return (cls._slots(peers, size) + 1) * peers * (4 * size + 8)

    @staticmethod
    def _slots(peers: int, size: int) -> int:
        slot_bytes = max(1, 4 * peers * size)
        few = min(FEW_SLOTS, FEW_SLOTS_LIMIT_BYTES // slot_bytes)
        return int(max(2, few, min(MANY_SLOTS, MANY_SLOTS_LIMIT_BYTES // slot_bytes)))

    def write(self, index: int, peer: int, weights: np.ndarray) -> None:
        """Write one peer's weights under a record index (or FINAL)."""
        slot = self._slot(index)
        self._stamps[slot, peer] = UNWRITTEN
        self._array[slot, peer] = weights
        self._stamps[slot, peer] = index

    def read(self, index: int, peers: list[int]) -> np.ndarray | None:
        """Return a copy of some peers' weights under a record index, float32 [k, size]; None if they are no longer there."""
        slot = self._slot(index)
        weights = np.array(self._array[slot][peers])
        return weights if np.all(self._stamps[slot][peers] == index) else None

    def last(self, initial: np.ndarray) -> np.ndarray:
        """Return every peer's last weights that were written whole, float32 [peers, size]: of its end, else of its last record
        that is still here, else `initial`, float32 [size]."""
        newest = np.where(self._stamps[: self.slots].max(axis=0) >= 0, self._stamps[: self.slots].argmax(axis=0), UNWRITTEN)
        slots = np.where(self._stamps[self.slots] == FINAL, self.slots, newest)
        return np.stack([initial if slot == UNWRITTEN else self._array[slot, peer] for peer, slot in enumerate(slots)])

    def _slot(self, index: int) -> int:
        return self.slots if index == FINAL else index % self.slots
