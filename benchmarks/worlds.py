"""Agreement of real and virtual time: each strategy of the suite in both worlds, side by side."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from grapevine.experiments.cli.main import main as grapevine

SUITE = Path(__file__).parents[1] / "experiments" / "suites" / "worlds-agree.toml"


def differences() -> list[dict[str, Any]]:
    """Return one row for each strategy: the relative difference of steps and bytes, and of the final accuracy in points."""
    import pandas

    with tempfile.TemporaryDirectory() as folder:
        if grapevine(["sweep", str(SUITE), "--out", folder, "--quiet"]) != 0:
            raise RuntimeError("a run of the suite failed; run the sweep by hand to see which")
        table = pandas.read_parquet(Path(folder) / "table.parquet")
    rows = []
    for strategy, pair in table.groupby("strategy.name", sort=False):
        both = {row["world.name"]: row for _, row in pair.iterrows()}
        real, virtual = both["processes"], both["virtual"]
        sent = virtual["bytes_sent"]
        rows.append(
            {
                "strategy": strategy,
                "steps": real["steps_total"] / virtual["steps_total"] - 1,
                "bytes": real["bytes_sent"] / sent - 1 if sent else 0.0,
                "accuracy_points": 100 * (real["accuracy_mean"] - virtual["accuracy_mean"]),
                "lateness_p99_ms": real["lateness_p99_ms"],
            }
        )
    return rows
