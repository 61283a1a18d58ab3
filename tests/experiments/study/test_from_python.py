"""`sweep` and `tune` from Python: the machinery, folders and figures of `grapevine sweep`, with parts as values."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

from grapevine import (
    DPSGD,
    Ako,
    ConfigError,
    Dense,
    Experiment,
    Module,
    Peer,
    Quadratic,
    Record,
    Sgd,
    Slices,
    Solo,
    Stop,
    Strategy,
    UniformDevices,
    Virtual,
    sweep,
    topology,
    tune,
)
from grapevine.experiments.cli.main import main
from grapevine.experiments.results.curves import fleet_line
from grapevine.experiments.study.figures import curves, dots
from grapevine.experiments.study.study import Study
from grapevine.experiments.sweep import runs
from grapevine.experiments.sweep.cells import measures
from grapevine.experiments.sweep.plan import plan_sweep
from tests.experiments.own_modules import forgotten, write

BASE = Experiment(
    name="base", peers=3, world=Virtual(), task=Quadratic(), devices=UniformDevices(speed="100 samples/s"),
    stop=Stop(steps=4), record=Record(report=False),
)  # fmt: skip


class Here(Strategy, frozen=True, tag="here"):
    """Averages whole models; of the test's own module."""

    share: float = 1.0

    async def run(self, peer: Peer) -> None:
        while peer.running:
            peer.apply(await peer.gradient())
            own = await peer.broadcast(Dense(peer.weights))
            peer.mix(await peer.gather(step=peer.step), own)


@pytest.fixture
def local() -> type[Strategy]:
    """A class that no other process can find."""

    class Local(Here, frozen=True, tag="local"):
        pass

    return Local


@pytest.fixture
def module(tmp_path: Path) -> Iterator[type[Strategy]]:
    """A class in a module that other processes find by its folder alone."""
    with forgotten():
        write(tmp_path, "study_own")
        sys.path.append(str(tmp_path))
        import study_own  # type: ignore[import-not-found]

        yield study_own.Averaging


def states(attempts: list[runs.Attempt]) -> list[str]:
    return [attempt.state for attempt in attempts]


# -- carried out


@pytest.mark.slow
def test_own_and_built_in_strategies_are_swept_side_by_side(tmp_path: Path, module: type[Strategy]) -> None:
    result = sweep(BASE, {"strategy": [module(), Solo()]}, seeds=range(2), baseline="solo", jobs=2, out=tmp_path / "s")
    assert states(result.attempts) == ["completed"] * 4, [attempt.reason for attempt in result.attempts]
    assert [cell.values for cell in result.cells] == [{"strategy": name} for name in ("averaging", "solo")]
    estimate = result.cell(strategy="solo").estimate("loss_mean")
    assert estimate is not None
    assert (estimate.n, estimate.half) == (2, 0.0)  # without noise all seeds are alike
    assert list(result.table["seed"]) == [0, 1] * 2
    assert set(result.cell_table["loss_mean.mean"]) == {cell.estimate("loss_mean").mean for cell in result.cells}  # type: ignore[union-attr]
    for name in ("table.csv", "cells.parquet", "differences.csv", "report.html", "strategy=averaging,seed=1/summary.json"):
        assert (tmp_path / "s" / name).is_file(), name
    assert result.page == tmp_path / "s" / "report.html"
    assert "averaging" in str(result)
    assert "<td>averaging</td>" in result._repr_html_()
    again = sweep(BASE, {"strategy": [module(), Solo()]}, seeds=range(2), out=tmp_path / "s")
    assert states(again.attempts) == ["skipped"] * 4


@pytest.mark.slow
def test_the_same_sweep_as_a_file_finds_its_runs_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = sweep(BASE, {"strategy.name": ["solo", "d-psgd"], "seed": [1]}, out=tmp_path / "s")
    file = tmp_path / "base.toml"
    file.write_text(BASE.to_toml() + '[sweep]\n"strategy.name" = ["solo", "d-psgd"]\nseed = [1]\n')
    assert main(["sweep", str(file), "--out", str(tmp_path / "s"), "--quiet"]) == 0
    assert capsys.readouterr().out.count("skipped") == 2
    assert [attempt.point.name for attempt in result.attempts] == ["strategy.name=solo,seed=1", "strategy.name=d-psgd,seed=1"]


@pytest.mark.slow
def test_what_cannot_leave_this_process_runs_in_it(
    tmp_path: Path, local: type[Strategy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grapevine.experiments.sweep.sweep.Floor", None)
    axes = {"strategy": [local(), Here()], "topology": [topology.Ring(), nx.complete_graph(3), nx.path_graph(3)]}
    result = sweep(BASE, axes, out=tmp_path / "s")
    assert states(result.attempts) == ["completed"] * 6
    assert [tuple(cell.values.values()) for cell in result.cells][:3] == [
        ("local", "ring"),
        ("local", "graph 1"),
        ("local", "graph 2"),
    ]
    assert {len(set(cell.results[0].weights[:, 0])) for cell in result.cells} == {1, 3}  # only complete graphs agree at once
    assert not (tmp_path / "s" / "logs" / "strategy=local,topology=ring.log").exists()
    assert (tmp_path / "s" / "inputs" / "strategy=local,topology=ring.toml").is_file()
    with pytest.raises(ConfigError, match=r"jobs: 2 runs at a time .*local.<locals>.Local; define its class"):
        sweep(BASE, axes, jobs=2, out=tmp_path / "s")
    again = sweep(BASE, {"strategy": [Here()], "topology": [nx.complete_graph(3)]}, out=tmp_path / "s")
    assert states(again.attempts) == ["completed"]  # nobody knows whether it is the same graph


def test_a_class_of_the_script_itself_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = type("Script", (Here,), {"__module__": "__main__"}, frozen=True, tag="script")
    monkeypatch.setattr(sys.modules["__main__"], "Script", script, raising=False)
    monkeypatch.setattr(Experiment, "code", lambda experiment: {})
    experiment = BASE.replace(strategy=script(share=0.5))
    assert experiment.here_alone() == ["strategy"]
    assert 'name = "__main__:Script"' in experiment.to_toml()
    first, second = (sweep(experiment, {"strategy.share": [0.5, 1]}, out=tmp_path / "s") for _ in range(2))
    assert (states(first.attempts), states(second.attempts)) == (["completed"] * 2, ["skipped"] * 2)


def test_a_run_that_fails_is_reported_and_stops_no_other(tmp_path: Path, local: type[Strategy]) -> None:
    class Failing(local, frozen=True, tag="failing"):  # type: ignore[misc, valid-type]
        async def run(self, peer: Peer) -> None:
            raise KeyError("lost")

    result = sweep(BASE, {"strategy": [Failing(), local()]}, out=tmp_path / "s")
    assert states(result.attempts) == ["failed", "completed"]
    assert "KeyError" in result.attempts[0].reason
    assert result.status == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ([Slices(fill=0.3), Slices(fill=0.6)], ["slices (fill = 0.3)", "slices (fill = 0.6)"]),
        ([Slices(fill=0.6), Slices()], ["slices (fill = 0.6)", "slices"]),
        ([Slices(fill=0.1), Solo(), Slices(fill=0.2), Slices(fill=0.3)],
         ["slices (fill = 0.1)", "solo", "slices (fill = 0.2)", "slices (fill = 0.3)"]),
        ([Slices(fill=0.3), Solo()], ["slices", "solo"]),
    ],
)  # fmt: skip
def test_parts_of_one_name_are_all_called_by_their_fields(parts: list[Strategy], names: list[str]) -> None:
    document = {**BASE.settings(), "sweep": {"strategy": parts}}
    assert [cell.values["strategy"] for cell in plan_sweep(document, "sweep()", Path(), {}).cells] == names


def test_labels_tell_parts_of_one_kind_apart(tmp_path: Path, local: type[Strategy]) -> None:
    axes = {
        "strategy": [local(), local(share=0.5), {"name": "solo"}],
        "optimizer": [{"label": "slow", "optimizer.learning_rate": 0.01}],
    }
    with pytest.raises(ConfigError, match="choices with a label cannot be under the name of a part"):
        sweep(BASE, axes, out=tmp_path / "s")
    axes["pace"] = axes.pop("optimizer")
    axes["variant"] = [{"label": "one", "codec.name": "int8"}, {"label": "two", "topology": topology.Complete()}]
    result = sweep(BASE, axes, out=tmp_path / "s", skip_invalid=True)
    assert [str(cell.values["strategy"]) for cell in result.cells][::2] == ["local", "local (share = 0.5)", "{'name': 'solo'}"]
    assert result.cell({"strategy": "local", "variant": "two"}).results[0].experiment_document["topology"]["name"] == "complete"
    with pytest.raises(KeyError, match="2 cells have"):
        result.cell(strategy="local")


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({}, r"sweep\(\): axes: is empty; give lists"),
        ({"strategy": 3}, r"sweep\(\): sweep.strategy: 3 is not a list; write a list of one value or more"),
        ({"strategy": DPSGD()}, r"sweep\(\): sweep.strategy"),
        ({"strategy": ["solo"]}, r'sweep\(\): sweep.strategy: "solo" is not a table; write "strategy.name" = \["solo"\]'),
        ({"strategy.fil": [1]}, r"sweep\(\): \[sweep\]: strategy.fil: no such field"),
        ({"topology.mixing": ["lazy"]}, r"topology was given from Python"),
        ([1], r"sweep\(\): axes: list is not a dictionary"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_starts(axes: object, message: str, tmp_path: Path) -> None:
    base = BASE.replace(topology=nx.complete_graph(3)) if "topology.mixing" in axes else BASE  # type: ignore[operator]
    with pytest.raises(ConfigError, match=message):
        sweep(base, axes, out=tmp_path / "s")  # type: ignore[arg-type]
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_what_cannot_be_built_is_listed(tmp_path: Path) -> None:
    base = BASE.replace(peers=4, topology=topology.Ring())
    with pytest.raises(ConfigError, match=r"sweep\(\): sweep: 1 of 2 combinations cannot be built"):
        sweep(base, {"strategy": [Ako(), DPSGD()]}, out=tmp_path / "s")
    result = sweep(base, {"strategy": [Ako(), DPSGD()]}, skip_invalid=True, out=tmp_path / "s")
    assert [cell.values["strategy"] for cell in result.cells] == ["d-psgd"]
    assert result.findings.said[-1].startswith("left out, as the file says: strategy ako")
    for jobs in (0, True, "2"):
        with pytest.raises(ConfigError, match="is not a number of runs"):
            sweep(base, {"seed": [1]}, jobs=jobs, out=tmp_path / "s")  # type: ignore[arg-type]


def test_a_task_with_data_in_memory_is_swept(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    x, y = torch.randn(24, 3), torch.arange(24) % 2
    task = Module(factory=lambda: torch.nn.Linear(3, 2), train=(x, y), test=(x, y), batch_size=4)
    result = sweep(BASE.replace(task=task), {"strategy.name": ["solo", "d-psgd"]}, out=tmp_path / "s")
    assert states(result.attempts) == ["completed"] * 2


# -- tasks without accuracy


@pytest.mark.slow
def test_a_study_of_a_task_without_accuracy_is_one_of_its_loss(tmp_path: Path) -> None:
    """The mean of the fleet goes (1 - rate) of the way to the optimum in a step, so the excess loss shrinks by its square."""
    rates = (0.5, 0.1, 0.001)
    base = BASE.replace(strategy=DPSGD(order="adapt-then-combine"), stop=Stop(steps=6), record=Record(every="10 ms"))
    result = sweep(base, {"optimizer.learning_rate": rates}, seeds=[0, 1], out=tmp_path / "s")
    starts = [fleet_line(run, "excess_loss")[0][1] for run in result.cells[0].results]
    for rate, cell in zip(rates, result.cells, strict=True):
        ends = [run.summary["excess_loss"] for run in cell.results]
        assert ends == pytest.approx([start * (1 - rate) ** 12 for start in starts], rel=1e-3)
    target = result.cells[0].target
    assert target.figure == "excess_loss"
    assert max(starts) * 0.9**12 <= target.level <= max(starts) * 0.9**12 * 1.1  # two of three cells reach it in every run
    fast, fair, slow = (cell.estimate("time_to_target_s") for cell in result.cells)
    assert fast is not None
    assert fair is not None
    assert slow is None
    assert 0.01 <= fast.mean <= 0.02  # a quarter after one step of 10 ms
    assert 0.05 <= fair.mean <= 0.06
    page = (tmp_path / "s" / "report.html").read_text()
    for text in (f"Time to {target.words}", "Excess loss over time", "that two thirds of the combinations reach in every run"):
        assert text in page, text
    assert "ccuracy over time" not in page
    assert list(result.cell_table["target"]) == [target.level] * 3
    study = Study("s", result.sweep, result.cells, "", "")
    drawn = curves(study, (), "", "excess_loss")
    assert drawn is not None
    assert drawn["data"][-1]["y"] == [target.level] * 2
    assert drawn["layout"]["yaxis"]["type"] == "log"  # from 1 to 0.5**12
    assert min(y for line in drawn["data"] for y in line["y"]) > 0
    measure = next(measure for measure in measures(result.cells) if measure.key == "excess_loss")
    points = dots(study, (), measure)
    assert points is not None
    low = 10 ** points["layout"]["yaxis"]["range"][0]
    for row in points["data"]:
        ends = [mean - down for mean, down in zip(row["y"], row["error_y"]["arrayminus"], strict=True) if mean is not None]
        assert min(ends) >= 0.999 * low > 0
    own = (result.cells[0].folders[0] / "report.html").read_text()
    assert "<h2>Test loss</h2>" in own
    assert "<h2>Accuracy</h2>" not in own  # no empty card
    given = sweep(base, {"optimizer.learning_rate": rates}, seeds=[0, 1], target_loss=1e-9, out=tmp_path / "s")
    assert given.cells[0].shown(measures(given.cells)[0]) == "0 of 2"


def test_results_describe_themselves_on_one_line(tmp_path: Path, local: type[Strategy]) -> None:
    result = sweep(BASE, {"strategy": [local(), Solo()]}, out=tmp_path / "s")
    loss = result.cell(strategy="local").estimate("excess_loss")
    assert loss is not None
    shown = repr(result.cells)
    assert "<CellResult strategy local: 1 of 1 runs, excess loss " in shown
    assert len(shown) < 200
    assert repr(result).startswith("<SweepResult base: 2 runs (2 completed) in 2 cells; best: strategy local, excess loss ")
    assert "\n" not in repr(result)
    assert str(result).count("\n") == 3  # titles, a row a cell, the page
    assert len(repr(result.attempts[0])) < 300
    shutil.rmtree(tmp_path / "s")
    again = sweep(BASE, {"strategy": [local(), Solo()]}, out=tmp_path / "s")
    shutil.rmtree(tmp_path / "s")
    assert repr(again.cells[0]) == "<CellResult strategy local: 1 of 1 runs>"


# -- tuned


@pytest.mark.slow
def test_tuning_finds_the_best_and_widens(tmp_path: Path, local: type[Strategy]) -> None:
    found = tune(BASE.replace(strategy=local()), {"optimizer.learning_rate": [0.1, 0.2]}, out=tmp_path / "t")
    assert found.chosen == {"optimizer.learning_rate": 0.8}  # of 4 steps on |x - b|^2 / 2; 1.6 overshoots
    assert found.best == BASE.replace(strategy=local(), optimizer=Sgd(learning_rate=0.8))
    assert list(found.table["optimizer.learning_rate"]) == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert list(found.table["chosen"]) == [False] * 3 + [True, False]
    assert {trial.point.experiment.seed for trial in found.trials} == {1000}
    assert "learning_rate = 0.8" in repr(found)
    again = tune(BASE.replace(strategy=local()), {"optimizer": [Sgd(learning_rate=0.1), Sgd(momentum=0.9)]}, out=tmp_path / "u")
    assert again.best.optimizer == Sgd(momentum=0.9)


@pytest.mark.slow
def test_a_tuned_sweep_chooses_for_each_cell(tmp_path: Path, local: type[Strategy]) -> None:
    rates = {"optimizer.learning_rate": [0.1, 0.4, 1.9]}
    result = sweep(BASE, {"strategy": [local(), Here()]}, tune=rates, seeds=[1], out=tmp_path / "s")
    assert [cell.tuned["optimizer.learning_rate"] for cell in result.cells] == [0.4, 0.4]
    assert states(result.trials) == ["completed"] * 6


def test_a_tuning_without_any_trial_says_why(tmp_path: Path, local: type[Strategy]) -> None:
    class Failing(local, frozen=True, tag="failing"):  # type: ignore[misc, valid-type]
        async def run(self, peer: Peer) -> None:
            raise KeyError("lost")

    found = tune(BASE.replace(strategy=Failing()), {"optimizer.learning_rate": [0.1]}, out=tmp_path / "t")
    with pytest.raises(ValueError, match=r"none of the 1 trials was completed: .*KeyError"):
        _ = found.best
    with pytest.raises(ConfigError, match=r"tune\(\): tune.seed: 0 is one of the measured seeds"):
        tune(BASE, {"optimizer.learning_rate": [0.1]}, seed=0, out=tmp_path / "t")


def test_an_axis_of_parts_that_does_not_exist_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"strategie.*no part of an experiment has this name; did you mean strategy\?"):
        sweep(Experiment(), {"strategie": [Solo()]}, out=tmp_path / "out")
