"""The socket in a run folder on which a running fleet answers questions of its owner.

A client sends one question of a few bytes and gets one answer, both JSON.  A socket whose fleet has ended refuses connections,
so that no client waits for it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

FILE = "poke.sock"
LIMIT_BYTES = 65_536
ANSWER_S = 10.0
"""The longest wait of a client for the answer."""
SILENT_S = 1.0
"""The longest time from a connection to its question."""
GUESTS = 16
"""The largest number of connections without a question; beyond it the oldest is closed."""


class Rendezvous:
    """The fleet's end of the socket.  `serve` answers the questions that have arrived, without waiting.

    Raises OSError if the folder cannot hold a socket.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with _short(folder) as address:
                self._socket.bind(address)
                self._path.chmod(0o600)
                self._socket.listen(GUESTS)
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        self._guests: deque[tuple[float, socket.socket]] = deque()  # (time of its end, connection), the oldest first

    @property
    def fds(self) -> list[int]:
        """The file descriptors that become readable at a connection or a question."""
        return [self._socket.fileno(), *(guest.fileno() for _, guest in self._guests)]

    def serve(self, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Answer the questions that have arrived; close connections of other users, and those without a question in time."""
        self._let_in()
        now_s, waiting = time.monotonic(), self._guests
        self._guests = deque()
        for place, (until_s, guest) in enumerate(waiting):
            try:
                guest.send(_answered(guest.recv(LIMIT_BYTES + 1), answer))
            except BlockingIOError:
                if now_s < until_s and place >= len(waiting) - GUESTS:
                    self._guests.append((until_s, guest))
                    continue
            except OSError:
                pass
            guest.close()

    def _let_in(self) -> None:
        """Accept waiting connections of this user and of root."""
        for _ in range(GUESTS):
            try:
                guest, _ = self._socket.accept()
            except OSError:
                return
            guest.setblocking(False)
            if _user(guest) in (os.geteuid(), 0):
                self._guests.append((time.monotonic() + SILENT_S, guest))
            else:
                guest.close()

    def close(self) -> None:
        """Close the socket and all connections."""
        self._path.unlink(missing_ok=True)
        self._socket.close()
        for _, guest in self._guests:
            guest.close()


def ask(folder: Path, question: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of the fleet that runs in `folder`.  Raises ConnectionError, with the reason, if there is none."""
    encoded = msgspec.json.encode(question)
    if len(encoded) > LIMIT_BYTES:
        raise ConnectionError(f"the question has {len(encoded):,} bytes, and at most {LIMIT_BYTES:,} are allowed")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.settimeout(ANSWER_S)
        try:
            with _short(folder) as address:
                asking.connect(address)
            asking.send(encoded)
            heard = asking.recv(LIMIT_BYTES)
        except TimeoutError:
            raise ConnectionError(f"the fleet gave no answer within {ANSWER_S:.0f} s") from None
        except PermissionError:
            raise ConnectionError("the fleet belongs to another user") from None
        except OSError:
            raise ConnectionError("no fleet listens there") from None
    if not heard:
        raise ConnectionError("the fleet ended before it answered")
    return msgspec.json.decode(heard, type=dict[str, Any])


def _answered(question: bytes, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    """Return the encoded answer.  No question ends the fleet, not even one that is nested too deeply or is not UTF-8."""
    if len(question) > LIMIT_BYTES:
        return msgspec.json.encode({"refused": f"the question has more than {LIMIT_BYTES:,} bytes"})
    try:
        return msgspec.json.encode(answer(msgspec.json.decode(question, type=dict[str, Any])))
    except (ValueError, RecursionError):
        return msgspec.json.encode({"refused": "this is not a question"})


def _user(asking: socket.socket) -> int:
    """Return the user id at the other end."""
    return int(struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """Give the socket's address by the folder's descriptor, because an address has at most 107 characters."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{FILE}"
    finally:
        os.close(descriptor)
