"""Fleets whose network the kernel carries: they train, record the backend, leave no namespace, and cleanup removes the rest."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grapevine import Experiment
from grapevine.experiments import kernel as kernel_module
from grapevine.experiments.cli.main import main
from grapevine.experiments.config.errors import ConfigError
from grapevine.experiments.config.events import CutEvent, KillEvent
from grapevine.experiments.config.experiment import Virtual
from grapevine.experiments.config.sections import Stop
from grapevine.experiments.fleet import build
from grapevine.netem import Uniform
from grapevine.netem.kernel import namespaces
from grapevine.netem.kernel.namespaces import leftovers, missing, remove
from tests.experiments.fleets import LiveFleet, until

pytestmark = pytest.mark.live

RATE = Uniform(rate="20 Mbit/s", backend="kernel")


def names_of(process: int) -> set[str]:
    return {path.name for path in namespaces.NAMES.glob(f"gv-{process}-*")}


@pytest.fixture
def kernel() -> None:
    lack = missing(build(Experiment(network=Uniform(rate="20 Mbit/s"))).plan)
    if lack is not None:
        pytest.skip(f"needs namespaces: {lack[0]}")


@pytest.fixture
def permitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this machine lacks nothing."""
    monkeypatch.setattr(kernel_module, "missing", lambda plan: None)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], LiveFleet]]:
    """Start one fleet of four over the kernel; it ends with the test."""
    fleets: list[LiveFleet] = []

    def begin(stop: str) -> LiveFleet:
        options = ("network.backend=kernel", "network.delay=0 s", "network.uplink=30 Mbit/s")
        fleets.append(LiveFleet(tmp_path, stop, *(word for option in options for word in ("--set", option))))
        return fleets[0]

    yield begin
    for fleet in fleets:
        fleet.close()
        remove(sorted(names_of(fleet.process.pid)))


# ---- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("kernel")
def test_a_fleet_trains_over_the_kernel_and_its_summary_names_it(start: Callable[[str], LiveFleet]) -> None:
    fleet = start("steps = 100")
    pid = fleet.process.pid
    fleet.training()
    assert {name.rpartition("-")[2] for name in names_of(pid)} == {"hub", "p0", "p1", "p2", "p3"}
    assert fleet.wait() == 0
    assert names_of(pid) == set()
    summary = fleet.summary()
    assert summary["completed"]
    assert summary["network_backend"] == "kernel"
    assert summary["steps_total"] == 400
    assert summary["messages_sent"] > 0
    told = json.loads((fleet.out / "manifest.json").read_text())["congestion_control"]
    assert told == namespaces.congestion_control()


@pytest.mark.usefixtures("kernel")
def test_an_interrupted_fleet_leaves_no_namespace(start: Callable[[str], LiveFleet]) -> None:
    fleet = start("steps = 100000")
    fleet.training()
    fleet.interrupt()
    assert fleet.wait() == 130
    assert names_of(fleet.process.pid) == set()


@pytest.mark.usefixtures("kernel")
def test_what_a_killed_launcher_left_is_cleaned_up_and_nothing_else(
    start: Callable[[str], LiveFleet], capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = start("steps = 100000")
    pid = fleet.process.pid
    fleet.training()
    assert main(["cleanup"]) == 0
    assert len(names_of(pid)) == 5  # it lives: nobody touches its network
    os.kill(pid, signal.SIGKILL)
    fleet.wait()
    until(lambda: not fleet.survivors(), "the peers' end")
    left = names_of(pid)
    assert len(left) == 5
    assert set().union(*leftovers().values()) >= left
    capsys.readouterr()
    assert main(["cleanup", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["removed"]) >= left
    assert names_of(pid) == set()
    assert main(["cleanup"]) == 0
    assert str(pid) not in capsys.readouterr().out


# ---- refusals -------------------------------------------------------------------------------------------------------


def refusal(experiment: Experiment) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        build(experiment)
    return raised.value


def test_virtual_time_is_refused() -> None:
    error = refusal(Experiment(world=Virtual(), network=RATE))
    assert (error.key, error.value) == ("network.backend", "kernel")
    assert str(error) == (
        'network.backend: "kernel" cannot be used: the kernel does not run in virtual time; use world.name = "processes", or '
        'backend = "userspace"'
    )


def test_a_missing_requirement_is_named_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_module, "missing", lambda plan: ("this machine has no program tc", "apt install iproute2"))
    error = refusal(Experiment(network=RATE))
    assert str(error) == 'network.backend: "kernel" cannot be used: this machine has no program tc; apt install iproute2'


@pytest.mark.usefixtures("permitted")
def test_options_that_tc_lacks_are_refused() -> None:
    error = refusal(Experiment(network=Uniform(rate="9 Mbit/s", tcp="cubic", backend="kernel")))
    assert error.key == "network.backend"
    assert "link 0 -> 1: the kernel uses its own TCP" in error.problem
    assert error.cure.endswith('use backend = "userspace"')


@pytest.mark.usefixtures("permitted")
def test_events_about_the_kernels_links_are_refused_but_peers_may_be_killed() -> None:
    ends = Stop(time="60 s")
    error = refusal(Experiment(network=RATE, stop=ends, events=[CutEvent(at="1 s", link=(0, 1))]))
    assert error.key == "events[0].do"
    assert error.cure == 'set network.backend = "userspace"'
    assert build(Experiment(network=RATE, stop=ends, events=[KillEvent(at="1 s", peer=0)])).plan.kernel


def test_only_root_cleans_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gv-4194305-77-0-hub").touch()
    monkeypatch.setattr(namespaces, "NAMES", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["cleanup"]) == 2
    assert "only root may remove gv-4194305-77-0-hub" in capsys.readouterr().err
    (tmp_path / "gv-4194305-77-0-hub").unlink()
    assert main(["cleanup"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"
