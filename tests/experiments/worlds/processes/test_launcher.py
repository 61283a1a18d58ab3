"""The launcher of the processes world against children that are slow, broken or gone: pipes in this process stand for them."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from grapevine import Experiment, run
from grapevine.experiments import fleet as build_module
from grapevine.experiments import open_files
from grapevine.experiments.config.errors import ConfigError
from grapevine.experiments.config.experiment import Processes, Stop
from grapevine.experiments.fleet import build
from grapevine.experiments.results.recorder import Recorder
from grapevine.experiments.worlds.collector import Collector
from grapevine.experiments.worlds.interrupt import Interrupt
from grapevine.experiments.worlds.peer_report import FINAL, Report
from grapevine.experiments.worlds.processes import attention, control, forkserver, launcher, snapshots
from grapevine.experiments.worlds.processes import child as child_module
from grapevine.experiments.worlds.processes.child import _Pipe, may_run_realtime
from grapevine.experiments.worlds.processes.forkserver import Child, WorldError
from grapevine.experiments.worlds.processes.launcher import ProcessesWorld
from grapevine.experiments.worlds.processes.snapshots import Snapshots
from grapevine.peer.sockets import Sockets
from grapevine.peer.strategies import Solo
from grapevine.topology.graphs.menu import Complete, Ring


class Stand(Child):
    """A child without a process: what it says is put into its pipe by the test."""

    def __init__(self, name: str, exitcode: int | None = None) -> None:
        self.name = name
        self.connection, self.theirs = Pipe()
        self.process: Any = SimpleNamespace(
            pid=1, exitcode=exitcode, join=lambda *_: None, is_alive=lambda: False, kill=lambda: None
        )
        self.handle = -1
        self.heard_s = 0.0
        self.last_words = self.why = ""
        self.alive = True
        self.unsaid = forkserver.Unsaid()

    def speak(self, message: control.Up) -> None:
        self.theirs.send_bytes(control.encode(message))


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """A world of two peers that train alone; its children are stand-ins."""

    def build_world(stop: Stop) -> ProcessesWorld:
        fleet = build(Experiment(peers=2, topology=Complete(), strategy=Solo(), world=Processes(), stop=stop))
        recorder = Recorder(tmp_path / "run", "", {})
        world = ProcessesWorld(fleet, Collector(fleet, recorder, lambda status: None), Interrupt())
        world.peers = {peer: Stand(f"peer {peer}") for peer in range(2)}
        world.evaluator = Stand("evaluator")
        world.scoring.snapshots = Snapshots(tmp_path, 2, fleet.problem.size, create=True)
        return world

    return build_world


def final(peer: int) -> Report:
    return Report(peer, FINAL, 10**9, 5, 1.0, 1e6, [], [], [], 0, 0, {})


def test_a_process_that_is_silent_at_the_very_end_is_named_too(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all others are done nothing else would look for it, and the final scores would wait for it for ever."""
    world = make(Stop(steps=5))
    world.attention.s = launcher.SILENCE_S + 1
    world.peers[0].heard_s = 2**40  # heard just now, for ever
    world.peers[0].speak(final(0))
    world._train()
    assert world.collector.lost == [1]
    assert any("peer 1 was lost" in warning and "no sign of life" in warning for warning in world.collector.warnings)
    assert world.collector.complete(FINAL) is None  # it was, once the loss was known
    assert set(world.scoring.due) == {FINAL}


def test_who_did_not_stop_in_time_is_not_called_silent(make: Any) -> None:
    world = make(Stop(steps=5))
    for child in world.peers.values():
        child.heard_s = 2**40
    world.peers[0].speak(final(0))
    world._stop("accuracy 0.9 reached")
    world._stop_deadline_s = -1.0
    world._train()
    assert any("had not stopped in time" in warning for warning in world.collector.warnings)


def test_a_stop_waits_for_the_end_of_a_long_step(make: Any) -> None:
    world = make(Stop(steps=5))
    world._take(world.peers[0], Report(0, 0, 10**9, 5, 1.0, 30e9, [], [], [], 0, 0, {}))
    world._stop("accuracy 0.9 reached")
    assert world._stop_deadline_s is not None
    assert world._stop_deadline_s > 30


def test_who_waited_long_for_the_others_is_not_silent_at_the_start(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(Stop(steps=5))
    stands = [Stand("peer 0"), Stand("peer 1"), Stand("evaluator")]
    monkeypatch.setattr(launcher, "Child", lambda *_: stands.pop(0))
    monkeypatch.setattr(launcher, "start_fork_server", lambda modules: None)
    monkeypatch.setattr(world, "_hear_all", lambda kind: {peer: control.Ready("") for peer in range(2)})
    world.attention.s = 100.0
    world._start(Path())
    world._watch_time()
    assert [child.alive for child in world.peers.values()] == [True, True]


def test_silence_counts_only_while_the_launcher_listens(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher that was stopped, or had no processor, has heard nobody; a minute of that is no silence of the peers."""
    now_s = 0.0
    monkeypatch.setattr(attention, "time", SimpleNamespace(monotonic=lambda: now_s))
    world = make(Stop(steps=5))
    for _ in range(10):
        now_s += 60
        world._watch_time()  # the launcher may be stopped anywhere: here between listening and looking
        world._listen(0)
        world._watch_time()
    assert world._waiting_for() == [0, 1]
    while world._waiting_for() and now_s < 620:
        now_s += 0.1
        world._listen(0)
        world._watch_time()
    assert now_s < 600 + launcher.SILENCE_S
    world._note_losses()
    assert world.collector.lost == [0, 1]


def test_a_stop_gives_its_grace_in_time_of_a_launcher_that_listens(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(attention, "time", SimpleNamespace(monotonic=lambda: now_s))
    world = make(Stop(steps=5))
    world._stop("accuracy 0.9 reached")
    now_s = 60.0
    world._listen(0)
    world._watch_time()
    assert world._waiting_for() == [0, 1]


def test_an_interrupt_is_heard_between_two_starts(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world, started = make(Stop(steps=5)), []

    def start(name: str, *_: Any) -> Stand:
        started.append(name)
        world.interrupt.requested = True
        return Stand(name)

    monkeypatch.setattr(launcher, "Child", start)
    monkeypatch.setattr(launcher, "start_fork_server", lambda modules: None)
    with pytest.raises(KeyboardInterrupt):
        world._start(Path())
    assert started == ["peer 0"]


@pytest.mark.slow
@pytest.mark.parametrize(("interrupted", "limit_s"), [(True, 1e9), (False, 0.0)])
def test_a_start_waits_for_no_fork_server_that_is_stopped(
    interrupted: bool, limit_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(forkserver, "end_fork_server", ended.set)
    monkeypatch.setattr(forkserver, "INTERRUPTED_START_S", 0.0)
    with forkserver.bounded_start(lambda: interrupted, limit_s):
        assert ended.wait(10)


def test_a_start_that_goes_well_leaves_the_fork_server_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(forkserver, "end_fork_server", ended.set)
    with forkserver.bounded_start(lambda: False, 1e9):
        assert threading.active_count() > 1
    assert not ended.is_set()


def test_a_fork_server_that_lacks_what_a_task_needs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[None] = []
    monkeypatch.setattr(forkserver, "_loaded", set())
    monkeypatch.setattr(forkserver, "end_fork_server", lambda: ended.append(None))
    monkeypatch.setattr(forkserver.forkserver, "ensure_running", lambda: None)
    for modules, replaced in (
        ((), 0),
        (("grapevine.experiments.tasks.autograd",), 1),
        ((), 1),
        (("grapevine.experiments.tasks.autograd",), 1),
    ):
        forkserver.start_fork_server(modules)
        assert len(ended) == replaced
        held = forkserver.forkserver._forkserver._preload_modules  # type: ignore[attr-defined]
        assert (
            held == ["grapevine.experiments.tasks.autograd", "grapevine.experiments.worlds.processes.preload"][not replaced :]
        )


def test_parts_of_a_program_that_is_no_file_are_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program read from standard input, a prompt or a notebook."""
    main = ModuleType("__main__")
    main.Mine = type("Mine", (Solo,), {"__module__": "__main__"}, frozen=True, tag="mine")  # type: ignore[attr-defined]
    main.__file__ = "<stdin>"
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(forkserver, "start_fork_server", lambda modules: pytest.fail("the fork server was started"))
    experiment = Experiment(world=Processes(), strategy=main.Mine(), stop=Stop(steps=1))
    with pytest.raises(ConfigError, match=r"world: the peers' processes cannot import Mine: .* move it to a module"):
        run(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    forkserver.refuse_unimportable(experiment.replace(strategy=Solo()), lambda: None)  # which no process can be given at all
    main.__file__ = __file__
    forkserver.refuse_unimportable(experiment)


@pytest.mark.parametrize(("graph", "needed"), [(Ring(), 32 + 4 * 41), (Complete(), 32 + 4 * 41)])
def test_too_few_files_are_refused_before_anything_starts(graph: Any, needed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = Experiment(peers=40, topology=graph, strategy=Solo(), world=Processes(), stop=Stop(steps=5))
    monkeypatch.setattr(build_module, "files_allowed", lambda: needed)
    build(experiment)
    monkeypatch.setattr(build_module, "files_allowed", lambda: needed - 1)
    with pytest.raises(ConfigError, match=rf"hold up to {needed} files open each, and {needed - 1} are permitted here"):
        build(experiment, lambda experiment: pytest.fail("data were loaded"))


def test_a_peer_of_many_neighbours_needs_more_files_than_its_launcher() -> None:
    assert open_files.files_needed(10, 400) == open_files.files_needed(2, 400) == 32 + 3 * 400


def test_who_is_killed_during_the_start_is_named_with_the_signal(make: Any) -> None:
    world = make(Stop(steps=5))
    words = str(world._ended_early(Stand("peer 3", -signal.SIGKILL)))
    assert words == "peer 3 ended while it was set up: its process was ended by SIGKILL"
    assert "must be importable" in str(world._ended_early(Stand("peer 3", 1)))


def test_how_a_process_ended_is_not_guessed_where_the_fork_server_is_gone(make: Any) -> None:
    world = make(Stop(steps=5))
    world.peers[0].process.exitcode, world.peers[1].process.exitcode = forkserver.UNKNOWN, None
    for peer in range(2):
        world._lose(peer, world.peers[peer])
        assert "how is not known, since the fork server is stopped or gone" in world.collector.warnings[-1]


def test_who_was_lost_unasked_is_told_apart_and_belongs_to_the_reason(make: Any) -> None:
    """One survivor's accuracy is not the fleet's."""
    world = make(Stop(steps=5))
    world.peers[1].process.exitcode = -signal.SIGSEGV
    world.peers[1].theirs.close()
    world.peers[0].speak(final(0))
    world.reason = "accuracy 0.9 reached at 5 s (91.0%)"
    world._train()
    outcome = world.collector.outcome(world.completed, world.reason, 1.0, np.zeros((2, 3), np.float32))
    assert (outcome.peers_lost, outcome.peers_lost_unasked) == ([1], [1])
    assert outcome.reason == "accuracy 0.9 reached at 5 s (91.0%); lost on the way: peer 1"
    assert outcome.completed


def test_who_kills_itself_as_the_script_says_was_asked_to(make: Any) -> None:
    """Its end may be noticed before the launcher itself comes to that line of the script."""
    world = make(Stop(steps=5))
    world.peers[1].process.exitcode = -signal.SIGKILL
    world.peers[1].theirs.close()
    assert world.peers[1].read() == []  # its end is known
    world._kill(1, "killed by the script")
    world.peers[0].speak(final(0))
    world._train()
    outcome = world.collector.outcome(world.completed, world.reason, 1.0, np.zeros((2, 3), np.float32))
    assert (outcome.peers_lost, outcome.peers_lost_unasked) == ([1], [])
    assert outcome.reason == "5 steps done"


def test_a_fleet_that_lost_everybody_is_not_complete_whatever_it_had_reached(make: Any) -> None:
    world = make(Stop(steps=5))
    for child in world.peers.values():
        child.theirs.close()
    world.reason = "accuracy 0.9 reached at 5 s (91.0%)"
    world._train()
    assert not world.completed
    assert world.reason == "accuracy 0.9 reached at 5 s (91.0%); every peer was lost"


def test_the_last_weights_are_those_that_were_written_whole(tmp_path: Path) -> None:
    """Of a lost peer those of its last record, not those with which it began."""
    written = snapshots.Snapshots(tmp_path, 4, 2, create=True)
    for index in range(written.slots + 2):  # the first two are written over
        for peer in range(3):
            written.write(index, peer, np.full(2, 10 * index + peer, np.float32))
    written.write(FINAL, 0, np.full(2, -1, np.float32))
    newest = written.slots + 1
    written._stamps[newest % written.slots, 2] = snapshots.UNWRITTEN  # peer 2 died while it wrote
    last = written.last(np.full(2, 7, np.float32))
    assert last[:, 0].tolist() == [-1, 10 * newest + 1, 10 * (newest - 1) + 2, 7]
    assert last.dtype == np.float32


def test_real_time_priority_is_not_asked_for_by_who_is_nice_or_told_not_to(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(Stop(steps=5))
    monkeypatch.setattr(launcher, "may_run_realtime", lambda: True)
    monkeypatch.setattr(launcher.os, "getpriority", lambda *_: 0)
    assert world._without_realtime() == ""
    monkeypatch.setattr(launcher.os, "getpriority", lambda *_: 5)
    assert "nice (5)" in world._without_realtime()
    monkeypatch.setattr(launcher.os, "getpriority", lambda *_: 0)
    world.world = Processes(realtime=False)
    assert "world.realtime is false" in world._without_realtime()
    monkeypatch.setattr(world, "_timed", lambda: True)
    assert not world._spec(0, [], Path(), 7).realtime


def test_a_death_by_a_signal_without_a_name_has_words(make: Any) -> None:
    world = make(Stop(steps=5))
    world.peers[1].process.exitcode = -(signal.SIGRTMIN + 3)
    world._lose(1, world.peers[1])
    assert f"signal {signal.SIGRTMIN + 3}" in world.collector.warnings[-1]


def test_shared_files_go_where_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the places in their order the first that holds all of it; nothing stays in the others."""
    places = [tmp_path / name for name in ("full", "missing", "wide", "more")]
    for place in places:
        if place.name != "missing":
            place.mkdir()
    monkeypatch.setattr(snapshots, "places", lambda: places)

    def lay(room: Path) -> None:
        (room / "half").write_bytes(b"x")
        if room.parent.name == "full":
            raise OSError(errno.ENOSPC, "full")

    assert snapshots.make_room(10, lay).parent == places[2]
    assert [len(list(place.iterdir())) for place in places if place.is_dir()] == [0, 1, 0]
    places[:] = places[:2]
    with pytest.raises(OSError, match=r"share 2 MB, and neither .*full nor .*missing has so much room"):
        snapshots.make_room(2_000_000, lay)
    assert not list(places[0].iterdir())


def test_shared_files_have_their_room_before_anybody_writes_to_them(tmp_path: Path) -> None:
    """A mapped file that finds the file system full later ends the process that writes to it, without a word."""
    Snapshots(tmp_path, 50, 1_000, create=True)
    files = list(tmp_path.iterdir())
    assert sum(file.stat().st_size for file in files) == Snapshots.needed_bytes(50, 1_000)
    assert all(file.stat().st_blocks * 512 >= file.stat().st_size for file in files)


def test_a_fleet_without_room_for_its_weights_is_refused_in_words(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    world = make(Stop(steps=5))
    monkeypatch.setattr(snapshots.os, "posix_fallocate", full)
    with pytest.raises(WorldError, match="has so much room"):
        world.run()


def test_the_signal_of_a_mapped_file_without_room_has_words(make: Any) -> None:
    assert "SIGBUS, as when a file that it has mapped" in Stand("peer 0", -signal.SIGBUS).ending()


def test_a_beat_never_waits_for_a_launcher_that_does_not_listen() -> None:
    """The I/O thread beats: it must not stand still, and all links with it, because a pipe is full."""
    ours, theirs = Pipe()
    pipe = _Pipe(ours)
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

    monkeypatch.setattr(child_module.os, "geteuid", lambda: 0)
    monkeypatch.setattr(child_module.os, "sched_setscheduler", refuse)
    assert not may_run_realtime()


def test_trying_leaves_the_priority_as_it_was() -> None:
    before = os.sched_getscheduler(0)
    may_run_realtime()
    assert os.sched_getscheduler(0) == before


def test_local_names_lie_in_the_runs_own_folder_however_long_its_path_is(make: Any, tmp_path: Path) -> None:
    """Nobody else may enter it, while names outside of any folder are everybody's as soon as their owner is dead."""
    assert make(Stop(steps=5))._spec(1, [], Path(), 7).address == "ipc://peer-1"
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    peer: Any = SimpleNamespace(folder=os.open(folder, os.O_RDONLY))
    sockets = Sockets(child_module._PeerProcess._in_full(peer, "ipc://peer-1"))
    assert [path.name for path in folder.iterdir()] == ["peer-1"]
    assert child_module._PeerProcess._in_full(peer, "tcp://127.0.0.1:5") == "tcp://127.0.0.1:5"
    sockets.close()
    os.close(peer.folder)


def test_a_peer_that_serves_and_holds_no_data_has_nothing_to_warm_up() -> None:
    nobody: Any = SimpleNamespace(spec=SimpleNamespace(problem=SimpleNamespace(samples=[0, 5])), peer=SimpleNamespace(id=0))
    child_module._PeerProcess._warm_up(nobody)
