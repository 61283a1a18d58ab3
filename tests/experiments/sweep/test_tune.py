"""Tuning: the best trial, wider lists, and trials that fail; fake commands replace the runs."""

from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from grapevine.experiments.results.result import Result
from grapevine.experiments.study.page import write_study
from grapevine.experiments.study.study import Study
from grapevine.experiments.sweep.cells import cell_rows, cells_of, trial_rows
from grapevine.experiments.sweep.sweep import SweepProgress, carry_out
from grapevine.experiments.sweep.tune import Score, Tune, best, score_of
from tests.experiments.sweep.stand_in import measured
from tests.experiments.sweep.studies import TUNED, planned, recorded


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ([Score(3.0, 0.9, 1.0), Score(2.0, 0.8, 1.0), Score(None, 0.99, 0.1)], 1),
        ([Score(2.0, 0.8, 1.0), Score(2.0, 0.9, 1.0), Score(2.0, 0.9, 0.5)], 2),
        ([Score(None, 0.7, 1.0), Score(None, 0.8, 3.0), None], 1),
        ([Score(None, None, 2.0), Score(None, None, 1.0), Score(None, None, math.nan)], 1),
        ([Score(None, math.nan, math.nan), Score(None, 0.1, 9.0)], 1),
        ([Score(2.0, 0.9, 1.0), Score(2.0, 0.9, 1.0)], 0),
        ([None, None], None),
        ([], None),
    ],
)
def test_the_best_trial(scores: list[Score | None], chosen: int | None) -> None:
    assert best(scores) == chosen


def test_a_choice_at_an_end_of_its_list_is_reported() -> None:
    tried = [{"optimizer.learning_rate": rate} for rate in (0.1, 0.4, 0.2)]
    tune = Tune(tuple(tried), 1, None)
    assert tune.at_an_end(tried[1], tried) == ["optimizer.learning_rate"]
    assert tune.at_an_end(tried[2], tried) == []
    assert tune.in_words(tried[2], tried) == "learning rate 0.2, best of 3"
    more = [*tried, {"optimizer.learning_rate": 0.8}]
    assert tune.in_words(more[3], more) == "learning rate 0.8, widened to 0.8, best of 4"
    words = [{"strategy.name": "a"}, {"strategy.name": "b"}]
    assert Tune(tuple(words), 1, None).at_an_end(words[0], words) == []


def wider(values: list[Any], chosen: Any, added: tuple[Any, ...] = ()) -> list[Any]:
    """Return the values by which the list of a key is widened when one of its values is the best."""
    tune = Tune(tuple({"k": value} for value in values), 1, None)
    return [each["k"] for each in tune.wider({"k": chosen}, [{"k": value} for value in (*values, *added)])]


def test_a_list_is_widened_by_its_own_ratio_up_to_a_limit() -> None:
    assert wider([0.1, 0.2, 0.4], 0.4) == [0.8]
    assert wider([0.4, 0.1, 0.2], 0.1) == [0.05]
    assert wider([0.1, 0.2, 0.4], 0.2) == []
    assert wider([0.01, 0.1, 0.2], 0.01) == [0.001]  # the ratio of that end
    assert wider([0.1, 0.2, 0.4], 0.8, (0.8,)) == [1.6]
    assert wider([0.1, 0.2, 0.4], 0.4, (0.8,)) == []  # now it lies inside
    assert wider([0.1, 0.2, 0.4], 3.2, (0.8, 1.6, 3.2)) == []
    assert wider([0.1, 0.2, 0.4], 3.2, (0.8, 3.2, 0.05, 0.025)) == [6.4]  # each end by itself
    assert wider([1, 2, 4], 4) == [8]
    assert wider([1, 2, 4], 1) == []  # no whole number is half of it
    assert wider([0.0, 0.5], 0.0) == wider([0.5], 0.5) == wider(["a", "b"], "a") == []
    tune = Tune(({"a": 1, "b": 0.1}, {"a": 1, "b": 0.2}, {"a": 2, "b": 0.1}, {"a": 2, "b": 0.2}), 1, None)
    assert tune.wider({"a": 2, "b": 0.1}, tune.candidates) == [{"a": 4, "b": 0.1}, {"a": 2, "b": 0.05}]


@pytest.mark.slow
def test_measured_runs_use_the_best_trial(tmp_path: Path, command: Any) -> None:
    """0.05 reaches the target at 3 s, 0.1 at 2 s, 0.2 never; when 0.2 reaches it at 1 s, the measured runs are repeated."""
    sweep, out = planned(tmp_path, TUNED), tmp_path / "out"
    measured(tmp_path, 0.05, [0.1, 0.2, 0.5])
    measured(tmp_path, 0.2, [0.3, 0.4])
    seen: list[SweepProgress] = []
    carried = carry_out(sweep, out, 2, command, seen.append)
    assert carried.status == 0
    assert {attempt.point.experiment.optimizer.learning_rate for attempt in carried.attempts} == {0.1}
    assert [score.reached_s for score in carried.scores[0] if score] == [3.0, 2.0, None]
    assert {standing.later for standing in seen} == {6, 0}
    assert {standing.phase for standing in seen} == {"tuning", ""}
    assert [standing.runs for standing in (seen[0], seen[-1])] == [6, 6]
    again = carry_out(sweep, out, 2, command)
    assert {attempt.state for attempt in [*again.trials, *again.attempts]} == {"skipped"}
    measured(tmp_path, 0.2, [0.6])
    for trial in sweep.trials:
        if trial.tuned["optimizer.learning_rate"] == 0.2:
            shutil.rmtree(out / "tuning" / trial.name)
    changed = carry_out(sweep, out, 2, command)
    assert [trial.state for trial in changed.trials] == ["skipped", "skipped", "completed", "completed"] * 2
    assert {attempt.state for attempt in changed.attempts} == {"completed"}
    assert {attempt.point.experiment.optimizer.learning_rate for attempt in changed.attempts} == {0.2}  # 0.4 is no better


@pytest.mark.slow
def test_a_list_whose_best_value_is_at_an_end_is_widened_and_reported(tmp_path: Path, command: Any) -> None:
    """Larger rates are always faster: three more are tried, and a second sweep repeats nothing."""
    sweep, out = planned(tmp_path, TUNED.replace("peers = [2, 3]", "peers = [2]")), tmp_path / "out"
    for place, rate in enumerate((0.05, 0.1, 0.2, 0.4, 0.8, 1.6)):
        measured(tmp_path, rate, [0.0] * (6 - place) + [0.5])
    seen: list[SweepProgress] = []
    carried = carry_out(sweep, out, 2, command, seen.append)
    assert [trial.point.tuned["optimizer.learning_rate"] for trial in carried.trials] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6]
    assert {standing.phase for standing in seen} == {"tuning", "widening", ""}
    assert {trial.point.experiment.seed for trial in carried.trials} == {1000}
    assert {attempt.point.experiment.optimizer.learning_rate for attempt in carried.attempts} == {1.6}
    (cell,) = cells = cells_of(sweep, carried, out)
    assert [row["widened"] for row in trial_rows(sweep, cells, carried.trials)] == [False] * 3 + [True] * 3
    (row,) = cell_rows(sweep, cells)
    assert (row["trials"], row["widened"], row["at_an_end"], row["tuned.optimizer.learning_rate"]) == (6, 3, True, 1.6)
    write_study(Study("s", sweep, cells, "c", "t"), out / "report.html")
    page = (out / "report.html").read_text()
    assert "learning rate 1.6, widened to 0.4 and 0.8 and 1.6, best of 6" in page
    assert "the best tuned value is at the end of its list, and the list could not be widened further: 2 (1.6)" in page
    assert "Each combination had 6 trials." in page
    assert cell.tried[-1] == {"optimizer.learning_rate": 1.6}
    again = carry_out(sweep, out, 2, command)
    assert {attempt.state for attempt in [*again.trials, *again.attempts]} == {"skipped"}


@pytest.mark.slow
def test_a_list_is_widened_only_to_values_that_its_field_allows(tmp_path: Path, command: Any) -> None:
    """A fill of 0.5 is followed by 1, and 1 by nothing."""
    text = TUNED.replace("peers = [2, 3]", "peers = [2]")
    text = text.replace('"optimizer.learning_rate" = [0.05, 0.1, 0.2]', '"strategy.fill" = [0.25, 0.5]')
    sweep, out = planned(tmp_path, text + '[strategy]\nname = "slices"'), tmp_path / "out"
    (folder := tmp_path / "f").mkdir()
    script = Path(command(Path(), Path())[3])
    script.write_text(script.read_text().replace('"optimizer", {}).get("learning_rate")', '"strategy", {}).get("fill")'))
    for place, fill in enumerate((0.25, 0.5, 1.0)):
        measured(folder, fill, [0.0] * (3 - place) + [0.5])
    carried = carry_out(sweep, out, 2, lambda file, run: [*command(file, run)[:-1], str(folder)])
    assert [trial.point.tuned["strategy.fill"] for trial in carried.trials] == [0.25, 0.5, 1.0]
    assert {attempt.point.experiment.strategy.fill for attempt in carried.attempts} == {1.0}  # type: ignore[attr-defined]


def test_tuning_chooses_by_validation_and_never_by_the_test_set(tmp_path: Path) -> None:
    """A run whose test accuracy reaches the target first, and its validation accuracy last."""
    folder = recorded(tmp_path, {"accuracy_mean": [0.9, 0.9, 0.9], "validation_accuracy_mean": [0.1, 0.4, 0.6]})
    assert score_of(Result.read(folder), 0.5) == Score(3.0, 0.6, None)
    assert score_of(Result.read(folder), 0.7) == Score(None, 0.6, None)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"validation_accuracy_mean": None}))
    assert score_of(Result.read(folder), 0.7).loss == 0.25  # a task without accuracy
    del summary["validation_accuracy_mean"]
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(ValueError, match=r"validation_accuracy_mean is missing, which tuning needs; .* run it again"):
        score_of(Result.read(folder), 0.5)


@pytest.mark.slow
def test_a_failed_trial_is_not_chosen_and_is_reported(tmp_path: Path, command: Any) -> None:
    """The fake command fails with seed 13: no cell has a best trial then, and nothing is measured."""
    sweep = planned(tmp_path, TUNED.replace("[tune]", "[tune]\nseed = 13"))
    carried = carry_out(sweep, tmp_path / "out", 2, command)
    assert carried.status == 1
    assert {attempt.state for attempt in carried.attempts} == {"not run"}
    assert {attempt.reason for attempt in carried.attempts} == {"none of its 3 trials was completed"}
    assert not list((tmp_path / "out").glob("peers*"))


def test_an_interrupt_while_tuning_leaves_nothing_measured(tmp_path: Path, command: Any) -> None:
    sweep, out = planned(tmp_path, TUNED.replace("[tune]", "[tune]\nseed = 77")), tmp_path / "out"

    def watch(standing: SweepProgress) -> None:
        if standing.running and list(out.glob("tuning/*/up")):
            signal.raise_signal(signal.SIGINT)

    carried = carry_out(sweep, out, 1, command, watch)
    assert carried.status == 130
    assert [trial.state for trial in carried.trials] == ["interrupted", *["not run"] * 5]
    assert {attempt.state for attempt in carried.attempts} == {"not run"}
