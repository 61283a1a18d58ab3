"""The folders that a launcher makes outside its run folder: for its user alone, and removed when it ends, whatever ends it.

Their names tell whose they are, `grapevine-<process namespace>-<process>-<its start>-...`, so that what a killed launcher left
can be recognised: `grapevine cleanup` removes that, and nothing else.
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
    """A new folder in a place, which nobody but this process's user may enter.  Raises OSError where it cannot be made."""
    process = os.getpid()
    return Path(tempfile.mkdtemp(prefix=f"grapevine-{_namespace()}-{process}-{started(process)}-", dir=place))


def remove_folder(folder: Path) -> None:
    """Remove it with all that it holds; what is mapped stays readable for who has mapped it."""
    shutil.rmtree(folder, ignore_errors=True)


def places() -> list[Path]:
    """Where such folders may lie, the fastest place first."""
    known = MEMORY, Path(tempfile.gettempdir()), Path("/tmp")
    return [place for place in dict.fromkeys(known) if place.is_dir()]


def left_folders() -> list[Path]:
    """The folders of this user whose launchers do not run any more; those of other containers cannot be judged from here."""
    left = []
    for path in (path for place in places() for path in sorted(place.glob("grapevine-*"))):
        match = _NAME.fullmatch(path.name)
        if match is None or match.group(1) != str(_namespace()) or started(int(match.group(2))) == match.group(3):
            continue
        with contextlib.suppress(OSError):  # it has gone by now
            about = path.lstat()
            if stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid():
                left.append(path)
    return left


def _namespace() -> int:
    """The namespace in which this process has its number."""
    return Path("/proc/self/ns/pid").stat().st_ino
