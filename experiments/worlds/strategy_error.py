"""A strategy's exception in one line: the exception, and the place in the strategy's own file that raised it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

_FRAME = re.compile(r'^  File "(.+)", line (\d+), in (.+)$', re.MULTILINE)
_BEGIN = "Traceback (most recent call last):\n"
_LONGEST = 300


def fault_line(text: str, strategy: Any) -> str:
    """Return a traceback in one line: "KeyError: 'x' (mine.py, line 12, in run)".

    The place is the innermost one in a file of the strategy or of a class that it inherits from; without such a place, the
    innermost one of all.
    """
    last = text.rpartition(_BEGIN)[2].rstrip()
    unindented = [line for line in last.splitlines() if line and not line.startswith(" ")]
    exception = (unindented[0] if unindented else last.strip())[:_LONGEST]
    frames = _FRAME.findall(last)
    if not frames:
        return exception
    file, line, function = ([frame for frame in frames if frame[0] in _files(strategy)] or frames)[-1]
    return f"{exception} ({_short(file)}, line {line}, in {function})"


def _files(strategy: Any) -> set[str]:
    """Return the files that define the methods of a strategy and of its base classes."""
    methods = [method for cls in type(strategy).__mro__ for method in vars(cls).values()]
    return {method.__code__.co_filename for method in methods if hasattr(method, "__code__")}


def _short(file: str) -> str:
    inside = os.path.relpath(file) if Path(file).is_absolute() else file
    return file if inside.startswith("..") else inside
