"""The command of the tests of sweeps."""

from tests.experiments.sweep.conftest import command

__all__ = ["command"]
