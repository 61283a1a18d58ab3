"""The trial of a user's own codec, aggregator and optimizer on small vectors, before anything starts."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TypeVar

import networkx as nx
import numpy as np

from grapevine.experiments.config.errors import ConfigError
from grapevine.experiments.config.experiment import Experiment
from grapevine.experiments.config.menus import MENUS
from grapevine.experiments.config.own_parts import line_of
from grapevine.peer.aggregators import Aggregator
from grapevine.peer.codecs import OWN_NUMBERS, Codec
from grapevine.peer.optimizers import Optimizer
from grapevine.peer.payloads import Dense, decode, decode_head, encode
from grapevine.peer.spaces import Spaces

T = TypeVar("T")

COUNTS = (0, 1, 7, 4096)
"""The numbers of elements with which a codec is tried."""
SIZE = 7
"""The number of elements of the vectors with which an aggregator and an optimizer are tried."""
MOST_STEPS = 100
"""An optimizer may leave the weights as they are for fewer steps than this, for example to add up gradients."""
_WRITE = "let encode return body_bytes(count) bytes (uint8), and the float32 values that decode returns for them"
_FILL = "let combine(rows, weights, out) write the result into out, out[:] = ..., and change no row"
_STEP = "let start(size) return an object with step(weights, gradient), which changes weights in place: weights -= ..."


def try_own_parts(experiment: Experiment, graph: nx.Graph) -> None:
    """Raise ConfigError, with the cure, if a user's own codec, aggregator or optimizer does not do what its family promises.

    An aggregator is tried with as many vectors as the peer with the most neighbours in `graph` combines.
    """
    own = [key for key in ("codec", "aggregator", "optimizer") if not MENUS[key].holds(getattr(experiment, key))]
    if "codec" in own:
        try_codec(experiment.codec)
    if "aggregator" in own:
        try_aggregator(experiment.aggregator, 1 + max(degree for _, degree in graph.degree))
    if "optimizer" in own:
        try_optimizer(experiment.optimizer)


def try_codec(codec: Codec) -> None:
    """Raise ConfigError for a codec whose number is not from 128 to 255, or whose decode does not fit its encode."""
    name, number = MENUS["codec"].called(codec), getattr(codec, "number", None)
    if number not in OWN_NUMBERS:
        owners = [name for name, member in MENUS["codec"].members.items() if member.number == number]  # type: ignore[attr-defined]
        problem = f"its number on the wire is {number}" + (f", the number of {owners[0]}" if owners else "")
        cure = f"write number: ClassVar[int] = {OWN_NUMBERS[0]} in the class, or another number up to {OWN_NUMBERS[-1]}"
        raise ConfigError(key="codec.name", value=name, problem=problem, cure=cure)
    rng = np.random.default_rng(0)
    for count in COUNTS:
        _read_back(codec, name, rng.standard_normal(count).astype(np.float32))


def try_aggregator(aggregator: Aggregator, rows: int) -> None:
    """Raise ConfigError for an aggregator that does not fill `out`, or changes one of the vectors that it combines."""
    name = MENUS["aggregator"].called(aggregator)
    given = np.random.default_rng(0).standard_normal((rows, SIZE)).astype(np.float32)
    vectors, out = list(given.copy()), np.full(SIZE, np.nan, np.float32)
    trial = f"with {rows} vectors of {SIZE} elements"
    combine: Callable[..., object] = aggregator.combine
    returned = _attempt("aggregator", name, trial, _FILL, lambda: combine(vectors, [1.0 / rows] * rows, out))
    if np.isnan(out).any():
        extra = f", and it returned {type(returned).__name__}" if returned is not None else ""
        problem = f"{trial} it left {int(np.isnan(out).sum())} elements of out unwritten, or nan{extra}"
        raise ConfigError(key="aggregator.name", value=name, problem=problem, cure=_FILL)
    if not np.array_equal(vectors, given):
        raise ConfigError(key="aggregator.name", value=name, problem=f"{trial} it changed one of them", cure=_FILL)


def try_optimizer(optimizer: Optimizer) -> None:
    """Raise ConfigError for an optimizer whose steps leave the weights as they are, or change the gradient."""
    name = MENUS["optimizer"].called(optimizer)
    before = np.linspace(-1.0, 1.0, SIZE, dtype=np.float32)  # with a zero, which even a tiny step changes
    slope = np.linspace(0.5, 1.5, SIZE, dtype=np.float32)
    weights, gradient = before.copy(), slope.copy()
    trial = f"with {SIZE} weights"
    stepper = _attempt("optimizer", name, trial, _STEP, lambda: optimizer.start(SIZE))
    for _ in range(MOST_STEPS):
        _attempt("optimizer", name, trial, _STEP, lambda: stepper.step(weights, gradient))
        if not np.array_equal(gradient, slope):
            problem, cure = f"{trial} its step changed the gradient", "compute with a copy: gradient = gradient.copy()"
            raise ConfigError(key="optimizer.name", value=name, problem=problem, cure=cure)
        if not np.array_equal(weights, before):
            return
    problem = f"{trial} {MOST_STEPS} steps left them as they were"
    raise ConfigError(key="optimizer.name", value=name, problem=problem, cure=_STEP)


def _read_back(codec: Codec, name: str, values: np.ndarray) -> None:
    """Write values (float32 [count]) and read them again."""
    count = len(values)
    trial = f"with {count} elements"

    def both() -> tuple[np.ndarray, np.ndarray]:
        parcel, read = encode(Dense(values), codec, 0)
        return read, decode(decode_head(parcel.head), parcel.body, Spaces(count, codec)).values

    read, again = _attempt("codec", name, trial, _WRITE, both)
    if not np.array_equal(read, again):
        problem = f"{trial} decode does not return the values that encode returned"
        raise ConfigError(key="codec.name", value=name, problem=problem, cure=_WRITE)
    if codec.lossless and not np.array_equal(read, values):
        problem = f"it has lossless = True but changes some of {count} elements"
        raise ConfigError(key="codec.name", value=name, problem=problem, cure="take lossless = True out of the class")


def _attempt(key: str, name: str, trial: str, cure: str, action: Callable[[], T]) -> T:
    """Return `action()`, which runs a user's own code; raise whatever it raises as a ConfigError, with the file and line."""
    try:
        return action()
    except Exception as error:  # noqa: BLE001 - the user's own code may raise anything
        raised = " ".join(traceback.format_exception_only(error)[-1].split())
        problem = f"{trial} it raised {raised}{line_of(error)}"
        raise ConfigError(key=f"{key}.name", value=name, problem=problem, cure=cure) from None
