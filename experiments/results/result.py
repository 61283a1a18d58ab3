"""What a run left behind: its folder, read back."""

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

AGAIN = "copy it anew, or run it again"

__all__ = ["COLUMNS", "LINK_COLUMNS", "METRIC_COLUMNS", "LinkFigures", "Result", "link_figures", "median", "schema"]


class Result:
    """A run folder: `.summary` (dict), `.metrics` and `.links` (pandas), `.weights` (float32 [peers, size]), and the rest.

    Everything but the summary is read when first asked for, so that a run that is still going can be looked at too.
    Raises ValueError, with the cure, for whatever is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        missing = [name for name in ("manifest.json", "summary.json") if not (folder / name).is_file()]
        if missing:
            state = f"has no {' and no '.join(missing)}" if folder.is_dir() else "is no folder"
            cure = "give a folder written by `grapevine run --out`"
            if (folder / "table.csv").is_file():
                cure = "it is a sweep's: the same `grapevine sweep` again draws its report anew; or give the runs in it"
            raise ValueError(f"{folder}: {state}, so it is no run; {cure}")
        self.summary: dict[str, Any] = self._json("summary.json", Summary)

    def __repr__(self) -> str:
        """What ran, how it ended and where it lies, on one line."""
        told = self.summary
        state = "done" if told.get("completed") else "not complete"
        reached = told.get("accuracy_mean")
        accuracy = "" if reached is None else f", accuracy {reached:.1%}"
        parts = f"{told.get('strategy')} on {told.get('topology')}, {told.get('peers')} peers, {told.get('world')} world"
        return printable(f"<Result {told.get('name')}: {state} ({told.get('reason')}){accuracy}; {parts}; {self.folder}>")

    @classmethod
    def read(cls, folder: str | Path) -> Result:
        """The run in `folder`."""
        return cls(Path(folder))

    @cached_property
    def metrics(self) -> pandas.DataFrame:
        """time_s, peer (-1: the fleet), step, name, value: one row per measurement."""
        return self.table("metrics.parquet").to_pandas()

    @cached_property
    def links(self) -> pandas.DataFrame:
        """One row per directed link and record interval: its traffic, and its rate and delay as asked and as measured."""
        return self.table("links.parquet").to_pandas()

    @cached_property
    def weights(self) -> np.ndarray:
        """The final weights, float32 [peers, size]."""
        path = self.folder / "weights.npy"
        if not path.is_file():
            raise ValueError(f"{path}: missing, since the run did not come to its end ({self.summary['reason']}); run it again")
        try:
            weights: np.ndarray = np.load(path, allow_pickle=False)
            return weights
        except (OSError, ValueError, EOFError, SyntaxError, TypeError) as error:
            raise ValueError(f"{path}: damaged ({error}); run it again") from None

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Where and with what it ran."""
        found = self._json("manifest.json", Manifest)
        places, peers = found.get("places"), self.summary.get("peers")
        if places is not None and peers is not None and len(places) != peers:
            raise ValueError(f"{self.folder / 'manifest.json'}: {len(places)} places for {peers} peers; {AGAIN}")
        return found

    @cached_property
    def experiment_toml(self) -> str:
        """The experiment, every default filled in."""
        path = self.folder / "experiment.toml"
        try:
            return toml.read_text(path, str(path))
        except ConfigError as error:
            raise ValueError(f"{path}: {error.problem}; {AGAIN}") from None

    @cached_property
    def experiment_document(self) -> dict[str, Any]:
        """The same as plain dictionaries."""
        path = self.folder / "experiment.toml"
        try:
            return toml.parse(self.experiment_toml, str(path))
        except ConfigError as error:
            raise ValueError(f"{path}: damaged ({error.problem}); {AGAIN}") from None

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """What happened: time_s, kind, and what belongs to it. A last line cut off by a crash is passed over."""
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
        """`metrics.parquet` or `links.parquet` as an arrow table; empty where a run ended before it first wrote it."""
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
        """Read all that a report or a table would read; ValueError, as ever, where something is missing or damaged."""
        _ = self.manifest, self.experiment_document, self.events
        for file in COLUMNS:
            self.table(file)

    def columns(self, file: str) -> dict[str, np.ndarray]:
        """The columns of the same that hold numbers, as numpy arrays."""
        table = self.table(file)
        return {name: numbers(table[name]) for name, kind in COLUMNS[file].items() if kind != "string"}

    def _json(self, file: str, kind: type[Any]) -> dict[str, Any]:
        path = self.folder / file
        try:
            return run_files.document(path.read_bytes(), kind)
        except (ValueError, OSError) as error:
            raise ValueError(f"{path}: cannot be read ({error}); {AGAIN}") from None


class LinkFigures(NamedTuple):
    """What one directed link was asked to be and was measured to be over a run; unknown is nan, unshaped is inf."""

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
        """measured - asked, in seconds; nan where one of them is unknown."""
        return self.delay_measured_s - self.delay_asked_s


def link_figures(columns: Mapping[str, np.ndarray]) -> list[LinkFigures]:
    """One entry per directed link out of the columns of `links.parquet`: sums of the traffic, medians of the rest."""
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
    """The median of each group, nan left out; `starts` says where each group begins once sorted."""
    values = values[np.lexsort((values, group))]  # nan comes last within its group
    known = np.add.reduceat(~np.isnan(values), starts, dtype=np.int64)
    lower, upper = values[starts + np.maximum(known - 1, 0) // 2], values[starts + known // 2]
    with np.errstate(invalid="ignore"):
        return np.where(known > 0, (lower + upper) / 2, np.nan)


def median(values: Sequence[float] | np.ndarray) -> float:
    """The median of what is not nan; nan when nothing is left."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return float(np.median(known)) if len(known) else math.nan
