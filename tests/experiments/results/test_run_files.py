"""Run folders with invalid content: one sentence names the file, and no sweep counts such a run as complete."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from grapevine.experiments.cli.main import main
from grapevine.experiments.config.experiment import Experiment
from grapevine.experiments.results.result import Result
from grapevine.experiments.results.run_files import MOST
from grapevine.experiments.sweep.sweep import is_complete
from tests.experiments.recorded import record_run

DEEP = b'{"a":' * 3000
PEERS = 4


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    record_run(folder, peers=PEERS, lost=(1,))
    (folder / "report.html").unlink()
    return folder


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "run"))


def changed(folder: Path, file: str, **keys: Any) -> None:
    document = json.loads((folder / file).read_bytes())
    (folder / file).write_text(json.dumps({**document, **keys}))


def recast(folder: Path, file: str, column: str, change: Callable[[pa.ChunkedArray], Any]) -> None:
    table = pyarrow.parquet.read_table(folder / file)
    place = table.column_names.index(column)
    pyarrow.parquet.write_table(table.set_column(place, column, change(table.column(column))), folder / file)


def filled(value: Any) -> Callable[[pa.ChunkedArray], Any]:
    """Write the value into the last row alone."""
    return lambda column: pa.array([*column.to_pylist()[:-1], value])


WRONG_SUMMARY: list[dict[str, Any]] = [
    {"wall_s": "x"}, {"wall_s": -1}, {"wall_s": [1]}, {"accuracy_mean": "x"}, {"accuracy_mean": {"a": 1}}, {"bytes_sent": "x"},
    {"bytes_sent": 1.5}, {"bytes_sent": -1}, {"warnings": "x"}, {"warnings": [1]}, {"records_unscored": "x"},
    {"time_to_accuracy_s": "x"}, {"time_to_accuracy_s": None}, {"time_to_accuracy_s": {"x": 1}}, {"lateness_p99_ms": "x"},
    {"lateness_p99_ms": 1e308}, {"peers_lost": 5}, {"peers_lost": ["x"]}, {"peers_lost": [4]}, {"peers_lost_unasked": [-1]},
    {"peers": 1e308}, {"peers": -1}, {"completed": "x"}, {"reason": 5}, {"of a later program": 1e308},
]  # fmt: skip


@pytest.mark.parametrize("keys", WRONG_SUMMARY, ids=str)
def test_an_invalid_summary_is_refused(keys: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = Experiment.read(folder / "experiment.toml")
    changed(folder, "summary.json", peers_lost_unasked=[])
    assert is_complete(folder, experiment)
    changed(folder, "summary.json", **keys)
    assert not is_complete(folder, experiment)
    refused(folder, "summary.json", capsys)


WRONG_COLUMNS: list[tuple[str, str, Callable[[pa.ChunkedArray], Any]]] = [
    *[("metrics.parquet", name, filled(None)) for name in ("time_s", "peer", "name", "value")],
    *[("metrics.parquet", "time_s", filled(value)) for value in (-1.0, math.inf, math.nan, 1e308)],
    *[("metrics.parquet", "peer", filled(value)) for value in (-2, PEERS)],
    ("metrics.parquet", "value", filled(1e308)),
    ("metrics.parquet", "value", lambda column: pa.array(["x"] * len(column))),
    *[("links.parquet", name, lambda column: pa.array(["x"] * len(column))) for name in ("source", "bytes", "time_s")],
    *[("links.parquet", name, lambda column: pa.nulls(len(column))) for name in ("bytes", "delay_asked_s")],
    *[("links.parquet", name, filled(-1)) for name in ("source", "target", "bytes", "messages")],
    *[("links.parquet", name, filled(PEERS)) for name in ("source", "target")],
    *[("links.parquet", name, filled(-math.inf)) for name in ("delay_asked_s", "delay_measured_s", "rate_asked_bytes_per_s")],
    ("links.parquet", "delay_measured_s", filled(1e300)),
]


@pytest.mark.parametrize(("file", "column", "change"), WRONG_COLUMNS)
def test_an_invalid_table_is_refused(
    file: str, column: str, change: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recast(folder, file, column, change)
    refused(folder, file, capsys)
    with pytest.raises(ValueError, match=rf"{file}: damaged"):
        Result.read(folder).table(file)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("summary.json", DEEP),
        ("summary.json", b"[]"),
        ("manifest.json", DEEP),
        ("manifest.json", b"null"),
        ("manifest.json", b'{"places": ["a"]}'),
        ("manifest.json", b'{"places": [1, 2, 3, 4]}'),
        ("manifest.json", b'{"machine": 5}'),
        ("manifest.json", b'{"shared_segments": {"uplinks": [-1]}}'),
        ("experiment.toml", b"a=" + b"[" * 400),
        ("experiment.toml", b"\xff"),
        ("events.jsonl", DEEP + b"\n{}"),
        ("events.jsonl", b"[]\n{}"),
        ("events.jsonl", b'{"time_s": "x"}\n{}'),
        ("events.jsonl", b'{"time_s": 1e308}\n{}'),
        ("events.jsonl", b'{"kind": 5}\n{}'),
        ("events.jsonl", b'{"peer": [1]}\n{}'),
        ("metrics.parquet", b"hello"),
        ("links.parquet", b""),
    ],
)
def test_an_invalid_file_is_refused(file: str, content: bytes, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / file).write_bytes(content)
    refused(folder, file, capsys)
    with pytest.raises(ValueError, match=file):
        Result.read(folder).check()


def test_figures_at_their_bounds_are_drawn(folder: Path) -> None:
    for file, column, value in (
        ("metrics.parquet", "value", MOST), ("metrics.parquet", "time_s", 1e12), ("links.parquet", "bytes", 10**15),
        ("links.parquet", "delay_asked_s", 1e12), ("links.parquet", "delay_measured_s", -1e12),
        ("links.parquet", "rate_measured_bytes_per_s", MOST), ("links.parquet", "staleness_steps", math.nan),
    ):  # fmt: skip
        recast(folder, file, column, filled(value))
    changed(folder, "summary.json", wall_s=1e12, loss_mean=MOST, bytes_sent=10**15, consensus_distance=None)
    assert main(["report", str(folder)]) == 0


def refused(folder: Path, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert that the command prints one line with the file and the cure."""
    assert main(["report", str(folder)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert str(folder / file) in told
    assert "run it again" in told or "remove that line" in told
