"""The launcher of the processes world against children that are slow, broken or gone: pipes in this process stand for them."""

from __future__ import annotations

import os
import shutil
import signal
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from experiments import Experiment
from experiments.build import build
from experiments.config import Processes, Stop
from experiments.interrupt import Interrupt
from experiments.record import Recorder
from experiments.worlds import child as child_module
from experiments.worlds import memory, messages, processes
from experiments.worlds.child import _Pipe, may_run_realtime
from experiments.worlds.launching import Child, WorldError
from experiments.worlds.memory import Snapshots
from experiments.worlds.processes import ProcessesWorld
from experiments.worlds.tally import Tally
from peer.sockets import Sockets
from peer.strategies import Solo
from topology.graphs import Complete


class Stand(Child):
    """A child without a process: what it says is put into its pipe by the test."""

    def __init__(self, name: str, exitcode: int | None = None) -> None:
        self.name = name
        self.connection, self.theirs = Pipe()
        self.process: Any = SimpleNamespace(
            pid=1, exitcode=exitcode, join=lambda *_: None, is_alive=lambda: False, kill=lambda: None
        )
        self.heard_s = 0.0
        self.last_words = self.why = ""
        self.alive = True

    def speak(self, message: messages.Up) -> None:
        self.theirs.send_bytes(messages.encode(message))


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """A world of two peers that train alone; its children are stand-ins."""

    def build_world(stop: Stop) -> ProcessesWorld:
        fleet = build(Experiment(peers=2, topology=Complete(), strategy=Solo(), world=Processes(), stop=stop))
        recorder = Recorder(tmp_path / "run", "", {})
        world = ProcessesWorld(fleet, Tally(fleet, recorder, lambda status: None), Interrupt())
        world.peers = {peer: Stand(f"peer {peer}") for peer in range(2)}
        world.evaluator = Stand("evaluator")
        world.scoring.snapshots = Snapshots(tmp_path, 2, fleet.problem.size, create=True)
        return world

    return build_world


def final(peer: int) -> messages.Report:
    return messages.Report(peer, messages.FINAL, 10**9, 5, 1.0, 1e6, [], [], [], 0, 0, {})


def test_a_process_that_is_silent_at_the_very_end_is_named_too(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all others are done nothing else would look for it, and the final scores would wait for it for ever."""
    world = make(Stop(steps=5))
    world.peers[0].heard_s = 2**40  # heard just now, for ever
    world.peers[0].speak(final(0))
    world._train()
    assert world.tally.lost == [1]
    assert any("peer 1 was lost" in warning and "no sign of life" in warning for warning in world.tally.warnings)
    assert world.tally.complete(messages.FINAL) is None  # it was, once the loss was known
    assert set(world.scoring.due) == {messages.FINAL}


def test_who_did_not_stop_in_time_is_not_called_silent(make: Any) -> None:
    world = make(Stop(steps=5))
    for child in world.peers.values():
        child.heard_s = 2**40
    world.peers[0].speak(final(0))
    world._stop("accuracy 0.9 reached")
    world._stop_deadline_s = 0.0
    world._train()
    assert any("had not stopped in time" in warning for warning in world.tally.warnings)


def test_a_stop_waits_for_the_end_of_a_long_step(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(Stop(steps=5))
    monkeypatch.setattr(processes.time, "monotonic", lambda: 0.0)
    world._take(world.peers[0], messages.Report(0, 0, 10**9, 5, 1.0, 30e9, [], [], [], 0, 0, {}))
    world._stop("accuracy 0.9 reached")
    assert world._stop_deadline_s is not None
    assert world._stop_deadline_s > 30


def test_who_waited_long_for_the_others_is_not_silent_at_the_start(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(Stop(steps=5))
    stands = [Stand("peer 0"), Stand("peer 1"), Stand("evaluator")]
    monkeypatch.setattr(processes, "Child", lambda *_: stands.pop(0))
    monkeypatch.setattr(processes, "start_fork_server", lambda: None)
    monkeypatch.setattr(world, "_hear_all", lambda kind: {peer: messages.Ready("") for peer in range(2)})
    world._start(Path())
    world._watch_time()
    assert [child.alive for child in world.peers.values()] == [True, True]


def test_a_death_by_a_signal_without_a_name_has_words(make: Any) -> None:
    world = make(Stop(steps=5))
    world.peers[1].process.exitcode = -(signal.SIGRTMIN + 3)
    world._lose(1, world.peers[1])
    assert f"signal {signal.SIGRTMIN + 3}" in world.tally.warnings[-1]


def test_shared_files_go_where_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapped file on a full file system ends the process that writes to it, without a word."""
    monkeypatch.setattr(memory.tempfile, "tempdir", str(tmp_path))
    room = {"/dev/shm": 1_000, str(tmp_path): 1_000_000}
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda place: SimpleNamespace(free=room[str(place)]))
    made = memory.make_room(500_000)
    assert made.parent == tmp_path
    shutil.rmtree(made)
    with pytest.raises(OSError, match="has so much room"):
        memory.make_room(2_000_000)


def test_a_fleet_without_room_for_its_weights_is_refused_in_words(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(Stop(steps=5))
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda place: SimpleNamespace(free=0))
    with pytest.raises(WorldError, match="has so much room"):
        world.run()


def test_a_beat_never_waits_for_a_launcher_that_does_not_listen() -> None:
    """The I/O thread beats: it must not stand still, and all links with it, because a pipe is full."""
    ours, theirs = Pipe()
    pipe = _Pipe(ours)
    for _ in range(5_000):  # more than the pipe holds
        pipe.beat()
    with pipe._lock:
        pipe.beat()
    assert messages.decode_up(theirs.recv_bytes()) == messages.Beat()
    close(ours, theirs)


def close(*connections: Connection) -> None:
    for connection in connections:
        connection.close()


def test_real_time_priority_is_tried_and_not_guessed_from_being_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root in a container often may not, and zmq aborts the process whose thread is refused."""

    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(child_module.os, "geteuid", lambda: 0)
    monkeypatch.setattr(child_module.os, "sched_setscheduler", refuse)
    assert not may_run_realtime()


def test_trying_leaves_the_priority_as_it_was() -> None:
    before = os.sched_getscheduler(0)
    may_run_realtime()
    assert os.sched_getscheduler(0) == before


def test_a_public_address_does_not_tell_the_number_that_marks_the_frames(make: Any) -> None:
    """Names of abstract sockets can be read by everybody on the machine."""
    world, run = make(Stop(steps=5)), 0x1234567890ABCDEF
    assert f"{run:x}" not in world._spec(0, [], Path(), run).address


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_other_users_of_the_machine_cannot_reach_a_peer() -> None:
    sockets = Sockets(f"ipc://@grapevine-test-{os.getpid()}")
    heard = {}
    for user in (65534, os.getuid()):
        if (pid := os.fork()) == 0:
            os.setuid(user)
            dealer = zmq.Context().socket(zmq.DEALER)
            dealer.connect(sockets.address)
            dealer.send(b"x")
            dealer.poll(300)
            os._exit(0)
        os.waitpid(pid, 0)
        heard[user] = sockets.drain()
    assert not heard[65534]
    assert heard[os.getuid()]
    sockets.close()


def test_a_peer_that_serves_and_holds_no_data_has_nothing_to_warm_up() -> None:
    nobody: Any = SimpleNamespace(
        spec=SimpleNamespace(problem=SimpleNamespace(samples=[0, 5])), peer=SimpleNamespace(id=0)
    )
    child_module._PeerProcess._warm_up(nobody)
