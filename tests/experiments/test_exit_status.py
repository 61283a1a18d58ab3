"""Exit statuses: peers lost by an event of the file, and peers lost without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from grapevine.experiments import run
from grapevine.experiments.cli.main import main
from grapevine.experiments.config.events import KillEvent
from grapevine.experiments.config.experiment import Experiment, Stop, Virtual
from grapevine.experiments.exit_status import ExitStatus, worst
from grapevine.experiments.report.summary_text import describe
from grapevine.experiments.run import run_experiment
from grapevine.experiments.tasks import Quadratic
from grapevine.experiments.worlds.virtual.world import VirtualWorld
from grapevine.netem import UniformDevices

S = 1_000_000_000
BASE = Experiment(
    peers=4,
    world=Virtual(),
    task=Quadratic(batch_size=10),
    devices=UniformDevices(speed="100 samples/s"),  # 10 steps a second
    stop=Stop(time="4 s"),
)


@pytest.mark.parametrize(
    ("killed", "dying", "unasked", "status"),
    [
        ([], [], [], ExitStatus.DONE),
        ([("2 s", 1)], [], [], ExitStatus.DONE),
        ([], [(2 * S, 1)], [1], ExitStatus.LOST),
        ([("2 s", 1)], [(3 * S, 2)], [2], ExitStatus.LOST),
        ([("3 s", 1)], [(2 * S, 1)], [1], ExitStatus.LOST),  # the script wanted it later
        ([], [(S, peer) for peer in range(4)], [0, 1, 2, 3], ExitStatus.INCOMPLETE),
    ],
)
def test_the_exit_status_of_a_run_with_losses(
    killed: list[tuple[str, int]],
    dying: list[tuple[int, int]],
    unasked: list[int],
    status: ExitStatus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "_world", lambda fleet, collector, interrupt: VirtualWorld(fleet, collector, interrupt, dying))
    experiment = BASE.replace(events=tuple(KillEvent(at=at, peer=peer) for at, peer in killed))
    result, ended = run_experiment(experiment, tmp_path / "run", quiet=True)
    assert result.summary["peers_lost_unasked"] == unasked
    assert ended is status
    words = str(describe(result.summary))
    assert ("done, but peers were lost" in words) == (status is ExitStatus.LOST)
    assert ("the file did not ask for" in words) == bool(unasked)


def test_the_worst_of_several_runs() -> None:
    assert worst() is ExitStatus.DONE
    assert worst(ExitStatus.DONE, ExitStatus.LOST) is ExitStatus.LOST
    assert worst(ExitStatus.LOST, ExitStatus.INCOMPLETE, ExitStatus.DONE) is ExitStatus.INCOMPLETE
    assert worst(ExitStatus.INTERRUPTED, ExitStatus.INCOMPLETE) is ExitStatus.INTERRUPTED


def test_the_help_lists_every_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out.partition("exit status")[2]
    assert {int(line.split()[0]) for line in told.splitlines()[1:] if line.strip()} == {int(status) for status in ExitStatus}
