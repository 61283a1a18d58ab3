"""Optimizers: they turn a gradient into a step of the weights, on one flat float32 vector.

An optimizer's configuration is a frozen value; `start(size)` returns the state that one peer keeps.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Protocol

import msgspec
import numpy as np

from grapevine.peer.blas import add_scaled

Positive = Annotated[float, msgspec.Meta(gt=0.0)]
Fraction = Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]
NonNegative = Annotated[float, msgspec.Meta(ge=0.0)]


class Stepper(Protocol):
    """One peer's optimizer with its state."""

    def step(self, weights: np.ndarray, gradient: np.ndarray) -> None:
        """Move `weights` (float32 [size]) in place by one step along -gradient; do not change `gradient`."""


class Optimizer(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """A rule that turns gradients into steps of the weights."""

    learning_rate: Positive = 0.1
    """Step size, > 0."""
    weight_decay: NonNegative = 0.0
    """Factor of the weights that are added to the gradient: gradient + weight_decay x weights; >= 0."""

    @abstractmethod
    def start(self, size: int) -> Stepper:
        """Return a new state for one peer's vector of `size` elements."""
        raise NotImplementedError


class Sgd(Optimizer, frozen=True, tag="sgd"):
    """Stochastic gradient descent, optionally with heavy-ball or Nesterov momentum."""

    momentum: Fraction = 0.0
    """v <- momentum v + g; 0 = plain SGD; 0 <= momentum < 1."""
    nesterov: bool = False
    """Step along g + momentum v instead of v (Sutskever et al. 2013, as in torch)."""

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov = true needs a momentum above 0, such as momentum = 0.9")

    def start(self, size: int) -> Stepper:
        return _SgdStepper(self, size)


class Adam(Optimizer, frozen=True, tag="adam"):
    """Adam with bias correction (Kingma and Ba 2015, algorithm 1)."""

    learning_rate: Positive = 0.001
    """Step size, > 0."""
    beta1: Fraction = 0.9
    """Decay of the mean of the gradient."""
    beta2: Fraction = 0.999
    """Decay of the mean of the gradient's square."""
    epsilon: Positive = 1e-8
    """Constant added to the root, which prevents division by zero."""

    def start(self, size: int) -> Stepper:
        return _AdamStepper(self, size)


AnyOptimizer = Sgd | Adam


class _SgdStepper:
    def __init__(self, config: Sgd, size: int) -> None:
        self.config = config
        self.velocity = np.zeros(size, np.float32) if config.momentum else None

    def step(self, weights: np.ndarray, gradient: np.ndarray) -> None:
        config = self.config
        if config.weight_decay:
            gradient = gradient + np.float32(config.weight_decay) * weights
        if self.velocity is not None:
            self.velocity *= np.float32(config.momentum)
            self.velocity += gradient
            if config.nesterov:
                gradient = gradient + np.float32(config.momentum) * self.velocity
            else:
                gradient = self.velocity
        add_scaled(weights, gradient, -config.learning_rate)


class _AdamStepper:
    def __init__(self, config: Adam, size: int) -> None:
        self.config = config
        self.mean = np.zeros(size, np.float32)
        self.square = np.zeros(size, np.float32)
        self.steps = 0

    def step(self, weights: np.ndarray, gradient: np.ndarray) -> None:
        config, scratch = self.config, np.empty_like(weights)
        self.steps += 1
        if config.weight_decay:
            gradient = gradient + np.float32(config.weight_decay) * weights
        self.mean *= np.float32(config.beta1)
        self.mean += np.multiply(gradient, np.float32(1 - config.beta1), out=scratch)
        np.multiply(gradient, gradient, out=scratch)
        scratch *= np.float32(1 - config.beta2)
        self.square *= np.float32(config.beta2)
        self.square += scratch
        np.sqrt(self.square, out=scratch)
        scratch /= np.float32((1 - config.beta2**self.steps) ** 0.5)
        scratch += np.float32(config.epsilon)
        np.divide(self.mean, scratch, out=scratch)
        scratch *= np.float32(config.learning_rate / (1 - config.beta1**self.steps))
        weights -= scratch
