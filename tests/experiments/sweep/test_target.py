"""The target of a sweep: an accuracy, a given loss, or the lowest loss that most cells reach."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from grapevine.experiments.config.experiment import ConfigError
from grapevine.experiments.results.curves import Reached
from grapevine.experiments.results.result import METRIC_COLUMNS, Result
from grapevine.experiments.sweep.plan import read_sweep
from grapevine.experiments.sweep.target import Target, target_of


def recorded(folder: Path, losses: list[float], **summary: float) -> Result:
    """Write a run with these losses of the fleet, one record a second from 0 s, and read it."""
    folder.mkdir()
    rows = [(float(at), -1, at, "loss_mean", loss) for at, loss in enumerate(losses)]
    columns = dict(zip(METRIC_COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
    parquet.write_table(pyarrow.table(columns), folder / "metrics.parquet")  # pandas would write nan as a gap
    last = losses[-1] if math.isfinite(losses[-1]) else None
    (folder / "summary.json").write_text(json.dumps({"completed": True, "reason": "", "loss_mean": last, **summary}))
    (folder / "manifest.json").write_text("{}")
    return Result.read(folder)


def cells_of(folder: Path, *cells: list[list[float]], **summary: float) -> list[list[Result]]:
    """Write cells of runs with these losses."""
    found = []
    for at, cell in enumerate(cells):
        found.append([recorded(folder / f"{at}-{run}", losses, **summary) for run, losses in enumerate(cell)])
    return found


def test_the_lowest_loss_that_two_thirds_of_the_cells_reach_in_every_run(tmp_path: Path) -> None:
    good = [[4.0, 1.0, 0.5], [4.0, 1.3, 0.4]]
    fair = [[4.0, 2.0, 1.0], [4.0, 1.23, 3.0]]  # its worse run comes down to 1.23, and goes up again
    bad = [[4.0, 4.0, 3.9], [4.0, 1.0, math.nan]]
    cells = cells_of(tmp_path, good, fair, bad)
    target = target_of(0.9, None, cells)
    assert target == Target("loss_mean", 1.3, chosen=True)  # 1.23, rounded up to two digits
    assert target.words == "a loss of 1.3"
    assert [target.reached(run) for run in (*cells[0], *cells[1], cells[2][0])] == [
        Reached(1.0, 1.0), Reached(1.0, 1.0), Reached(2.0, 1.0), Reached(1.0, 1.0), None,
    ]  # fmt: skip
    assert target_of(0.9, 0.45, cells) == Target("loss_mean", 0.45)
    assert Target("loss_mean", 0.45).reached(cells[0][0]) is None


def test_the_loss_of_a_known_optimum_is_taken_off(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, [[4.0, 1.5, 1.25]], loss_of_optimum=1.0, excess_loss=0.25)
    target = target_of(0.9, None, cells)
    assert target == Target("excess_loss", 0.25, chosen=True)
    assert target.reached(cells[0][0]) == Reached(2.0, 1.0)
    assert target_of(0.9, 0.5, cells).words == "an excess loss of 0.5"
    assert target_of(0.9, 0.5, cells).reached(cells[0][0]) == Reached(1.0, 1.0)


def test_a_level_that_is_no_better_than_the_start_is_no_target(tmp_path: Path) -> None:
    worse = [[1.0, 2.0, 3.0]]
    target = target_of(0.9, None, cells_of(tmp_path, worse, worse, [[1.0, 0.5, 0.1]]))
    assert math.isnan(target.level)
    assert target.chosen


def test_a_task_with_accuracy_keeps_its_target(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, [[4.0, 1.0]], accuracy_mean=0.3)
    assert target_of(0.8, None, cells) == Target("accuracy_mean", 0.8)
    assert target_of(0.8, None, cells).words == "80 %"
    assert target_of(0.8, 2.0, cells) == Target("loss_mean", 2.0)
    assert target_of(0.8, None, [[]]) == Target("accuracy_mean", 0.8)


@pytest.mark.parametrize(("given", "level"), [(0.071, 0.071), (0.0711, 0.072), (1234.0, 1300.0), (-0.237, -0.23), (0.0, 0.0)])
def test_a_chosen_level_is_rounded_up_to_two_digits(given: float, level: float, tmp_path: Path) -> None:
    assert target_of(0.9, None, cells_of(tmp_path, [[5000.0, given]])).level == level


@pytest.mark.parametrize("given", ['"low"', "true", "nan", "[1.0]"])
def test_a_target_that_is_no_number_is_refused(given: str, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(f"[sweep]\npeers = [3, 4]\ntarget_loss = {given}")
    with pytest.raises(ConfigError, match=r"sweep.target_loss.* is not valid; write a number, such as 0.1"):
        read_sweep(tmp_path / "s.toml")
    (tmp_path / "s.toml").write_text("[sweep]\npeers = [3, 4]\ntarget_loss = 1")
    assert read_sweep(tmp_path / "s.toml").options.target_loss == 1
