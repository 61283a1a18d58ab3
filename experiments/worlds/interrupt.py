"""Interrupts: Ctrl-C, a closed terminal and a termination request set a flag, on which a world ends its run in good order.

Code that does not read the flag in time, such as a strategy that never returns, is ended by KeyboardInterrupt.
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
"""The time after the first signal until `breaking_off` raises KeyboardInterrupt."""


class Interrupt:
    """A context in which `SIGNALS` set `requested`; outside the main thread of the process it has no effect."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}
        self._breakable = False
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._disarm()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def ask(self) -> None:
        """Request the end from within the program."""
        self.requested = True

    def heed(self) -> None:
        """Raise KeyboardInterrupt if the end was requested."""
        if self.requested:
            raise KeyboardInterrupt

    @contextmanager
    def breaking_off(self) -> Iterator[None]:
        """Raise KeyboardInterrupt inside this context at a second signal, or `GRACE_S` after the first."""
        self._breakable = True
        if self.requested:
            self._arm()
        try:
            yield
        finally:
            self._breakable = False
            self._disarm()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        if self._breakable:
            self._arm()  # at a second signal too: a bare `except:` may swallow the first KeyboardInterrupt
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
    """Return a signal's name, such as SIGKILL for 9, or its number if it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time signal, which has no name
