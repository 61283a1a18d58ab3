"""The flow table of `netem.shaping.flow_table` in a file in memory that all peers map, and the lock that guards it."""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path

from grapevine.experiments.worlds.processes.snapshots import reserve
from grapevine.netem import FlowTable, Shared


class FileLock:
    """Held by one process at a time; who dies gives it back."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN)


def open_table(room: Path, shared: Shared, create: bool = False) -> tuple[FlowTable, FileLock]:
    """The table of a run, made first by the launcher; it lasts as long as somebody uses it."""
    fd = os.open(room / "flows", os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    size_bytes = 8 * FlowTable.size(shared)
    if create:
        reserve(fd, size_bytes)
    return FlowTable(shared, memoryview(mmap.mmap(fd, size_bytes)).cast("d")), FileLock(fd)
