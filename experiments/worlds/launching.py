"""How the launcher starts processes: the server that they are forked from, and each of them with its pipe."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from typing import Any

from experiments.worlds import messages

UNGUARDED = 77  # exit status of a child whose script starts a fleet on import
FILES = 65_536
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # peers share the cores: each computes in one thread
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),  # buffers of messages are used again instead of being mapped anew each time
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
}


class WorldError(Exception):
    """A process could not be started or kept: which one, and why; `details` are its last words in full."""

    def __init__(self, text: str, details: str = "") -> None:
        super().__init__(text)
        self.details = details


def start_fork_server() -> None:
    """Start the process that all peers are forked from; it imports torch meanwhile.  Call it early: it takes a while."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)  # a peer's process imports its script, and the script starts a fleet: the launcher will say so
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["experiments.worlds.preload"])
    resource_tracker.ensure_running()  # it would let interrupts through again below
    _allow_files()
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: Ctrl-C is the launcher's business
    os.environ.update(_ENVIRONMENT)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _allow_files() -> None:
    """A peer has two sockets a neighbour, and zmq aborts a process that may not open one: ask for as many as is permitted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def _importable_main() -> Iterator[None]:
    """A script that is no file (standard input, a notebook's cell) cannot be imported again by the children: hide it."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if main is None or file is None or os.path.exists(file):
        yield
        return
    del main.__file__
    try:
        yield
    finally:
        main.__file__ = file


class Child:
    """One process and the launcher's end of its pipe."""

    def __init__(self, name: str, target: Any, arguments: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("forkserver")
        self.name = name
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=target, args=(*arguments, theirs), name=name, daemon=True)
        with _importable_main():
            try:
                self.process.start()
            except (AttributeError, TypeError, ValueError, ImportError) as error:
                raise WorldError(
                    f"{name} cannot be given what came from Python: {error}; define it at the top level of a file, or use "
                    "the virtual world"
                ) from None
            except Exception as error:  # whatever else the transport of objects to a new process raises
                raise WorldError(f"{name} could not be started: {error}") from None
        theirs.close()
        self.heard_s = time.monotonic()
        self.last_words = ""
        self.why = ""
        self.alive = True

    def say(self, message: messages.Down) -> None:
        with contextlib.suppress(OSError):
            self.connection.send_bytes(messages.encode(message))

    def end(self) -> None:
        """Forget the process; one that still runs is killed."""
        self.alive = False
        with contextlib.suppress(OSError):
            self.connection.close()
        if self.process.is_alive():
            self.process.kill()

    def read(self) -> list[messages.Up]:
        """What the child has said since; its end is noticed here."""
        heard: list[messages.Up] = []
        try:
            while self.alive and self.connection.poll():
                heard.append(messages.decode_up(self.connection.recv_bytes()))
                self.heard_s = time.monotonic()
                if isinstance(heard[-1], messages.Failed):
                    self.last_words = heard[-1].text
        except (EOFError, OSError):
            self.end()
        return heard
