"""A peer's process under test that is none."""

from __future__ import annotations

from multiprocessing import Pipe
from types import SimpleNamespace
from typing import Any

from grapevine.experiments.worlds.processes import control, forkserver
from grapevine.experiments.worlds.processes.forkserver import Child


class Stand(Child):
    """A child without a process: what it says is put into its pipe by the test."""

    def __init__(self, name: str, exitcode: int | None = None) -> None:
        self.name = name
        self.connection, self.theirs = Pipe()
        self.process: Any = SimpleNamespace(
            pid=1, exitcode=exitcode, join=lambda *_: None, is_alive=lambda: False, kill=lambda: None
        )
        self.handle = -1
        self.heard_s = 0.0
        self.last_words = self.why = ""
        self.doing: str | None = None
        self.alive = True
        self.unsaid = forkserver.Unsaid()

    def speak(self, message: control.Up) -> None:
        self.theirs.send_bytes(control.encode(message))
