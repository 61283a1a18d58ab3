"""The run folder, written as the run goes, so that it can be read after any ending."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import socket
import sys
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from experiments.result import COLUMNS, LINK_COLUMNS, LinkFigures, link_figures, schema
from experiments.summary import clean, unfinished

if TYPE_CHECKING:
    import pyarrow

FLEET = -1
"""The `peer` of a row that speaks of the fleet."""

FILES = ("experiment.toml", "metrics.parquet", "links.parquet", "events.jsonl", "summary.json", "report.html", "weights.npy")
FORMAT = 1

FLUSH_PAUSE_S = 1.0
FLUSH_SHARE = 0.04
"""At most this share of the wall clock goes into writing the tables anew."""


class Recorder:
    """Writes one run's folder.

    The folder is made, or, where it holds an earlier run, taken over; a folder with anything else in it is refused
    (ValueError). `experiment.toml`, `manifest.json` and a `summary.json` that says "running" lie there from the start;
    events are written at once, the tables at every `flush`, each file in one piece. Used as a context manager, it ends
    the folder properly even where `finish` was never reached. Without `page` there is no `report.html`.

    Kinds of events that the report understands: "lost" and "fault" (with `peer`), "join", "warning" (with `text`);
    any other kind is shown as it is.
    """

    def __init__(self, folder: Path, experiment_toml: str, manifest: Mapping[str, Any], page: bool = True) -> None:
        self.folder = folder
        self._experiment_toml = experiment_toml
        self._page = page
        self._metrics = _Table("metrics.parquet")
        self._links = _Table("links.parquet")
        self._flush_from_s = 0.0
        self._finished = False
        self._unlock = weakref.finalize(self, os.close, _claim(folder))
        self._write_json("manifest.json", {**manifest, "run_folder": FORMAT})
        _replace(folder / "experiment.toml", experiment_toml.encode())
        self._write_json("summary.json", unfinished(experiment_toml, "running"))
        self._events = open(folder / "events.jsonl", "ab", buffering=0)  # noqa: SIM115 - open as long as the run

    def metric(self, time_s: float, peer: int, step: int, name: str, value: float) -> None:
        """One measurement at an emulated time; `peer` -1 is the fleet."""
        self._metrics.rows.append((float(time_s), int(peer), int(step), name, float(value)))

    def link(
        self,
        time_s: float,
        source: int,
        target: int,
        bytes: int,
        messages: int,
        rate_asked_bytes_per_s: float,
        rate_measured_bytes_per_s: float,
        delay_asked_s: float,
        delay_measured_s: float,
        staleness_steps: float,
    ) -> None:
        """One directed link over one record interval: its traffic in that interval, and its rate (unshaped: inf) and delay."""
        asked_measured = (rate_asked_bytes_per_s, rate_measured_bytes_per_s, delay_asked_s, delay_measured_s, staleness_steps)
        row = (float(time_s), int(source), int(target), int(bytes), int(messages), *map(float, asked_measured))
        self._links.rows.append(row)

    def event(self, time_s: float, kind: str, **fields: Any) -> None:
        """Something happened: one line of `events.jsonl`, on disk when this returns."""
        if not self._events.closed:  # a straggler's word after the end is not worth a crash
            self._events.write(msgspec.json.encode(clean({"time_s": time_s, "kind": kind, **fields})) + b"\n")

    def flush(self, force: bool = False) -> None:
        """Write both tables anew, unless that was done so recently that it would cost the run more than a few percent."""
        began_s = time.monotonic()
        if began_s < self._flush_from_s and not force:
            return
        self._metrics.write(self.folder)
        self._links.write(self.folder)
        ended_s = time.monotonic()
        self._flush_from_s = ended_s + max(FLUSH_PAUSE_S, (ended_s - began_s) / FLUSH_SHARE)

    def link_figures(self) -> list[LinkFigures]:
        """What every link carried and measured so far: for the summary."""
        table = self._links.table()
        return link_figures({name: table[name].to_numpy() for name in LINK_COLUMNS})

    def finish(self, summary: Mapping[str, Any], weights: np.ndarray | None = None) -> None:
        """Complete the folder: the tables, `weights.npy` (float32 [peers, size]), `summary.json` and `report.html`.

        May be called once (ValueError). A report that cannot be drawn is a warning among the events, not an error.
        """
        if self._finished:
            raise ValueError(f"{self.folder}: this run is finished already; a new run needs a new Recorder")
        self._finished = True
        self.flush(force=True)
        if weights is not None:
            with _whole(self.folder / "weights.npy") as part, open(part, "wb") as file:
                np.save(file, np.ascontiguousarray(weights, dtype=np.float32), allow_pickle=False)
        self._write_json("summary.json", summary)
        if self._page:
            self._report(summary)
        self._events.close()
        self._unlock()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._finished:
            return
        reason = "interrupted" if kind is KeyboardInterrupt else f"failed: {error or kind.__name__}" if kind else "abandoned"
        self.finish(unfinished(self._experiment_toml, reason))

    def _report(self, summary: Mapping[str, Any]) -> None:
        try:
            from experiments.report import write_report

            write_report([self.folder], self.folder / "report.html")
        except Exception as error:
            text = f"no report: {error}; `grapevine report {self.folder}` tries again"
            self.event(summary.get("emulated_s") or 0.0, "warning", text=text)

    def _write_json(self, file: str, value: Mapping[str, Any]) -> None:
        _replace(self.folder / file, msgspec.json.format(msgspec.json.encode(clean(value)), indent=2) + b"\n")


def default_folder(name: str) -> Path:
    """`runs/<name>-<UTC time>`: where a run goes that was not told where to go."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"
    return Path("runs") / f"{plain}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def describe_machine() -> dict[str, Any]:
    """What it runs on, for the manifest: host, processors, memory, system, and the versions of everything that matters."""
    versions: dict[str, str | None] = {}
    for package in ("grapevine", "numpy", "torch", "networkx", "scikit-learn", "pyzmq", "msgspec", "pyarrow", "pandas"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "host": socket.gethostname(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


class _Table:
    """Rows that come one by one and are written as one parquet file."""

    def __init__(self, file: str) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self._file = file
        self._parts: list[pyarrow.Table] = []

    def table(self) -> pyarrow.Table:
        import pyarrow

        rows, self.rows = self.rows, []
        if rows:
            arrays = [pyarrow.array(column) for column in zip(*rows, strict=True)]
            part = pyarrow.table(dict(zip(COLUMNS[self._file], arrays, strict=True)))
            self._parts.append(part.cast(schema(self._file)))
        return pyarrow.concat_tables(self._parts) if self._parts else schema(self._file).empty_table()

    def write(self, folder: Path) -> None:
        import pyarrow.parquet

        with _whole(folder / self._file) as part:
            pyarrow.parquet.write_table(self.table(), part)


def _claim(folder: Path) -> int:
    """Make the folder, or clear it of an earlier run; nothing that a run did not write is ever removed.

    The answer is a file descriptor that locks it: no other run takes the folder until it is closed, or this process ends.
    """
    try:
        if folder.is_file():
            raise ValueError(f"{folder}: is a file, and a run needs a folder; give another --out")
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise ValueError(f"{folder}: another run is writing there; give another --out, or wait for its end") from None
        if any(folder.iterdir()) and not _is_run(folder):
            os.close(lock)
            cure = "give another --out, or empty it"
            raise ValueError(f"{folder}: the folder is not empty and what it holds is no earlier run; {cure}")
        for file in FILES:
            (folder / file).unlink(missing_ok=True)
            _part(folder / file).unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(f"{folder}: cannot be used for a run ({error.strerror}); give another --out") from None
    return lock


def _is_run(folder: Path) -> bool:
    try:
        return "run_folder" in msgspec.json.decode((folder / "manifest.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return False


def _replace(path: Path, content: bytes) -> None:
    with _whole(path) as part:
        part.write_bytes(content)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """All or nothing: write to the path given; whoever opens `path` finds the old content or the new."""
    yield _part(path)
    _part(path).replace(path)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or f"unknown ({sys.platform})"
