"""The fork server, from which the launcher forks processes, and each process with the launcher's end of its pipe."""

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
import time
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
UNKNOWN = 255  # exit status by multiprocessing of a process whose fork server is gone
PLACE_LIMIT = 24  # characters: the fork server's address is 83 longer, and may have 107
INTERRUPTED_START_S = 1.0  # after an interrupt, the longest wait for the fork server
KILLED_S = 3.0  # within which the fork server reports the end of the processes that were killed
PIECE_BYTES = 16_384  # a pipe with any room takes this without waiting
SHORT = f"give TMPDIR a folder that can be written to and whose path has at most {PLACE_LIMIT} characters"
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # peers share the cores: each computes in one thread
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),  # reuse the buffers of messages instead of mapping new ones
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
}

_loaded: set[str] = set()
"""The modules that the fork server imports besides those that all peers need."""


class WorldError(Exception):
    """A process that could not be started or has ended, with the reason; `details` is its whole traceback."""

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
    """Start the fork server, which imports once all that the peers need, and the task's own `modules`.

    It takes a while, so call it early.  A running fork server that lacks some of the modules is replaced.  Raises ConfigError
    if there is no place for the server's socket.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)  # a peer's process imports its script, which starts a fleet: the launcher reports it
    context = multiprocessing.get_context("forkserver")
    if not _loaded.issuperset(modules):
        end_fork_server()
        _loaded.update(modules)
    context.set_forkserver_preload([*sorted(_loaded), "grapevine.experiments.worlds.processes.preload"])
    resource_tracker.ensure_running()  # if it started below, it would unblock interrupts
    allow_files()
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: only the launcher receives Ctrl-C
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
    """Return the folder for the fork server's socket, removed when this process ends.  Raises OSError if there is no place."""
    place = next((place for place in places() if len(str(place)) <= PLACE_LIMIT and os.access(place, os.W_OK)), None)
    if place is None:
        raise OSError(f"none of {', '.join(map(str, places()))} can be written to and is short enough")
    folder = make_folder(place)
    util.Finalize(None, remove_folder, args=(folder,), exitpriority=-200)  # after multiprocessing has removed its files
    return folder


def end_fork_server() -> None:
    """Kill the fork server: code that waits for it goes on, and the next start makes another one."""
    process = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]  # noqa: SLF001
    with contextlib.suppress(OSError, TypeError):
        os.kill(process, signal.SIGKILL)
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)  # leave its status to multiprocessing


def wake_tracker() -> None:
    """Continue multiprocessing's resource tracker if it was stopped, so that it sees the launcher's end."""
    with contextlib.suppress(OSError, TypeError):
        os.kill(resource_tracker._resource_tracker._pid, signal.SIGCONT)  # type: ignore[attr-defined]  # noqa: SLF001


@contextlib.contextmanager
def bounded_start(interrupted: Callable[[], bool], limit_s: float) -> Iterator[None]:
    """End a fork server that does not answer inside this context within `limit_s`, or soon after an interrupt."""
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
    """Hide a main script that is not a file (standard input, a notebook's cell), because children cannot import it."""
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
    """The messages to one child for which its pipe had no room yet, in order.

    Several `Alter` in a row are joined into one, since each holds the whole state of its links. So the memory for a child that
    never reads is bounded by the number of its links and of the other peers.
    """

    def __init__(self) -> None:
        self.messages: deque[control.Down] = deque()
        self._begun = b""  # the rest of a message that is written in part

    def add(self, message: control.Down) -> None:
        """Add a message at the end."""
        last = self.messages[-1] if self.messages else None
        if isinstance(last, control.Alter) and isinstance(message, control.Alter):
            self.messages[-1] = last.followed_by(message)
        else:
            self.messages.append(message)

    def write(self, pipe: int) -> None:
        """Write as much to a pipe as it has room for.  Raises OSError if it is closed."""
        room = select.poll()
        room.register(pipe, select.POLLOUT)
        while (self._begun or self.messages) and room.poll(0):
            if not self._begun:
                content = control.encode(self.messages.popleft())
                self._begun = struct.pack("!i", len(content)) + content  # the format of multiprocessing's connections
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
                    f"{name} cannot receive the objects from Python: {error}; define them at the top level of a file, or use "
                    "the virtual world"
                ) from None
            except EOFError:
                raise WorldError(f"{name} could not be started: the fork server has ended, or does not answer") from None
            except Exception as error:  # noqa: BLE001 - sending objects to a new process may raise anything
                raise WorldError(f"{name} could not be started: {error}") from None
        theirs.close()
        self.handle = _open_handle(self.process.pid or 0)
        self.heard_s = 0.0
        self.last_words = ""
        self.doing: str | None = None
        """The stack of the code that runs in a process that does not stop, as text; "" = asked for, None = not asked for."""
        self.why = ""
        self.alive = True
        self.unsaid = Unsaid()

    def say(self, message: control.Down) -> None:
        """Send the child a message without waiting: the part for which its pipe has no room is written later, by `go_on`."""
        self.unsaid.add(message)
        self.go_on()

    def go_on(self) -> None:
        """Write as many of the waiting messages as the pipe has room for."""
        with contextlib.suppress(OSError):  # the child is gone
            self.unsaid.write(self.connection.fileno())

    def kill(self) -> None:
        """Kill the process, with or without a fork server."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)

    def end(self) -> None:
        """Kill the process if it runs, and close its pipe."""
        self.alive = False
        self.kill()
        with contextlib.suppress(OSError):
            os.close(self.handle)
        self.handle = -1
        with contextlib.suppress(OSError):
            self.connection.close()

    def ending(self) -> str:
        """Return how the process ended, in words."""
        self.process.join(1.0)
        code = self.process.exitcode
        if code is None or code == UNKNOWN:
            return "its process ended with an unknown status, since the fork server is stopped or gone"
        if code >= 0:
            return f"its process ended with status {code}"
        cause = ", as after a lack of room for a file that it has mapped" if -code == signal.SIGBUS else ""
        return f"its process was ended by {signal_name(-code)}{cause}"

    def read(self) -> list[control.Up]:
        """Return the child's new messages; note its end if its pipe is closed."""
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
    """Return a descriptor that stays with this process even if its number is used again; -1 if it is gone by now."""
    try:
        return os.pidfd_open(process)
    except OSError:
        return -1


def end_all(children: Sequence[Child]) -> None:
    """End all processes of a fleet: politely, then by a signal."""
    for child in children:
        child.say(control.Exit())
    deadline_s = time.monotonic() + 0.3
    for child in children:
        child.process.join(max(0.0, deadline_s - time.monotonic()))
        child.end()
    deadline_s = time.monotonic() + KILLED_S
    for child in children:
        child.process.join(max(0.0, deadline_s - time.monotonic()))
    if any(child.process.is_alive() for child in children):
        end_fork_server()  # it is stopped, so a wait for one of its processes would never end
    wake_tracker()
