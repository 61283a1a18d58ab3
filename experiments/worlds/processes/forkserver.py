"""How the launcher starts processes: the server that they are forked from, and each of them with its pipe."""

from __future__ import annotations

import contextlib
import functools
import io
import multiprocessing
import os
import select
import signal
import struct
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import FunctionType
from typing import Any

from grapevine.experiments.config.errors import ConfigError
from grapevine.experiments.open_files import allow_files
from grapevine.experiments.worlds.interrupt import signal_name
from grapevine.experiments.worlds.processes import control
from grapevine.experiments.worlds.processes.attention import Attention
from grapevine.experiments.worlds.processes.folders import make_folder, places, remove_folder

UNGUARDED = 77  # exit status of a child whose script starts a fleet on import
UNKNOWN = 255  # what multiprocessing tells of a process whose fork server is gone
PLACE_LIMIT = 24  # characters: the fork server's address, 83 longer, may have 107
INTERRUPTED_START_S = 1.0  # from an interrupt until a start that still waits for the fork server is broken off
PIECE_BYTES = 16_384  # what a pipe that has room at all takes without waiting
SHORT = f"give TMPDIR a folder that can be written to and whose path has at most {PLACE_LIMIT} characters"
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # peers share the cores: each computes in one thread
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),  # buffers of messages are used again instead of being mapped anew each time
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
}

_loaded: set[str] = set()
"""What the fork server imports besides what all peers need."""


class WorldError(Exception):
    """A process could not be started or kept: which one, and why; `details` are its last words in full."""

    def __init__(self, text: str, details: str = "") -> None:
        super().__init__(text)
        self.details = details


def refuse_unimportable(*values: Any) -> None:
    """Raise ConfigError if the values need a class or function of a program that no other process can import.

    Such a program is read from standard input, a prompt or a notebook.  A value that cannot be pickled at all is left to the
    start of the processes, which names the peer.
    """
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if getattr(main, "__spec__", None) is not None or (file is not None and Path(file).exists()):
        return
    pickler = _OfMain()
    with contextlib.suppress(Exception):
        pickler.dump(values)
    if pickler.found:
        names = ", ".join(dict.fromkeys(pickler.found))
        problem = f"the peers' processes cannot import {names}: this program is no file"
        cure = "move it to a module, such as mine.py, and import it from there, or use the virtual world"
        raise ConfigError("world", problem=problem, cure=cure)


class _OfMain(ForkingPickler):
    """Notes the classes and functions of the running program that other values refer to."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())
        self.found: list[str] = []

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type | FunctionType) and value.__module__ == "__main__":
            self.found.append(value.__qualname__)
        return NotImplemented


def start_fork_server(modules: Sequence[str]) -> None:
    """Start the process that all peers are forked from, which imports what they need, and the task's own `modules`, once.

    Call it early: it takes a while.  One that runs already and lacks some of the modules is replaced.  Raises ConfigError where
    there is no place for the socket on which it listens.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)  # a peer's process imports its script, and the script starts a fleet: the launcher will say so
    context = multiprocessing.get_context("forkserver")
    if not _loaded.issuperset(modules):
        end_fork_server()
        _loaded.update(modules)
    context.set_forkserver_preload([*sorted(_loaded), "grapevine.experiments.worlds.processes.preload"])
    resource_tracker.ensure_running()  # it would let interrupts through again below
    allow_files()
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: Ctrl-C is the launcher's business
    temporary = tempfile.tempdir
    os.environ.update(_ENVIRONMENT)
    try:
        tempfile.tempdir = str(server_folder())
        forkserver.ensure_running()
    except OSError as error:
        raise ConfigError("world", problem=f"the fork server has no place for its socket: {error}", cure=SHORT) from None
    finally:
        tempfile.tempdir = temporary
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@functools.cache
def server_folder() -> Path:
    """The folder that holds the fork server's socket as long as this process runs.  Raises OSError where there is none."""
    place = next((place for place in places() if len(str(place)) <= PLACE_LIMIT and os.access(place, os.W_OK)), None)
    if place is None:
        raise OSError(f"none of {', '.join(map(str, places()))} can be written to and is short enough")
    folder = make_folder(place)
    util.Finalize(None, remove_folder, args=(folder,), exitpriority=-200)  # after multiprocessing has removed what is in it
    return folder


def end_fork_server() -> None:
    """Kill the fork server: whoever waits for a word from it goes on, and the next start makes another one."""
    process = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]  # noqa: SLF001
    with contextlib.suppress(OSError, TypeError):
        os.kill(process, signal.SIGKILL)
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)  # multiprocessing wants to take its status itself


def wake_tracker() -> None:
    """Let the process go on that multiprocessing keeps beside the launcher: stopped it would not see that the launcher ends."""
    with contextlib.suppress(OSError, TypeError):
        os.kill(resource_tracker._resource_tracker._pid, signal.SIGCONT)  # type: ignore[attr-defined]  # noqa: SLF001


@contextlib.contextmanager
def bounded_start(interrupted: Callable[[], bool], limit_s: float) -> Iterator[None]:
    """While entered, a fork server that does not answer is waited for no longer than `limit_s`, and not after an interrupt."""
    over = threading.Event()

    def watch() -> None:
        attention, last_s = Attention(), limit_s
        while not over.wait(0.1):
            attention.look()
            if interrupted():
                last_s = min(last_s, attention.s + INTERRUPTED_START_S)
            if attention.s > last_s:
                end_fork_server()
                return

    watcher = threading.Thread(target=watch, name="start", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@contextlib.contextmanager
def _importable_main() -> Iterator[None]:
    """A script that is no file (standard input, a notebook's cell) cannot be imported again by the children: hide it."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if main is None or file is None or Path(file).exists():
        yield
        return
    del main.__file__
    try:
        yield
    finally:
        main.__file__ = file


class Unsaid:
    """What one child is to be told and its pipe had no room for, in order.

    Of several `Alter` in a row one is kept, since each says all that there is to know of its links: so a child that never
    listens takes no more memory than its links and the other peers have words for.
    """

    def __init__(self) -> None:
        self.messages: deque[control.Down] = deque()
        self._begun = b""  # the rest of the message that the pipe has taken a part of

    def add(self, message: control.Down) -> None:
        """Put a message behind the others."""
        last = self.messages[-1] if self.messages else None
        if isinstance(last, control.Alter) and isinstance(message, control.Alter):
            self.messages[-1] = last.followed_by(message)
        else:
            self.messages.append(message)

    def write(self, pipe: int) -> None:
        """Write to a pipe what it has room for.  Raises OSError where it is closed."""
        room = select.poll()
        room.register(pipe, select.POLLOUT)
        while (self._begun or self.messages) and room.poll(0):
            if not self._begun:
                content = control.encode(self.messages.popleft())
                self._begun = struct.pack("!i", len(content)) + content  # as multiprocessing's connections read it
            self._begun = self._begun[os.write(pipe, self._begun[:PIECE_BYTES]) :]


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
            except EOFError:
                raise WorldError(f"{name} could not be started: the fork server has ended, or does not answer") from None
            except Exception as error:  # noqa: BLE001 - whatever else the transport of objects to a new process raises
                raise WorldError(f"{name} could not be started: {error}") from None
        theirs.close()
        self.handle = _open_handle(self.process.pid or 0)
        self.heard_s = 0.0
        self.last_words = ""
        self.why = ""
        self.alive = True
        self.unsaid = Unsaid()

    def say(self, message: control.Down) -> None:
        """Tell the child something, and never wait for it: what its pipe has no room for is offered again by `go_on`."""
        self.unsaid.add(message)
        self.go_on()

    def go_on(self) -> None:
        """Write what the pipe has room for of what was not said yet."""
        with contextlib.suppress(OSError):  # the child is gone
            self.unsaid.write(self.connection.fileno())

    def kill(self) -> None:
        """Kill the process, whether the fork server still knows of it or not."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)

    def end(self) -> None:
        """Forget the process; one that still runs is killed."""
        self.alive = False
        self.kill()
        with contextlib.suppress(OSError):
            os.close(self.handle)
        self.handle = -1
        with contextlib.suppress(OSError):
            self.connection.close()

    def ending(self) -> str:
        """How the process ended, in words."""
        self.process.join(1.0)
        code = self.process.exitcode
        if code is None or code == UNKNOWN:
            return "its process ended, and how is not known, since the fork server is stopped or gone"
        if code >= 0:
            return f"its process ended with status {code}"
        cause = ", as when a file that it has mapped has lost its room" if -code == signal.SIGBUS else ""
        return f"its process was ended by {signal_name(-code)}{cause}"

    def read(self) -> list[control.Up]:
        """What the child has said since; its end is noticed here."""
        heard: list[control.Up] = []
        try:
            while self.alive and self.connection.poll():
                heard.append(control.decode_up(self.connection.recv_bytes()))
                if isinstance(heard[-1], control.Failed):
                    self.last_words = heard[-1].text
        except (EOFError, OSError):
            self.end()
        return heard


def _open_handle(process: int) -> int:
    """A descriptor of a process, which never means another one; -1 where it is gone by now."""
    try:
        return os.pidfd_open(process)
    except OSError:
        return -1
