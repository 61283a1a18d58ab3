"""Waiting for file descriptors, with a timeout in nanoseconds."""

from __future__ import annotations

import ctypes
import select

_ppoll = ctypes.CDLL(None).ppoll  # lets other threads run meanwhile


class _Entry(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Waiter:
    """A wait until one of a few descriptors can be read; only one thread at a time may use it.

    `select` takes no descriptor above 1,023, and a peer may have more neighbours than that; Python's `poll` and `epoll` round
    the timeout up to milliseconds.
    """

    def __init__(self, *descriptors: int) -> None:
        self._entries = (_Entry * len(descriptors))(*(_Entry(fd, select.POLLIN, 0) for fd in descriptors))
        self._time = _Time()

    def wait(self, timeout_s: float) -> list[int]:
        """Return the descriptors that can be read or whose other end is closed; none after the timeout (s) or a signal."""
        self._time.seconds, self._time.nanoseconds = divmod(int(timeout_s * 1e9), 1_000_000_000)
        if _ppoll(self._entries, len(self._entries), ctypes.byref(self._time), None) <= 0:
            return []
        return [entry.fd for entry in self._entries if entry.revents]
