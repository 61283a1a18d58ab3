"""The flow table of `netem.shaping.flow_table` in a file in memory that all peers map, and the lock that guards it."""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path

from grapevine.experiments.worlds.processes.snapshots import reserve
from grapevine.netem import FlowTable, Shared


class FileLock:
    """A lock between processes on the flow table; the kernel releases it if its holder dies."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN)


def open_table(room: Path, shared: Shared, create: bool = False) -> tuple[FlowTable, FileLock]:
    """Return the flow table of a run with its lock; the launcher makes it (`create`) before any peer opens it."""
    fd = os.open(room / "flows", os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    size_bytes = 8 * FlowTable.size(shared)
    if create:
        reserve(fd, size_bytes)
    return FlowTable(shared, memoryview(mmap.mmap(fd, size_bytes)).cast("d")), FileLock(fd)
