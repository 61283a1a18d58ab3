"""What goes to a terminal, a pipe or a log: its reader may leave at any time, and no text from a file steers the terminal."""

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
"""Control characters but tab and newline, marks that turn the direction of writing, and halves of characters."""


def printable(text: str) -> str:
    """`text` with every character that would steer a terminal written as an escape, such as \\x1b."""
    return _UNSAFE.sub(_escaped, text)


class Outlet:
    """A text stream that never raises: what cannot be written is dropped, and `error` says why the first of it was.

    A character that the stream's encoding lacks becomes a question mark. `stream` may be None, as `sys.stdout` is in a
    process that was started without one.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.error: Exception | None = None

    def write(self, text: str) -> int:
        if self._stream is not None and self.error is None:
            try:
                self._write(self._stream, text)
            except (OSError, ValueError) as error:  # ValueError: it was closed
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
        """Where writing failed, lead what is still buffered to nowhere, so that the end of the process does not fail too."""
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
    """Things to print whose text steers nothing."""

    def __init__(self, parts: Sequence[ConsoleRenderable]) -> None:
        self._parts = parts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        for part in self._parts:
            for text, style, control in console.render(part, options):
                yield Segment(text if control else printable(text), style, control)


class _Cleaner:
    """Rich asks it before each print."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Cleaned(renderables)]


def open_console(stderr: bool = False) -> Console:
    """A rich console on stdout or stderr that a broken pipe does not end, and that prints control characters as escapes."""
    from rich.console import Console

    console = Console(file=Outlet(sys.stderr if stderr else sys.stdout), highlight=False)  # type: ignore[arg-type]
    console.push_render_hook(_Cleaner())  # type: ignore[arg-type]
    return console


def _escaped(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
