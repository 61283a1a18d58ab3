"""Coroutines that a strategy never awaited, as warnings of the run."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from grapevine.experiments.faults import users_file

_UNAWAITED = re.compile(r"coroutine '(.+)' was never awaited")
_VERBS = ("Peer.", "Worker.", "WrappedPeer.", "Neighbourhood.")


@contextmanager
def unawaited(warn: Callable[[str], None]) -> Iterator[None]:
    """Give Python's warnings about coroutines that were never awaited, inside this context, to `warn`: one for each place."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", _UNAWAITED.pattern, RuntimeWarning)
        otherwise, seen = warnings.showwarning, set[str]()

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            found = _UNAWAITED.match(str(message))
            if found is None:
                otherwise(message, category, filename, lineno, file, line)
                return
            text = _text(found[1], filename, lineno)
            if text not in seen:
                seen.add(text)
                warn(text)

        warnings.showwarning = show
        yield


def _text(name: str, file: str, line: int) -> str:
    """Return the warning about a coroutine; it is destroyed at this line of this file, as a rule where it was made."""
    verb = next((f"peer.{name.removeprefix(owner)}" for owner in _VERBS if name.startswith(owner)), name)
    place = users_file(file)
    where = f" ({place}, line {line})" if place else ""
    return f"a call of {verb} had no effect, because it was not awaited{where}: write `await` before it"
