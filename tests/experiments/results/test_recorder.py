"""The run folder: its files at every moment, and that it is readable after every end."""

from __future__ import annotations

import errno
import json
import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow.parquet
import pytest

from grapevine.experiments.report.page import write_report
from grapevine.experiments.results import recorder as recorder_module
from grapevine.experiments.results.machine import describe_machine
from grapevine.experiments.results.recorder import FILES, Draw, Recorder, default_folder
from grapevine.experiments.results.result import Result
from grapevine.experiments.results.summary import KEYS, unfinished
from tests.experiments.recorded import MANIFEST, TOML, record_run

EXPERIMENT = TOML.format(name="made up", peers=2, strategy="solo")
LINK = (1e6, 9e5, 0.04, 0.041, 2.0)


def _recorder(folder: Path, draw: Draw | None = write_report) -> Recorder:
    return Recorder(folder, EXPERIMENT, MANIFEST, draw)


def _row(recorder: Recorder, time_s: float) -> None:
    recorder.metric(time_s, 0, 1, "loss", 0.5)
    recorder.link(time_s, 0, 1, 100, 2, *LINK)


def _temporary(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name not in (*FILES, "manifest.json")]


def test_from_the_start_the_folder_says_that_the_run_is_running(tmp_path: Path) -> None:
    _recorder(tmp_path / "run")
    result = Result.read(tmp_path / "run")
    assert set(KEYS) <= result.summary.keys()
    assert (result.summary["completed"], result.summary["reason"]) == (False, "running")
    assert (result.summary["name"], result.summary["peers"], result.summary["strategy"]) == ("made up", 2, "solo")
    assert result.experiment_toml == EXPERIMENT
    assert result.manifest["command"] == MANIFEST["command"]
    assert len(result.metrics) == len(result.links) == 0


def test_the_columns_are_those_of_the_contract(tmp_path: Path) -> None:
    recorder = _recorder(tmp_path)
    _row(recorder, 1.0)
    recorder.flush()
    metrics = pyarrow.parquet.read_table(tmp_path / "metrics.parquet")
    links = pyarrow.parquet.read_table(tmp_path / "links.parquet")
    assert metrics.column_names == ["time_s", "peer", "step", "name", "value"]
    assert links.column_names == [
        "time_s", "source", "target", "bytes", "messages", "rate_asked_bytes_per_s", "rate_measured_bytes_per_s",
        "delay_asked_s", "delay_measured_s", "staleness_steps",
    ]  # fmt: skip
    assert metrics.to_pylist() == [{"time_s": 1.0, "peer": 0, "step": 1, "name": "loss", "value": 0.5}]
    assert tuple(links.to_pylist()[0].values()) == (1.0, 0, 1, 100, 2, *LINK)
    assert [str(kind) for kind in metrics.schema.types] == ["double", "int32", "int64", "string", "double"]


def test_numpy_numbers_nan_and_infinity_are_kept(tmp_path: Path) -> None:
    recorder = _recorder(tmp_path)
    recorder.metric(np.float64(1), np.int64(0), np.int32(2), "loss", np.float32(0.5))
    recorder.link(1, 0, 1, np.int64(3), 1, math.inf, math.nan, 0, math.nan, math.nan)
    recorder.flush(force=True)
    links = Result.read(tmp_path).columns("links.parquet")
    assert links["rate_asked_bytes_per_s"][0] == math.inf
    assert math.isnan(links["rate_measured_bytes_per_s"][0])
    assert Result.read(tmp_path).columns("metrics.parquet")["value"][0] == 0.5


def test_a_flush_keeps_earlier_rows_and_one_soon_after_writes_nothing(tmp_path: Path) -> None:
    recorder = _recorder(tmp_path)
    _row(recorder, 1.0)
    recorder.flush()
    _row(recorder, 2.0)
    recorder.flush()  # so soon that it is left for later
    assert len(Result.read(tmp_path).metrics) == 1
    recorder.flush(force=True)
    assert Result.read(tmp_path).metrics["time_s"].tolist() == [1.0, 2.0]
    assert Result.read(tmp_path).links["time_s"].tolist() == [1.0, 2.0]


def test_events_are_on_disk_at_once_and_clean(tmp_path: Path) -> None:
    recorder = _recorder(tmp_path)
    recorder.event(1.5, "lost", peer=np.int64(1), at=math.nan, where=Path("x"))
    assert json.loads((tmp_path / "events.jsonl").read_text()) == {
        "time_s": 1.5, "kind": "lost", "peer": 1, "at": None, "where": "x",
    }  # fmt: skip


@pytest.mark.slow
def test_a_killed_launcher_leaves_a_readable_folder(tmp_path: Path) -> None:
    script = """if True:
        import os, signal, sys
        from pathlib import Path
        from grapevine.experiments.results.recorder import Recorder
        recorder = Recorder(Path(sys.argv[1]), 'name = "x"', {})
        for step in range(100):
            recorder.metric(step, 0, step, "loss", 1.0)
            recorder.event(step, "note")
        recorder.flush()
        recorder.metric(100, 0, 100, "loss", 1.0)
        os.kill(os.getpid(), signal.SIGKILL)"""
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=60)
    assert ended.returncode == -signal.SIGKILL
    result = Result.read(tmp_path)
    assert len(result.metrics) == len(result.events) == 100
    assert result.summary["reason"] == "running"


def test_a_write_that_breaks_off_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = _recorder(tmp_path)
    _row(recorder, 1.0)
    recorder.flush()

    def half(table: object, file: IO[bytes]) -> None:
        file.write(b"PAR1 and then the disk was full")
        raise OSError("no space left")

    _row(recorder, 2.0)
    with monkeypatch.context() as broken:
        broken.setattr(pyarrow.parquet, "write_table", half)
        recorder.flush(force=True)
    assert recorder.failure == f"{tmp_path}: the tables cannot be written: no space left"
    assert len(Result.read(tmp_path).metrics) == 1
    recorder.finish(unfinished(EXPERIMENT, "done"), np.zeros((2, 3)))
    assert len(Result.read(tmp_path).metrics) == 2  # nothing was forgotten
    assert _temporary(tmp_path) == []


def test_a_finished_folder_holds_all_of_the_contract(tmp_path: Path) -> None:
    record_run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "manifest.json"}
    weights = np.load(tmp_path / "weights.npy", allow_pickle=False)
    assert (weights.dtype, weights.shape) == (np.float32, (4, 6))


def test_a_run_finishes_once(tmp_path: Path) -> None:
    recorder = _recorder(tmp_path)
    recorder.finish(unfinished(EXPERIMENT, "done"), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="finished already"):
        recorder.finish(unfinished(EXPERIMENT, "again"), np.zeros((2, 3)))
    recorder.event(9.0, "straggler")
    assert Result.read(tmp_path).summary["reason"] == "done"


@pytest.mark.parametrize(
    ("error", "reason"),
    [(KeyboardInterrupt(), "interrupted"), (RuntimeError("the moon fell"), "failed: the moon fell")],
)
def test_an_ending_by_exception_completes_the_folder(tmp_path: Path, error: BaseException, reason: str) -> None:
    def broken_off() -> None:
        with _recorder(tmp_path) as recorder:
            _row(recorder, 1.0)
            raise error

    with pytest.raises(type(error)):
        broken_off()
    result = Result.read(tmp_path)
    assert (result.summary["completed"], result.summary["reason"]) == (False, reason)
    assert len(result.metrics) == 1
    assert reason in (tmp_path / "report.html").read_text()


def test_a_report_that_fails_does_not_spoil_the_run(tmp_path: Path) -> None:
    def fail(folders: Sequence[Path], out: Path) -> None:
        raise RuntimeError("no ink")

    recorder = _recorder(tmp_path, fail)
    recorder.finish(unfinished(EXPERIMENT, "done"), np.zeros((2, 3)))
    result = Result.read(tmp_path)
    assert result.summary["reason"] == "done"
    assert [event["kind"] for event in result.events] == ["warning"]
    assert "no ink" in result.events[0]["text"]


def test_an_earlier_run_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    record_run(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    _recorder(tmp_path)
    result = Result.read(tmp_path)
    assert result.summary["reason"] == "running"
    assert len(result.metrics) == len(result.events) == 0
    assert not (tmp_path / "report.html").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(("file", "content"), [("thesis.tex", "years of work"), ("manifest.json", '{"name": "some web page"}')])
def test_a_folder_with_anything_else_is_refused_untouched(tmp_path: Path, file: str, content: str) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match="does not hold an earlier run; give another --out"):
        _recorder(tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(file, content)]


def test_a_place_where_no_folder_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="give another --out"):
        _recorder(tmp_path / "file")
    with pytest.raises(ValueError, match="give another --out"):
        _recorder(tmp_path / "file" / "run")


def test_the_default_folder_is_named_after_the_experiment() -> None:
    folder = default_folder("../four regions/α")
    assert folder.parent == Path("runs")
    assert folder.name.startswith("four-regions-α-")


def test_the_machine_is_described_with_its_versions() -> None:
    machine = describe_machine()
    assert machine["cores"] >= 1
    assert machine["memory_bytes"] > 0
    assert machine["versions"]["numpy"] == np.__version__


def test_a_folder_that_another_run_writes_is_refused_and_left_alone(tmp_path: Path) -> None:
    with _recorder(tmp_path / "run") as first:
        first.event(0.0, "start")
        with pytest.raises(ValueError, match="another run is writing there; give another --out"):
            _recorder(tmp_path / "run")
        assert '"start"' in (tmp_path / "run" / "events.jsonl").read_text()
    _recorder(tmp_path / "run").finish(unfinished(EXPERIMENT, "again"))


def test_a_folder_that_is_moved_is_completed_where_it_lies(tmp_path: Path) -> None:
    recorder = _recorder(tmp_path / "run")
    recorder.metric(1.0, 0, 1, "loss", 0.5)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    recorder.metric(2.0, 0, 2, "loss", 0.4)
    recorder.flush(force=True)
    recorder.finish({**unfinished("", "done"), "completed": True, "warnings": ["w"]}, np.ones((2, 3), np.float32))
    assert recorder.folder == tmp_path / "elsewhere"
    result = Result.read(recorder.folder)
    told = f"the run folder {tmp_path / 'run'} was moved to {tmp_path / 'elsewhere'} while the run went on"
    assert (result.summary["completed"], result.summary["warnings"]) == (True, ["w", told])
    assert (len(result.metrics), result.weights.tolist()) == (2, [[1.0] * 3] * 2)
    assert not _temporary(recorder.folder)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("replaced", [False, True])
def test_after_a_removed_folder_the_summary_and_the_weights_are_beside_it(replaced: bool, tmp_path: Path) -> None:
    recorder, asked = _recorder(tmp_path / "run"), []
    recorder.on_failure = lambda: asked.append(True)
    recorder.metric(1.0, 0, 1, "loss", 0.5)
    shutil.rmtree(tmp_path / "run")
    if replaced:
        (tmp_path / "run").write_text("a file of somebody's")
    recorder.flush(force=True)
    assert asked == [True]  # it makes no sense to go on
    recorder.finish({**unfinished("", "done"), "completed": True}, np.ones((2, 3), np.float32))
    assert recorder.folder.name.startswith("run-saved-")
    result = Result.read(recorder.folder)
    told = f"{tmp_path / 'run'}: was removed while the run went on; the remaining results are in {recorder.folder}"
    assert (result.summary["completed"], result.summary["reason"]) == (False, told)
    assert (len(result.metrics), result.weights.tolist()) == (1, [[1.0] * 3] * 2)
    assert result.experiment_toml == EXPERIMENT
    assert not _temporary(recorder.folder)
    assert (tmp_path / "run").exists() == replaced


def test_a_folder_whose_first_files_cannot_be_written_is_left_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        if path.name == "summary.json":
            raise OSError(errno.ENOSPC, "full")
        path.write_bytes(content)

    monkeypatch.setattr(recorder_module, "replace", full)
    with pytest.raises(OSError, match="full"):
        _recorder(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())
