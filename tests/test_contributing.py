"""The strategy in CONTRIBUTING.md is a whole one: it is taken from there and run."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from grapevine import Experiment, run
from grapevine.experiments.config.experiment import Stop, Virtual
from grapevine.experiments.tasks import Quadratic
from grapevine.netem import Uniform, UniformDevices

PAGE = Path(__file__).parent.parent / "CONTRIBUTING.md"
BLOCK = re.search(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
TARGETS = [0.0, 1.0, 2.0, 3.0, 4.0, 10.0]


@pytest.fixture
def strategy() -> Iterator[Any]:
    """The class of the page, in a module of its own as if it lay in a file."""
    assert BLOCK is not None
    module = ModuleType("strategy_of_the_page")
    sys.modules[module.__name__] = module
    exec(compile(BLOCK.group(1), str(PAGE), "exec"), module.__dict__)
    yield module.__dict__["LocalSGD"]
    del sys.modules[module.__name__]


def final_weights(folder: Path, strategy: Any, steps: int) -> np.ndarray:
    """Of six peers on a ring with unequal targets, in virtual time."""
    experiment = Experiment(
        peers=len(TARGETS),
        world=Virtual(),
        task=Quadratic(targets=TARGETS),
        network=Uniform(rate="1 Mbit/s", delay="30 ms"),
        devices=UniformDevices(speed="1000 samples/s"),
        strategy=strategy,
        stop=Stop(steps=steps),
    )
    result = run(experiment, out=folder)
    assert result.summary["reason"] == f"{steps} steps done"
    return result.weights[:, 0]


def test_it_is_30_lines() -> None:
    assert BLOCK is not None
    assert len(BLOCK.group(1).splitlines()) <= 32


@pytest.mark.parametrize("period", [1, 5])
def test_the_mean_walks_as_gradient_descent_does(tmp_path: Path, strategy: Any, period: int) -> None:
    weights = final_weights(tmp_path / "run", strategy(period=period), steps=20)
    exact = np.mean(TARGETS) * (1 - 0.9**20)  # learning rate 0.1, from 0 towards the mean target
    assert weights.mean() == pytest.approx(exact, abs=1e-5)


def test_the_rarer_the_averaging_the_further_apart(tmp_path: Path, strategy: Any) -> None:
    spreads = [np.ptp(final_weights(tmp_path / str(period), strategy(period=period), steps=41)) for period in (1, 5, 20)]
    assert spreads[0] < spreads[1] < spreads[2]
    assert spreads[2] < max(TARGETS) - min(TARGETS)
