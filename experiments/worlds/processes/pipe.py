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

    `folders` are the launcher's: whoever notices that it died removes them in its place.
    """

    def __init__(self, connection: Connection, folders: Sequence[Path] = ()) -> None:
        self.connection = connection
        self.folders = folders
        self._writable = select.poll()
        self._writable.register(connection.fileno(), select.POLLOUT)
        self._lock = threading.Lock()

    def say(self, message: control.Up) -> None:
        with self._lock, contextlib.suppress(OSError):
            self.connection.send_bytes(control.encode(message))

    def beat(self) -> None:
        """Show that this process lives, unless that would mean to wait: what fills the pipe, or is on its way, shows it too."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._writable.poll(0):
                with contextlib.suppress(OSError):
                    self.connection.send_bytes(control.encode(control.Beat()))
        finally:
            self._lock.release()

    def hear(self) -> control.Down:
        """The launcher's next message; the launcher's end ends this process."""
        try:
            message: control.Down = control.decode_down(self.connection.recv_bytes())
            return message
        except (EOFError, OSError):
            for folder in self.folders:
                remove_folder(folder)
            os._exit(1)
