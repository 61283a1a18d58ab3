"""What a strategy that raised is told to have done: the exception, and the line of the strategy's own file it came from."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

_FRAME = re.compile(r'^  File "(.+)", line (\d+), in (.+)$', re.MULTILINE)
_BEGIN = "Traceback (most recent call last):\n"
_LONGEST = 300


def told_fault(text: str, strategy: Any) -> str:
    """A traceback in one line: "KeyError: 'x' (mine.py, line 12, in run)".

    The line is the innermost one of the file that the strategy, or a strategy that it builds on, was written in; of another
    file where none of them had a part in it.
    """
    last = text.rpartition(_BEGIN)[2].rstrip()
    said = [line for line in last.splitlines() if line and not line.startswith(" ")]
    exception = (said[0] if said else last.strip())[:_LONGEST]
    frames = _FRAME.findall(last)
    if not frames:
        return exception
    file, line, function = ([frame for frame in frames if frame[0] in _files(strategy)] or frames)[-1]
    return f"{exception} ({_short(file)}, line {line}, in {function})"


def _files(strategy: Any) -> set[str]:
    """Where the methods of a strategy and of its ancestors were written."""
    methods = [method for cls in type(strategy).__mro__ for method in vars(cls).values()]
    return {method.__code__.co_filename for method in methods if hasattr(method, "__code__")}


def _short(file: str) -> str:
    inside = os.path.relpath(file) if Path(file).is_absolute() else file
    return file if inside.startswith("..") else inside
