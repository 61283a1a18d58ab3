"""Real-time priority is a privilege within bounds; a stand-in for the system's scheduler permits what this one may not."""

from __future__ import annotations

import os
import threading

import pytest

from grapevine.peer import realtime
from grapevine.peer.realtime import Privilege, schedule


class System:
    """Counts processor time as it is told to, and keeps what was asked of the scheduler."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used_ns = self.now_ns = 0
        self.asked: list[tuple[int, int, int]] = []
        monkeypatch.setattr(realtime.time, "clock_gettime_ns", lambda clock: self.used_ns)
        monkeypatch.setattr(realtime.time, "monotonic_ns", lambda: self.now_ns)
        monkeypatch.setattr(realtime.os, "sched_setscheduler", self._ask)

    def _ask(self, thread: int, policy: int, parameters: os.sched_param) -> None:
        self.asked.append((thread, policy, parameters.sched_priority))

    def work(self, used_ns: int, in_ns: int) -> None:
        self.used_ns += used_ns
        self.now_ns += in_ns


def test_a_peer_that_computes_more_than_its_share_loses_the_privilege_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(monkeypatch)
    privilege = Privilege(share=0.25, priority=1)
    mine = threading.get_native_id()
    assert system.asked == [(mine, os.SCHED_RR | os.SCHED_RESET_ON_FORK, 1)]
    for _ in range(3):
        system.work(240, 1000)
        privilege.check()
    assert privilege.held
    system.work(260, 1000)
    privilege.check()
    assert not privilege.held
    assert system.asked[1:] == [(mine, os.SCHED_OTHER, 0)]
    system.work(0, 1000)
    privilege.check()
    assert len(system.asked) == 2


def test_another_thread_can_take_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(monkeypatch)
    privilege = Privilege(share=0.25, priority=1)
    system.work(1000, 1000)
    other = threading.Thread(target=privilege.check)
    other.start()
    other.join()
    assert system.asked[-1] == (threading.get_native_id(), os.SCHED_OTHER, 0)


def test_where_it_is_not_permitted_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(realtime.os, "sched_setscheduler", refuse)
    schedule(os.SCHED_FIFO, 1)
    Privilege(share=0.25, priority=1).check()
