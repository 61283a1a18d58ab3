"""Where peers, topologies and networks meet: experiments, how they are run, and what comes of them.

`Experiment` describes a run, `run` carries it out, `Result` reads what it left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.config import ConfigError, Experiment
    from experiments.result import Result
    from experiments.runner import run

__all__ = ["ConfigError", "Experiment", "Result", "run"]

_HOMES = {"ConfigError": "config_errors", "Experiment": "config", "Result": "result", "run": "runner"}


def __getattr__(name: str) -> Any:
    """Imported on first use: a command that needs none of these starts at once."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"experiments.{_HOMES[name]}"), name)
