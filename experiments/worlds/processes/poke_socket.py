"""Where a running fleet can be spoken to: a socket in its run folder, which its owner alone may use.

One question of a few bytes, one answer, both JSON.  A socket that outlived its fleet refuses whoever knocks, so nobody waits
for a fleet that is gone.
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
"""How long a question waits for its answer."""
SILENT_S = 1.0
"""How long whoever has come may take to put a question."""
GUESTS = 16
"""How many may be silent at a time: for one more the one that came first has to go."""


class Rendezvous:
    """The fleet's end.  `fds` can be waited on; `serve` answers whoever has asked by then, and waits for nobody.

    Raises OSError where the folder cannot hold a socket.
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
        self._guests: deque[tuple[float, socket.socket]] = deque()  # (until when, who), the first that came first

    @property
    def fds(self) -> list[int]:
        """What becomes readable when somebody comes, or asks."""
        return [self._socket.fileno(), *(guest.fileno() for _, guest in self._guests)]

    def serve(self, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Answer the questions that are there; strangers, what is no question, and who asks none in time are turned away."""
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
        """Accept some of those who have come."""
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
        """Nobody is heard any more."""
        self._path.unlink(missing_ok=True)
        self._socket.close()
        for _, guest in self._guests:
            guest.close()


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


def _answered(question: bytes, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    """The answer as it is sent.  No bytes that somebody sends end the fleet: also those that nest too deep, or are no UTF-8."""
    if len(question) > LIMIT_BYTES:
        return msgspec.json.encode({"refused": f"a question of more than {LIMIT_BYTES:,} bytes"})
    try:
        return msgspec.json.encode(answer(msgspec.json.decode(question, type=dict[str, Any])))
    except (ValueError, RecursionError):
        return msgspec.json.encode({"refused": "this is no question"})


def _user(asking: socket.socket) -> int:
    """Who is at the other end."""
    return int(struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """A socket's address in a folder: by way of a descriptor, since an address has at most 107 characters."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{FILE}"
    finally:
        os.close(descriptor)
