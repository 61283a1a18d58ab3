"""The allowed content of a run folder's files; all code that reads a folder checks it here.

All checks raise ValueError that names the mistake, without the file's name and the cure, which `Result` adds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

if TYPE_CHECKING:
    import pyarrow

METRIC_COLUMNS = {"time_s": "float64", "peer": "int32", "step": "int64", "name": "string", "value": "float64"}
LINK_COLUMNS = {
    "time_s": "float64", "source": "int32", "target": "int32", "bytes": "int64", "messages": "int64",
    "rate_asked_bytes_per_s": "float64", "rate_measured_bytes_per_s": "float64",
    "delay_asked_s": "float64", "delay_measured_s": "float64", "staleness_steps": "float64",
}  # fmt: skip
COLUMNS = {"metrics.parquet": METRIC_COLUMNS, "links.parquet": LINK_COLUMNS}

MOST_PEERS = 100_000
MOST = 1e307
"""The largest figure: a little below the largest float, so that axes can end above it."""
MOST_TIME = 1e12
"""The largest time, s: thousands of times the longest run."""
MOST_COUNT = 10**15
"""The largest count in a row: a petabyte, so that sums over rows do not overflow."""

_LEAST: dict[str, float] = {"peer": -1, "value": -MOST, "delay_measured_s": -MOST_TIME}
"""The least value of a column, if it is not 0."""
_MOST: dict[str, float] = {
    "time_s": MOST_TIME, "bytes": MOST_COUNT, "messages": MOST_COUNT, "step": MOST_COUNT,
    "delay_asked_s": MOST_TIME, "delay_measured_s": MOST_TIME,
}  # fmt: skip
_PEERS = ("peer", "source", "target")
_UNKNOWN = (
    "value", "rate_asked_bytes_per_s", "rate_measured_bytes_per_s", "delay_asked_s", "delay_measured_s", "staleness_steps",
)  # fmt: skip
"""Columns in which a number may be nan, or infinite."""

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Peer = Annotated[int, Meta(ge=0, lt=MOST_PEERS)]
Number = Annotated[float, Meta(ge=-MOST, le=MOST)]
Size = Annotated[float, Meta(ge=0, le=MOST)]
Time = Annotated[float, Meta(ge=0, le=MOST_TIME)]


class Summary(msgspec.Struct):
    """The keys of `summary.json` that the code reads; None = unknown."""

    name: str | None = None
    world: str | None = None
    topology: str | None = None
    strategy: str | None = None
    reason: str | None = None
    digest: str | None = None
    completed: bool = False
    peers: Annotated[int, Meta(ge=0, le=MOST_PEERS)] | None = None
    seed: int | None = None
    emulated_s: Time | None = None
    wall_s: Time | None = None
    steps_total: Count | None = None
    steps_per_wall_s: Size | None = None
    bytes_sent: Count | None = None
    messages_sent: Count | None = None
    accuracy_mean: Number | None = None
    accuracy_min: Number | None = None
    accuracy_max: Number | None = None
    accuracy_of_mean: Number | None = None
    loss_mean: Number | None = None
    loss_of_optimum: Number | None = None
    excess_loss: Number | None = None
    validation_accuracy_mean: Number | None = None
    validation_accuracy_of_mean: Number | None = None
    validation_loss_mean: Number | None = None
    consensus_distance: Size | None = None
    staleness_steps_mean: Size | None = None
    spectral_gap: Number | None = None
    lateness_p99_ms: Number | None = None
    record_every_s: Time | None = None
    records_unscored: Count | None = None
    peers_lost: list[Peer] | None = None
    peers_lost_unasked: list[Peer] | None = None
    peers_absent: list[Peer] | None = None
    members: list[tuple[Time, Count]] | None = None
    time_to_accuracy_s: dict[str, Time | None] = {}
    time_to_validation_accuracy_s: dict[str, Time | None] = {}
    warnings: list[str] | None = None

    def __post_init__(self) -> None:
        for level in (*self.time_to_accuracy_s, *self.time_to_validation_accuracy_s):
            if not 0 <= float(level) <= 1:
                raise ValueError(f"{level} is not a share of samples, 0 to 1")
        for peer in (*(self.peers_lost or ()), *(self.peers_lost_unasked or ())):
            if self.peers is not None and peer >= self.peers:
                raise ValueError(f"the lost peer {peer} is not among the {self.peers} peers")


class SharedCable(msgspec.Struct):
    """A cable that some links share."""

    rate_bytes_per_s: Size
    links: list[tuple[Peer, Peer]]


class Shared(msgspec.Struct):
    """Shared segments, in the form of `experiments.results.fair_shares.SharedSegments`."""

    uplinks: list[Size | None] = []
    downlinks: list[Size | None] = []
    cables: list[SharedCable] = []


class Manifest(msgspec.Struct):
    """The keys of `manifest.json` that the code reads."""

    places: list[str] | None = None
    shared_segments: Shared | None = None
    machine: dict[str, Any] | None = None
    code: dict[str, str | None] | None = None


class Event(msgspec.Struct):
    """The keys of a line of `events.jsonl` that the code reads."""

    kind: str = ""
    time_s: Annotated[float, Meta(ge=-MOST_TIME, le=MOST_TIME)] | None = None
    peer: Annotated[int, Meta(ge=-1, lt=MOST_PEERS)] | None = None


def document(content: bytes, kind: type[Any]) -> dict[str, Any]:
    """Return the whole JSON object in `content`, after a check that it fits `kind` and that no number exceeds `MOST`."""
    try:
        found = msgspec.json.decode(content, type=dict[str, Any])
        msgspec.convert(found, kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # a ValidationError is a DecodeError
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    for key, value in found.items():
        if isinstance(value, int | float) and abs(value) > MOST:
            raise ValueError(f"{key} is larger than {MOST:g}")
    return found


def table(content: Any, file: str, peers: int | None) -> pyarrow.Table:
    """Return the rows of `metrics.parquet` or `links.parquet` from an open file, with `COLUMNS`; `peers`: None = unknown."""
    import pyarrow
    import pyarrow.parquet

    try:
        found = pyarrow.parquet.ParquetFile(content).read().select(list(COLUMNS[file])).cast(schema(file))
    except (pyarrow.ArrowException, KeyError) as error:
        raise ValueError(str(error).splitlines()[0]) from None
    for name, column in zip(found.column_names, found.columns, strict=True):
        if column.null_count:
            raise ValueError(f"the column {name} has gaps")
        if name != "name":
            _refuse_beyond(name, numbers(column), peers)
    return found


def numbers(column: pyarrow.ChunkedArray) -> np.ndarray:
    """Return a column of numbers without nulls as a numpy array; `column.to_numpy` would load pandas, which is slow."""
    return np.concatenate([np.from_dlpack(chunk) for chunk in column.chunks] or [np.empty(0)])


def _refuse_beyond(name: str, values: np.ndarray, peers: int | None) -> None:
    """Raise ValueError if a column holds a number out of its bounds; columns in `_UNKNOWN` may hold nan and infinity."""
    if name in _UNKNOWN:
        values = values[np.isfinite(values) if name == "value" else ~(np.isnan(values) | (values == np.inf))]
    least, most = _LEAST.get(name, 0), _MOST.get(name, MOST)
    most = (peers or MOST_PEERS) - 1 if name in _PEERS else most
    if not ((values >= least) & (values <= most)).all():
        raise ValueError(f"the column {name} holds values that are not from {least:g} to {most:g}")


def schema(file: str) -> pyarrow.Schema:
    """Return the columns of `metrics.parquet` or `links.parquet` as an arrow schema."""
    import pyarrow

    return pyarrow.schema([(name, pyarrow.type_for_alias(kind)) for name, kind in COLUMNS[file].items()])
