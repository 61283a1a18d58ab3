"""Where a running fleet can be spoken to: a socket in its run folder, which its owner alone may use.

One question of a few bytes, one answer, both JSON.  A socket that outlived its fleet refuses whoever knocks, so nobody waits
for a fleet that is gone.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

FILE = "poke.sock"
LIMIT_BYTES = 65_536
ANSWER_S = 10.0
"""How long a question waits for its answer."""
SLOW_S = 0.2
"""How long the fleet waits for a question that was begun."""


class Rendezvous:
    """The fleet's end.  `fd` can be waited on; `serve` answers whoever has come.

    Raises OSError where the folder cannot hold a socket.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with _short(folder) as address:
                self._socket.bind(address)
                os.chmod(self._path, 0o600)
                self._socket.listen(8)
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        self.fd = self._socket.fileno()

    def serve(self, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Answer the questions that wait; strangers and what is no question are turned away."""
        while True:
            try:
                asking, _ = self._socket.accept()
            except (BlockingIOError, ConnectionError):
                return
            with asking, contextlib.suppress(OSError):
                asking.settimeout(SLOW_S)
                if _user(asking) not in (os.geteuid(), 0):
                    continue
                asking.send(msgspec.json.encode(_answered(asking.recv(LIMIT_BYTES + 1), answer)))

    def close(self) -> None:
        """Nobody is heard any more."""
        self._path.unlink(missing_ok=True)
        self._socket.close()


def ask(folder: Path, question: dict[str, Any]) -> dict[str, Any]:
    """The answer of the fleet that runs in `folder`.  Raises ConnectionError, with the reason, where there is none."""
    encoded = msgspec.json.encode(question)
    if len(encoded) > LIMIT_BYTES:
        raise ConnectionError(f"this is too long: {len(encoded):,} bytes of at most {LIMIT_BYTES:,}")
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


def _answered(question: bytes, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    if len(question) > LIMIT_BYTES:
        return {"refused": f"a question of more than {LIMIT_BYTES:,} bytes"}
    try:
        return answer(msgspec.json.decode(question, type=dict[str, Any]))
    except msgspec.DecodeError:
        return {"refused": "this is no question"}


def _user(asking: socket.socket) -> int:
    """Who is at the other end."""
    return struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """A socket's address in a folder: by way of a descriptor, since an address has at most 107 characters."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{FILE}"
    finally:
        os.close(descriptor)
