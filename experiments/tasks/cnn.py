"""A small convolutional network for the digits.

It uses group normalisation, because batch normalisation fails when the peers' labels differ.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from grapevine.peer.layout import Layout, lay

if TYPE_CHECKING:
    from torch import nn

    from grapevine.experiments.tasks.autograd import ModuleLearner

NEEDS = "grapevine.experiments.tasks.autograd"

_CHANNELS, _GROUPS, _CLASSES = (16, 32), 4, 10


def network() -> "nn.Module":
    """Return two 3 x 3 convolutions with group normalisation and relu, then a linear layer: 10,026 parameters."""
    from torch import nn

    first, second = _CHANNELS
    return nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1),
        nn.GroupNorm(_GROUPS, first),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, stride=2, padding=1),
        nn.GroupNorm(_GROUPS, second),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * 16, _CLASSES),
    )


def layout() -> Layout:
    """Return the network's tensors with torch's names, without importing torch."""
    first, second = _CHANNELS
    weights = {"0": (first, 1, 3, 3), "1": (first,), "3": (second, first, 3, 3), "4": (second,), "7": (_CLASSES, second * 16)}
    return lay(
        (f"{name}.{kind}", shape[: 1 if kind == "bias" else None])
        for name, shape in weights.items()
        for kind in ("weight", "bias")
    )


def initial(rng: np.random.Generator) -> np.ndarray:
    """Return the network's initial parameters by torch's default rules, without importing torch: float32 [10026]."""
    first, second = _CHANNELS
    return np.concatenate(
        [
            *_uniform(rng, 9, first * 9, first),
            *_normalisation(first),
            *_uniform(rng, first * 9, second * first * 9, second),
            *_normalisation(second),
            *_uniform(rng, second * 16, _CLASSES * second * 16, _CLASSES),
        ]
    )


def learner(arrays: Mapping[str, np.ndarray]) -> "ModuleLearner":
    """Return the learner; this imports torch."""
    from grapevine.experiments.tasks.autograd import ModuleLearner

    return ModuleLearner(network, None, 0, arrays)


def _uniform(rng: np.random.Generator, inputs: int, weights: int, biases: int) -> list[np.ndarray]:
    bound = 1 / np.sqrt(inputs)
    return [rng.uniform(-bound, bound, count).astype(np.float32) for count in (weights, biases)]


def _normalisation(channels: int) -> list[np.ndarray]:
    return [np.ones(channels, dtype=np.float32), np.zeros(channels, dtype=np.float32)]
