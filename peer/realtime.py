"""Real-time priority for threads, where the system permits it, with a bound on the share of a core that they may use."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress


def schedule(policy: int, priority: int, thread: int = 0) -> None:
    """Set the scheduling policy of a thread (native id; 0 = this one); do nothing if the system does not permit it."""
    with suppress(OSError):
        os.sched_setscheduler(thread or threading.get_native_id(), policy, os.sched_param(priority))


class Privilege:
    """Real-time priority for the thread that creates this object, until it computes more than a `share` of one core.

    A strategy's thread is idle for most of the time.  But it may hold the interpreter's lock, which the I/O thread needs: if
    the strategy's thread then waits for a core behind busy programs, all due frames are late.  Another thread calls `check`
    from time to time; a thread that has computed more than its share loses its priority for good.
    """

    def __init__(self, share: float, priority: int) -> None:
        self.held = True
        self._share = share
        self._thread = threading.get_native_id()
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        self._used_ns, self._at_ns = time.clock_gettime_ns(self._clock), time.monotonic_ns()
        schedule(os.SCHED_RR | os.SCHED_RESET_ON_FORK, priority)

    def check(self) -> None:
        """Take the priority back if the thread has used more than its share since the last check."""
        if not self.held:
            return
        used_ns, now_ns = time.clock_gettime_ns(self._clock), time.monotonic_ns()
        if used_ns - self._used_ns > self._share * (now_ns - self._at_ns):
            self.held = False
            schedule(os.SCHED_OTHER, 0, self._thread)
        self._used_ns, self._at_ns = used_ns, now_ns
