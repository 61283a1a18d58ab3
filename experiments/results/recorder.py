"""The run folder, written as the run goes, so that it can be read after any ending."""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import platform
import re
import socket
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from grapevine.experiments.results.result import COLUMNS, LINK_COLUMNS, LinkFigures, link_figures, schema
from grapevine.experiments.results.run_files import numbers
from grapevine.experiments.results.summary import clean, unfinished

if TYPE_CHECKING:
    import pyarrow

Draw = Callable[[Sequence[Path], Path], None]
"""Draws one page, the second argument, of the run folders in the first."""

FLEET = -1
"""The `peer` of a row that speaks of the fleet."""

FILES = ("experiment.toml", "metrics.parquet", "links.parquet", "events.jsonl", "summary.json", "report.html", "weights.npy")
FORMAT = 1
PACKAGES = ("grapevine", "numpy", "torch", "networkx", "scikit-learn", "pyzmq", "msgspec", "pyarrow", "pandas")

SPARE = ".spare"
SPARE_BYTES = 32_768
"""What a folder keeps free for its last words: the summary and the events of the end, given back when they are written."""

FLUSH_PAUSE_S = 1.0
FLUSH_SHARE = 0.04
"""At most this share of the wall clock goes into writing the tables anew."""


class Recorder:
    """Writes one run's folder.

    The folder is made, or, where it holds an earlier run, taken over; a folder with anything else in it is refused
    (ValueError). `experiment.toml`, `manifest.json` and a `summary.json` that says "running" lie there from the start;
    events are written at once, the tables at every `flush`, each file in one piece. Used as a context manager, it ends
    the folder properly even where `finish` was never reached. `draw(folders, page)` draws `report.html` of the finished folder;
    without it there is none.

    A disk that fills up never raises in the middle of a run: `failure` then says what happened, `on_failure` (to be set) is
    called once, and what is finished still holds a true summary and the weights, for which `weights_bytes` and a few kB more
    are set aside at the start. All is written by way of a descriptor of the folder, so one that is moved meanwhile is
    completed where it lies then; in place of one that is removed another is made beside it. `folder` is where it is in the end.

    Kinds of events that the report understands: "lost" and "fault" (with `peer`), "join", "warning" (with `text`);
    any other kind is shown as it is.
    """

    def __init__(
        self, folder: Path, experiment_toml: str, manifest: Mapping[str, Any], draw: Draw | None = None, weights_bytes: int = 0
    ) -> None:
        self.folder = folder
        self.failure = ""
        self.on_failure: Callable[[], None] = lambda: None
        self._experiment_toml = experiment_toml
        self._draw = draw
        self._metrics = _Table("metrics.parquet")
        self._links = _Table("links.parquet")
        self._flush_from_s = 0.0
        self.finished = False
        self._concluded = False
        self._manifest = {**manifest, "run_folder": FORMAT}
        self._lock = _claim(folder)
        self._unlock = weakref.finalize(self, os.close, self._lock)
        self.inside = Path(f"/proc/self/fd/{self._lock}")
        """A path of the folder that holds wherever it is moved, until the run is finished."""
        try:
            _reserve(self.inside / SPARE, SPARE_BYTES)
            self._begin()
        except OSError:
            _clear(self.inside, "manifest.json", *FILES)
            raise
        with self._whatever_the_disk("the weights have no room"):
            _reserve(_part(self.inside / "weights.npy"), weights_bytes)

    def _begin(self) -> None:
        """Write what lies there from the start."""
        self._write_json("manifest.json", self._manifest)
        _replace(self.inside / "experiment.toml", self._experiment_toml.encode("utf-8", "surrogateescape"))
        self._write_json("summary.json", unfinished(self._experiment_toml, "running"))
        self._events = open(self.inside / "events.jsonl", "ab", buffering=0)  # noqa: SIM115 - open as long as the run

    def metric(self, time_s: float, peer: int, step: int, name: str, value: float) -> None:
        """One measurement at an emulated time; `peer` -1 is the fleet."""
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
        """One directed link over one record interval: its traffic in that interval, and its rate (unshaped: inf) and delay."""
        asked_measured = (rate_asked_bytes_per_s, rate_measured_bytes_per_s, delay_asked_s, delay_measured_s, staleness_steps)
        row = (float(time_s), int(source), int(target), int(bytes), int(messages), *map(float, asked_measured))
        self._links.rows.append(row)

    def event(self, time_s: float, kind: str, **fields: Any) -> None:
        """Something happened: one line of `events.jsonl`, on disk when this returns."""
        if not self._events.closed:  # a straggler's word after the end is not worth a crash
            line = msgspec.json.encode(clean({"time_s": time_s, "kind": kind, **fields})) + b"\n"
            with self._whatever_the_disk("the events cannot be written"):
                written = self._events.write(line)
                if written < len(line):  # the disk is full: no half line stays, since others may follow
                    os.ftruncate(self._events.fileno(), os.fstat(self._events.fileno()).st_size - written)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def flush(self, force: bool = False) -> None:
        """Write both tables anew, unless that was done so recently that it would cost the run more than a few percent."""
        began_s = time.monotonic()
        if began_s < self._flush_from_s and not force:
            return
        for table in (self._metrics, self._links):
            with self._whatever_the_disk("the tables cannot be written"):
                table.write(self.inside)
        ended_s = time.monotonic()
        self._flush_from_s = ended_s + max(FLUSH_PAUSE_S, (ended_s - began_s) / FLUSH_SHARE)

    def link_figures(self) -> list[LinkFigures]:
        """What every link carried and measured so far: for the summary."""
        table = self._links.table()
        return link_figures({name: numbers(table[name]) for name in LINK_COLUMNS})

    def finish(self, summary: Mapping[str, Any], weights: np.ndarray | None = None) -> None:
        """Complete the folder: the tables, `weights.npy` (float32 [peers, size]), `summary.json` and `report.html`.

        May be called once (ValueError). A report that cannot be drawn is a warning among the events, not an error; a run
        whose folder could not be written is not complete, and its summary says so. Raises OSError where not even that can
        be written.
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
        """Find the folder where it lies by now, or make another one; what has become of it, "" where it is where it was."""
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
        self.failure = f"{self.folder}: was removed while the run went on; what was still known is in {self.inside}"
        self.folder = self.inside
        self._begin()
        self.event(0.0, "note", text=self.failure)
        return ""

    @contextmanager
    def _whatever_the_disk(self, what: str) -> Iterator[None]:
        """Where something cannot be written, as on a full disk: note it for the summary, and ask for the end of the run."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - what the tables' library raises is its own affair
            if self.failure or self._concluded:
                return
            why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error) or repr(error)
            why = "out of memory" if isinstance(error, MemoryError) and not str(error) else why
            self.failure = f"{self.folder}: {what}: {why}"
            self.on_failure()

    def _save(self, weights: np.ndarray | None) -> None:
        """Write `weights.npy` into the room that was set aside for it."""
        if weights is None:
            return
        rows = np.ascontiguousarray(weights, dtype=np.float32)
        with self._whatever_the_disk("the weights cannot be written"), _whole(self.inside / "weights.npy") as part:
            mode = "r+b" if part.exists() else "wb"
            with open(part, mode) as file:
                np.save(file, rows, allow_pickle=False)
                file.truncate()

    def _conclude(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Write `summary.json`: what `summary` says, or in short that the folder could not be written."""
        if not self.failure:
            with self._whatever_the_disk("the summary cannot be written"):
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
        except Exception as error:  # noqa: BLE001 - a page that cannot be drawn never spoils a run
            text = f"no report: {error}; `grapevine report {self.folder}` tries again"
            self.event(summary.get("emulated_s") or 0.0, "warning", text=text)

    def _write_json(self, file: str, value: Mapping[str, Any]) -> None:
        _replace(self.inside / file, msgspec.json.format(msgspec.json.encode(clean(value)), indent=2) + b"\n")


def default_folder(name: str) -> Path:
    """`runs/<name>-<UTC time>`: where a run goes that was not told where to go."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"
    return Path("runs") / f"{plain}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def describe_machine() -> dict[str, Any]:
    """What it runs on, for the manifest: host, processors, memory, system, and the versions of everything that matters."""
    return {
        "host": socket.gethostname(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
    }


@functools.cache
def _version(package: str) -> str | None:
    """The version that is installed, if any; to read it takes longer than a short run."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


class _Table:
    """Rows that come one by one and are written as one parquet file."""

    def __init__(self, file: str) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self._file = file
        self._parts: list[pyarrow.Table] = []

    def table(self) -> pyarrow.Table:
        import pyarrow

        if self.rows:
            kinds = COLUMNS[self._file].values()
            arrays = [_arrow(column, kind) for column, kind in zip(zip(*self.rows, strict=True), kinds, strict=True)]
            self._parts.append(pyarrow.Table.from_arrays(arrays, schema=schema(self._file)))
            self.rows = []
        return pyarrow.concat_tables(self._parts) if self._parts else schema(self._file).empty_table()

    def write(self, folder: Path) -> None:
        import pyarrow.parquet

        with _whole(folder / self._file) as part, open(part, "wb") as file:  # arrow cannot open every path
            pyarrow.parquet.write_table(self.table(), file)


def _arrow(column: Sequence[Any], kind: str) -> pyarrow.Array:
    """A column as arrow has it, of its own bytes: `pyarrow.array` would load pandas, which takes longer than a short run."""
    import pyarrow

    buffers: list[Any]
    if kind == "string":
        texts = [text.encode() for text in column]
        buffers = [np.cumsum([0, *map(len, texts)], dtype=np.int32), b"".join(texts)]
    else:
        buffers = [np.array(column, dtype=kind)]
    return pyarrow.Array.from_buffers(pyarrow.type_for_alias(kind), len(column), [None, *map(pyarrow.py_buffer, buffers)])


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
        _clear(folder)
    except OSError as error:
        raise ValueError(f"{folder}: cannot be used for a run ({error.strerror}); give another --out") from None
    return lock


def _is_run(folder: Path) -> bool:
    try:
        return "run_folder" in msgspec.json.decode((folder / "manifest.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return False


def _replace(path: Path, content: bytes) -> None:
    with _whole(path) as part:
        part.write_bytes(content)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """All or nothing: write to the path given; whoever opens `path` finds the old content or the new."""
    try:
        yield _part(path)
        _part(path).replace(path)
    except BaseException:
        with suppress(OSError):
            _part(path).unlink(missing_ok=True)
        raise


def _reserve(path: Path, size_bytes: int) -> None:
    """Take so much of the disk for a file that is written later."""
    if size_bytes:
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size_bytes)


def _clear(folder: Path, *files: str) -> None:
    """Take away what only a run that goes on needs: files half written, and the room set aside; and these files."""
    for path in (folder / SPARE, *(_part(folder / file) for file in (*FILES, "manifest.json")), *map(folder.joinpath, files)):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or f"unknown ({sys.platform})"
