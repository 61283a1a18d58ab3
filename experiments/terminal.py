"""Output to a terminal, a pipe or a log: a reader may close it at any time, and no text from a file controls the terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except tab and newline, marks that change the direction of writing, and lone surrogates."""


def printable(text: str) -> str:
    """Return `text` with every character that would control a terminal written as an escape, such as \\x1b."""
    return _UNSAFE.sub(_escaped, text)


class Outlet:
    """A text stream that never raises: after the first failed write, whose exception is in `error`, text is dropped.

    A character that the stream's encoding lacks becomes a question mark. `stream` may be None, like `sys.stdout` in a
    process that was started without one.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.error: Exception | None = None

    def write(self, text: str) -> int:
        if self._stream is not None and self.error is None:
            try:
                self._write(self._stream, text)
            except (OSError, ValueError) as error:  # ValueError: the stream is closed
                self.error = error
        return len(text)

    def flush(self) -> None:
        if self._stream is not None and self.error is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self.error = error

    def isatty(self) -> bool:
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:
            return False

    def close_the_broken(self) -> None:
        """After a failed write, send the buffered text to /dev/null, so that the end of the process does not fail too."""
        if self.error is not None and self._stream is not None:
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @staticmethod
    def _write(stream: TextIO, text: str) -> None:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "replace").decode(encoding))


class _Cleaned:
    """Rich renderables with control characters written as escapes."""

    def __init__(self, parts: Sequence[ConsoleRenderable]) -> None:
        self._parts = parts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        for part in self._parts:
            for text, style, control in console.render(part, options):
                yield Segment(text if control else printable(text), style, control)


class _Cleaner:
    """A hook that rich calls before each print."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Cleaned(renderables)]


def open_console(stderr: bool = False) -> Console:
    """Return a rich console on stdout or stderr that survives a broken pipe and prints control characters as escapes."""
    from rich.console import Console

    console = Console(file=Outlet(sys.stderr if stderr else sys.stdout), highlight=False)  # type: ignore[arg-type]
    console.push_render_hook(_Cleaner())  # type: ignore[arg-type]
    return console


def _escaped(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
