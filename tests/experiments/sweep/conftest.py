"""A command for the tests of sweeps that takes no time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.experiments.sweep.stand_in import STAND_IN, measured


@pytest.fixture
def command(tmp_path: Path) -> Callable[[Path, Path], list[str]]:
    """What stands in for `grapevine run`: bad input for seed 13, a crash for 9, an early end for 5, no end for 77.

    Seed 4 loses a peer unasked, until there is a file `inputs/well`.
    """
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    measured(tmp_path, 0.1, [0.2, 0.6])
    return lambda file, folder: [sys.executable, "-S", "-E", str(script), str(file), str(folder), str(tmp_path)]
