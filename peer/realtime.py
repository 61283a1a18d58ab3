"""Real-time priority where the system permits it, kept in bounds: no peer may take the machine from everybody else."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress


def schedule(policy: int, priority: int, thread: int = 0) -> None:
    """Put a thread (native id; 0 = this one) under a policy of the system's scheduler, where that is permitted."""
    with suppress(OSError):
        os.sched_setscheduler(thread or threading.get_native_id(), policy, os.sched_param(priority))


class Privilege:
    """Real-time priority for the thread that makes this, until it computes more than a `share` of one core.

    A strategy's thread is idle for most of the time, but the I/O thread needs the interpreter's lock, and gets it only when
    the other thread has had its turn: one that waits behind busy programs for a core would hold up everything that is due.
    Another thread calls `check` now and then; a thread that computes a lot loses its privilege there, for good.
    """

    def __init__(self, share: float, priority: int) -> None:
        self.held = True
        self._share = share
        self._thread = threading.get_native_id()
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        self._used_ns, self._at_ns = time.clock_gettime_ns(self._clock), time.monotonic_ns()
        schedule(os.SCHED_RR | os.SCHED_RESET_ON_FORK, priority)

    def check(self) -> None:
        """Take the privilege back if the thread has used more than its share since the last time."""
        if not self.held:
            return
        used_ns, now_ns = time.clock_gettime_ns(self._clock), time.monotonic_ns()
        if used_ns - self._used_ns > self._share * (now_ns - self._at_ns):
            self.held = False
            schedule(os.SCHED_OTHER, 0, self._thread)
        self._used_ns, self._at_ns = used_ns, now_ns
