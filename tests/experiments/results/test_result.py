"""Reading a run folder back, whole, unfinished and damaged."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from grapevine.experiments.results.recorder import Recorder
from grapevine.experiments.results.result import LINK_COLUMNS, Result, link_figures, median
from tests.experiments.recorded import MANIFEST, TOML, record_run


def _damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_run_is_read_back_as_it_was_recorded(tmp_path: Path) -> None:
    summary = record_run(tmp_path)
    result = Result.read(str(tmp_path))
    assert result.summary == summary
    assert result.weights.shape == (4, 6)
    assert result.weights.dtype == np.float32
    loss = result.metrics.query("name == 'loss' and peer == 2")
    assert loss["value"].tolist() == [2.0, 1.0, 2 / 3]
    fleet = result.metrics.query("peer == -1 and name == 'accuracy_mean'")
    assert fleet["value"].tolist() == [0.25, 0.5, 0.75]
    assert result.links["bytes"].sum() == 3 * 2 * 1000 * (1 + 2 + 3 + 4)
    assert result.events[0]["kind"] == "start"


def test_a_run_still_going_has_all_but_its_weights(tmp_path: Path) -> None:
    Recorder(tmp_path, TOML.format(name="x", peers=2, strategy="solo"), MANIFEST)
    result = Result.read(tmp_path)
    assert list(result.links.columns) == list(LINK_COLUMNS)
    with pytest.raises(ValueError, match=r"did not reach its end \(running\)"):
        _ = result.weights


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_a_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="give a folder written by `grapevine run --out`"):
        Result.read(tmp_path / name)


@pytest.mark.parametrize(
    ("file", "attribute"),
    [
        ("summary.json", "summary"),
        ("manifest.json", "manifest"),
        ("metrics.parquet", "metrics"),
        ("links.parquet", "links"),
        ("weights.npy", "weights"),
    ],
)
def test_a_damaged_file_is_named_with_a_cure(tmp_path: Path, file: str, attribute: str) -> None:
    record_run(tmp_path)
    _damage(tmp_path / file)
    with pytest.raises(ValueError, match=rf"{file}: .*run it again"):
        getattr(Result.read(tmp_path), attribute)


def test_a_table_missing_from_a_complete_run_is_named(tmp_path: Path) -> None:
    record_run(tmp_path)
    (tmp_path / "links.parquet").unlink()
    with pytest.raises(ValueError, match=r"links\.parquet: missing from a complete run"):
        _ = Result.read(tmp_path).links


def test_a_last_event_cut_off_is_skipped_and_an_earlier_one_is_refused(tmp_path: Path) -> None:
    record_run(tmp_path)
    events = tmp_path / "events.jsonl"
    whole = events.read_bytes()
    events.write_bytes(whole + b'{"time_s": 4.0, "ki')
    assert [event["kind"] for event in Result.read(tmp_path).events] == ["start"]
    events.write_bytes(b'{"time_s"\n' + whole)
    with pytest.raises(ValueError, match="line 1 is damaged"):
        _ = Result.read(tmp_path).events


def test_link_figures_sum_the_traffic_and_take_medians_without_nan() -> None:
    rng = np.random.default_rng(0)
    rows = 300
    columns = {name: rng.random(rows) for name in LINK_COLUMNS}
    for name in ("source", "target", "bytes", "messages"):
        columns[name] = rng.integers(0, 4, rows)
    columns["rate_measured_bytes_per_s"][rng.random(rows) < 0.9] = math.nan
    columns["delay_measured_s"][:] = math.nan
    columns["rate_asked_bytes_per_s"][:] = math.inf
    figures = link_figures(columns)
    assert len(figures) == 16
    for link in figures:
        mine = (columns["source"] == link.source) & (columns["target"] == link.target)
        assert (link.bytes, link.messages) == (columns["bytes"][mine].sum(), columns["messages"][mine].sum())
        assert link.rate_asked_bytes_per_s == math.inf
        assert math.isnan(link.delay_measured_s)
        np.testing.assert_equal(link.rate_measured_bytes_per_s, median(columns["rate_measured_bytes_per_s"][mine]))
        assert link.delay_asked_s == np.median(columns["delay_asked_s"][mine])


def test_no_links_have_no_figures() -> None:
    assert link_figures({name: np.empty(0) for name in LINK_COLUMNS}) == []
