"""Live fleets of processes: from the command line through the report, and every way in which one can end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine import Result
from grapevine.experiments.results.summary import KEYS
from grapevine.experiments.worlds.processes.folders import places
from tests.experiments.fleets import LiveFleet, until

pytestmark = pytest.mark.live

FILES = {
    "experiment.toml", "manifest.json", "metrics.parquet", "links.parquet",
    "events.jsonl", "summary.json", "report.html", "weights.npy",
}  # fmt: skip


@pytest.fixture
def fleets(tmp_path: Path) -> Iterator[type]:
    """Makes live fleets, and sees to it that none outlives the test."""
    started: list[LiveFleet] = []

    def start(stop: str, *arguments: str, **options: Any) -> LiveFleet:
        started.append(LiveFleet(tmp_path, stop, *arguments, **options))
        return started[-1]

    yield start  # type: ignore[misc]
    for fleet in started:
        fleet.close()


def test_from_the_command_line_through_the_report(fleets: type) -> None:
    fleet = fleets('time = "2 s"\nsteps = 100', "--json")
    assert fleet.wait() == 0, fleet.process.stderr.read()
    printed = json.loads(fleet.process.stdout.read())
    assert printed == fleet.summary()
    assert {path.name for path in fleet.out.iterdir()} == FILES
    assert set(KEYS) <= printed.keys()
    assert printed["completed"]
    assert printed["steps_total"] > 0
    assert printed["peers_lost"] == []
    result = Result.read(fleet.out)
    assert result.weights.shape == (4, 4810)
    assert np.isfinite(result.weights).all()
    links = result.links.groupby(["source", "target"])["bytes"].sum()
    assert set(links.index) == {(peer, (peer + step) % 4) for peer in range(4) for step in (1, 3)}
    assert int(links.sum()) == printed["bytes_sent"]
    assert {"accuracy", "loss", "train_loss"} <= set(result.metrics["name"])
    assert "plotly" in (fleet.out / "report.html").read_text()
    until(lambda: not fleet.survivors(), "all processes gone")


def test_a_killed_peer_is_named_and_the_others_go_on(fleets: type) -> None:
    fleet = fleets("steps = 120")
    pids = fleet.training()
    assert "libtorch" not in Path(f"/proc/{pids[2]}/maps").read_text()  # which the perceptron does not need
    os.kill(pids[2], signal.SIGKILL)
    lost = until(lambda: fleet.events("lost"), "the loss in the events")
    assert lost[0]["peer"] == 2
    assert "SIGKILL" in lost[0]["text"]
    assert fleet.wait() == 3
    summary = fleet.summary()
    assert summary["peers_lost"] == summary["peers_lost_unasked"] == [2]
    assert any("peer 2 was lost" in warning for warning in summary["warnings"])
    steps = Result.read(fleet.out).metrics.groupby("peer")["step"].max()
    assert [steps[peer] for peer in (0, 1, 3)] == [120, 120, 120]
    until(lambda: not fleet.survivors(), "all processes gone")


def test_ctrl_c_ends_everything_and_leaves_a_complete_folder(fleets: type) -> None:
    fleet = fleets('time = "600 s"')
    fleet.training()
    fleet.interrupt()
    assert fleet.wait() == 130
    until(lambda: not fleet.survivors(), "all processes gone")
    assert {path.name for path in fleet.out.iterdir()} == FILES
    summary = fleet.summary()
    assert (summary["completed"], summary["reason"]) == (False, "interrupted")
    assert summary["steps_total"] > 0
    assert len(Result.read(fleet.out).metrics) > 0


def test_neither_orphan_nor_folder_survives_the_launchers_own_death(fleets: type, tmp_path: Path) -> None:
    """Not even of a peer that is stopped.  Its folder for temporary files has a longer path than a socket may have."""
    temporary = tmp_path / ("long" * 30)
    temporary.mkdir()
    fleet = fleets('time = "600 s"', environment={"TMPDIR": str(temporary)})
    stopped = fleet.training()[1]
    assert folders_of(fleet.process.pid)
    until(lambda: (fleet.out / "metrics.parquet").exists() or None, "the first tables")
    os.kill(stopped, signal.SIGSTOP)
    os.kill(fleet.process.pid, signal.SIGKILL)
    fleet.wait()
    until(lambda: not fleet.survivors(), "all processes gone")
    assert [*folders_of(fleet.process.pid), *temporary.iterdir()] == []
    assert fleet.summary()["reason"] == "running"
    assert len(Result.read(fleet.out).metrics) > 0


def test_a_stopped_process_does_not_hold_the_fleet_up_for_ever(fleets: type) -> None:
    """SIGSTOP looks like a machine that hangs: no sign of life, no end of the process."""
    fleet = fleets("steps = 40", impatient=True)
    pids = fleet.training()
    os.kill(pids[1], signal.SIGSTOP)
    assert fleet.wait(60) == 3
    assert fleet.summary()["peers_lost"] == [1]


def test_a_stopped_evaluator_is_noticed_and_nothing_is_lost(fleets: type) -> None:
    fleet = fleets('time = "1 s"', "--set", "record.every=50 ms", impatient=True)
    until(lambda: fleet.events("start"), "the start")
    os.kill(fleet.events("start")[0]["evaluator"], signal.SIGSTOP)
    assert fleet.wait(60) == 0
    summary = fleet.summary()
    assert summary["completed"]
    assert [text for text in summary["warnings"] if "evaluator was lost: it gave no sign of life" in text]
    fleet_rows = Result.read(fleet.out).metrics.query("peer == -1")
    scored = fleet_rows[fleet_rows["name"] == "accuracy_mean"].sort_values("time_s")
    assert set(np.arange(20) / 20) <= set(scored["time_s"].round(9))
    assert summary["accuracy_mean"] == scored["value"].iloc[-1]
    assert summary["validation_accuracy_mean"] is not None
    until(lambda: not fleet.survivors(), "all processes gone")


def test_a_stopped_fork_server_does_not_keep_the_launcher_from_ending(fleets: type) -> None:
    """Nobody else can tell the launcher that a process has ended.  Multiprocessing's other process is stopped too."""
    fleet = fleets('time = "600 s"', impatient=True)
    server = parent_of(fleet.training()[0])
    for beside in fleet.survivors():
        if b"resource_tracker" in Path(f"/proc/{beside}/cmdline").read_bytes() and beside != server:
            os.kill(beside, signal.SIGSTOP)
    os.kill(server, signal.SIGSTOP)
    fleet.interrupt()
    assert fleet.wait() == 130
    until(lambda: not fleet.survivors(), "all processes gone")
    assert fleet.summary()["reason"] == "interrupted"
    assert not folders_of(fleet.process.pid)


def test_a_killed_fork_server_leaves_no_orphan(fleets: type) -> None:
    """Not even a stopped one, which cannot see that the launcher is gone; its last weights are those of its last record."""
    fleet = fleets('time = "600 s"')
    pids = fleet.training()
    os.kill(parent_of(pids[1]), signal.SIGKILL)
    os.kill(pids[1], signal.SIGSTOP)
    fleet.interrupt()
    assert fleet.wait() == 130
    until(lambda: not fleet.survivors(), "all processes gone")
    assert fleet.summary()["reason"] == "interrupted"
    assert 1 in fleet.summary()["peers_lost"]
    assert len(np.unique(Result.read(fleet.out).weights[:2], axis=0)) == 2  # not those with which both began


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def folders_of(pid: int) -> list[Path]:
    """What a launcher has outside its run folder."""
    return [path for place in places() for path in place.glob(f"grapevine-*-{pid}-*")]


def test_tcp_carries_the_same_messages(fleets: type) -> None:
    fleet = fleets("steps = 20", "--set", "world.transport=tcp", "--set", "strategy.name=slices", "--set", "codec.name=int8")
    assert fleet.wait() == 0, fleet.process.stderr.read()
    assert fleet.summary()["bytes_sent"] > 0
