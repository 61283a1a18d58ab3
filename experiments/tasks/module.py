"""The task `module`: a user's own torch module and data, from Python."""

import functools
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from grapevine.experiments.tasks.base import Task
from grapevine.experiments.tasks.learning import Learner, LearningProblem
from grapevine.experiments.tasks.partitions import Partition
from grapevine.experiments.tasks.sampling import Batch

if TYPE_CHECKING:
    from grapevine.experiments.tasks.autograd import ModuleLearner

_STREAM = 0x7A11D  # keeps the random numbers of the validation samples apart from those of other parts
_FROM_PYTHON = (
    "the task module can be used from Python only, because it holds a model and data: "
    "Experiment(task=Module(factory=Net, train=(x, y), test=(x, y))); an experiment file can name digits or quadratic"
)


class Module(Task, frozen=True, eq=False, tag="module"):
    """Your own torch.nn.Module and data set; only from Python, not from an experiment file.

    All parameters that require a gradient are trained and exchanged, as float32. Buffers (running statistics of batch
    normalisation) are neither: see `experiments.tasks.autograd`. Floating-point data become float32, integer labels
    int64.
    """

    factory: Any = None
    """Function or class without arguments that returns the module; in a run in processes it must be importable."""
    train: Any = None
    """Training data: (x, y), numpy arrays or torch tensors, samples along the first axis; or a torch Dataset of pairs."""
    test: Any = None
    """Test data, likewise: the figures of a run are measured on them; they decide nothing."""
    validation: Any = None
    """Validation data, likewise: they stop runs and choose settings; left out = a part of `train`."""
    validation_share: float = 0.1
    """The share of `train` that is used for validation if no validation data are given; above 0, below 1."""
    loss: Any = None
    """loss(output, y) -> mean over the batch; softmax cross entropy when left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.factory, str) or self.factory is None:
            raise ValueError(_FROM_PYTHON)
        if not callable(self.factory) or (hasattr(self.factory, "named_parameters") and not isinstance(self.factory, type)):
            kind = type(self.factory).__name__
            raise ValueError(f"factory is {kind}: give the function or class that builds the module, not the module")
        if self.train is None or self.test is None:
            raise ValueError("Module needs data: give train=(x, y) and test=(x, y)")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share = {self.validation_share}: expected above 0 and below 1")
        if self.loss is not None and not callable(self.loss):
            raise ValueError(f"loss is {type(self.loss).__name__}: give a function loss(output, y), or leave it out")

    def problem(self, peers: int, partition: Partition, seed: int) -> LearningProblem:
        """Return the problem: build the module, read the data, and try the module on the data.

        Without validation data the same random samples of `train` are held out for every seed, so that runs can be
        compared. Raises ValueError, with the module's own message, if data and module do not fit.
        """
        from grapevine.experiments.tasks import autograd

        data: dict[str, np.ndarray] = {}
        for part, pair in self._parts().items():
            data |= {f"{part}_x": pair[0], f"{part}_y": pair[1]}
        make = _Maker(self.factory, self.loss, seed)
        module = autograd.build(self.factory, seed)
        initial = autograd.flat(module)
        problem = LearningProblem(
            initial=initial,
            layout=autograd.layout(module),
            data=data,
            make=make,
            partition=partition,
            peers=peers,
            seed=seed,
            preload=(autograd.__name__,),
        )
        few = min(len(data["train_y"]), self.batch_size)
        trial = make({name: array[: few if name.startswith("train") else 2] for name, array in data.items()})
        _try(trial, initial, Batch(np.arange(few), seed), data)
        problem.notes.extend(trial.notes)
        problem.outputs = trial.outputs(initial, np.arange(few))
        own_loss = {"targets"} if self.loss is not None else set()  # it may take labels only
        problem.without = frozenset(own_loss | ({"clip"} if trial.couples_samples else set()))
        return problem

    def _parts(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return the data under "train", "validation" and "test"."""
        train, test = _pair(self.train, "train"), _pair(self.test, "test")
        if self.validation is not None:
            return {"train": train, "validation": _pair(self.validation, "validation"), "test": test}
        count = len(train[1])
        if count < 2:
            raise ValueError("train has 1 sample, too few to use some for validation: give validation=(x, y)")
        held_out = min(max(1, round(self.validation_share * count)), count - 1)
        order = np.random.default_rng(_STREAM).permutation(count)
        chosen, left = np.sort(order[:held_out]), np.sort(order[held_out:])
        return {"train": (train[0][left], train[1][left]), "validation": (train[0][chosen], train[1][chosen]), "test": test}

    def describe(self) -> dict[str, Any]:
        """Return a description for the run folder: plain values, with the shapes of the data."""
        given = {"train": self.train, "test": self.test}
        given |= {"validation": self.validation} if self.validation is not None else {}
        pairs = {which: _pair(value, which) for which, value in given.items()}
        return {
            "name": "module",
            "batch_size": self.batch_size,
            "factory": _name(self.factory),
            "loss": _name(self.loss) if self.loss is not None else "cross entropy",
            "validation": f"a share of {self.validation_share:g} of train",
            **{which: [f"{array.dtype}{list(array.shape)}" for array in pair] for which, pair in pairs.items()},
        }


class _Maker:
    """Makes the learner, in any process."""

    def __init__(self, factory: Callable[[], Any], loss: Callable[..., Any] | None, seed: int):
        self._factory, self._loss, self._seed = factory, loss, seed

    def __call__(self, arrays: Mapping[str, np.ndarray]) -> "ModuleLearner":
        from grapevine.experiments.tasks.autograd import ModuleLearner

        return ModuleLearner(self._factory, self._loss, self._seed, arrays)

    def __getstate__(self) -> dict[str, Any]:
        for role, value in (("factory", self._factory), ("loss", self._loss)):
            if value is not None and not _importable(value):
                raise ValueError(
                    f"another process cannot import the {role} {_name(value)}: define it at the top level of a module file, "
                    'or run in the world "virtual"'
                )
        return self.__dict__


def _importable(value: Any) -> bool:
    """Return whether another process can find a function or class by its name."""
    if isinstance(value, functools.partial):
        return _importable(value.func)
    if "<" in getattr(value, "__qualname__", ""):  # <lambda>, <locals>
        return False
    interactive = not hasattr(sys.modules.get("__main__"), "__file__")
    return not (interactive and getattr(value, "__module__", "") == "__main__")


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}"


def _pair(data: Any, which: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the whole data set: x and y, samples along the first axis."""
    if not isinstance(data, tuple | list):
        if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
            raise ValueError(f"{which} is {type(data).__name__}: give (x, y), or a Dataset that has a length")
        items = [data[index] for index in range(len(data))]
        if not items or any(len(item) != 2 for item in items):
            raise ValueError(f"{which}: the data set must hold pairs (x, y), one or more")
        data = (np.stack([_array(x) for x, _ in items]), np.stack([_array(y) for _, y in items]))
    if len(data) != 2:
        raise ValueError(f"{which} has {len(data)} parts: give (x, y)")
    x, y = (_array(part) for part in data)
    if x.dtype == object or y.dtype == object or x.ndim == 0 or y.ndim == 0:
        raise ValueError(f"{which}: x and y must be arrays of numbers with samples along the first axis")
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"{which}: x has {len(x)} samples and y has {len(y)}; give the same number of both, one or more")
    _refuse_non_finite(f"{which} x", x)
    _refuse_non_finite(f"{which} y", y)
    return np.ascontiguousarray(x), np.ascontiguousarray(y.astype(np.int64) if y.dtype.kind in "iub" else y)


def _refuse_non_finite(name: str, array: np.ndarray) -> None:
    """Raise ValueError, with the first place, where a float array holds nan or infinity."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    places = np.argwhere(~np.isfinite(array))
    index = tuple(places[0].tolist())
    raise ValueError(
        f"{name}[{', '.join(map(str, index))}] is {array[index]} (index from 0, as float32; {len(places)} of {array.size} "
        "numbers are not finite): gradients would be nan; correct the data or remove these samples"
    )


def _array(value: Any) -> np.ndarray:
    array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
    with np.errstate(over="ignore"):  # infinite values are refused by name afterwards
        return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def _try(learner: Learner, initial: np.ndarray, batch: Batch, data: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError if the module fails on the data, or if its loss or gradient is not finite."""
    try:
        loss, gradient = learner.gradient(initial, batch)
        learner.evaluate(initial[None], "validation")
        learner.evaluate(initial[None])
    except Exception as problem:  # the user's own code: it may raise anything
        x, y = data["train_x"], data["train_y"]
        raise ValueError(
            f"the module fails on the data, x {x.dtype}{list(x.shape)} and y {y.dtype}{list(y.shape)}: {problem}; "
            "factory, loss and data must fit together"
        ) from problem
    if not (np.isfinite(loss) and np.isfinite(gradient).all()):
        result = f"loss {loss}" if not np.isfinite(loss) else "a gradient that is not finite"
        raise ValueError(
            f"the module gives {result} at its initial weights on the first {len(batch.indices)} training samples: correct "
            "factory, loss or data; another learning rate does not help"
        )
