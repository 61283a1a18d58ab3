"""Files that are written whole or not at all, and disk space that is reserved for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def replace(path: Path, content: bytes) -> None:
    """Write a file whole: after any end `path` has the old content or the new."""
    with whole(path) as part:
        part.write_bytes(content)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, and move it to `path` at the end, so that `path` has the old content or the new."""
    try:
        yield part_of(path)
        part_of(path).replace(path)
    except BaseException:
        with suppress(OSError):
            part_of(path).unlink(missing_ok=True)
        raise


def part_of(path: Path) -> Path:
    """Return the temporary path at which the content of `path` is written."""
    return path.with_name(f".{path.name}.part")


def reserve(path: Path, size_bytes: int) -> None:
    """Reserve disk space for a file that is written later."""
    if size_bytes:
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size_bytes)
