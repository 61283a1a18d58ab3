"""The task in CONTRIBUTING.md is a whole one: it is taken from there and run in both worlds."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine import Experiment, Processes, Stop, Uniform, UniformDevices, Virtual, run

PAGE = Path(__file__).parent.parent / "CONTRIBUTING.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
BLOCK = next(block for block in BLOCKS if "(Task, " in block)


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The class of the page, in a file where the peers' processes find it."""
    (tmp_path / "task_of_the_page.py").write_text(BLOCK, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("task_of_the_page").LeastSquares
    del sys.modules["task_of_the_page"]


def test_the_example_has_about_30_lines() -> None:
    assert len(BLOCK.splitlines()) <= 30


@pytest.mark.parametrize("world", [Virtual(), pytest.param(Processes(), marks=pytest.mark.live)])
def test_it_finds_the_slopes_in_both_worlds(tmp_path: Path, task: Any, world: Any) -> None:
    """30 points with noise of deviation 0.1 each: four peers together are within 0.1 of the slopes."""
    experiment = Experiment(
        peers=4,
        world=world,
        task=task(slopes=(3.0, -2.0)),
        network=Uniform(rate="10 Mbit/s", delay="1 ms"),
        devices=UniformDevices(speed="20000 samples/s"),
        stop=Stop(steps=80),
    )
    result = run(experiment, tmp_path / "run")
    assert result.summary["completed"]
    np.testing.assert_allclose(result.weights, [[3.0, -2.0]] * 4, atol=0.1)
    assert result.summary["validation_loss_mean"] < 0.02
