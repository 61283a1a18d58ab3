"""The recorder, which writes the run folder during the run, so that it can be read after any end."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from grapevine.experiments.results.atomic_files import part_of, replace, reserve, whole
from grapevine.experiments.results.result import LINK_COLUMNS, LinkFigures, link_figures
from grapevine.experiments.results.run_files import numbers
from grapevine.experiments.results.summary import clean, unfinished
from grapevine.experiments.results.table_writer import TableWriter

if TYPE_CHECKING:
    pass

Draw = Callable[[Sequence[Path], Path], None]
"""Draws one page from run folders: draw(folders, page)."""

FLEET = -1
"""The `peer` of a row about the whole fleet."""

FILES = ("experiment.toml", "metrics.parquet", "links.parquet", "events.jsonl", "summary.json", "report.html", "weights.npy")
FORMAT = 1

SPARE = ".spare"
SPARE_BYTES = 32_768
"""Disk space reserved for the summary and the last events, and freed when these are written."""

FLUSH_PAUSE_S = 1.0
FLUSH_SHARE = 0.04
"""At most this share of the real time is spent on rewriting the tables."""


class Recorder:
    """Writes one run's folder.

    A new folder is created, and the files of an earlier run in `folder` are replaced; a folder with other files is refused
    (ValueError). `experiment.toml`, `manifest.json` and a `summary.json` with the reason "running" are there from the start;
    events are written at once, the tables at every `flush`, each file atomically. Used as a context manager, it completes
    the folder also if `finish` was not called. `draw(folders, page)` draws `report.html` of the finished folder; None = no
    report.

    A full disk raises no exception during a run: `failure` then has the reason, `on_failure` (set by the caller) is called
    once, and the finished folder still holds a true summary and the weights, for which `weights_bytes` and a few kB more
    are reserved at the start. All files are written through a descriptor of the folder, so a folder that is moved during the
    run is completed at its new place; if it is removed, a new one is made beside it. `folder` is the final path.

    Kinds of events that the report understands: "lost" and "fault" (with `peer`), "join", "warning" (with `text`);
    any other kind is shown unchanged.
    """

    def __init__(
        self, folder: Path, experiment_toml: str, manifest: Mapping[str, Any], draw: Draw | None = None, weights_bytes: int = 0
    ) -> None:
        self.folder = folder
        self.failure = ""
        self.on_failure: Callable[[], None] = lambda: None
        self._experiment_toml = experiment_toml
        self._draw = draw
        self._metrics = TableWriter("metrics.parquet")
        self._links = TableWriter("links.parquet")
        self._flush_from_s = 0.0
        self.finished = False
        self._concluded = False
        self._manifest = {**manifest, "run_folder": FORMAT}
        self._lock = _claim(folder)
        self._unlock = weakref.finalize(self, os.close, self._lock)
        self.inside = Path(f"/proc/self/fd/{self._lock}")
        """A path of the folder that stays valid if the folder is moved, until the run is finished."""
        try:
            reserve(self.inside / SPARE, SPARE_BYTES)
            self._begin()
        except OSError:
            _clear(self.inside, "manifest.json", *FILES)
            raise
        with self._note_failure("the disk has no space for the weights"):
            reserve(part_of(self.inside / "weights.npy"), weights_bytes)

    def _begin(self) -> None:
        """Write the files that are there from the start."""
        self._write_json("manifest.json", self._manifest)
        replace(self.inside / "experiment.toml", self._experiment_toml.encode("utf-8", "surrogateescape"))
        self._write_json("summary.json", unfinished(self._experiment_toml, "running"))
        self._events = open(self.inside / "events.jsonl", "ab", buffering=0)  # noqa: SIM115 - open as long as the run

    def metric(self, time_s: float, peer: int, step: int, name: str, value: float) -> None:
        """Add one measurement at an emulated time; `peer` -1 is the fleet."""
        self._metrics.rows.append((float(time_s), int(peer), int(step), name, float(value)))

    def link(  # noqa: PLR0913 - one argument a column
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
        """Add one link's figures of one record interval: its traffic in it, and its rate (unshaped: inf) and delay."""
        asked_measured = (rate_asked_bytes_per_s, rate_measured_bytes_per_s, delay_asked_s, delay_measured_s, staleness_steps)
        row = (float(time_s), int(source), int(target), int(bytes), int(messages), *map(float, asked_measured))
        self._links.rows.append(row)

    def event(self, time_s: float, kind: str, **fields: Any) -> None:
        """Write one line of `events.jsonl`, on disk when this returns."""
        if not self._events.closed:  # an event that arrives after the end is dropped
            line = msgspec.json.encode(clean({"time_s": time_s, "kind": kind, **fields})) + b"\n"
            with self._note_failure("the events cannot be written"):
                written = self._events.write(line)
                if written < len(line):  # the disk is full: remove the partial line, because others may follow
                    os.ftruncate(self._events.fileno(), os.fstat(self._events.fileno()).st_size - written)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def flush(self, force: bool = False) -> None:
        """Rewrite both tables, if the last time is so long ago that this costs the run at most a few percent, or if `force`."""
        began_s = time.monotonic()
        if began_s < self._flush_from_s and not force:
            return
        for table in (self._metrics, self._links):
            with self._note_failure("the tables cannot be written"):
                table.write(self.inside)
        ended_s = time.monotonic()
        self._flush_from_s = ended_s + max(FLUSH_PAUSE_S, (ended_s - began_s) / FLUSH_SHARE)

    def link_figures(self) -> list[LinkFigures]:
        """Return each link's traffic and measurements so far, for the summary."""
        table = self._links.table()
        return link_figures({name: numbers(table[name]) for name in LINK_COLUMNS})

    def finish(self, summary: Mapping[str, Any], weights: np.ndarray | None = None) -> None:
        """Complete the folder: the tables, `weights.npy` (float32 [peers, size]), `summary.json` and `report.html`.

        A second call raises ValueError. A report that cannot be drawn becomes a warning among the events, not an error; a run
        whose folder could not be written gets a summary with `completed` false and the reason. Raises OSError if that summary
        cannot be written either.
        """
        if self.finished:
            raise ValueError(f"{self.folder}: this run is finished already; a new run needs a new Recorder")
        self.finished = True
        try:
            moved = self._follow()
            if moved:
                summary = {**summary, "warnings": [*(summary.get("warnings") or ()), moved]}
            self.flush(force=True)
            self._save(weights)
            (self.inside / SPARE).unlink(missing_ok=True)
            summary = self._conclude(summary)
            self._concluded = True
            if self._draw is not None and not self.failure:
                self._report(self._draw, summary)
        finally:
            self._events.close()
            _clear(self.inside)
            self._unlock()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.finished:
            return
        reason = "interrupted" if kind is KeyboardInterrupt else f"failed: {error or kind.__name__}" if kind else "abandoned"
        self.finish(unfinished(self._experiment_toml, reason))

    def _follow(self) -> str:
        """Find the folder if it was moved, or make a new one if it was removed; return a warning if it was moved, else ""."""
        with suppress(OSError):
            if os.path.samestat(self.folder.stat(), os.fstat(self._lock)):
                return ""
        if os.fstat(self._lock).st_nlink:
            before, self.folder = self.folder, self.inside.readlink()
            moved = f"the run folder {before} was moved to {self.folder} while the run went on"
            self.event(0.0, "note", text=moved)
            return moved
        self._events.close()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.inside = Path(tempfile.mkdtemp(prefix=f"{self.folder.name}-saved-", dir=self.folder.parent))
        self.failure = f"{self.folder}: was removed while the run went on; the remaining results are in {self.inside}"
        self.folder = self.inside
        self._begin()
        self.event(0.0, "note", text=self.failure)
        return ""

    @contextmanager
    def _note_failure(self, problem: str) -> Iterator[None]:
        """If writing fails inside this context, as on a full disk, note it in `failure` and request the end of the run."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - pyarrow raises exceptions of many kinds
            if self.failure or self._concluded:
                return
            why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error) or repr(error)
            why = "out of memory" if isinstance(error, MemoryError) and not str(error) else why
            self.failure = f"{self.folder}: {problem}: {why}"
            self.on_failure()

    def _save(self, weights: np.ndarray | None) -> None:
        """Write `weights.npy` into the reserved disk space."""
        if weights is None:
            return
        rows = np.ascontiguousarray(weights, dtype=np.float32)
        with self._note_failure("the weights cannot be written"), whole(self.inside / "weights.npy") as part:
            mode = "r+b" if part.exists() else "wb"
            with open(part, mode) as file:
                np.save(file, rows, allow_pickle=False)
                file.truncate()

    def _conclude(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Write `summary.json`: `summary`, or after a failure the same or a short one with the failure as the reason."""
        if not self.failure:
            with self._note_failure("the summary cannot be written"):
                self._write_json("summary.json", summary)
                return dict(summary)
        ended = {"completed": False, "reason": self.failure}
        with suppress(OSError, MemoryError):
            self._write_json("summary.json", full := {**summary, **ended})
            return full
        self._write_json("summary.json", short := {**unfinished(self._experiment_toml, self.failure), **ended})
        return short

    def _report(self, draw: Draw, summary: Mapping[str, Any]) -> None:
        try:
            draw([self.folder], self.folder / "report.html")
        except Exception as error:  # noqa: BLE001 - a page that cannot be drawn does not make a run incomplete
            text = f"no report: {error}; `grapevine report {self.folder}` tries again"
            self.event(summary.get("emulated_s") or 0.0, "warning", text=text)

    def _write_json(self, file: str, value: Mapping[str, Any]) -> None:
        replace(self.inside / file, msgspec.json.format(msgspec.json.encode(clean(value)), indent=2) + b"\n")


def default_folder(name: str) -> Path:
    """Return `runs/<name>-<UTC time>`, the folder of a run without an `out` option."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"
    return Path("runs") / f"{plain}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def _claim(folder: Path) -> int:
    """Make the folder, or remove the files of an earlier run from it; no other file is ever removed.

    Returns a file descriptor that locks the folder against other runs until it is closed or this process ends.
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
            raise ValueError(f"{folder}: the folder is not empty and does not hold an earlier run; {cure}")
        for file in FILES:
            (folder / file).unlink(missing_ok=True)
        _clear(folder)
    except OSError as error:
        raise ValueError(f"{folder}: cannot be used for a run ({error.strerror}); give another --out") from None
    return lock


def _is_run(folder: Path) -> bool:
    try:
        return "run_folder" in msgspec.json.decode((folder / "manifest.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return False


def _clear(folder: Path, *files: str) -> None:
    """Remove the temporary files and the reserved space of a run, and `files`."""
    for path in (folder / SPARE, *(part_of(folder / file) for file in (*FILES, "manifest.json")), *map(folder.joinpath, files)):
        with suppress(OSError):
            path.unlink(missing_ok=True)
