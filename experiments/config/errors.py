"""Bad input, told in one sentence: which file, which key, which value, what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from grapevine.experiments.terminal import printable


class ConfigError(ValueError):
    """An experiment that cannot be run as it was written; `str()` is the whole message for a person.

    `source` is the file ("" where the experiment came from Python, or where the caller adds it with `at`), `key` the dotted
    key ("strategy.fill"), `value` what stands there (None: nothing, or not worth showing), `problem` what is wrong with it
    and `cure` what to do.
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
        told = not shown or any(_quotes(self.problem, text) for text in (shown, repr(self.value), str(self.value)))
        where = self.key if told else " = ".join(filter(None, (self.key, shown)))
        problem = self.problem if not self.cure or self.cure in self.problem else f"{self.problem}; {self.cure}"
        return printable(": ".join(part for part in (self.source, where, problem) if part))

    def at(self, source: str = "", key: str = "") -> ConfigError:
        """The same error with the file and the key filled in where they were not known yet."""
        return ConfigError(self.source or source, self.key or key, self.value, self.problem, self.cure)


def config_error(error: ValueError, source: str = "", key: str = "") -> ConfigError:
    """Any ValueError of a trunk ("what was wrong; what to do") as a ConfigError of that file and key."""
    if isinstance(error, ConfigError):
        return error.at(source, key)
    problem, _, cure = " ".join(str(error).split()).partition("; ")
    return ConfigError(source, key, None, problem, cure)


def unknown_name(key: str, name: object, what: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that no menu has: lists those that it has, the nearest first."""
    names = sorted(known)
    meant = nearest(str(name), names)
    cure = f"did you mean {meant}? known: {', '.join(names)}" if meant else f"known: {', '.join(names)}"
    return ConfigError(key=key, value=name, problem=f"there is no {what} {show_value(name)}", cure=cure)


ALIKE = 0.85
"""From here on two names differ by a letter or so."""


def unknown_key(key: str, owner: str, known: Iterable[str], hint: str = "") -> ConfigError:
    """The error for a key that its table does not have, with all those that it has; `hint` says where it does belong."""
    names = list(known)
    word = key.rpartition(".")[2]
    meant = nearest(word, names)
    if nearest(word, names, ALIKE):
        hint = ""  # a slip of the pen, though another table may have a field of just that name
    cure = f"{owner} has: {', '.join(names)}" if names else f"{owner} has none"
    if hint or meant:
        cure += f"; {hint or f'did you mean {meant}?'}"
    return ConfigError(key=key, problem="no such field", cure=cure)


def nearest(word: str, known: Iterable[str], alike: float = 0.6) -> str | None:
    """The known name that `word` was most likely meant to be: one that it has the initials of ("lr" for learning_rate), or the
    likest, if any is at least so much `alike` (1 = the same)."""
    plain = {_plain(name): name for name in known}
    if not _plain(word):
        return None
    short = [name for spelled, name in plain.items() if "-" in spelled and _initials(spelled) == _plain(word)]
    if len(short) == 1:
        return short[0]
    found = difflib.get_close_matches(_plain(word), plain, n=1, cutoff=alike)
    return plain[found[0]] if found else None


def show_value(value: Any) -> str:
    """A value as an experiment file would write it, cut to a length that a message can bear."""
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
    """Whether a problem tells a value already: "1" is not told by "at least 10"."""
    return bool(re.search(rf"(?<![\w.]){re.escape(text)}(?!\.?\w)", problem))


def _initials(spelled: str) -> str:
    """ "lr" of "learning-rate"."""
    return "".join(part[:1] for part in spelled.split("-"))


def _plain(word: str) -> str:
    return word.lower().replace("_", "-").strip()
