"""Studies of connectivity: ranks, where a target is reached, the page of a small sweep."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas
import pytest
from scipy import stats

from grapevine import run
from grapevine.experiments.results.curves import Curve
from grapevine.experiments.study.connectivity import Connectivity, read_connectivity
from grapevine.experiments.study.connectivity_page import conclusions
from grapevine.experiments.study.correlation import correlation, jackknife, spearman
from grapevine.experiments.study.page import write_study
from grapevine.experiments.study.ranks import verdicts
from grapevine.experiments.study.study import Study
from grapevine.experiments.sweep.cells import CellResult, cells_of
from grapevine.experiments.sweep.eta import left_s, show_left
from grapevine.experiments.sweep.plan import Sweep, read_sweep
from grapevine.experiments.sweep.sweep import carry_out

# -- rank correlation


def test_ranks_are_those_of_scipy_ties_included() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 5, 12):
        one, other = rng.integers(0, 5, n).astype(float), rng.standard_normal(n)
        expected = stats.spearmanr(one, other)[0] if np.ptp(one) else math.nan
        assert spearman(one.tolist(), other.tolist()) == pytest.approx(expected, nan_ok=True)
    assert spearman([1, 2, 3, 4], [9, math.inf, math.inf, math.inf]) == pytest.approx(
        stats.spearmanr([1, 2, 3, 4], [1, 2, 2, 2])[0]
    )
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))


def test_rank_correlation_of_an_order_worked_out_by_hand() -> None:
    """1 - 6 sum d^2 / (n^3 - n)."""
    assert spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx(1 - 6 * 4 / 120)
    assert spearman([1, 2, 3], [30, 20, 10]) == -1.0


def test_the_interval_contains_the_true_value_in_95_percent_of_samples() -> None:
    """For Gaussian pairs with correlation r the rank correlation tends to 6/pi asin(r/2)."""
    rng, r = np.random.default_rng(4), 0.8
    true = 6 / math.pi * math.asin(r / 2)
    held = 0
    for _ in range(1000):
        x, y = rng.standard_normal((2, 12))
        found = correlation(x.tolist(), (r * x + math.sqrt(1 - r * r) * y).tolist())
        held += found.low <= true <= found.high
    assert 910 <= held <= 990


def test_perfect_orders_and_few_pairs() -> None:
    perfect = correlation(range(8), range(8))
    assert perfect.rho == perfect.high == 1.0
    assert 0.6 < perfect.low < 1.0
    assert correlation(range(12), range(12)).low > perfect.low
    few = correlation([1, 2, 3, math.nan], [1, 2, 3, 4])
    assert (few.rho, few.n) == (1.0, 3)
    assert math.isnan(few.low)


def test_the_jackknife_of_a_mean_is_its_interval() -> None:
    values = {"a": 1.0, "b": 4.0, "c": 2.0, "d": 8.0, "e": 5.0, "f": 7.0}
    mean, half = jackknife(list(values), lambda left: float(np.mean([values[label] for label in left])))
    listed = list(values.values())
    assert mean == np.mean(listed)
    assert half == pytest.approx(stats.t.ppf(0.975, 5) * np.std(listed, ddof=1) / math.sqrt(6))


# -- curves, time left


def test_a_target_is_reached_at_the_first_record_and_known_to_one_record() -> None:
    accuracy = np.array([0.1, 0.5, 0.9, 0.8])
    curve = Curve(
        np.array([0.0, 10, 30, 40]), np.array([0.0, 1, 2, 3]), np.array([0.0, 100, 200, 300]), accuracy, np.arange(4.0)
    )
    assert curve.reached(0.7, "steps") == (30.0, 20.0)
    assert curve.reached(0.7, "time_s") == (2.0, 1.0)
    assert curve.reached(0.1, "bytes") == (0.0, 0.0)
    assert curve.reached(0.95, "steps") is None
    assert curve.settled(curve.consensus) == 3.0  # the last fifth of 40 steps: from 32 on


def test_time_left_goes_by_the_number_of_peers() -> None:
    assert left_s([], [8], [], 2) is None
    assert left_s([(16, 2.0), (16, 4.0)], [16] * 10, [(16, 1.0), (16, 9.0)], 2) == pytest.approx((30 + 2) / 2)
    assert left_s([(16, 3.0)], [64] * 10, [], 2) == pytest.approx(10 * 12 / 2)
    assert left_s([(16, 3.0), (64, 10.0)], [256], [], 4) == pytest.approx(40.0)  # a single run gains nothing by four jobs
    assert left_s([(16, 3.0)], [], [], 2) == 0.0
    assert [show_left(seconds) for seconds in (4.4, 89, 600, 7800)] == ["4 s", "89 s", "10 min", "2 h 10 min"]


# -- a whole study

SWEEP = """
name = "tiny"
[world]
name = "virtual"
[devices]
name = "uniform"
speed = "2000 samples/s"
[task]
name = "digits"
batch_size = 16
[stop]
steps = 40
[record]
every = "50 ms"
report = false
[sweep]
graph = [
    {label = "ring", "topology.name" = "ring"},
    {label = "star", "topology.name" = "star"},
    {label = "hypercube", "topology.name" = "hypercube"},
    {label = "one-peer", "topology.name" = "one-peer-exponential"},
    {label = "complete", "topology.name" = "complete"},
]
link = [
    {label = "fast", "network.name" = "lan"},
    {label = "slow", network = {name = "uniform", rate = "4 Mbit/s", delay = "5 ms"}},
]
seed = [1, 2]
[partition]
name = "dirichlet"
alpha = 0.2
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, list[CellResult], Connectivity, Path]:
    """A sweep whose runs are carried out in this process, which is faster than one process per run."""
    folder = tmp_path_factory.mktemp("connectivity")
    (folder / "tiny.toml").write_text(SWEEP)
    sweep = read_sweep(folder / "tiny.toml")
    for point in sweep.points:
        run(point.experiment, out=folder / "out" / point.name)
    carried = carry_out(sweep, folder / "out", command=lambda file, out: ["false"])
    assert carried.status == 0
    cells = cells_of(sweep, carried, folder / "out")
    study = read_connectivity(sweep, cells)
    assert study is not None
    return sweep, cells, study, folder


@pytest.mark.slow
def test_theory_stands_next_to_measurement(small: tuple[Sweep, list[CellResult], Connectivity, Path]) -> None:
    study = small[2]
    assert study.graphs == ("ring", "star", "hypercube", "one-peer", "complete")
    assert study.networks == ("fast", "slow")
    (panel,) = study.panels
    assert panel.reference == "complete"
    found = {place.graph: place for place in panel.on("fast")}
    assert found["ring"].gap == pytest.approx(1 - (1 + math.sqrt(2)) / 3)
    assert found["complete"].neighbours == pytest.approx(8)
    assert [found[graph].degree for graph in study.graphs] == pytest.approx([2, 1.75, 3, 1, 7])
    assert panel.gradients is not None
    assert panel.gradients.difference > 0
    for place in panel.on("fast"):  # without any fit
        assert 0.25 < panel.predicted[place.graph] / place.consensus.mean < 4
        assert [len(curve.steps) for curve in place.curves] == [len(place.curves[0].steps)] * 2
    slow = {place.graph: place for place in panel.on("slow")}
    for graph in study.graphs:  # steps do not depend on the network, seconds do
        assert slow[graph].consensus.mean == pytest.approx(found[graph].consensus.mean, rel=0.3)
        assert slow[graph].curves[0].time_s[-1] > 2 * found[graph].curves[0].time_s[-1]


def test_verdicts_rank_the_graphs(small: tuple[Sweep, list[CellResult], Connectivity, Path]) -> None:
    study = small[2]
    by_title = {verdict.outcome.title: verdict for verdict in verdicts(study)}
    assert list(by_title) == [
        "steps to the target",
        "consensus distance",
        "time to the target, fast",
        "time to the target, slow",
        "bytes to the target",
    ]
    (panel,) = study.panels
    distance = by_title["consensus distance"]
    places = panel.on("fast")
    for key, measured in (("gap", [p.gap for p in places]), ("predicted", [panel.predicted[p.graph] for p in places])):
        expected = spearman(measured, [place.consensus.mean for place in places])
        assert distance.single[panel.values, key].rho == pytest.approx(expected)
        assert distance.overall[key] == distance.single[panel.values, key]  # of one panel: one correlation, one interval
    assert distance.overall["predicted"].rho > 0.5
    said = conclusions(study, list(by_title.values()))
    assert len(said) == 6
    assert "Nothing in it was fitted" in said[-1]


@pytest.mark.slow
def test_the_page_and_its_tables_hold_the_results(small: tuple[Sweep, list[CellResult], Connectivity, Path]) -> None:
    sweep, cells, study, folder = small
    files, said = write_study(Study("tiny", sweep, cells, "grapevine sweep tiny.toml", SWEEP), folder / "report.html")
    tables = [f"{name}.{kind}" for name in ("connectivity", "differences") for kind in ("csv", "parquet")]
    assert [file.name for file in files] == ["report.html", *tables]
    table = pandas.read_parquet(folder / "connectivity.parquet")
    assert table["topology"].tolist()[:3] == ["ring", "ring", "star"]
    assert said[:6] == conclusions(study, verdicts(study))
    page = (folder / "report.html").read_text()
    for text in (
        "Convergence against connectivity",
        "Which figure predicts best?",
        "against spectral gap",
        "predicted and measured",
    ):
        assert text in page
    for text in conclusions(study, verdicts(study)):
        assert text.split(":")[0] in page
    assert "curves&#x27; bands" not in page


def test_other_sweeps_are_no_study_of_connectivity(
    small: tuple[Sweep, list[CellResult], Connectivity, Path], tmp_path: Path
) -> None:
    sweep, cells, *_ = small
    few = Sweep(sweep.cells[:6], sweep.axes, None, sweep.target)
    assert read_connectivity(few, cells[:6]) is None  # three topologies
    (tmp_path / "rates.toml").write_text(
        '[world]\nname = "virtual"\n[sweep]\n"optimizer.learning_rate" = [0.1, 0.2, 0.3, 0.4, 0.5]\n'
    )
    assert read_connectivity(read_sweep(tmp_path / "rates.toml"), []) is None
