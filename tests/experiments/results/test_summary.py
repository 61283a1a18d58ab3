"""The summary of a run: closed forms, and null for every unknown figure."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine.experiments.config.experiment import Experiment, Processes, Virtual
from grapevine.experiments.report.summary_text import describe
from grapevine.experiments.results.numbers import peers_text
from grapevine.experiments.results.outcome import Outcome, consensus_distance
from grapevine.experiments.results.result import LinkFigures
from grapevine.experiments.results.summary import KEYS, clean, summarise, time_to_accuracy_s, unfinished
from grapevine.experiments.results.warnings import CAUSES

OUTCOME = Outcome(
    completed=True,
    reason="accuracy reached",
    emulated_s=10.0,
    wall_s=20.0,
    steps=[10, 20, 30],
    bytes_sent=5_000_000,
    messages_sent=60,
    weights=np.array([[0, 0], [3, 0], [0, 3]], np.float32),
    accuracy=[0.8, 0.9, 0.7],
    loss=[0.1, 0.2, 0.6],
    accuracy_of_mean=0.95,
    accuracy_history=[(1.0, 0.4), (2.0, 0.65), (3.0, 0.55), (4.0, 0.9)],
    staleness_steps_mean=1.5,
    lateness_ms=[float(late) for late in range(101)],
)


def _summary(world: str = "processes", dilation: float = 1.0, **changes: Any) -> dict[str, Any]:
    outcome = dataclasses.replace(OUTCOME, **changes)
    experiment = Experiment(name="x", peers=3, world=Processes(dilation=dilation) if world == "processes" else Virtual())
    return summarise(outcome, experiment, spectral_gap=0.5)


def _link(source: int, rate: tuple[float, float], delay_ms: tuple[float, float] = (40.0, 40.0)) -> LinkFigures:
    return LinkFigures(source, source + 1, 10, 1, *rate, delay_ms[0] / 1e3, delay_ms[1] / 1e3)


def test_the_summary_has_every_key_of_the_contract_and_json_can_hold_it() -> None:
    summary = _summary()
    assert set(KEYS) <= summary.keys()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_plain_figures() -> None:
    summary = _summary()
    assert (summary["steps_total"], summary["steps_per_wall_s"]) == (60, 3.0)
    assert summary["accuracy_mean"] == pytest.approx(0.8)
    assert (summary["accuracy_min"], summary["accuracy_max"], summary["accuracy_of_mean"]) == (0.7, 0.9, 0.95)
    assert summary["loss_mean"] == pytest.approx(0.3)
    assert summary["lateness_p99_ms"] == pytest.approx(99.0)
    assert summary["peers_lost"] == []


def test_consensus_distance_is_the_mean_squared_distance_from_the_mean() -> None:
    # the mean is (1, 1): squared distances 2, 5, 5
    assert consensus_distance(OUTCOME.weights) == pytest.approx(4.0)
    assert consensus_distance(np.full((5, 7), 3.25, np.float32)) == 0.0
    assert math.isnan(consensus_distance(np.empty((0, 0), np.float32)))


def test_consensus_distance_does_not_lose_small_differences_of_large_weights() -> None:
    weights = np.array([[4096.0], [4096.5]], np.float32)
    assert consensus_distance(weights) == 0.0625


def test_consensus_distance_is_unmoved_by_a_shift_and_squares_a_scale() -> None:
    weights = np.random.default_rng(0).normal(size=(6, 50))
    assert consensus_distance(weights + 7) == pytest.approx(consensus_distance(weights))
    assert consensus_distance(3 * weights) == pytest.approx(9 * consensus_distance(weights))
    assert consensus_distance(weights) == pytest.approx(weights.var(axis=0).sum())


def test_the_first_time_of_each_level_counts() -> None:
    assert time_to_accuracy_s(OUTCOME.accuracy_history) == {
        "0.5": 2.0, "0.6": 2.0, "0.7": 4.0, "0.8": 4.0, "0.9": 4.0, "0.95": None,
    }  # fmt: skip
    assert set(time_to_accuracy_s([]).values()) == {None}
    assert set(time_to_accuracy_s([(1.0, math.nan)]).values()) == {None}


def test_a_record_without_scores_hides_when_a_level_was_reached_for_the_first_time() -> None:
    first = time_to_accuracy_s([(1.0, 0.55), (2.0, math.nan), (3.0, 0.95)])
    assert (first["0.5"], first["0.6"], first["0.95"]) == (1.0, None, None)


def test_a_figure_without_a_measurement_is_null_and_not_zero() -> None:
    summary = _summary(accuracy=(), loss=(), accuracy_of_mean=math.nan, accuracy_history=(), lateness_ms=(), wall_s=0.0,
                       staleness_steps_mean=math.nan, weights=np.empty((0, 0), np.float32))  # fmt: skip
    learnt = ("accuracy_mean", "accuracy_min", "accuracy_max", "accuracy_of_mean", "loss_mean", "consensus_distance")
    told = ("staleness_steps_mean", "lateness_p99_ms", "steps_per_wall_s", "rate_error_worst", "delay_error_median_ms")
    for key in learnt + told:
        assert summary[key] is None, key


def test_a_lost_peer_is_left_out_of_the_means() -> None:
    weights = np.array([[1, 1], [1, 3], [np.nan, 9]], np.float32)
    summary = _summary(peers_lost=[2], weights=weights, lateness_ms=[0.1])
    assert summary["peers_lost"] == [2]
    assert summary["accuracy_mean"] == pytest.approx(0.85)
    assert summary["loss_mean"] == pytest.approx(0.15)
    assert summary["consensus_distance"] == 1.0
    assert summary["warnings"] == []  # what is not finite was the lost peer's


def test_divergence_of_one_peer_is_a_warning_and_makes_the_mean_loss_null() -> None:
    weights = np.array([[0, 0], [np.inf, 0], [0, 0]], np.float32)
    summary = _summary(weights=weights, loss=[0.1, math.nan, 0.1])
    assert summary["loss_mean"] is None
    assert summary["consensus_distance"] is None
    assert any(f"the weights of peer 1 are not finite; {CAUSES}" in text for text in summary["warnings"])


def test_the_digest_is_of_the_virtual_world_alone_and_of_all_that_is_deterministic() -> None:
    assert _summary("processes")["digest"] is None
    digest = _summary("virtual")["digest"]
    assert len(digest) == 64
    assert _summary("virtual", wall_s=99.0, lateness_ms=[5.0])["digest"] == digest  # the wall clock is not
    weights = OUTCOME.weights.copy()
    weights[0, 0] = np.nextafter(np.float32(0), np.float32(1))
    other: list[dict[str, Any]] = [{"weights": weights}, {"steps": [10, 20, 31]}, {"bytes_sent": 1}, {"emulated_s": 9.0}]
    for changes in other:
        assert _summary("virtual", **changes)["digest"] != digest
    assert _summary("virtual", weights=np.empty((0, 0), np.float32))["digest"] != digest


def test_the_virtual_world_is_never_late() -> None:
    assert _summary("virtual", lateness_ms=())["lateness_p99_ms"] == 0.0


def test_the_links_fidelity_is_the_worst_rate_and_the_median_delay() -> None:
    links = [_link(0, (1e6, 0.95e6), (40, 41)), _link(1, (1e6, 1.01e6), (40, 40.5)), _link(2, (math.inf, 5e8), (0, 0.1)),
             _link(3, (2e6, math.nan), (40, math.nan))]  # fmt: skip
    summary = _summary(links=links, lateness_ms=[1.0])
    assert summary["rate_error_worst"] == pytest.approx(0.05)
    assert summary["rate_error_worst_link"] == [0, 1]
    assert summary["rate_error_median"] == pytest.approx(0.03)
    assert summary["delay_error_median_ms"] == pytest.approx(0.75)
    assert summary["warnings"] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"lateness_ms": [12.0]},
            "fell behind the emulated clock by 12.0 ms (99th percentile): raise world.dilation from 2 to 8",
        ),
        (
            {"links": [_link(0, (1e6, 0.5e6))]},
            "0 -> 1 was measured at 4 Mbit/s where 8 Mbit/s was asked (-50 %): raise world.dilation",
        ),
        ({"links": [_link(0, (1e6, 3e6))]}, "was measured at 24 Mbit/s where 8 Mbit/s was asked (+200 %): jitter"),
        ({"links": [_link(0, (1e6, 1e6), (40, 60))]}, "delays are off by 20.0 ms (median over the links): raise"),
    ],
)
def test_each_warning_has_its_cure(changes: dict[str, Any], said: str) -> None:
    (warning,) = _summary(dilation=2.0, **{"lateness_ms": [0.5], **changes})["warnings"]
    assert said in warning


def test_virtual_time_is_never_advised_a_larger_dilation() -> None:
    links = [_link(0, (1e6, 0.5e6), (40, 90))]
    assert _summary("virtual", links=links, lateness_ms=())["warnings"] == []
    (warning,) = _summary("virtual", links=[_link(0, (1e6, 3e6))], lateness_ms=())["warnings"]
    assert "jitter or small messages" in warning


def test_an_unshaped_link_has_no_error() -> None:
    links = [_link(source, (math.inf, 1e6), (0.0, 30.0)) for source in range(3)]
    summary = _summary(links=links, lateness_ms=[0.5])
    assert (summary["delay_error_median_ms"], summary["rate_error_worst"], summary["warnings"]) == (None, None, [])
    shaped = _summary(links=[*links, _link(3, (math.inf, 1e6), (40.0, 90.0))], lateness_ms=[0.5])
    assert shaped["delay_error_median_ms"] == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("measured", "error"),
    [(1e6, 0.0), (0.5e6, 0.0), (0.7e6, 0.0), (0.25e6, -0.5), (1.5e6, 0.5)],
    ids=["all of it", "its share", "between", "below its share", "more than there is"],
)
@pytest.mark.parametrize("shared", ["uplinks", "downlinks"])
def test_a_link_behind_a_shared_segment_has_no_error_from_its_share_to_its_rate_alone(
    shared: str, measured: float, error: float
) -> None:
    ends = [(0, 1), (0, 2)] if shared == "uplinks" else [(1, 0), (2, 0)]
    links = [LinkFigures(*pair, 10, 1, 8e6, rate, 0.04, 0.04) for pair, rate in zip(ends, (measured, 0.5e6), strict=True)]
    summary = _summary(links=links, lateness_ms=[0.5], **{shared: [1e6, math.inf, math.inf]})
    assert summary["rate_error_worst"] == pytest.approx(abs(error))
    assert bool(summary["warnings"]) == (error != 0)
    if error:
        assert f"where 8 Mbit/s was asked ({100 * error:+.0f} %)" in summary["warnings"][0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": [math.inf, 0.1, 0.1]}, "the test loss of 1 of 3 peers is not finite"),
        ({"loss": [math.nan, 0.1, 0.1]}, "the test loss of 1 of 3 peers is not finite"),
        ({"loss": [30.0] * 3, "loss_initial": 2.0}, "the test loss rose from 2 to 30"),
        (
            {"loss": [5.0] * 3, "loss_initial": 2.0, "accuracy": [0.1] * 3, "accuracy_history": [(0, 0.11), (1, 0.1)]},
            "the test loss rose from 2 to 5",
        ),
        (
            {"accuracy": [0.1] * 3, "accuracy_history": [(0, 0.11), (1, 0.8), (2, 0.1)]},
            "the accuracy had been 80 % and fell back to chance (10 %)",
        ),
    ],
)
def test_a_diverged_run_names_both_causes(changes: dict[str, Any], said: str) -> None:
    (warning,) = _summary(lateness_ms=[0.5], **changes)["warnings"]
    assert said in warning
    assert "the learning rate is too high (lower optimizer.learning_rate), or a peer sent values that spoil others" in warning


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": [5.0] * 3, "loss_initial": 2.0},  # sure of itself and at times wrong, but it did learn
        {"loss": [2.0] * 3, "loss_initial": 2.3, "accuracy": [0.1] * 3, "accuracy_history": [(0, 0.1), (1, 0.1)]},
        {"loss": [math.nan] * 3, "accuracy": [math.nan] * 3, "accuracy_history": []},  # never evaluated
    ],
)
def test_a_run_that_learnt_little_has_not_diverged(changes: dict[str, Any]) -> None:
    assert _summary(lateness_ms=[0.5], **changes)["warnings"] == []


@pytest.mark.parametrize("loss_initial", [math.nan, math.inf])
def test_a_nan_loss_before_the_first_step_is_not_blamed_on_the_learning_rate(loss_initial: float) -> None:
    weights = np.full_like(OUTCOME.weights, np.nan)
    (warning,) = _summary(lateness_ms=[0.5], loss=[math.nan] * 3, loss_initial=loss_initial, weights=weights)["warnings"]
    assert "before the first step already, so the learning rate is not the cause" in warning
    assert "lower optimizer.learning_rate" not in warning


def test_very_many_peers_are_counted() -> None:
    assert peers_text(range(0, 4000, 2)) == "2,000 peers (0, 2, 4, ...)"


def test_peers_in_a_row_are_given_by_the_first_and_the_last() -> None:
    assert peers_text(range(8)) == "peers 0 to 7"
    assert peers_text([3, 4, 5]) == "peers 3, 4 and 5"
    assert peers_text([1, 2, 3, 5]) == "peers 1, 2, 3 and 5"


def test_an_unfinished_run_has_every_key_and_the_values_of_its_file() -> None:
    summary = unfinished('name = "x"\nseed = 4\npeers = 2\n[strategy]\nname = "solo"', "interrupted")
    assert set(KEYS) <= summary.keys()
    assert (summary["name"], summary["seed"], summary["peers"], summary["strategy"]) == ("x", 4, 2, "solo")
    assert (summary["completed"], summary["reason"]) == (False, "interrupted")
    assert unfinished("= no toml", "running")["name"] is None


def test_clean_makes_plain_values() -> None:
    value = {"a": np.float32(0.5), "b": (np.int64(3), math.nan), "c": np.array([1.0, math.inf]), 4: {2, 1}, "d": Path("p")}
    assert clean(value) == {"a": 0.5, "b": [3, None], "c": [1.0, None], "4": [1, 2], "d": "p"}


def test_the_printed_summary_names_the_run_its_end_and_its_results() -> None:
    text = str(describe(_summary(peers_lost=[2], lateness_ms=[12.0]), Path("runs/x/report.html")))
    for said in ("x: done (accuracy reached)", "85.0 % on average (80.0 % to 90.0 %)", "10 s emulated, 20 s on the wall clock",
                 "60 in all, 3 per second", "5 MB in 60 messages", "peer 2", "raise", "runs/x/report.html"):  # fmt: skip
        assert said in text, said


def test_the_printed_summary_of_a_run_that_never_began() -> None:
    text = str(describe(unfinished('name = "x"\npeers = 3', "interrupted"), Path("report.html")))
    assert [line.split(maxsplit=1) for line in text.splitlines()] == [
        ["x:", "incomplete (interrupted)"], ["peers", "3 on - (- world), strategy -"], ["report", "report.html"],
    ]  # fmt: skip


def test_long_lines_are_wrapped_with_an_indent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = str(describe(_summary(lateness_ms=[12.0]))).splitlines()
    assert max(map(len, lines)) < 80
    assert lines[-1].startswith(" " * 13)
