"""Studies under test: one read from text, and one that is tuned."""

from __future__ import annotations

import json
from pathlib import Path

import pandas

from grapevine.experiments.results.result import METRIC_COLUMNS
from grapevine.experiments.sweep.plan import Sweep, read_sweep

TUNED = """
[sweep]
peers = [2, 3]
seed = [1, 2, 3]
[tune]
"optimizer.learning_rate" = [0.05, 0.1, 0.2]
target = 0.5
"""


def planned(folder: Path, text: str) -> Sweep:
    (folder / "study.toml").write_text(text)
    return read_sweep(folder / "study.toml")


def recorded(folder: Path, lines: dict[str, list[float]]) -> Path:
    """Write a run folder with these lines of the fleet, one record per second."""
    run = folder / "recorded"
    run.mkdir()
    rows = [(float(at), -1, at, name, value) for name, line in lines.items() for at, value in enumerate(line, start=1)]
    pandas.DataFrame(rows, columns=list(METRIC_COLUMNS)).to_parquet(run / "metrics.parquet")
    summary = {name: line[-1] for name, line in lines.items()} | {"completed": True, "loss_mean": 0.25, "reason": "over"}
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "manifest.json").write_text("{}")
    return run
