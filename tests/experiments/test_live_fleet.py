"""Live fleets of processes: from the command line through the report, and every way in which one can end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from experiments import Result
from experiments.summary import KEYS
from tests.experiments.fleets import LiveFleet, until

FILES = {
    "experiment.toml", "manifest.json", "metrics.parquet", "links.parquet",
    "events.jsonl", "summary.json", "report.html", "weights.npy",
}  # fmt: skip


@pytest.fixture
def fleets(tmp_path: Path) -> Iterator[type]:
    """Makes live fleets, and sees to it that none outlives the test."""
    started: list[LiveFleet] = []

    def start(stop: str, *arguments: str) -> LiveFleet:
        started.append(LiveFleet(tmp_path, stop, *arguments))
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


def test_no_orphan_survives_the_launchers_own_death(fleets: type) -> None:
    fleet = fleets('time = "600 s"')
    fleet.training()
    until(lambda: (fleet.out / "metrics.parquet").exists() or None, "the first tables")
    os.kill(fleet.process.pid, signal.SIGKILL)
    fleet.wait()
    until(lambda: not fleet.survivors(), "all processes gone")
    assert fleet.summary()["reason"] == "running"
    assert len(Result.read(fleet.out).metrics) > 0


def test_a_stopped_process_does_not_hold_the_fleet_up_for_ever(fleets: type) -> None:
    """SIGSTOP looks like a machine that hangs: no sign of life, no end of the process."""
    fleet = fleets("steps = 240")
    pids = fleet.training()
    os.kill(pids[1], signal.SIGSTOP)
    assert fleet.wait(60) == 0
    assert fleet.summary()["peers_lost"] == [1]


def test_tcp_carries_the_same_messages(fleets: type) -> None:
    fleet = fleets("steps = 20", "--set", "world.transport=tcp", "--set", "strategy.name=slices", "--set", "codec.name=int8")
    assert fleet.wait() == 0, fleet.process.stderr.read()
    assert fleet.summary()["bytes_sent"] > 0
