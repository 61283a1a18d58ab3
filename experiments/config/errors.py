"""Errors in the input as one sentence each: the file, the key, the value, the problem, and the cure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from grapevine.experiments.terminal import printable


class ConfigError(ValueError):
    """An experiment that cannot be run as written; `str()` gives the whole message.

    `source` is the file ("" if the experiment came from Python, or if the caller adds it with `at`), `key` the dotted key
    ("strategy.fill"), `value` its value (None = no value, or none to show), `problem` the mistake and `cure` what to do.
    """

    def __init__(self, source: str = "", key: str = "", value: Any = None, problem: str = "", cure: str = "") -> None:
        super().__init__(source, key, value, problem, cure)
        self.source = source
        self.key = key
        self.value = value
        self.problem = problem
        self.cure = cure

    def __str__(self) -> str:
        shown = "" if self.value is None else show_value(self.value)
        quoted = not shown or any(_quotes(self.problem, text) for text in (shown, repr(self.value), str(self.value)))
        where = self.key if quoted else " = ".join(filter(None, (self.key, shown)))
        problem = self.problem if not self.cure or self.cure in self.problem else f"{self.problem}; {self.cure}"
        return printable(": ".join(part for part in (self.source, where, problem) if part))

    def at(self, source: str = "", key: str = "") -> ConfigError:
        """Return the same error with the file and the key, if it has none yet."""
        return ConfigError(self.source or source, self.key or key, self.value, self.problem, self.cure)


def config_error(error: ValueError, source: str = "", key: str = "") -> ConfigError:
    """Return a ValueError whose message is "problem; cure" as a ConfigError of this file and key."""
    if isinstance(error, ConfigError):
        return error.at(source, key)
    problem, _, cure = " ".join(str(error).split()).partition("; ")
    return ConfigError(source, key, None, problem, cure)


def unknown_name(key: str, name: object, kind: str, known: Iterable[str]) -> ConfigError:
    """Return the error for a name that is not in a menu of this `kind` of part: the nearest name, and all known names."""
    names = sorted(known)
    guess = nearest(str(name), names)
    cure = f"did you mean {guess}? known: {', '.join(names)}" if guess else f"known: {', '.join(names)}"
    return ConfigError(key=key, value=name, problem=f"there is no {kind} {show_value(name)}", cure=cure)


ALIKE = 0.85
"""The similarity from which two names differ by about one letter."""


def unknown_key(key: str, owner: str, known: Iterable[str], hint: str = "") -> ConfigError:
    """Return the error for a key that its table lacks, with the known keys; `hint` names the table that has such a key."""
    names = list(known)
    word = key.rpartition(".")[2]
    guess = nearest(word, names)
    if nearest(word, names, ALIKE):
        hint = ""  # most likely a typing error, although another table may have a key of this name
    cure = f"{owner} has: {', '.join(names)}" if names else f"{owner} has none"
    if hint or guess:
        cure += f"; {hint or f'did you mean {guess}?'}"
    return ConfigError(key=key, problem="no such field", cure=cure)


def nearest(word: str, known: Iterable[str], alike: float = 0.6) -> str | None:
    """Return the known name that `word` most likely stands for; None if there is none.

    A name whose initials are `word` ("lr" for learning_rate), else the most similar one, with a similarity of at least `alike`
    (1 = equal).
    """
    plain = {_plain(name): name for name in known}
    if not _plain(word):
        return None
    short = [name for spelled, name in plain.items() if "-" in spelled and _initials(spelled) == _plain(word)]
    if len(short) == 1:
        return short[0]
    found = difflib.get_close_matches(_plain(word), plain, n=1, cutoff=alike)
    return plain[found[0]] if found else None


def show_value(value: Any) -> str:
    """Return a value as an experiment file would write it, cut to 120 characters."""
    if isinstance(value, str):
        text = '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(show_value(part) for part in value[:20]) + (", ..." if len(value) > 20 else "") + "]"
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{name} = {show_value(part)}" for name, part in value.items()) + "}"
    else:
        text = " ".join(str(value).split())
    return text if len(text) <= 120 else f"{text[:117]}..."


def _quotes(problem: str, text: str) -> bool:
    """Return whether a problem's text quotes a value: "at least 10" does not quote "1"."""
    return bool(re.search(rf"(?<![\w.]){re.escape(text)}(?!\.?\w)", problem))


def _initials(spelled: str) -> str:
    """Return the initials: "lr" of "learning-rate"."""
    return "".join(part[:1] for part in spelled.split("-"))


def _plain(word: str) -> str:
    return word.lower().replace("_", "-").strip()
