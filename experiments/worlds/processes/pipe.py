"""The end of a process's pipe to the launcher, in that process."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from grapevine.experiments.worlds.processes import control
from grapevine.experiments.worlds.processes.folders import remove_folder


class ChildPipe:
    """The child's end of its pipe to the launcher; writing is safe from any thread.

    `folders` are the launcher's: if it dies, its children remove them.
    """

    def __init__(self, connection: Connection, folders: Sequence[Path] = ()) -> None:
        self.connection = connection
        self.folders = folders
        self._writable = select.poll()
        self._writable.register(connection.fileno(), select.POLLOUT)
        self._lock = threading.Lock()

    def say(self, message: control.Up) -> None:
        """Send a message to the launcher, if it still runs."""
        with self._lock, contextlib.suppress(OSError):
            self.connection.send_bytes(control.encode(message))

    def beat(self) -> None:
        """Send a sign of life if that needs no waiting; a pipe that is full or being written shows life too."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._writable.poll(0):
                with contextlib.suppress(OSError):
                    self.connection.send_bytes(control.encode(control.Beat()))
        finally:
            self._lock.release()

    def hear(self) -> control.Down:
        """Return the launcher's next message; end this process if the launcher has ended."""
        try:
            message: control.Down = control.decode_down(self.connection.recv_bytes())
            return message
        except (EOFError, OSError):
            for folder in self.folders:
                remove_folder(folder)
            os._exit(1)
