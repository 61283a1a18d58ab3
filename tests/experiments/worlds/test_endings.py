"""Endings from outside: output that nobody reads, a full disk, a strategy that never comes back, another number of cores."""

from __future__ import annotations

import errno
import json
import os
import pty
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine.experiments.config.experiment import Experiment, Processes, Record, Stop, Virtual
from grapevine.experiments.results.atomic_files import whole
from grapevine.experiments.results.recorder import FILES, Recorder
from grapevine.experiments.results.result import Result
from grapevine.experiments.results.summary import unfinished
from grapevine.experiments.results.table_writer import TableWriter
from grapevine.experiments.run import run_experiment
from grapevine.experiments.tasks import Quadratic
from grapevine.experiments.worlds.collector import Collector
from grapevine.netem.devices.menu import UniformDevices
from grapevine.peer.payloads import Dense
from grapevine.peer.peer import Peer
from grapevine.peer.strategies import DPSGD, Strategy
from tests.experiments.recorded import MANIFEST, TOML

GRAPEVINE = [sys.executable, "-P", "-m", "grapevine"]
FILE = """
peers = 4
[world]
name = "virtual"
[devices]
name = "uniform"
speed = "2000 samples/s"
[task]
name = "quadratic"
[stop]
steps = 20
[record]
report = false
"""
LINES = {"unawaited": "peer.arrived()", "no time": "await peer.sleep(0)", "flood": "await peer.broadcast(", "raises": '{}["x"]'}


class Wrong(Strategy, frozen=True, tag="wrong"):
    """Peer 1 does something wrong at its third step."""

    way: str = "raises"

    async def run(self, peer: Peer) -> None:
        while peer.running:
            peer.apply(await peer.gradient())
            if peer.id == 1 and peer.step == 3:
                await self.go_wrong(peer)

    async def go_wrong(self, peer: Peer) -> None:
        while self.way == "unawaited" and peer.running:
            peer.arrived()
        while self.way == "no time":
            await peer.sleep(0)
        while self.way == "flood":
            await peer.broadcast(Dense(peer.weights))
        while self.way == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
            while True:
                pass
        {}["x"]


def _experiment(strategy: Strategy, world: Any = None) -> Experiment:
    return Experiment(
        peers=3, world=world or Virtual(), strategy=strategy, task=Quadratic(), stop=Stop(steps=20, time="10 s"),
        devices=UniformDevices(speed="200 samples/s"), record=Record(report=False),
    )  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ring.toml"
    path.write_text(FILE)
    return path


def _line_of(way: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if line.strip().startswith(LINES[way]))


@pytest.mark.parametrize("way", LINES)
def test_a_strategy_that_raises_is_named_with_its_line_and_the_others_go_on(way: str, tmp_path: Path) -> None:
    result, status = run_experiment(_experiment(Wrong(way=way)), tmp_path / "run", quiet=True)
    assert (status, result.summary["completed"], result.summary["peers_lost"]) == (1, False, [1])
    reason = result.summary["reason"]
    assert "peer 1 failed: " in reason
    assert f"test_endings.py, line {_line_of(way)}, in go_wrong)" in reason or f"line {_line_of(way) - 1}, in" in reason
    assert "events.jsonl has the whole traceback" in reason
    assert ("KeyError: 'x'" in reason) == (way == "raises")
    assert ("await peer.gradient()" in reason) == (way != "raises")
    fault = next(event for event in result.events if event["kind"] == "fault")
    assert "Traceback" in fault["text"]
    assert result.summary["steps_max"] == 20


@pytest.mark.live
def test_a_peer_of_its_own_process_that_polls_is_stopped_with_its_line(tmp_path: Path) -> None:
    experiment = _experiment(Wrong(way="unawaited"), Processes())
    result, status = run_experiment(experiment, tmp_path / "run", quiet=True)
    assert (status, result.summary["peers_lost"]) == (1, [1])
    assert "test_endings.py, line " in result.summary["reason"]


@pytest.mark.slow
def test_one_signal_ends_a_strategy_that_never_comes_back(tmp_path: Path) -> None:
    result, status = run_experiment(_experiment(Wrong(way="signal")), tmp_path / "run", quiet=True)
    assert (status, result.summary["reason"]) == (130, "interrupted")
    assert result.weights.shape == (3, 1)
    assert any("in go_wrong" in warning for warning in result.summary["warnings"])


@pytest.mark.live
@pytest.mark.parametrize("world", [Virtual(), Processes()])
def test_whatever_the_launcher_raises_ends_the_fleet_with_its_weights(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher's own error, here in the middle of taking in records, is told as any failure is."""
    taken = Collector.report

    def report(collector: Collector, message: Any) -> Any:
        if message.index == 4:
            raise ZeroDivisionError("made up\nhere")
        return taken(collector, message)

    monkeypatch.setattr(Collector, "report", report)
    experiment = Experiment(
        peers=3, world=world, strategy=DPSGD(), task=Quadratic(), stop=Stop(time="10 s"), seed=4,
        devices=UniformDevices(speed="2000 samples/s"), record=Record(every="100 ms", report=False),
    )  # fmt: skip
    result, status = run_experiment(experiment, tmp_path / "run", quiet=True)
    reason = "failed: ZeroDivisionError: made up here; events.jsonl has the whole traceback"
    assert (status, result.summary["completed"], result.summary["reason"]) == (1, False, reason)
    assert result.weights.shape == (3, 1)
    assert np.unique(result.weights).size == 3  # all began alike, and have trained since
    assert "ZeroDivisionError" in next(event["text"] for event in result.events if event["kind"] == "fault")
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {*FILES, "manifest.json"}


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["both", "stdout", "stderr"])
def test_a_reader_that_leaves_changes_nothing(closed: str, file: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    out = writing if closed != "stderr" else subprocess.DEVNULL
    err = writing if closed != "stdout" else subprocess.DEVNULL
    ended = subprocess.run([*GRAPEVINE, "run", file, "--out", tmp_path / "run"], stdout=out, stderr=err, timeout=60)
    os.close(writing)
    assert ended.returncode == 0
    result = Result.read(tmp_path / "run")
    assert (result.summary["completed"], result.summary["reason"]) == (True, "20 steps done")
    assert result.weights.shape == (4, 1)


@pytest.mark.slow
def test_a_terminal_that_closes_is_an_interrupt(file: Path, tmp_path: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        run = [*GRAPEVINE, "run", str(file), "--out", str(tmp_path / "run"), "--set", "stop.steps=100000000"]
        os.execv(sys.executable, run)
    seen = b""
    while b"training" not in seen:
        seen += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    result = Result.read(tmp_path / "run")
    assert result.summary["reason"] == "interrupted"
    assert result.weights.shape == (4, 1)


def test_an_interrupt_while_the_commands_are_loaded_is_one_too() -> None:
    program = """if True:
        import sys
        class Interrupting:
            def find_spec(self, name, *_):
                if name == "grapevine.experiments.cli.check":
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Interrupting())
        from grapevine.experiments.cli.main import main
        sys.exit(main(["list"]))
    """
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "grapevine: interrupted\n")


@pytest.mark.slow
def test_output_that_cannot_be_kept_is_an_error(file: Path, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run([*GRAPEVINE, "list"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr == "grapevine: the output could not be written: No space left on device\n"


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_locale_without_the_letters_is_no_error(encoding: str, file: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": encoding}
    run = [*GRAPEVINE, "run", file, "--out", tmp_path / "run-\u00b5", "--set", "name=na\u00efve \u03b1"]
    ended = subprocess.run(run, capture_output=True, timeout=60, env=environment)
    assert (ended.returncode, b"Traceback" in ended.stderr) == (0, False)
    assert Result.read(tmp_path / "run-\u00b5").summary["name"] == "na\u00efve \u03b1"


def _recorder(folder: Path) -> Recorder:
    return Recorder(folder, TOML.format(name="made up", peers=2, strategy="solo"), MANIFEST, weights_bytes=4_096)


def test_a_full_disk_ends_the_run_once_and_leaves_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, asked = _recorder(tmp_path), []
    recorder.on_failure = lambda: asked.append(True)
    recorder.metric(1.0, 0, 1, "loss", 0.5)
    recorder.flush(force=True)

    def full(self: object, folder: Path) -> None:
        with whole(folder / "metrics.parquet") as part:
            part.write_bytes(b"PAR1 half")
            raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(TableWriter, "write", full)
    recorder.flush(force=True)
    recorder.finish({**unfinished("", "done"), "completed": True}, np.ones((2, 3)))
    result = Result.read(tmp_path)
    assert asked == [True]
    assert result.summary["completed"] is False
    assert result.summary["reason"] == f"{tmp_path}: the tables cannot be written: No space left on device"
    assert result.weights.tolist() == [[1.0] * 3] * 2
    assert len(result.metrics) == 1
    assert {path.name for path in tmp_path.iterdir()} <= {*FILES, "manifest.json"}


@pytest.mark.slow
def test_a_run_whose_files_may_not_grow_ends_with_a_true_summary(file: Path, tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    run = [*GRAPEVINE, "run", file, "--out", tmp_path / "run", "--quiet", "--json"]
    more = ["--set", "stop.steps=1000000", "--set", "record.every=1 ms", "--set", "task.noise=1"]  # which no file makes short
    ended = subprocess.run([*run, *more], capture_output=True, text=True, timeout=60, preexec_fn=limited)
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr == ""
    summary = json.loads(ended.stdout)
    assert summary["completed"] is False
    assert summary["reason"].startswith(f"{tmp_path / 'run'}: the ")
    assert summary["reason"].endswith("cannot be written: File too large")
    assert Result.read(tmp_path / "run").weights.shape == (4, 1)
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {*FILES, "manifest.json"}


@pytest.mark.slow
def test_the_digest_does_not_depend_on_the_number_of_threads(file: Path, tmp_path: Path) -> None:
    runs = []
    for threads in ("1", "4"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        cnn = ["--set", "task.name=digits", "--set", "task.model=cnn", "--set", "stop.steps=2", "--set", "peers=3"]
        run = [*GRAPEVINE, "run", file, "--out", tmp_path / threads, "--json", *cnn]
        runs.append(subprocess.Popen(run, stdout=subprocess.PIPE, env=environment))
    assert len({json.loads(run.communicate(timeout=100)[0])["digest"] for run in runs}) == 1


def test_a_result_says_what_it_is(tmp_path: Path) -> None:
    _recorder(tmp_path).finish(unfinished('name = "made \x1b up"', "abandoned"))
    assert str(tmp_path) in repr(Result.read(tmp_path))
    assert repr(Result.read(tmp_path)).isprintable()
