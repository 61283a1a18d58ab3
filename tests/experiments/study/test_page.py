"""Cells with intervals, tables and the page of a study, its command, and the suites that come along."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from grapevine.experiments.cli.main import main
from grapevine.experiments.config.experiment import Experiment
from grapevine.experiments.study.page import write_study
from grapevine.experiments.study.study import Study
from grapevine.experiments.sweep import sweep
from grapevine.experiments.sweep.cells import cell_rows, cells_of, measures, trial_rows
from grapevine.experiments.sweep.estimate import estimate, interval
from grapevine.experiments.sweep.plan import read_sweep
from grapevine.experiments.sweep.sweep import carry_out
from tests.experiments.sweep.stand_in import measured
from tests.experiments.sweep.studies import TUNED, planned

SUITES = Path(__file__).parents[3] / "experiments" / "suites"


def test_intervals_are_those_of_student() -> None:
    """Of 1, 2, 3: s = 1, t(2) = 4.3027, so 2 +- 2.484; a normal sample's interval holds its mean 95 times in 100."""
    found = estimate([1.0, 2.0, 3.0])
    assert found is not None
    assert (found.mean, found.n) == (2.0, 3)
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert estimate([4.0]) == (4.0, None, 1, 0.0)
    assert estimate([]) is None
    samples = np.random.default_rng(3).normal(5, 2, (2000, 4))
    held = [abs(each.mean - 5) <= each.half for row in samples if (each := estimate(list(row))) and each.half]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("values", "scale", "text"),
    [
        ([0.82, 0.83, 0.81], 0.01, "82.0 ± 2.5"),
        ([12.0, 12.0], 1.0, "12 ± 0"),
        ([41_000.0, 43_000.0, 42_000.0], 1.0, "42,000 ± 2,484"),
        ([0.001, 0.003], 1.0, "0.002 ± 0.013"),
        ([3.25], 1.0, "3.25"),
        ([0.0, 0.0], 1.0, "0 ± 0"),
    ],
)
def test_intervals_in_words(values: list[float], scale: float, text: str) -> None:
    found = estimate(values)
    assert found is not None
    assert interval(found, scale) == text


@pytest.mark.parametrize(
    ("values", "scale", "most", "text"),
    [
        ([1.0, 4.0, 7.0], 1.0, math.inf, "4.0 (0.0 to 11.5)"),  # 4 +- 7.5
        ([3.0, 4.0, 5.0], 1.0, math.inf, "4.0 ± 2.5"),
        ([0.96, 0.98, 1.0], 0.01, 1.0, "98.0 (93.0 to 100.0)"),
    ],
)
def test_an_interval_ends_where_values_are_not_possible(values: list[float], scale: float, most: float, text: str) -> None:
    found = estimate(values)
    assert found is not None
    assert interval(found, scale, 0.0, most) == text


@pytest.mark.slow
def test_tables_and_page_of_a_study(tmp_path: Path, command: Any) -> None:
    """The fake command's accuracy is a tenth of its seed; seed 5 ends early."""
    sweep, out = planned(tmp_path, TUNED.replace("[1, 2, 3]", "[1, 3, 5]")), tmp_path / "out"
    measured(tmp_path, 0.2, [0.3, 0.4])
    measured(tmp_path, 0.05, [0.3, 0.4])
    carried = carry_out(sweep, out, 2, command)
    assert carried.status == 1
    cells = cells_of(sweep, carried, out)
    for cell, peers in zip(cells, (2, 3), strict=True):
        assert cell.values == {"peers": peers}
        assert cell.estimate("accuracy_mean") == (pytest.approx(0.2), pytest.approx(0.1 * 12.7062, rel=1e-4), 2, 0.0)
        assert cell.estimate("time_to_target_s") == (2.0, 0.0, 2, 1.0)  # the record before was a second earlier
        assert cell.shown(measures(cells)[0]) == "2 ± 1 †"  # and never "± 0"
        times, mean, half = cell.curve("accuracy_mean")
        assert (times.tolist(), mean.tolist(), half.tolist()) == ([1.0, 2.0], [0.2, 0.6], [0.0, 0.0])
    rows = cell_rows(sweep, cells)
    assert [(row["peers"], row["n"], row["trials"], row["tuned.optimizer.learning_rate"]) for row in rows] == [
        ("2", 2, 3, 0.1), ("3", 2, 3, 0.1),
    ]  # fmt: skip
    assert rows[0]["accuracy_mean.mean"] == pytest.approx(0.2)
    trials = trial_rows(sweep, cells, carried.trials)
    assert [row["chosen"] for row in trials] == [False, True, False] * 2
    assert [measure.key for measure in measures(cells)][:2] == ["time_to_target_s", "accuracy_mean"]
    write_study(Study("study <b>", sweep, cells, "grapevine sweep study.toml", "[sweep]"), out / "report.html")
    page = (out / "report.html").read_text()
    for text in (
        "study &lt;b&gt;",
        "learning rate 0.1, best of 3",
        "± ",
        "grapevine sweep study.toml",
        "seed 1000",
        "1 of 3 runs are missing",
    ):
        assert text in page, text
    assert "the best tuned value is at the end of its list" not in page
    assert page.count('class="plot"') == 3


def validated(file: Path, folder: Path) -> list[str]:
    """The command `grapevine run`, with a validation accuracy of None added to its summary: the task has no accuracy."""
    add = (
        "import json, pathlib, sys; from grapevine.experiments.cli.main import main; status = main(sys.argv[1:]); "
        "path = pathlib.Path(sys.argv[-1], 'summary.json'); summary = json.loads(path.read_text()); "
        "path.write_text(json.dumps({'validation_accuracy_mean': None, **summary})); sys.exit(status)"
    )
    return [sys.executable, "-c", add, "run", str(file), "--quiet", "--out", str(folder)]


@pytest.mark.slow
def test_the_command_tunes_measures_and_prints(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """Real runs: quadratics have no accuracy, so the lowest final loss is best; 1.9 overshoots, 0.01 is too slow."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sweep.carry_out, "__defaults__", (1, validated, lambda standing: None))
    file, out = tmp_path / "study.toml", tmp_path / "out"
    file.write_text(
        'peers = 3\n[world]\nname = "virtual"\n[topology]\nname = "complete"\n[task]\nname = "quadratic"\n[stop]\nsteps = 6\n'
        '[sweep]\n"strategy.name" = ["full"]\nseed = [1, 2]\n[tune]\n"optimizer.learning_rate" = [0.01, 0.5, 1.9]'
    )
    assert main(["sweep", str(file), "--out", str(out), "--jobs", "2", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "tuned trials" in " ".join(printed.split())
    assert "± 0" in printed
    with open(out / "tuning.csv", newline="") as opened:
        assert [row["chosen"] for row in csv.DictReader(opened)] == ["False", "True", "False"]
    assert list(pandas.read_parquet(out / "table.parquet")["optimizer.learning_rate"]) == [0.5, 0.5]
    table = pandas.read_parquet(out / "cells.parquet")
    assert list(table["n"]) == [2]
    run = json.loads((out / "strategy.name=full,seed=2" / "summary.json").read_text())
    assert run["seed"] == 2
    assert "learning rate 0.5, best of 3" in (out / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("suite", sorted(SUITES.glob("*.toml")), ids=lambda suite: suite.stem)
def test_every_suite_can_be_read(suite: Path) -> None:
    """Every suite can be read, and those that are tuned have three seeds or more."""
    text = suite.read_text(encoding="utf-8")
    if "sweep]" not in text:
        assert Experiment.read(suite).name == suite.stem
        return
    sweep = read_sweep(suite)
    assert sweep.points[0].experiment.name == suite.stem
    assert sweep.tune is None or min(len(cell.points) for cell in sweep.cells) >= 3
