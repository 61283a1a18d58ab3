"""Sweeps as studies: named choices, several tables, tuning, cells with intervals; fake commands replace the runs."""

from __future__ import annotations

import csv
import json
import math
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from grapevine.experiments.cli.main import main
from grapevine.experiments.config.experiment import ConfigError, Experiment
from grapevine.experiments.results.result import METRIC_COLUMNS, Result
from grapevine.experiments.study.page import write_study
from grapevine.experiments.study.study import Study
from grapevine.experiments.sweep import plan, sweep
from grapevine.experiments.sweep.cells import cell_rows, cells_of, measures, trial_rows
from grapevine.experiments.sweep.estimate import estimate, interval
from grapevine.experiments.sweep.plan import Sweep, read_sweep
from grapevine.experiments.sweep.sweep import SweepProgress, carry_out
from grapevine.experiments.sweep.tune import Score, Tune, best, score_of
from grapevine.netem import Uniform
from grapevine.peer.strategies import Ako, Slices
from tests.experiments.sweep.test_sweep import command, measured  # noqa: F401

SUITES = Path(__file__).parents[2] / "experiments" / "suites"

TUNED = """
[sweep]
peers = [2, 3]
seed = [1, 2, 3]
[tune]
"optimizer.learning_rate" = [0.05, 0.1, 0.2]
target = 0.5
"""


def planned(folder: Path, text: str) -> Sweep:
    (folder / "study.toml").write_text(text)
    return read_sweep(folder / "study.toml")


# -- the runs of a file


def test_a_named_choice_sets_several_keys(tmp_path: Path) -> None:
    sweep = planned(
        tmp_path,
        """
        [sweep]
        variant = [
            {label = "p = 4", "strategy.name" = "ako", "strategy.schedule" = "fixed", "strategy.parts" = 4},
            {label = "slices", strategy = {name = "slices", fill = 0.5}, network = {rate = "5 Mbit/s", name = "uniform"}},
            {label = "slow", task = {batch_size = 8}},
        ]
        seed = [0, 1]
        """,
    )
    assert sweep.axes == ("variant",)
    assert [point.values for point in sweep.points[:2]] == [{"variant": "p = 4", "seed": seed} for seed in (0, 1)]
    assert [point.name for point in sweep.points[::2]] == ["variant=p-4,seed=0", "variant=slices,seed=0", "variant=slow,seed=0"]
    first, second, third = (cell.points[0].experiment for cell in sweep.cells)
    assert first.strategy == Ako(schedule="fixed", parts=4)
    assert (second.strategy, second.network) == (Slices(fill=0.5), Uniform(rate="5 Mbit/s"))
    assert third.task.batch_size == 8


def test_several_tables_are_swept_one_after_the_other(tmp_path: Path) -> None:
    sweep = planned(
        tmp_path,
        '[[sweep]]\npeers = [3, 4]\n"strategy.name" = ["ako", "slices"]\n'
        '[[sweep]]\n"strategy.name" = ["parameter-server"]\npeers = [5]\n[topology]\nname = "complete"',
    )
    told = [(point.experiment.peers, point.values["strategy.name"]) for point in sweep.points]
    assert told == [(3, "ako"), (3, "slices"), (4, "ako"), (4, "slices"), (5, "parameter-server")]
    assert sweep.axes == ("peers", "strategy.name")


def test_every_cell_tries_the_same_candidates_on_a_seed_of_its_own(tmp_path: Path) -> None:
    sweep = planned(tmp_path, TUNED)
    assert [len(cell.trials) for cell in sweep.cells] == [3, 3]
    assert [len(cell.points) for cell in sweep.cells] == [3, 3]
    for cell in sweep.cells:
        assert [trial.experiment.optimizer.learning_rate for trial in cell.trials] == [0.05, 0.1, 0.2]
        assert {trial.experiment.seed for trial in cell.trials} == {1000}
        assert {trial.experiment.peers for trial in cell.trials} == {cell.values["peers"]}
        for place, rate in enumerate((0.05, 0.1, 0.2)):
            settled = cell.settled(place)
            assert [point.experiment for point in settled] == [
                point.experiment.replace(optimizer=point.experiment.optimizer.__class__(learning_rate=rate))
                for point in cell.points
            ]
            assert {tuple(point.tuned.values()) for point in settled} == {(rate,)}
    assert len({trial.name for trial in sweep.trials}) == 6
    assert sweep.target == 0.5
    assert planned(tmp_path, "[sweep]\nseed = [1]\n[stop]\nsteps = 1\naccuracy = 0.7").target == 0.7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('variant = [{label = "a", peers = 3}, {peers = 4}]', "some choices have a label, and this has none: {peers = 4}"),
        ('variant = [{label = "a", peers = 3}, {label = "a", peers = 4}]', 'two choices are called "a"; label each once'),
        ('variant = [{label = "a"}]', 'sweep.variant: "a" sets nothing; add keys'),
        ('variant = [{label = 4, peers = 3}]', "sweep.variant: 4 is no label; write it as text"),
        ('variant = [{label = "a", seed = 3}]', 'sweep.variant: "a" sets the seed; vary it as a list of its own'),
        ('strategy = [{label = "a", name = "ako"}]', "sweep.strategy: choices with a label set keys of their own"),
        ('peers = [2]\nvariant = [{label = "a", peers = 3}]', "sweep: peers is set by peers and by variant; let one of them"),
        ('variant = [{label = "a", "strategy.fil" = 3}]', "[sweep]: strategy.fil: no such field"),
        ("seed = [1, 1000]\n[tune]\npeers = [2, 3]", "tune.seed: 1000 is one of the measured seeds (1, 1000); tune on another"),
        ("seed = [1]\n[tune]\npeers = [2, 3]\nseed = [1]", "tune.seed: [1] is no seed; give one whole number"),
        ("seed = [1]\n[tune]\npeers = [2]\ntarget = 90", "tune.target: 90 is no share of samples; give a mean accuracy"),
        ("seed = [1000, 4]\n[tune]\npeers = [2, 3]", "tune on another: set tune.seed = 1001"),
        ("seed = [1]\n[tune]\nsed = 3", "tune.sed = 3: no such field; [tune] has: seed, target; did you mean seed?"),
        ("seed = [1]\n[tune]\ntarget = 0.9", "tune: tunes nothing; add lists to it"),
        ("seed = [1]\n[tune]\npeers = 3", 'tune.peers: 3 will not do; write a list of one value or more'),
        ("seed = [1]\n[tune]\npeers = [3, 3]", "tune.peers = [3, 3]: holds a value twice; name each value once"),
        (f"seed = {list(range(10_001))}", "sweep.seed: the lists make 10,001 runs, more than 10,000; shorten the lists"),
        (f"seed = [1]\n[tune]\npeers = {list(range(1, 102))}\nstop.steps = {list(range(1, 102))}",
         "tune: the lists make 10,201 runs, more than 10,000"),
        ("peers = [2]\n[tune]\npeers = [3]", "tune.peers: is swept as well; take it out of [sweep] or of [tune]"),
        ("seed = [1]\n[tune]\npeers = [3, -3]", "[tune]: peers: -3 will not do"),
        ("seed = [1, 2]\n[[sweep]]", "study.toml: line"),
    ],
)  # fmt: skip
def test_invalid_studies_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(tmp_path, f"[sweep]\n{text}")
    assert message in str(caught.value)


def test_lists_that_make_too_many_runs_are_counted_before_any_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_combinations", lambda axes: pytest.fail("combinations were made"))
    lists = "\n".join(f'"{key}" = {list(range(1, 3001))}' for key in ("seed", "peers", "stop.steps"))
    with pytest.raises(ConfigError, match="the lists make 27,000,000,000 runs, more than 10,000"):
        planned(tmp_path, f"[sweep]\n{lists}")


def test_tables_that_vary_different_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the 1st \[\[sweep\]\] varies seed, number 2 varies peers; let all vary the same"):
        planned(tmp_path, "[[sweep]]\nseed = [1]\n[[sweep]]\npeers = [1]")


def test_a_study_cannot_be_read_as_a_single_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tune: is for many runs, and this is one; run the file with `grapevine sweep`"):
        Experiment.parse("[tune]\npeers = [3]")


# -- tuning


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
    assert tune.told(tried[2], tried) == "learning rate 0.2, best of 3"
    more = [*tried, {"optimizer.learning_rate": 0.8}]
    assert tune.told(more[3], more) == "learning rate 0.8, widened to 0.8, best of 4"
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
def test_measured_runs_use_the_best_trial(tmp_path: Path, command: Any) -> None:  # noqa: F811
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
def test_a_list_whose_best_value_is_at_an_end_is_widened_and_reported(tmp_path: Path, command: Any) -> None:  # noqa: F811
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
def test_a_list_is_widened_only_to_values_that_its_field_allows(tmp_path: Path, command: Any) -> None:  # noqa: F811
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
    with pytest.raises(ValueError, match=r"lacks validation_accuracy_mean, which tuning chooses by; .* run it again"):
        score_of(Result.read(folder), 0.5)


def recorded(folder: Path, lines: dict[str, list[float]]) -> Path:
    """Write a run folder with these lines of the fleet, one record per second."""
    run = folder / "recorded"
    run.mkdir()
    rows = [(float(at), -1, at, name, value) for name, line in lines.items() for at, value in enumerate(line, start=1)]
    pandas.DataFrame(rows, columns=list(METRIC_COLUMNS)).to_parquet(run / "metrics.parquet")
    summary = {name: line[-1] for name, line in lines.items()} | {"completed": True, "loss_mean": 0.25, "reason": "over"}
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "manifest.json").write_text("{}")
    return run


@pytest.mark.slow
def test_a_failed_trial_is_not_chosen_and_is_reported(tmp_path: Path, command: Any) -> None:  # noqa: F811
    """The fake command fails with seed 13: no cell has a best trial then, and nothing is measured."""
    sweep = planned(tmp_path, TUNED.replace("[tune]", "[tune]\nseed = 13"))
    carried = carry_out(sweep, tmp_path / "out", 2, command)
    assert carried.status == 1
    assert {attempt.state for attempt in carried.attempts} == {"not run"}
    assert {attempt.reason for attempt in carried.attempts} == {"none of its 3 trials was completed"}
    assert not list((tmp_path / "out").glob("peers*"))


def test_an_interrupt_while_tuning_leaves_nothing_measured(tmp_path: Path, command: Any) -> None:  # noqa: F811
    sweep, out = planned(tmp_path, TUNED.replace("[tune]", "[tune]\nseed = 77")), tmp_path / "out"

    def watch(standing: SweepProgress) -> None:
        if standing.running and list(out.glob("tuning/*/up")):
            signal.raise_signal(signal.SIGINT)

    carried = carry_out(sweep, out, 1, command, watch)
    assert carried.status == 130
    assert [trial.state for trial in carried.trials] == ["interrupted", *["not run"] * 5]
    assert {attempt.state for attempt in carried.attempts} == {"not run"}


# -- cells


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
def test_tables_and_page_of_a_study(tmp_path: Path, command: Any) -> None:  # noqa: F811
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
