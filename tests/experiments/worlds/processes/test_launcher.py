"""The launcher of the processes world against children that are slow, broken or gone: pipes in this process stand for them."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from grapevine import Experiment, run
from grapevine.experiments import compatibility, open_files
from grapevine.experiments.config.errors import ConfigError
from grapevine.experiments.config.experiment import Processes, Stop
from grapevine.experiments.fleet import build
from grapevine.experiments.results.recorder import Recorder
from grapevine.experiments.worlds.collector import Collector
from grapevine.experiments.worlds.interrupt import Interrupt
from grapevine.experiments.worlds.peer_report import FINAL, Report
from grapevine.experiments.worlds.processes import attention, control, forkserver, launcher, realtime, snapshots, startup
from grapevine.experiments.worlds.processes import child as child_module
from grapevine.experiments.worlds.processes.forkserver import WorldError
from grapevine.experiments.worlds.processes.launcher import ProcessesWorld
from grapevine.experiments.worlds.processes.peer_spec import peer_spec
from grapevine.experiments.worlds.processes.realtime import why_not_realtime
from grapevine.experiments.worlds.processes.snapshots import Snapshots
from grapevine.experiments.worlds.processes.startup import Startup, ended_early
from grapevine.peer.sockets import Sockets
from grapevine.peer.strategies import Solo
from grapevine.topology.graphs.menu import Complete, Ring
from tests.experiments.worlds.processes.stand import Stand


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


def test_a_peer_that_did_not_stop_in_time_is_not_called_silent(make: Any) -> None:
    world = make(Stop(steps=5))
    for child in world.peers.values():
        child.heard_s = 2**40
    world.peers[0].speak(final(0))
    world._stop("accuracy 0.9 reached")
    world._stop_deadline_s = -1.0
    world._train()
    assert any("had not stopped in time" in warning for warning in world.collector.warnings)


def test_code_that_does_not_stop_is_named_with_its_line(make: Any) -> None:
    """The launcher asks for the place shortly before the end of the grace, and gives it when it ends the process."""
    world, stack = make(Stop(steps=5)), f'Traceback (most recent call last):\n  File "{__file__}", line 12, in run\nRunning\n'
    child = world.peers[1]
    world.attention.s = child.heard_s = 10.0
    world._stop_deadline_s = 10.0 + launcher.ASK_S / 2
    world._watch_time()
    assert isinstance(control.decode_down(child.theirs.recv_bytes()), control.Where)
    assert child.alive
    world._take(child, control.Here(stack))
    world.attention.s = child.heard_s = 11.0
    world._watch_time()
    assert not child.alive
    assert child.why.endswith("it ran code that does not end by itself (tests/experiments/worlds/processes/test_launcher.py, "
                              "line 12, in run)")  # fmt: skip


def test_a_remark_of_every_peer_is_one_warning(make: Any) -> None:
    world = make(Stop(steps=5))
    for child in world.peers.values():
        world._take(child, control.Remark("a call of peer.broadcast had no effect"))
    assert world.collector.warnings == ["a call of peer.broadcast had no effect"]


def test_a_stop_waits_for_the_end_of_a_long_step(make: Any) -> None:
    world = make(Stop(steps=5))
    world._take(world.peers[0], Report(0, 0, 10**9, 5, 1.0, 30e9, [], [], [], 0, 0, {}))
    world._stop("accuracy 0.9 reached")
    assert world._stop_deadline_s is not None
    assert world._stop_deadline_s > 30


def test_a_peer_that_waited_for_the_others_to_start_is_not_called_silent(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(Stop(steps=5))
    stands = [Stand("peer 0"), Stand("peer 1"), Stand("evaluator")]
    monkeypatch.setattr(startup, "Child", lambda *_: stands.pop(0))
    monkeypatch.setattr(startup, "start_fork_server", lambda modules: None)
    monkeypatch.setattr(Startup, "_hear_all", lambda self, kind: {peer: control.Ready("") for peer in range(2)})
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

    monkeypatch.setattr(startup, "Child", start)
    monkeypatch.setattr(startup, "start_fork_server", lambda modules: None)
    with pytest.raises(KeyboardInterrupt):
        world._start(Path())
    assert started == ["peer 0"]


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
    monkeypatch.setattr(compatibility, "files_allowed", lambda: needed)
    build(experiment)
    monkeypatch.setattr(compatibility, "files_allowed", lambda: needed - 1)
    with pytest.raises(ConfigError, match=rf"hold up to {needed} open files each, and {needed - 1} are permitted here"):
        build(experiment, lambda experiment: pytest.fail("data were loaded"))


def test_a_peer_of_many_neighbours_needs_more_files_than_its_launcher() -> None:
    assert open_files.files_needed(10, 400) == open_files.files_needed(2, 400) == 32 + 3 * 400


def test_a_peer_killed_during_the_start_is_named_with_the_signal() -> None:
    words = str(ended_early(Stand("peer 3", -signal.SIGKILL)))
    assert words == "peer 3 ended while it was set up: its process was ended by SIGKILL"
    assert "must be importable" in str(ended_early(Stand("peer 3", 1)))


def test_how_a_process_ended_is_not_guessed_where_the_fork_server_is_gone(make: Any) -> None:
    world = make(Stop(steps=5))
    world.peers[0].process.exitcode, world.peers[1].process.exitcode = forkserver.UNKNOWN, None
    for peer in range(2):
        world._lose(peer, world.peers[peer])
        assert "an unknown status, since the fork server is stopped or gone" in world.collector.warnings[-1]


def test_peers_lost_unasked_are_listed_apart_and_named_in_the_reason(make: Any) -> None:
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


def test_a_peer_that_the_script_kills_is_not_lost_unasked(make: Any) -> None:
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


def test_real_time_priority_is_not_requested_when_nice_or_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realtime, "may_run_realtime", lambda: True)
    monkeypatch.setattr(realtime.os, "getpriority", lambda *_: 0)
    assert why_not_realtime(Processes()) == ""
    monkeypatch.setattr(realtime.os, "getpriority", lambda *_: 5)
    assert "nice (5)" in why_not_realtime(Processes())
    monkeypatch.setattr(realtime.os, "getpriority", lambda *_: 0)
    assert "world.realtime is false" in why_not_realtime(Processes(realtime=False))


def test_a_death_by_a_signal_without_a_name_has_words(make: Any) -> None:
    world = make(Stop(steps=5))
    world.peers[1].process.exitcode = -(signal.SIGRTMIN + 3)
    world._lose(1, world.peers[1])
    assert f"signal {signal.SIGRTMIN + 3}" in world.collector.warnings[-1]


def test_a_fleet_without_room_for_its_weights_is_refused_in_words(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    world = make(Stop(steps=5))
    monkeypatch.setattr(snapshots.os, "posix_fallocate", full)
    with pytest.raises(WorldError, match="has enough room"):
        world.run()


def test_the_signal_of_a_mapped_file_without_room_has_words(make: Any) -> None:
    assert "SIGBUS, as after a lack of room for a file that it has mapped" in Stand("peer 0", -signal.SIGBUS).ending()


def test_local_names_lie_in_the_runs_own_folder_however_long_its_path_is(make: Any, tmp_path: Path) -> None:
    """Nobody else may enter it, while names outside of any folder are everybody's as soon as their owner is dead."""
    assert peer_spec(make(Stop(steps=5)).fleet, 1, [], Path(), 7, realtime=False).address == "ipc://peer-1"
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    peer: Any = SimpleNamespace(folder=os.open(folder, os.O_RDONLY))
    sockets = Sockets(child_module._PeerProcess._in_full(peer, "ipc://peer-1"))
    assert [path.name for path in folder.iterdir()] == ["peer-1"]
    assert child_module._PeerProcess._in_full(peer, "tcp://127.0.0.1:5") == "tcp://127.0.0.1:5"
    sockets.close()
    os.close(peer.folder)
