"""The results of a sweep: a table with a row for each run, as CSV and parquet, and a page that compares all runs."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grapevine.experiments.config.errors import show_value
from grapevine.experiments.results.result import Result
from grapevine.experiments.sweep.sweep import Attempt


def rows_of(attempts: Sequence[Attempt], out: Path) -> list[dict[str, Any]]:
    """Return a row for each run: name, state and reason, the swept keys, and every single number or word of its summary.

    None = the run has no such value. `time_to_accuracy_s` has a column for each level.
    """
    rows = [
        {"run": attempt.point.name, "state": attempt.state, "reason": attempt.reason}
        | {key: _plain(value) for key, value in (attempt.point.values | attempt.point.tuned).items()}
        | _figures(out / attempt.point.name, attempt)
        for attempt in attempts
    ]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return [{column: row.get(column) for column in columns} for row in rows]


def write_table(rows: Sequence[Mapping[str, Any]], out: Path, name: str = "table") -> list[Path]:
    """Write `table.csv` and `table.parquet`, or files of another `name`; return their paths."""
    import pyarrow
    import pyarrow.parquet

    columns = list(rows[0]) if rows else []
    with open(out / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    table = pyarrow.table({column: _column([row[column] for row in rows]) for column in columns})
    pyarrow.parquet.write_table(table, out / f"{name}.parquet")
    return [out / f"{name}.csv", out / f"{name}.parquet"]


def write_comparison(attempts: Sequence[Attempt], out: Path) -> Path | None:
    """Write `report.html` on all complete runs, also those that lost peers (marked on the page); return its path.

    None if no run is complete. Raises ValueError if the page cannot be drawn.
    """
    from grapevine.experiments.report.page import write_report

    folders = [out / attempt.point.name for attempt in attempts if attempt.done or attempt.damaged]
    if not folders:
        return None
    write_report(folders, out / "report.html")
    return out / "report.html"


def _figures(folder: Path, attempt: Attempt) -> dict[str, Any]:
    """Return the summary's figures; none for a run that was not started (its folder may hold an older run)."""
    if attempt.state == "not run":
        return {}
    try:
        summary = Result.read(folder).summary
    except ValueError:
        return {}
    figures: dict[str, Any] = {}
    for key, value in summary.items():
        if key == "reason":
            continue
        if key == "time_to_accuracy_s":
            figures |= {f"{key}.{level}": time_s for level, time_s in (value or {}).items()}
        elif key in ("peers_lost", "peers_lost_unasked", "warnings"):
            figures[key] = len(value or ())
        elif not isinstance(value, list | dict):
            figures[key] = value
    return {key: value for key, value in figures.items() if key not in attempt.point.values | attempt.point.tuned}


def _plain(value: Any) -> Any:
    return show_value(value) if isinstance(value, list | dict) else value


def _column(values: list[Any]) -> Any:
    """Return an arrow column; of text if the values mix numbers and text."""
    import pyarrow

    try:
        return pyarrow.array(values)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
        return pyarrow.array([None if value is None else str(value) for value in values])
