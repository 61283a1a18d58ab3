"""The runs of a sweep file: named choices, several tables, candidates of tuning; and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from grapevine.experiments.config.experiment import ConfigError, Experiment
from grapevine.experiments.sweep import plan
from grapevine.netem import Uniform
from grapevine.peer.strategies import Ako, Slices
from tests.experiments.sweep.studies import TUNED, planned


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
        ('variant = [{label = "a", peers = 3}, {peers = 4}]', "this choice has no label, but others have: {peers = 4}"),
        ('variant = [{label = "a", peers = 3}, {label = "a", peers = 4}]', 'two choices have the label "a"; use each'),
        ('variant = [{label = "a"}]', 'sweep.variant: the choice "a" sets no key; add keys'),
        ('variant = [{label = 4, peers = 3}]', "sweep.variant: 4 is not valid as a label; write it as text"),
        ('variant = [{label = "a", seed = 3}]', 'sweep.variant: the choice "a" sets the seed; vary the seed in its own list'),
        ('strategy = [{label = "a", name = "ako"}]', "sweep.strategy: choices with a label cannot be under the name of a part"),
        ('peers = [2]\nvariant = [{label = "a", peers = 3}]', "sweep: both peers and variant set peers; set it in one of them"),
        ('variant = [{label = "a", "strategy.fil" = 3}]', "[sweep]: strategy.fil: no such field"),
        ("seed = [1, 1000]\n[tune]\npeers = [2, 3]", "tune.seed: 1000 is one of the measured seeds (1, 1000); tune"),
        ("seed = [1]\n[tune]\npeers = [2, 3]\nseed = [1]", "tune.seed: [1] is not a seed; give one whole number"),
        ("seed = [1]\n[tune]\npeers = [2]\ntarget = 90", "tune.target: 90 is not a share of samples; give a mean accuracy"),
        ("seed = [1000, 4]\n[tune]\npeers = [2, 3]", "tune on another seed: set tune.seed = 1001"),
        ("seed = [1]\n[tune]\nsed = 3", "tune.sed = 3: no such field; [tune] has: seed, target; did you mean seed?"),
        ("seed = [1]\n[tune]\ntarget = 0.9", "tune: has no list of candidates; add lists"),
        ("seed = [1]\n[tune]\npeers = 3", 'tune.peers: 3 is not a list; write a list of one value or more'),
        ("seed = [1]\n[tune]\npeers = [3, 3]", "tune.peers = [3, 3]: has a value twice; write each value once"),
        (f"seed = {list(range(10_001))}", "sweep.seed: the lists give 10,001 runs, more than 10,000; shorten the lists"),
        (f"seed = [1]\n[tune]\npeers = {list(range(1, 102))}\nstop.steps = {list(range(1, 102))}",
         "tune: the lists give 10,201 runs, more than 10,000"),
        ("peers = [2]\n[tune]\npeers = [3]", "tune.peers: is in [sweep] too; remove it from [sweep] or from [tune]"),
        ("seed = [1]\n[tune]\npeers = [3, -3]", "[tune]: peers: -3 is not valid"),
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
    with pytest.raises(ConfigError, match="the lists give 27,000,000,000 runs, more than 10,000"):
        planned(tmp_path, f"[sweep]\n{lists}")


def test_tables_that_vary_different_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the first table \[\[sweep\]\] varies seed, but table 2 varies peers; let all"):
        planned(tmp_path, "[[sweep]]\nseed = [1]\n[[sweep]]\npeers = [1]")


def test_a_study_cannot_be_read_as_a_single_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tune: belongs to a sweep of many runs, and this is one run; run"):
        Experiment.parse("[tune]\npeers = [3]")
