"""The result of a run, read from its folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from grapevine.experiments.config import toml
from grapevine.experiments.config.errors import ConfigError
from grapevine.experiments.results import run_files
from grapevine.experiments.results.run_files import (
    COLUMNS,
    LINK_COLUMNS,
    METRIC_COLUMNS,
    Event,
    Manifest,
    Summary,
    numbers,
    schema,
)
from grapevine.experiments.terminal import printable

if TYPE_CHECKING:
    import pandas
    import pyarrow

AGAIN = "copy it again, or run it again"

__all__ = ["COLUMNS", "LINK_COLUMNS", "METRIC_COLUMNS", "LinkFigures", "Result", "link_figures", "median", "schema"]


class Result:
    """A run folder: `.summary` (dict), `.metrics` and `.links` (pandas), `.weights` (float32 [peers, size]), and the rest.

    All but the summary is read at its first use, so that a running run can be read too.
    Raises ValueError with the cure if a file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        missing = [name for name in ("manifest.json", "summary.json") if not (folder / name).is_file()]
        if missing:
            state = f"has no {' and no '.join(missing)}" if folder.is_dir() else "does not exist or is not a folder"
            cure = "give a folder written by `grapevine run --out`"
            if (folder / "table.csv").is_file():
                cure = "it is the folder of a sweep: repeat its `grapevine sweep` to write the report, or give the runs in it"
            raise ValueError(f"{folder}: is not a run folder, because it {state}; {cure}")
        self.summary: dict[str, Any] = self._json("summary.json", Summary)

    def __repr__(self) -> str:
        """Describe the run, its end and its folder on one line."""
        found = self.summary
        state = "done" if found.get("completed") else "not complete"
        reached = found.get("accuracy_mean")
        accuracy = "" if reached is None else f", accuracy {reached:.1%}"
        parts = f"{found.get('strategy')} on {found.get('topology')}, {found.get('peers')} peers, {found.get('world')} world"
        return printable(f"<Result {found.get('name')}: {state} ({found.get('reason')}){accuracy}; {parts}; {self.folder}>")

    @classmethod
    def read(cls, folder: str | Path) -> Result:
        """Return the run in `folder`."""
        return cls(Path(folder))

    @cached_property
    def metrics(self) -> pandas.DataFrame:
        """One row for each measurement: time_s, peer (-1: the fleet), step, name, value."""
        return self.table("metrics.parquet").to_pandas()

    @cached_property
    def links(self) -> pandas.DataFrame:
        """One row for each link and record interval: its traffic, and its configured and measured rate and delay."""
        return self.table("links.parquet").to_pandas()

    @cached_property
    def weights(self) -> np.ndarray:
        """The final weights, float32 [peers, size]."""
        path = self.folder / "weights.npy"
        if not path.is_file():
            raise ValueError(f"{path}: missing, because the run did not reach its end ({self.summary['reason']}); run it again")
        try:
            weights: np.ndarray = np.load(path, allow_pickle=False)
            return weights
        except (OSError, ValueError, EOFError, SyntaxError, TypeError) as error:
            raise ValueError(f"{path}: damaged ({error}); run it again") from None

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The run's command, start, machine, versions and sizes."""
        found = self._json("manifest.json", Manifest)
        places, peers = found.get("places"), self.summary.get("peers")
        if places is not None and peers is not None and len(places) != peers:
            raise ValueError(f"{self.folder / 'manifest.json'}: {len(places)} places for {peers} peers; {AGAIN}")
        return found

    @cached_property
    def experiment_toml(self) -> str:
        """The experiment as TOML, with every default filled in."""
        path = self.folder / "experiment.toml"
        try:
            return toml.read_text(path, str(path))
        except ConfigError as error:
            raise ValueError(f"{path}: {error.problem}; {AGAIN}") from None

    @cached_property
    def experiment_document(self) -> dict[str, Any]:
        """The experiment as plain dictionaries."""
        path = self.folder / "experiment.toml"
        try:
            return toml.parse(self.experiment_toml, str(path))
        except ConfigError as error:
            raise ValueError(f"{path}: damaged ({error.problem}); {AGAIN}") from None

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """The run's events: time_s, kind, and the kind's own fields. A last line cut off by a crash is skipped."""
        path = self.folder / "events.jsonl"
        lines = path.read_bytes().splitlines() if path.is_file() else []
        events: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            try:
                events.append(run_files.document(line, Event))
            except ValueError as error:
                if number < len(lines):
                    raise ValueError(f"{path}: line {number} is damaged ({error}); remove that line") from None
        return events

    def table(self, file: str) -> pyarrow.Table:
        """Return `metrics.parquet` or `links.parquet` as an arrow table; empty if the run ended before the first write."""
        path = self.folder / file
        if not path.is_file():
            if self.summary.get("completed"):
                raise ValueError(f"{path}: missing from a complete run; copy the whole folder, or run it again")
            return schema(file).empty_table()
        try:
            with open(path, "rb") as content:  # arrow cannot open every path
                return run_files.table(content, file, self.summary.get("peers"))
        except (ValueError, OSError) as error:
            raise ValueError(f"{path}: damaged ({error}); {AGAIN}") from None

    def check(self) -> None:
        """Read all files that a report or a table reads; raises ValueError if one is missing or damaged."""
        _ = self.manifest, self.experiment_document, self.events
        for file in COLUMNS:
            self.table(file)

    def columns(self, file: str) -> dict[str, np.ndarray]:
        """Return the numeric columns of `metrics.parquet` or `links.parquet` as numpy arrays."""
        table = self.table(file)
        return {name: numbers(table[name]) for name, kind in COLUMNS[file].items() if kind != "string"}

    def _json(self, file: str, kind: type[Any]) -> dict[str, Any]:
        path = self.folder / file
        try:
            return run_files.document(path.read_bytes(), kind)
        except (ValueError, OSError) as error:
            raise ValueError(f"{path}: cannot be read ({error}); {AGAIN}") from None


class LinkFigures(NamedTuple):
    """Traffic, and configured and measured rate and delay of one link over a run; nan = unknown, inf = unshaped."""

    source: int
    target: int
    bytes: int
    messages: int
    rate_asked_bytes_per_s: float
    rate_measured_bytes_per_s: float
    delay_asked_s: float
    delay_measured_s: float

    @property
    def delay_error_s(self) -> float:
        """The measured less the configured delay, s; nan if one of them is unknown."""
        return self.delay_measured_s - self.delay_asked_s


def link_figures(columns: Mapping[str, np.ndarray]) -> list[LinkFigures]:
    """Return one entry for each link from the columns of `links.parquet`: sums of the traffic, medians of the rest."""
    if len(columns["source"]) == 0:
        return []
    wide = int(columns["target"].max()) + 1
    keys, link = np.unique(columns["source"].astype(np.int64) * wide + columns["target"], return_inverse=True)
    order = np.argsort(link, kind="stable")
    starts = np.searchsorted(link[order], np.arange(len(keys)))
    traffic = [np.add.reduceat(columns[name][order], starts).tolist() for name in ("bytes", "messages")]
    medians = [_medians(columns[name], link, starts).tolist() for name in LinkFigures._fields[4:]]
    ends = [(keys // wide).tolist(), (keys % wide).tolist()]
    return [LinkFigures(*figures) for figures in zip(*ends, *traffic, *medians, strict=True)]


def _medians(values: np.ndarray, group: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the median of each group without nan; `starts` holds the place of each group's start after sorting."""
    values = values[np.lexsort((values, group))]  # nan is last within its group
    known = np.add.reduceat(~np.isnan(values), starts, dtype=np.int64)
    lower, upper = values[starts + np.maximum(known - 1, 0) // 2], values[starts + known // 2]
    with np.errstate(invalid="ignore"):
        return np.where(known > 0, (lower + upper) / 2, np.nan)


def median(values: Sequence[float] | np.ndarray) -> float:
    """Return the median of the values that are not nan; nan if there is none."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return float(np.median(known)) if len(known) else math.nan
