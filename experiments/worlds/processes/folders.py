"""The folders that a launcher makes outside its run folder: for its user alone, and removed after any end of the launcher.

Their names, `grapevine-<process namespace>-<process>-<its start>-...`, identify the launcher, so that `grapevine cleanup` can
remove the folders of killed launchers, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

from grapevine.netem.kernel.namespaces import started

MEMORY = Path("/dev/shm")
_NAME = re.compile(r"grapevine-(\d+)-(\d+)-(\d+)-\w+")


def make_folder(place: Path) -> Path:
    """Make and return a new folder in a place, for this process's user alone.  Raises OSError if it cannot be made."""
    process = os.getpid()
    return Path(tempfile.mkdtemp(prefix=f"grapevine-{_namespace()}-{process}-{started(process)}-", dir=place))


def remove_folder(folder: Path) -> None:
    """Remove a folder with its files; processes that have mapped a file keep its content."""
    shutil.rmtree(folder, ignore_errors=True)


def places() -> list[Path]:
    """Return the places for such folders, the fastest first."""
    known = MEMORY, Path(tempfile.gettempdir()), Path("/tmp")
    return [place for place in dict.fromkeys(known) if place.is_dir()]


def left_folders() -> list[Path]:
    """Return the folders of this user whose launchers have ended; folders from other containers are left out."""
    left = []
    for path in (path for place in places() for path in sorted(place.glob("grapevine-*"))):
        match = _NAME.fullmatch(path.name)
        if match is None or match.group(1) != str(_namespace()) or started(int(match.group(2))) == match.group(3):
            continue
        with contextlib.suppress(OSError):  # it may be gone by now
            about = path.lstat()
            if stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid():
                left.append(path)
    return left


def _namespace() -> int:
    """Return the number of this process's process namespace."""
    return Path("/proc/self/ns/pid").stat().st_ino
