"""A user's own module and data, from Python."""

import functools
import warnings
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from grapevine.experiments.tasks import Digits, Dirichlet, Iid, LearningProblem, Module
from tests.experiments.tasks.modules import (
    TEST,
    TEST_X,
    TEST_Y,
    TRAIN,
    TRAIN_X,
    TRAIN_Y,
    VALIDATION,
    Branching,
    Net,
    Tied,
    dropping,
    normalised,
)


def make(factory: object = Net, peers: int = 4, **fields: object) -> LearningProblem:
    data: dict = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    return Module(factory=factory, **{**data, **fields}).problem(peers, Iid(), 0)  # type: ignore[arg-type]


def train(problem: LearningProblem, steps: int, rate: float = 0.1) -> np.ndarray:
    weights, sampler = problem.initial.copy(), problem.sampler(0, np.random.default_rng(1))
    for _ in range(steps):
        weights -= rate * problem.gradient(weights, sampler.draw(32))[1]
    return weights


def many(problem: LearningProblem, peers: int) -> tuple[np.ndarray, list]:
    noise = np.random.default_rng(0).standard_normal((peers, problem.size)).astype(np.float32)
    batches = [problem.sampler(peer % len(problem.samples), np.random.default_rng(peer)).draw(16) for peer in range(peers)]
    return problem.initial + 0.02 * noise, batches


def test_gradient_is_that_of_the_plain_torch_loop() -> None:
    problem = make()
    weights, batches = many(problem, 1)
    module = Net()
    nn.utils.vector_to_parameters(torch.from_numpy(weights[0]), module.parameters())
    x, y = (torch.from_numpy(np.array(array[batches[0].indices])) for array in TRAIN)
    wanted = nn.functional.cross_entropy(module(x), y)
    wanted.backward()
    loss, gradient = problem.gradient(weights[0], batches[0])
    assert loss == pytest.approx(wanted.item(), rel=1e-6)
    flat = torch.cat([parameter.grad.reshape(-1) for parameter in module.parameters() if parameter.grad is not None])
    assert np.allclose(gradient, flat.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("factory", "reason"),
    [(Net, None), (Tied, None), (normalised, "in-place"), (dropping, "random"), (Branching, "control flow")],
)
def test_many_at_once_are_the_same_as_one_by_one(factory: object, reason: str | None) -> None:
    problem = make(factory)
    weights, batches = many(problem, 10)
    before = list(problem.notes)
    losses, gradients = problem.gradients(weights, batches)
    for k in range(10):
        loss, gradient = problem.gradient(weights[k], batches[k])
        assert losses[k] == pytest.approx(loss, rel=1e-5)
        assert np.abs(gradients[k] - gradient).max() <= 1e-5 * np.abs(gradient).max()
    said = problem.notes[len(before) :]
    assert len(said) == (0 if reason is None else 1)
    assert reason is None or reason in said[0]
    problem.gradients(weights, batches)
    assert len(problem.notes) == len(before) + len(said)  # said once


def test_frozen_parameters_are_not_exchanged_and_unused_ones_have_no_slope() -> None:
    problem = make(Tied)
    assert problem.size == 64 * 64 + 64 + 64 + 3
    weights, batches = many(problem, 1)
    names = [name for name, parameter in Tied().named_parameters() if parameter.requires_grad]
    assert names[0] == "unused"
    assert problem.gradient(weights[0], batches[0])[1][:3].tolist() == [0, 0, 0]


def test_gradients_with_buffers_or_dropout_depend_on_weights_and_batch_alone() -> None:
    for factory in (normalised, dropping):
        problem = make(factory)
        weights, batches = many(problem, 2)
        first = problem.gradient(weights[0], batches[0])[1].copy()
        problem.gradient(weights[1], batches[1])
        problem.evaluate(weights)
        torch.rand(5)
        assert np.array_equal(problem.gradient(weights[0], batches[0])[1], first)


def test_dropout_draws_anew_for_each_batch_and_never_when_scoring() -> None:
    problem = make(dropping)
    weights, batches = many(problem, 1)
    again = batches[0]._replace(seed=batches[0].seed + 1)
    assert problem.gradient(weights[0], batches[0])[0] != problem.gradient(weights[0], again)[0]
    assert problem.evaluate(weights)[0] == problem.evaluate(weights)[0]


def test_nothing_global_is_touched() -> None:
    torch.manual_seed(11)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    problem = make(dropping)
    weights, batches = many(problem, 10)
    problem.gradients(weights, batches)
    problem.evaluate(weights)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_batch_normalisation_learns_and_is_scored_with_statistics_of_its_weights() -> None:
    problem = make(normalised, peers=1)
    assert any("batch normalisation" in note for note in problem.notes)
    weights = train(problem, 200)
    loss, accuracy = problem.evaluate(weights[None])
    assert accuracy[0] > 0.9
    untouched = problem.evaluate(np.stack([weights, problem.initial, weights]))
    assert untouched[0][0] == untouched[0][2] == loss[0]


def test_a_module_as_the_built_in_one_gives_the_same_gradient() -> None:
    """The hand-written perceptron and autograd agree on one set of weights, each in its own layout."""
    built_in, own = Digits().problem(4, Iid(), 0), make(functools.partial(Net, 64))
    assert built_in.size == own.size == 4810
    parts = [built_in.initial[:4160].reshape(65, 64), built_in.initial[4160:].reshape(65, 10)]

    def theirs(matrices: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([piece for matrix in matrices for piece in (matrix[:-1].T.reshape(-1), matrix[-1])])

    batch = built_in.sampler(0, np.random.default_rng(0)).draw(32)
    loss, gradient = built_in.gradient(built_in.initial, batch)
    own_loss, own_gradient = own.gradient(theirs(parts), batch)
    assert own_loss == pytest.approx(loss, rel=1e-5)
    wanted = theirs([gradient[:4160].reshape(65, 64), gradient[4160:].reshape(65, 10)])
    assert np.abs(own_gradient - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_arrays_tensors_and_data_sets_are_the_same_data() -> None:
    tensors = torch.from_numpy(TRAIN_X), torch.from_numpy(TRAIN_Y)
    wanted = make().arrays
    pairs = Pairs([(x, int(y)) for x, y in zip(*TRAIN, strict=True)])
    for given in (tensors, TensorDataset(*tensors), pairs, list(TRAIN)):
        problem = Module(factory=Net, train=given, validation=VALIDATION, test=TEST).problem(4, Iid(), 0)
        assert all(np.array_equal(problem.arrays[name], array) for name, array in wanted.items())
        assert all(problem.arrays[name].dtype == array.dtype for name, array in wanted.items())


def test_without_validation_data_a_share_of_the_training_data_is_held_out() -> None:
    problem, other_seed = (Module(factory=Net, train=TRAIN, test=TEST).problem(2, Iid(), seed) for seed in (0, 1))
    left, held_out = problem.arrays["train_x"], problem.arrays["validation_x"]
    assert (len(left), len(held_out)) == (1437 - 144, 144)
    rows = np.concatenate([left, held_out])
    assert np.array_equal(*(array[np.lexsort(array.T)] for array in (rows, TRAIN_X)))  # each sample once, nothing else
    assert all(np.array_equal(problem.arrays[name], other_seed.arrays[name]) for name in ("train_x", "validation_x"))
    half = make(validation=None, validation_share=0.5)
    assert len(half.arrays["validation_y"]) == 718  # 718.5, rounded to even
    assert sum(half.samples) == 719
    least = Module(factory=Net, train=(TRAIN_X[:2], TRAIN_Y[:2]), test=TEST, validation_share=0.99).problem(1, Iid(), 0)
    assert (least.samples, len(least.arrays["validation_y"])) == ([1], 1)


def test_given_validation_data_leave_the_training_data_whole() -> None:
    problem = make()
    assert np.array_equal(problem.arrays["train_x"], TRAIN_X)
    assert np.array_equal(problem.arrays["validation_x"], VALIDATION[0])
    assert np.array_equal(problem.arrays["test_x"], TEST_X)


def spoilt(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    array = array.astype(np.float64)
    array[index] = value
    return array


class Unset(Net):
    """A parameter that nobody gave a value."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.constant_(self.head.bias, float("nan"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"train": (spoilt(TRAIN_X, (7, 3), np.nan), TRAIN_Y)}, r"train x\[7, 3\] is nan .*1 of 91968 numbers"),
        ({"test": (spoilt(TEST_X, (0, 63), np.inf), TEST_Y)}, r"test x\[0, 63\] is inf"),
        ({"train": (spoilt(TRAIN_X, (2, 1), 1e300), TRAIN_Y)}, r"train x\[2, 1\] is inf .*as float32"),
        ({"validation": (VALIDATION[0], spoilt(VALIDATION[1], (5,), np.nan))}, r"validation y\[5\] is nan"),
        ({"factory": Unset}, "parameter head.bias holds nan or infinity at the start"),
        ({"loss": lambda output, y: nn.functional.cross_entropy(output, y) / 0}, "gives loss inf at its initial weights"),
        ({"loss": lambda output, y: (output.sum() * 0) ** 0.5}, "a gradient that is not finite at its initial weights"),
    ],
)
def test_values_that_are_not_finite_are_refused_before_the_start(fields: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(**fields)


class Pairs(torch.utils.data.Dataset):
    """A data set of the plainest kind."""

    def __init__(self, items: list):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple:
        return self.items[index]


def test_doubles_become_floats_and_small_integers_labels() -> None:
    arrays = (
        Module(factory=Net, train=(TRAIN_X.astype(np.float64), TRAIN_Y.astype(np.uint8)), test=TEST)
        .problem(2, Dirichlet(alpha=0.5), 0)
        .arrays
    )
    assert (arrays["train_x"].dtype, arrays["train_y"].dtype) == (np.float32, np.int64)


def test_a_regression_has_its_own_loss_and_no_accuracy() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 3))
    y = x @ [[1.0], [2.0], [-1.0]] + 0.5
    task = Module(factory=functools.partial(nn.Linear, 3, 1), train=(x, y), test=(x, y), loss=nn.functional.mse_loss)
    problem = task.problem(4, Iid(), 0)
    weights = train(problem, 300)
    loss, accuracy = problem.evaluate(weights[None])
    assert weights == pytest.approx([1, 2, -1, 0.5], abs=1e-3)
    assert loss[0] < 1e-5
    assert np.isnan(accuracy[0])
    with pytest.raises(ValueError, match='use "iid"'):
        task.problem(4, Dirichlet(), 0)


def test_it_travels_without_its_arrays_and_works_with_them() -> None:
    problem = make(normalised)
    weights, batches = many(problem, 1)
    first = problem.gradient(weights[0], batches[0])
    there = ForkingPickler.loads(ForkingPickler.dumps(problem))
    assert there.arrays == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch's, about arrays that cannot be written to
        there.attach(problem.arrays)
        second = there.gradient(weights[0], batches[0])
    assert first[0] == second[0]
    assert np.array_equal(first[1], second[1])
    assert there.notes == problem.notes


@pytest.mark.parametrize("fields", [{"factory": lambda: Net()}, {"factory": Net, "loss": lambda output, y: output.sum()}])
def test_what_another_process_cannot_find_is_refused_there_and_fine_here(fields: dict) -> None:
    problem = Module(train=TRAIN, test=TEST, **fields).problem(2, Iid(), 0)
    with pytest.raises(ValueError, match="top level of a module file"):
        ForkingPickler.dumps(problem)


def test_the_start_follows_the_seed() -> None:
    task = Module(factory=Net, train=TRAIN, test=TEST)
    first, again, other = (task.problem(2, Iid(), seed).initial for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_it_can_be_described_in_plain_values() -> None:
    described = Module(factory=Net, train=TRAIN, test=TEST, batch_size=8).describe()
    assert described["factory"].endswith("modules.Net")
    assert described["train"] == ["float32[1437, 64]", "int64[1437]"]
    assert (described["name"], described["batch_size"], described["loss"]) == ("module", 8, "cross entropy")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "from Python only"),
        ({"factory": Net()}, "not the module"),
        ({"factory": 3}, "factory is int"),
        ({"factory": Net, "train": None}, "give train"),
        ({"factory": Net, "loss": "mse"}, "loss is str"),
    ],
)
def test_bad_fields_are_refused(fields: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Module(**{"train": TRAIN, "test": TEST, **fields})


def double() -> nn.Module:
    return Net().double()


def fixed() -> nn.Module:
    return Net().requires_grad_(False)


def lazy() -> nn.Module:
    return nn.LazyLinear(10)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"factory": list}, "returned list"),
        ({"factory": fixed}, "without trainable parameters"),
        ({"factory": double}, "float64"),
        ({"factory": lazy}, "no shape yet"),
        ({"factory": functools.partial(nn.Linear, 7, 10)}, "must fit together"),
        ({"factory": functools.partial(nn.Linear, 64, 3)}, "must fit together"),
        ({"loss": functools.partial(nn.functional.cross_entropy, reduction="none")}, "must fit together"),
        ({"train": (TRAIN_X, TRAIN_Y[:-1])}, "1437 samples and y has 1436"),
        ({"train": (TRAIN_X[:0], TRAIN_Y[:0])}, "one or more"),
        ({"train": (TRAIN_X,)}, "1 parts"),
        ({"train": 5}, "train is int"),
        ({"test": TensorDataset(torch.zeros(3, 64))}, "pairs"),
        ({"test": (np.array([None]), np.array([1]))}, "arrays of numbers"),
    ],
)
def test_unfit_modules_and_data_are_refused_in_words(fields: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Module(**{"factory": Net, "train": TRAIN, "test": TEST, **fields}).problem(2, Iid(), 0)
