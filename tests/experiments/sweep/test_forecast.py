"""Sweeps that do not go well: runs that lose peers, combinations that cannot be built; what may be concluded from few seeds."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from grapevine.experiments.cli.main import main
from grapevine.experiments.config.experiment import ConfigError, Experiment
from grapevine.experiments.exit_status import ExitStatus
from grapevine.experiments.results.result import Result
from grapevine.experiments.study.differences import BETTER, MISSING, UNDECIDED, WORSE, Difference, counted, differences
from grapevine.experiments.study.figures import dots
from grapevine.experiments.study.page import write_study
from grapevine.experiments.study.study import Study
from grapevine.experiments.sweep import sweep as sweeps
from grapevine.experiments.sweep.cells import CellResult, Measure, cell_rows, cells_of, measures
from grapevine.experiments.sweep.estimate import Estimate, interval
from grapevine.experiments.sweep.forecast import Timing, invalid_cells, no_solo
from grapevine.experiments.sweep.plan import Point, read_sweep
from grapevine.experiments.sweep.sweep import Attempt, carry_out
from grapevine.experiments.tasks import Quadratic
from tests.experiments.recorded import record_run
from tests.experiments.sweep.studies import planned

PAIRS = """
peers = 9
[world]
name = "virtual"
[devices]
name = "uniform"
speed = "1000 samples/s"
[task]
name = "quadratic"
[stop]
steps = 3
[sweep]
"strategy.name" = ["ako", "slices"]
"topology.name" = ["ring", "complete"]
seed = [1, 2]
"""


# -- runs that lose peers unasked


@pytest.mark.slow
def test_a_run_that_lost_peers_is_reported_left_out_and_repeated(tmp_path: Path, command: Any) -> None:
    """A stand-in's accuracy is a tenth of its seed; seed 4 loses peer 1."""
    text = "[stop]\nsteps = 1\naccuracy = 0.5\n[sweep]\npeers = [2]\nseed = [1, 3, 4]"
    sweep, out = planned(tmp_path, text), tmp_path / "out"
    carried = carry_out(sweep, out, 2, command)
    assert carried.status is ExitStatus.LOST
    assert [attempt.state for attempt in carried.attempts] == ["completed", "completed", "lost peers"]
    assert carried.attempts[2].reason == "lost peer 1, which no event of the file killed (peer 1 at 1.5 s: ended by SIGKILL)"
    (cell,) = cells = cells_of(sweep, carried, out)
    assert cell.estimate("accuracy_mean") == (pytest.approx(0.2), pytest.approx(1.27062, rel=1e-4), 2, 0.0)
    shown = {measure.key: cell.shown(measure) for measure in measures(cells)}
    assert shown["accuracy_mean"].endswith(" *")
    assert shown["time_to_target_s"] == "2 ± 1 † *"
    assert {"warnings", "records_unscored", "lateness_p99_ms"} <= shown.keys()
    (row,) = cell_rows(sweep, cells)
    assert (row["n"], row["runs_damaged"], row["peers_lost_unasked"]) == (2, 1, 1)
    assert (row["warnings.mean"], row["records_unscored.mean"], row["lateness_p99_ms.max"]) == (1.0, 2.0, 3.5)
    write_study(Study("s", sweep, cells, "c", "t"), out / "report.html")
    page = (out / "report.html").read_text()
    assert "peers=2,seed=4 is left out, and means are over the other 2 of 3: it lost peer 1" in page
    assert "* without the runs that lost peers which no event of the file killed" in page
    assert "2: 2 of 2 runs: x" in page
    (out / "inputs" / "well").touch()
    again = carry_out(sweep, out, 2, command)
    assert [attempt.state for attempt in again.attempts] == ["skipped", "skipped", "completed"]
    assert again.status is ExitStatus.DONE


@pytest.mark.slow
def test_a_sweep_ends_with_the_worst_of_its_runs(tmp_path: Path, command: Any) -> None:
    statuses = {"[1]": 0, "[1, 4]": 3, "[1, 4, 5]": 1}
    for seeds, status in statuses.items():
        assert carry_out(planned(tmp_path, f"[sweep]\nseed = {seeds}"), tmp_path / f"{status}", 2, command).status == status


def test_a_trial_that_lost_peers_is_not_chosen(tmp_path: Path, command: Any) -> None:
    sweep = planned(tmp_path, '[sweep]\nseed = [1]\n[tune]\n"optimizer.learning_rate" = [0.1, 0.2]\nseed = 4')
    carried = carry_out(sweep, tmp_path / "out", 2, command)
    assert carried.scores == [[None, None]]
    assert [attempt.state for attempt in carried.attempts] == ["not run"]
    assert carried.status is ExitStatus.INCOMPLETE


@pytest.mark.slow
def test_the_command_tells_of_losses(tmp_path: Path, command: Any, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sweeps.carry_out, "__defaults__", (1, command, lambda standing: None))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "study.toml").write_text('[sweep]\n"task.batch_size" = [8]\nseed = [1, 3, 4]')
    assert main(["sweep", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out")]) == 3
    printed = capsys.readouterr()
    assert "seed=4: lost peers (lost peer 1" in printed.err
    assert "2 of 3" in printed.out
    assert "* without the runs that lost peers" in printed.out
    assert "lost peers: task.batch_size=8,seed=4: lost peer 1, which no event of the file killed" in printed.out


# -- combinations that cannot be built


@pytest.mark.slow
def test_what_cannot_be_built_is_known_before_anything_starts(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    file, out = tmp_path / "pairs.toml", tmp_path / "out"
    file.write_text(PAIRS)
    (invalid,) = invalid_cells(read_sweep(file)).values()
    assert (invalid.where, invalid.runs) == ("strategy.name ako, topology.name ring", 2)
    assert 'strategy.name: "ako" shares gradients, which is unstable on this graph ("ring")' in invalid.reason
    assert main(["sweep", str(file), "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert "1 of 4 combinations cannot be built, and nothing was started; take them out, or write skip_invalid = true" in told
    assert f"\n  {invalid}" in told
    assert not out.exists()
    assert main(["check", str(file)]) == 2
    told = capsys.readouterr().out
    assert "4 combinations, 8 runs" in told
    assert "estimated: " in told
    assert "1 combination (2 runs) cannot be built and stop the sweep" in told
    assert str(invalid) in told
    assert 'without "solo"' in told
    assert main(["check", str(file), "--json"]) == 2
    figures = json.loads(capsys.readouterr().out)
    assert (figures["runs"], figures["trials"], figures["invalid"][0]["runs"]) == (8, 0, 2)
    assert figures["estimated_s"] > 0


@pytest.mark.slow
def test_they_are_left_out_where_the_file_says_so(
    tmp_path: Path,
    command: Any,
    monkeypatch: Any,
    capsys: Any,
) -> None:
    monkeypatch.setattr(sweeps.carry_out, "__defaults__", (1, command, lambda standing: None))
    monkeypatch.setenv("COLUMNS", "200")
    file, out = tmp_path / "pairs.toml", tmp_path / "out"
    file.write_text(PAIRS.replace("[sweep]", "[sweep]\nskip_invalid = true"))
    assert main(["check", str(file)]) == 0
    assert "are left out (skip_invalid = true)" in capsys.readouterr().out
    assert main(["sweep", str(file), "--out", str(out), "--jobs", "2", "--quiet"]) == 0
    assert "left out, as the file says: strategy.name ako, topology.name ring (2 runs)" in capsys.readouterr().out
    with open(out / "table.csv", newline="") as opened:
        assert len(list(csv.DictReader(opened))) == 6
    assert "Left out, as the file says: strategy.name ako, topology.name ring" in (out / "report.html").read_text()
    file.write_text(PAIRS.replace("[sweep]", "[sweep]\nskip_invalid = true").replace('["ako", "slices"]', '["ako"]').replace(
        '["ring", "complete"]', '["ring"]'))  # fmt: skip
    assert main(["sweep", str(file), "--out", str(out)]) == 2
    assert "1 of 1 combination cannot be built, and nothing was started; mend the file" in capsys.readouterr().err


def test_a_combination_with_a_candidate_that_cannot_be_built_is_invalid(tmp_path: Path) -> None:
    text = PAIRS + '[tune]\n"strategy.fill" = [0.5, 0.9]'
    sweep = planned(tmp_path, text.replace('["ring", "complete"]', '["complete"]'))
    assert invalid_cells(sweep) == {}
    tuned = planned(tmp_path, PAIRS.replace('"topology.name" = ["ring", "complete"]\n', "").replace("peers = 9", "peers = 4")
                    + '[tune]\n"topology.name" = ["complete", "ring"]')  # fmt: skip
    (invalid,) = invalid_cells(tuned).values()
    assert (invalid.where, invalid.runs) == ("strategy.name ako", 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('skip_invalid = "yes"', 'sweep.skip_invalid: "yes" is not valid; write true or false'),
        ("skip_invalid = [true]", "sweep.skip_invalid: [true] is not valid"),
        ("baseline = 3", "sweep.baseline: 3 is not valid; write text"),
        ('baseline = "solo"', 'sweep.baseline: "solo" is not a choice of the first axis, peers; name one of: 2, 3'),
    ],
)
def test_options_without_effect_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(tmp_path, f"[sweep]\n{text}\npeers = [2, 3]\nseed = [1]")
    assert message in str(caught.value)


def test_options_of_several_tables_must_agree(tmp_path: Path) -> None:
    blocks = "[[sweep]]\nskip_invalid = {}\npeers = [2]\n[[sweep]]\nskip_invalid = {}\npeers = [3]"
    assert planned(tmp_path, blocks.format("true", "true")).options.skip_invalid
    with pytest.raises(ConfigError, match=r"two \[\[sweep\]\] tables"):
        planned(tmp_path, blocks.format("true", "false"))


def test_every_problem_and_fleet_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 peers x 2 seeds make 4 problems, whatever network and learning rate vary."""
    made: list[tuple[int, int]] = []
    problem = Quadratic.problem

    def counting(self: Quadratic, peers: int, partition: Any, seed: int) -> Any:
        made.append((peers, seed))
        return problem(self, peers, partition, seed)

    monkeypatch.setattr(Quadratic, "problem", counting)
    sweep = planned(
        tmp_path,
        '[task]\nname = "quadratic"\n[network]\nname = "uniform"\n[sweep]\npeers = [3, 4]\n"network.delay" = ["1 ms", "2 ms"]\n'
        '"optimizer.learning_rate" = [0.1, 0.2]\nseed = [1, 2]',
    )
    looked: list[Experiment] = []
    assert invalid_cells(sweep, lambda cell, fleet: looked.append(fleet.experiment)) == {}
    assert sorted(made) == [(3, 1), (3, 2), (4, 1), (4, 2)]
    assert len(looked) == len(sweep.cells) == 8


def test_an_estimate_grows_with_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from grapevine.experiments.fleet import build
    from grapevine.experiments.sweep import forecast

    monkeypatch.setattr(forecast, "_step_s", lambda fleet, steps: 0.01)
    monkeypatch.setattr(forecast, "_score_s", lambda fleet: 0.001)
    (point,) = planned(tmp_path, PAIRS.partition("[sweep]")[0] + "[sweep]\nseed = [1]").points
    few = Timing().run_s(build(point.experiment))
    # 9 peers x 3 steps of 1 ms (a sample at 1000 samples/s), a record every second, one more at either end
    records = 0.003 + 2
    assert few == pytest.approx(forecast.START_S + 27 * 0.01 + 9 * records * 0.001, rel=1e-3)
    many = Timing().run_s(build(point.experiment.set("stop.steps", "3000")))
    assert many == pytest.approx(forecast.START_S + 27_000 * 0.01 + 9 * (3 + 2) * 0.001, rel=1e-3)
    live = Timing().run_s(build(point.experiment.set("world.name", "processes").set("stop.steps", "3000")))
    assert live == pytest.approx(forecast.START_LIVE_S + 3, rel=0.3)


def test_strategies_are_compared_with_solo(tmp_path: Path) -> None:
    names = '[topology]\nname = "complete"\n[sweep]\n"strategy.name" = [{}]'
    assert 'without "solo"' in no_solo(planned(tmp_path, names.format('"ako", "slices"')))
    assert no_solo(planned(tmp_path, names.format('"ako", "solo"'))) == ""
    assert no_solo(planned(tmp_path, names.format('"ako"'))) == ""


# -- what few seeds say


def cell(label: str, figures: dict[int, dict[str, float]]) -> CellResult:
    """A cell whose runs had these figures, by seed."""
    made = CellResult({"variant": label}, (), (), 0.9, {}, ())
    made.__dict__["runs"] = [{"seed": float(seed), **run} for seed, run in figures.items()]
    return made


def test_differences_are_taken_seed_by_seed() -> None:
    """Both vary by tens of seconds from seed to seed, and differ by about two: paired, that is certain."""
    luck = np.random.default_rng(3)
    shared = luck.normal(100, 30, 5)
    fast, slow = shared + luck.normal(0, 0.5, 5), shared + 2 + luck.normal(0, 0.5, 5)
    one = cell("fast", {seed: {"t": value} for seed, value in enumerate(fast)})
    other = cell("slow", {seed: {"t": value} for seed, value in reversed(list(enumerate(slow)))})
    found = one.ahead_of(other, "t")
    assert found is not None
    low, high = stats.ttest_rel(slow, fast).confidence_interval(0.95)
    assert (found.mean, found.half, found.n) == (pytest.approx(np.mean(slow - fast)), pytest.approx((high - low) / 2), 5)
    assert found.half < 2 < stats.ttest_ind(slow, fast).confidence_interval(0.95).high


def test_only_seeds_that_both_have_count() -> None:
    one = cell("a", {1: {"t": 1.0}, 2: {"t": 2.0}, 3: {"t": 9.0}})
    assert one.ahead_of(cell("b", {2: {"t": 5.0}, 1: {"t": 2.0}, 7: {"t": 0.0}}), "t") == (2.0, pytest.approx(12.7062), 2, 0.0)
    assert one.ahead_of(cell("b", {1: {}, 2: {"t": 5.0}}), "t") is None  # a mean over those that reach it would flatter
    assert one.ahead_of(cell("b", {7: {"t": 0.0}}), "t") is None


def test_a_difference_below_the_record_interval_is_undecided() -> None:
    time, share = Measure("time_to_target_s", "time", "s", 1.0), Measure("accuracy_mean", "accuracy", "%", 0.01)

    def verdict(measure: Measure, *estimate: float | None) -> str:
        found = Estimate(*estimate) if estimate else None  # type: ignore[arg-type]
        return Difference((), "", "b", "a", measure, found).verdict

    assert verdict(time, 1.0, 0.0, 3, 1.0) == UNDECIDED
    assert verdict(time, 2.0, 0.0, 3, 1.0) == WORSE
    assert verdict(time, -2.0, 1.5, 3, 1.0) == BETTER
    assert verdict(time, -2.0, 2.5, 3, 1.0) == UNDECIDED
    assert verdict(share, 0.02, 0.01, 3) == BETTER
    assert verdict(share, 0.02, None, 1) == UNDECIDED
    assert verdict(share) == MISSING


def test_a_time_is_shown_no_finer_than_it_is_known() -> None:
    assert interval(Estimate(12.0, 0.0, 3, 1.0)) == "12 ± 1 †"
    assert interval(Estimate(12.0, 0.4, 3, 1.0)) == "12 ± 1 †"
    assert interval(Estimate(12.0, 2.5, 3, 1.0)) == "12.0 ± 2.5"
    assert interval(Estimate(12.25, None, 1, 0.5)) == "12.25 ± 0.5 †"


def study_of(tmp_path: Path, option: str = "") -> Study:
    """Three rows in two places, three seeds: b is always 2 s after a, c is 1 s before or after a."""
    text = f'[sweep]\n{option}\nvariant = [{{label = "a", peers = 2}}, {{label = "b", peers = 3}}, {{label = "c", peers = 4}}]'
    sweep = planned(tmp_path, text + '\n"network.name" = ["uniform", "lan"]\nseed = [1, 2, 3]')
    shift = {"a": (0, 0, 0), "b": (2, 2.1, 1.9), "c": (1, -1, 0.5)}
    cells = []
    for plan in sweep.cells:
        runs = {seed: {"time_to_target_s": 10.0 * seed + shift[plan.values["variant"]][seed - 1]} for seed in (1, 2, 3)}
        made = cell("", runs)
        object.__setattr__(made, "values", plan.values)
        cells.append(made)
    return Study("s", sweep, cells, "c", "t")


def test_rows_are_compared_with_the_best_or_with_a_baseline(tmp_path: Path) -> None:
    shown = [Measure("time_to_target_s", "time to 90 %", "s", 1.0)]
    study = study_of(tmp_path)
    found = differences(study, shown)
    assert [(each.row, each.against, each.verdict) for each in found[:2]] == [("b", "a", WORSE), ("c", "a", UNDECIDED)]
    assert found[0].shown() == "+2.00 ± 0.25 (n = 3)"
    assert counted(study, found) == ["Time to 90 %: the best row is ahead of every other, seed by seed, in 0 of 2 places."]
    study = study_of(tmp_path, 'baseline = "b"')
    said = counted(study, differences(study, shown))
    assert said[0] == "Time to 90 %: a against b: better in 2, worse in 0, undecided in 0 of 2 places."


def test_a_target_that_the_baseline_never_reaches_is_named(tmp_path: Path) -> None:
    shown = [Measure("time_to_target_s", "time to 90 %", "s", 1.0)]
    study = study_of(tmp_path, 'baseline = "a"')
    for each in study.cells:
        if each.values["variant"] == "a" and each.values["network.name"] == "lan":
            each.__dict__["runs"] = [{"seed": float(seed), "accuracy_mean": 0.5} for seed in (1, 2, 3)]
        if each.values["variant"] == "c":
            each.runs[1].pop("time_to_target_s")
    found = {(each.row, each.column): each for each in differences(study, shown)}
    assert found["b", "uniform"].verdict == WORSE
    assert found["b", "lan"].verdict == found["b", "lan"].shown() == "not reached by a"
    assert found["c", "uniform"].verdict == "not reached by c"
    assert found["c", "lan"].verdict == "not reached by a and c"
    said = counted(study, list(found.values()))
    assert said[0] == "Time to 90 %: b against a: better in 0, worse in 1, undecided in 0, not reached by a in 1 of 2 places."


def test_whiskers_stay_where_values_can_be(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    for place, each in enumerate(study.cells):
        each.__dict__["runs"] = [{"spread": value, "accuracy_mean": value} for value in (0.0, 0.01 * place, 0.1)]
        object.__setattr__(each, "attempts", ())
    for key in ("spread", "accuracy_mean"):
        figure = dots(study, (), Measure(key, key, "", 0.01))
        assert figure is not None
        for row in figure["data"]:
            assert row["type"] == "scatter"  # no bar, which would have to begin at 0
            for mean, down in zip(row["y"], row["error_y"]["arrayminus"], strict=True):
                assert 0 < down <= mean


def test_attempts_know_what_is_damaged() -> None:
    point = Point("x", {}, Experiment())
    assert [(Attempt(point, state).done, Attempt(point, state).damaged) for state in ("completed", "lost peers", "failed")] == [
        (True, False), (False, True), (False, False),
    ]  # fmt: skip


def test_the_comparison_of_single_runs_says_that_peers_were_lost(tmp_path: Path) -> None:
    from grapevine.experiments.report.page import write_report

    for name, lost in (("well", ()), ("ill", (1,))):
        record_run(tmp_path / name, name, lost=lost)
        path = tmp_path / name / "summary.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"peers_lost_unasked": list(lost)}))
    write_report([tmp_path / "well", tmp_path / "ill"], tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("with losses (peer 1): 3 s are over") == 1
    assert math.isfinite(Result.read(tmp_path / "ill").summary["wall_s"])
