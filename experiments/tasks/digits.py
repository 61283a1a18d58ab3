"""The task `digits`: 1,797 handwritten digits of 8 x 8 pixels, which come with scikit-learn."""

import functools
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from grapevine.experiments.tasks import cnn, perceptron
from grapevine.experiments.tasks.base import Task
from grapevine.experiments.tasks.learning import Learner, LearningProblem
from grapevine.experiments.tasks.partitions import Partition

HELD_OUT = 360
_PIXELS, _CLASSES = 64, 10
_MOST_PARAMETERS = 100_000_000  # 400 MB of weights a peer
_STREAM = 0xD161  # keeps the initial weights' random numbers apart from those that other parts draw from the same seed


class Digits(Task, frozen=True, tag="digits"):
    """Handwritten digits: 1,437 images to train on, 180 to validate and 180 to test, 10 classes, 8 x 8 pixels.

    The split is the same for every seed, so that runs can be compared; the numbers of validation and test images of a class
    differ by one at most. Pixels are standardised with one mean and one deviation, those of the training images. A probe set
    is taken from the training images. Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI
    repository, 1998.
    """

    model: Literal["mlp", "cnn", "logistic"] = "mlp"
    """"mlp": perceptron with relu; "cnn": small convolutional network (10,026 parameters); "logistic": softmax regression."""
    hidden: tuple[int, ...] = (64,)
    """Widths of the perceptron's hidden layers (each at least 1): [64] has 4,810 parameters in all, [960, 960] has 994,570."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model not in ("mlp", "cnn", "logistic"):
            raise ValueError(f'model = "{self.model}" is unknown: expected "mlp", "cnn" or "logistic"')
        msgspec.structs.force_setattr(self, "hidden", tuple(self.hidden))  # from Python it may come as a list
        given = f"hidden = {list(self.hidden)}"
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f'{given}: every layer needs a width of at least 1; for no hidden layer use model = "logistic"')
        if self.model != "mlp" and self.hidden != (64,):
            raise ValueError(f'{given}: has an effect with model = "mlp" only; leave hidden out')
        parameters = perceptron.layers(self._widths())[-1].stop
        if parameters > _MOST_PARAMETERS:
            raise ValueError(f"{given}: {parameters:,} parameters are more than {_MOST_PARAMETERS:,}; choose narrower layers")

    def problem(self, peers: int, partition: Partition, seed: int) -> LearningProblem:
        """Return the problem; raise ValueError if 1,437 images are too few for the partition."""
        parts = split()
        rng = np.random.default_rng([seed, _STREAM])
        make: Callable[[Mapping[str, np.ndarray]], Learner]
        needs: tuple[str, ...]
        if self.model == "cnn":
            shape, start, make, needs = _as_images, cnn.initial(rng), cnn.learner, (cnn.NEEDS,)
            layout = cnn.layout()
        else:
            widths = self._widths()
            shape, start, needs = _with_ones, perceptron.initial(widths, rng), ()
            make = functools.partial(perceptron.Perceptron, widths)
            layout = perceptron.layout(widths)
        data: dict[str, np.ndarray] = {}
        for part, (pixels, labels) in parts.items():
            data |= {f"{part}_x": shape(pixels), f"{part}_y": labels}
        problem = LearningProblem(
            initial=start,
            layout=layout,
            data=data,
            make=make,
            partition=partition,
            peers=peers,
            seed=seed,
            preload=needs,
        )
        problem.outputs = _CLASSES
        return problem

    def _widths(self) -> tuple[int, ...]:
        return (_PIXELS, *(self.hidden if self.model == "mlp" else ()), _CLASSES)


def load() -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels float32 [1797, 64], 0 to 16, and labels int64 [1797], as sklearn.datasets.load_digits does.

    The file is read from the installed package, because importing scikit-learn would add 1.7 s to each start of a run.
    """
    package = importlib.util.find_spec("sklearn")
    where = next(iter(package.submodule_search_locations or ()), None) if package else None
    if where is None:
        raise ValueError("the task digits needs scikit-learn, which is not installed: pip install scikit-learn")
    file = Path(where, "datasets", "data", "digits.csv.gz")
    if file.is_file():
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
        return table[:, :-1], table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits  # slow; needed if a release has the file at another place

    pixels, labels = load_digits(return_X_y=True)
    return pixels.astype(np.float32), labels.astype(np.int64)


def split() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the standardised pixels and the labels under "train", "validation" and "test": always the same.

    The images held out from training are sorted by class and go to validation and test in turn.
    """
    pixels, labels = load()
    order = np.random.default_rng(_STREAM).permutation(len(labels))
    held_out, train = order[:HELD_OUT], order[HELD_OUT:]
    by_class = held_out[np.argsort(labels[held_out], kind="stable")]
    mean, deviation = pixels[train].mean(dtype=np.float64), pixels[train].std(dtype=np.float64)
    pixels = ((pixels - mean) / deviation).astype(np.float32)
    parts = {"train": train, "validation": by_class[::2], "test": by_class[1::2]}
    return {name: (pixels[part], labels[part]) for name, part in parts.items()}


def _with_ones(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels, np.ones((len(pixels), 1), dtype=np.float32)], axis=1)


def _as_images(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(-1, 1, 8, 8)
