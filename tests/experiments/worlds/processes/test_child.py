"""A peer's process: its pipe to the launcher, its priority, its start."""

from __future__ import annotations

import os
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import pytest

from grapevine.experiments.worlds.processes import child as child_module
from grapevine.experiments.worlds.processes import control, realtime
from grapevine.experiments.worlds.processes.pipe import ChildPipe
from grapevine.experiments.worlds.processes.realtime import may_run_realtime
from tests.experiments.worlds.processes.stand import Stand


def test_a_beat_never_waits_for_a_launcher_that_does_not_listen() -> None:
    """The I/O thread beats: it must not stand still, and all links with it, because a pipe is full."""
    ours, theirs = Pipe()
    pipe = ChildPipe(ours)
    for _ in range(5_000):  # more than the pipe holds
        pipe.beat()
    with pipe._lock:
        pipe.beat()
    assert control.decode_up(theirs.recv_bytes()) == control.Beat()
    close(ours, theirs)


def test_a_child_that_does_not_listen_is_never_waited_for_and_hears_everything_in_the_end() -> None:
    """A launcher that waits for one stopped peer sees no silence, and hears no interrupt."""
    child = Stand("peer 0")
    links = {neighbour: control.LinkState(1e6, neighbour, 0.0, True, []) for neighbour in range(300)}
    child.say(control.Start(5))
    for _ in range(100):  # far more than the pipe holds
        child.say(control.Alter(links))
        child.say(control.Lost(1))
    last = control.LinkState(5e5, 7, 0.0, True, [])
    child.say(control.Alter({7: last}, []))
    child.say(control.Alter({8: last}))
    heard: list[control.Down] = []
    while child.theirs.poll() or child.unsaid.messages:
        child.go_on()
        heard.append(control.decode_down(child.theirs.recv_bytes()))
    assert heard[0] == control.Start(5)
    assert heard[1:-1] == [control.Alter(links), control.Lost(1)] * 100
    assert heard[-1] == control.Alter({7: last, 8: last}, [])
    child.theirs.close()
    child.say(control.Stop())  # and one that is gone is no error
    close(child.connection)


def test_what_waits_for_a_child_that_does_not_listen_is_bounded() -> None:
    child = Stand("peer 0")
    for number in range(100_000):
        child.say(control.Alter({number % 3: control.LinkState(1e6, number, 0.0, True, [])}))
    assert len(child.unsaid.messages) == 1
    close(child.connection, child.theirs)


def close(*connections: Connection) -> None:
    for connection in connections:
        connection.close()


def test_real_time_priority_is_tried_and_not_guessed_from_being_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root in a container often may not, and zmq aborts the process whose thread is refused."""

    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(realtime.os, "geteuid", lambda: 0)
    monkeypatch.setattr(realtime.os, "sched_setscheduler", refuse)
    assert not may_run_realtime()


def test_trying_leaves_the_priority_as_it_was() -> None:
    before = os.sched_getscheduler(0)
    may_run_realtime()
    assert os.sched_getscheduler(0) == before


def test_a_peer_that_serves_and_holds_no_data_has_nothing_to_warm_up() -> None:
    nobody: Any = SimpleNamespace(spec=SimpleNamespace(problem=SimpleNamespace(samples=[0, 5])), peer=SimpleNamespace(id=0))
    child_module._PeerProcess._warm_up(nobody)
