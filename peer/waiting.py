"""Waiting for descriptors, as exactly as the system can."""

from __future__ import annotations

import ctypes
import select

_ppoll = ctypes.CDLL(None).ppoll  # lets other threads run meanwhile


class _Entry(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Waiter:
    """Waits until one of a few descriptors can be read; to be used by one thread at a time.

    `select` knows no descriptor beyond 1,023, and a peer may have more neighbours than that; what Python makes of `poll` and
    `epoll` rounds the time up to milliseconds.
    """

    def __init__(self, *descriptors: int) -> None:
        self._entries = (_Entry * len(descriptors))(*(_Entry(fd, select.POLLIN, 0) for fd in descriptors))
        self._time = _Time()

    def wait(self, timeout_s: float) -> list[int]:
        """Those that can be read, or whose other end is gone; none when the time is over, or a signal has come."""
        self._time.seconds, self._time.nanoseconds = divmod(int(timeout_s * 1e9), 1_000_000_000)
        if _ppoll(self._entries, len(self._entries), ctypes.byref(self._time), None) <= 0:
            return []
        return [entry.fd for entry in self._entries if entry.revents]
