"""A polite end: Ctrl-C, a terminal that closes and a termination request set a flag, and whoever runs ends in good order.

What does not look at the flag in time, such as a strategy that never comes back, is broken off.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_S = 1.0
"""How long what may be broken off has for an end in good order."""


class Interrupt:
    """While entered, those signals set `requested`; outside the main thread of the process it does nothing."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}
        self._breakable = False
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._disarm()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def ask(self) -> None:
        """Ask for the end from within the program."""
        self.requested = True

    @contextmanager
    def breaking_off(self) -> Iterator[None]:
        """What runs inside is ended by KeyboardInterrupt where a second signal comes, or `GRACE_S` after the first."""
        self._breakable = True
        if self.requested:
            self._arm()
        try:
            yield
        finally:
            self._breakable = False
            self._disarm()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        if self._breakable:
            self._arm()  # again too: a bare `except:` may swallow the first
            if again:
                raise KeyboardInterrupt

    def _arm(self) -> None:
        if self._before:
            self._disarm()
            main = threading.main_thread().ident
            self._timer = threading.Timer(GRACE_S, signal.pthread_kill, (main, signal.SIGINT))
            self._timer.daemon = True
            self._timer.start()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def signal_name(number: int) -> str:
    """SIGKILL for 9; a number where the signal has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # one of the real-time signals, which have no names of their own
