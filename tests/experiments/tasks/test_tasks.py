"""The menus of tasks, the digits themselves, the sampler, and the trip to another process."""

import importlib
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grapevine.experiments.tasks import (
    AnyPartition,
    AnyTask,
    Digits,
    Dirichlet,
    Iid,
    LearningProblem,
    Quadratic,
    Shards,
    digits,
)
from grapevine.experiments.tasks.base import Problem
from grapevine.experiments.tasks.sampling import Epochs


class File(msgspec.Struct, forbid_unknown_fields=True):
    """The two tables of an experiment file that are chosen here."""

    task: AnyTask = Digits()
    partition: AnyPartition = Iid()


def read(text: str) -> File:
    return msgspec.toml.decode(text.encode(), type=File)


def travelled(problem: Problem) -> Problem:
    """What another process would hold, before it is given the arrays."""
    return ForkingPickler.loads(ForkingPickler.dumps(problem))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('[task]\nname = "digits"\nmodel = "cnn"\nbatch_size = 8', Digits(model="cnn", batch_size=8)),
        ('[task]\nname = "digits"\nhidden = [960, 960]', Digits(hidden=(960, 960))),
        ('[task]\nname = "quadratic"\ntargets = [0, 1.5, 3]\nnoise = 0.5', Quadratic(targets=(0.0, 1.5, 3.0), noise=0.5)),
        (
            '[task]\nname = "quadratic"\ntargets = [[0, 1], [2.0, 3]]\nstart = [4, 5]',
            Quadratic(targets=((0, 1), (2, 3)), start=(4, 5)),
        ),
    ],
)
def test_tasks_are_read_from_a_file(text: str, wanted: AnyTask) -> None:
    assert read(text).task == wanted


def test_partitions_are_read_from_a_file() -> None:
    assert read('[partition]\nname = "dirichlet"\nalpha = 0.3').partition == Dirichlet(alpha=0.3)
    assert read('[partition]\nname = "shards"\nper_peer = 3').partition == Shards(per_peer=3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[task]\nname = "digits"\nhiden = [4]', "hiden"),
        ('[task]\nname = "digits"\nmodel = "vgg"', "vgg"),
        ('[task]\nname = "digits"\nhidden = []', "logistic"),
        ('[task]\nname = "digits"\nhidden = [64, 0]', "at least 1"),
        ('[task]\nname = "digits"\nhidden = [1000000000]', "narrower"),
        ('[task]\nname = "digits"\nmodel = "cnn"\nhidden = [32]', 'with model = "mlp" only'),
        ('[task]\nname = "digits"\nbatch_size = 0', "batch_size = 0"),
        ('[task]\nname = "module"', "from Python only"),
        ('[task]\nname = "module"\nfactory = "nets.Net"', "from Python only"),
        ('[task]\nname = "quadratic"\nnoise = -1.0', "noise = -1"),
        ('[task]\nname = "quadratic"\ntargets = [[1, 2], [1, 2, 3]]', "different numbers of parameters"),
        ('[task]\nname = "quadratic"\ntargets = [[1, 2], [1, 2]]\ndimension = 3', "different numbers of parameters"),
        ('[task]\nname = "quadratic"\ntargets = []', "targets is empty"),
        ('[task]\nname = "quadratic"\ntargets = [[]]', "one number or more"),
        ('[task]\nname = "quadratic"\ntargets = [nan]', "must be finite"),
        ('[task]\nname = "quadratic"\ndimension = 0', "dimension = 0"),
        ('[task]\nname = "quadratic"\nbatch_size = -4', "batch_size = -4"),
    ],
)
def test_bad_tasks_are_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        read(text)


def test_the_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = digits.load()
    wanted_pixels, wanted_labels = load_digits(return_X_y=True)
    assert np.array_equal(pixels, wanted_pixels)
    assert np.array_equal(labels, wanted_labels)


def test_the_digits_are_found_when_the_file_is_not_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = digits.load()
    monkeypatch.setattr(Path, "is_file", lambda self: False)
    slow = digits.load()
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(quick, slow, strict=True))


def test_missing_scikit_learn_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install scikit-learn"):
        digits.load()


def test_the_digits_are_split_the_same_for_every_seed() -> None:
    problems = [Digits().problem(4, Iid(), seed) for seed in (0, 1)]
    parts = ("train", "validation", "test")
    for name in (f"{part}_{axis}" for part in parts for axis in "xy"):
        assert np.array_equal(*(problem.arrays[name] for problem in problems))
    train, validation, test = (problems[0].arrays[f"{part}_x"][:, :-1] for part in parts)
    assert (train.shape, validation.shape, test.shape) == ((1437, 64), (180, 64), (180, 64))
    assert train.mean() == pytest.approx(0, abs=1e-5)
    assert train.std() == pytest.approx(1, rel=1e-5)
    counts = [np.bincount(problems[0].arrays[f"{part}_y"], minlength=10) for part in ("validation", "test")]
    assert np.abs(counts[0] - counts[1]).max() <= 1
    rows = [{row.tobytes() for row in part} for part in (train, validation, test)]
    assert not (rows[0] & rows[1] | rows[0] & rows[2] | rows[1] & rows[2])
    assert sum(problems[0].samples) == 1437
    assert problems[0].skew is not None
    assert problems[0].skew.sizes == problems[0].samples


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_validation_and_test_are_scored_each_on_its_own_samples(model: str) -> None:
    """Where the two sets change places, so do the scores."""
    problem, swapped = (Digits(model=model).problem(2, Iid(), 0) for _ in range(2))  # type: ignore[arg-type]
    other = {"validation": "test", "test": "validation"}
    arrays = {f"{other[part]}_{axis}": problem.arrays[f"{part}_{axis}"] for part in other for axis in "xy"}
    swapped.attach({**problem.arrays, **arrays})
    models = np.stack([problem.initial, 2 * problem.initial])
    for data, moved in other.items():
        for mine, yours in zip(problem.evaluate(models, data), swapped.evaluate(models, moved), strict=True):  # type: ignore[arg-type]
            assert np.array_equal(mine, yours)
    assert not np.array_equal(problem.evaluate(models, "validation")[0], problem.evaluate(models)[0])


def test_neither_torch_nor_scikit_learn_is_loaded_for_the_perceptron() -> None:
    code = (
        "import sys; from grapevine.experiments.tasks import Digits, Iid; import numpy as np\n"
        "problem = Digits().problem(4, Iid(), 0); Digits(model='cnn').problem(4, Iid(), 0)\n"
        "problem.gradient(problem.initial, problem.sampler(0, np.random.default_rng(0)).draw(4))\n"
        "print([name for name in ('torch', 'sklearn', 'pandas') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_too_many_peers_for_the_digits_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 1437 peers"):
        Digits().problem(1438, Iid(), 0)


@pytest.mark.parametrize("task", [Digits(), Digits(model="cnn"), Quadratic(noise=0.5, start=(1.0, 2.0, 3.0))])
def test_a_problem_travels_without_its_arrays_and_works_with_them(task: AnyTask) -> None:
    problem = task.problem(4, Iid(), 7)
    rng = np.random.default_rng
    problem.gradient(problem.initial, problem.sampler(2, rng(0)).draw(8))  # what it keeps for itself stays behind
    assert len(ForkingPickler.dumps(problem)) < 2000
    there = travelled(problem)
    assert there.arrays == {}
    there.attach({name: np.array(array) for name, array in problem.arrays.items()})
    assert np.array_equal(there.initial, problem.initial)
    assert (there.size, there.samples) == (problem.size, problem.samples)
    ours, theirs = (p.gradient(p.initial, p.sampler(2, rng(0)).draw(8)) for p in (problem, there))
    assert ours[0] == theirs[0]
    assert np.array_equal(ours[1], theirs[1])
    for mine, yours in zip(problem.evaluate(problem.initial[None]), there.evaluate(there.initial[None]), strict=True):
        assert np.array_equal(mine, yours, equal_nan=True)


def test_memory_mapped_arrays_will_do(tmp_path: Path) -> None:
    for task in (Digits(hidden=(8,)), Digits(model="cnn"), Quadratic()):
        problem = task.problem(3, Iid(), 0)
        there = travelled(problem)
        mapped = {}
        for name, array in problem.arrays.items():
            np.save(tmp_path / f"{name}.npy", array, allow_pickle=False)
            mapped[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        there.attach(mapped)
        batch = there.sampler(0, np.random.default_rng(0)).draw(8)
        assert np.array_equal(there.gradient(there.initial, batch)[1], problem.gradient(problem.initial, batch)[1])


@pytest.mark.parametrize(("task", "torch"), [(Digits(), False), (Digits(model="cnn"), True), (Quadratic(), False)])
def test_what_to_load_beforehand_is_all_that_a_gradient_loads(task: AnyTask, torch: bool) -> None:
    problem = task.problem(2, Iid(), 0)
    assert all(importlib.import_module(name) for name in problem.preload)
    assert ("grapevine.experiments.tasks.autograd" in problem.preload) == torch


@pytest.mark.parametrize("task", [Digits(), Quadratic()])
def test_arrays_cannot_be_written_to(task: AnyTask) -> None:
    problem = task.problem(2, Iid(), 0)
    for array in problem.arrays.values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(ValueError, match="read-only"):
        problem.initial[0] = 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(0, 1000))
def test_the_sampler_shows_every_sample_once_an_epoch(count: int, sizes: list[int], seed: int) -> None:
    shard = np.arange(count) * 3
    sampler = Epochs(shard, np.random.default_rng(seed))
    batches = [sampler.draw(size) for size in sizes]
    assert [len(batch.indices) for batch in batches] == sizes
    assert len({batch.seed for batch in batches}) == len(batches)
    stream = np.concatenate([batch.indices for batch in batches])
    for start in range(0, len(stream) - count + 1, count):
        assert np.array_equal(np.sort(stream[start : start + count]), shard)
    rest = stream[len(stream) // count * count :]
    assert len(set(rest.tolist())) == len(rest)


def test_peers_draw_from_their_own_samples_alone() -> None:
    problem: LearningProblem = Digits().problem(5, Dirichlet(alpha=0.2), 1)
    seen = []
    for peer, count in enumerate(problem.samples):
        sampler = problem.sampler(peer, np.random.default_rng(peer))
        seen.append(sampler.draw(count).indices)
    assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(1437))
