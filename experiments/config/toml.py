"""Reading and writing of TOML: errors name the line, and each key is written on its own line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
import tomlkit.items

from grapevine.experiments.config.errors import ConfigError, config_error

MOST_LEVELS = 32
"""The largest number of levels of tables and lists in one another."""
WHOLE = range(-(2**63), 2**63)
"""The whole numbers of TOML: 64 bits."""
TOO_LARGE = "a whole number has more than 64 bits"

_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def read_text(path: Path, source: str) -> str:
    """Return the text of a UTF-8 file of at most 32 MiB; raise ConfigError if it cannot be read."""
    from grapevine.netem import text_files  # imports all of netem, which help and most errors do not need

    try:
        return text_files.read_text(path)
    except ValueError as error:
        raise config_error(error, source) from None


def read_document(path: Path, source: str) -> dict[str, Any]:
    """Return the document of an experiment file; without the key `name` it gets the file's name. Raise ConfigError for an empty
    file."""
    document = parse(read_text(path, source), source)
    if not document:
        cure = "write at least one key, such as peers = 8 (all other keys have defaults: see `grapevine list`)"
        raise ConfigError(source, problem="is empty", cure=cure)
    return {"name": path.stem or "experiment", **document}


def parse(text: str, source: str) -> dict[str, Any]:
    """Return the document of a TOML text; raise ConfigError with line and column if it is not TOML, and for extreme values."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _syntax_error(error, text, source) from None
    for key, value in document.items():
        _refuse_extremes(value, source, key)
    return document


def parse_value(text: str, source: str = "", key: str = "") -> Any:
    """Return one value of the command line: read as TOML if it is TOML (5, true, [1, 2]), else the text itself.

    Raises ConfigError, with `source` and `key`, for an extreme value (`_refuse_extremes`).
    """
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    value = document.pop("value", text)
    if document or not isinstance(value, bool | int | float | str | list | dict):
        return text
    _refuse_extremes(value, source, key)
    return value


def _refuse_extremes(value: Any, source: str, key: str) -> None:
    """Raise ConfigError for whole numbers of more than 64 bits, and for values nested too deeply for recursive functions."""
    level, depth = [value], 0
    while level:
        if any(isinstance(part, int) and part not in WHOLE for part in level):
            cure = f"write a number from {WHOLE[0]} to {WHOLE[-1]}"
            raise ConfigError(source, key, problem=TOO_LARGE, cure=cure)
        nested = [part.values() if isinstance(part, Mapping) else part for part in level if isinstance(part, Mapping | list)]
        if nested and (depth := depth + 1) > MOST_LEVELS:
            problem = f"is nested too deeply, in more than {MOST_LEVELS} levels"
            raise ConfigError(source, key, problem=problem, cure="use fewer levels of brackets")
        level = [part for parts in nested for part in parts]


def dump(document: Mapping[str, Any], comments: Mapping[str, Sequence[str]] | None = None) -> str:
    """Return a document as TOML: plain keys, then tables and lists of tables, without None; `comments` go above their table."""
    comments = comments or {}
    lines = [f"# {line}" for line in comments.get("", ())]
    lines += [f"{_key(key)} = {dump_value(value)}" for key, value in document.items() if not _skip(value)]
    for key, value in document.items():
        for table in [value] if isinstance(value, Mapping) else value if _are_tables(value) else []:
            head = f"[{_key(key)}]" if isinstance(value, Mapping) else f"[[{_key(key)}]]"
            lines += ["", *(f"# {line}" for line in comments.get(key, ())), head]
            lines += [f"{_key(name)} = {dump_value(part)}" for name, part in table.items() if part is not None]
    return "\n".join(lines) + "\n"


def dump_value(value: Any) -> str:
    """Return a value as TOML, on one line."""
    return _item(value).as_string()


def _item(value: Any) -> tomlkit.items.Item:
    """Return a value for tomlkit, with every inner table on one line and without None."""
    if isinstance(value, Mapping):
        table = tomlkit.inline_table()
        for key, part in value.items():
            if part is not None:
                table.append(str(key), _item(part))
        return table
    if isinstance(value, list | tuple):
        array = tomlkit.array()
        array.extend(map(_item, value))
        return array
    item: tomlkit.items.Item = tomlkit.item(value)
    return item


def _skip(value: Any) -> bool:
    return value is None or isinstance(value, Mapping) or _are_tables(value)


def _are_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, Mapping) for part in value)


def _key(key: str) -> str:
    return tomlkit.key(key).as_string()


def _syntax_error(error: Exception, text: str, source: str) -> ConfigError:
    lines = text.splitlines() or [""]
    place = _PLACE.search(str(error))
    if place is None:
        problem = "is nested too deeply" if isinstance(error, RecursionError) else f"is not TOML: {error}"
        problem = TOO_LARGE if "integer string conversion" in problem else problem
        return ConfigError(source, problem=problem, cure="see the examples in experiments/suites")
    line, column = int(place.group(1) or len(lines)), int(place.group(2) or len(lines[-1]) + 1)
    written = lines[line - 1].strip() if line <= len(lines) else ""
    mistake = _PLACE.sub("", str(error)).lower()
    if mistake == "cannot overwrite a value" or mistake.endswith("twice"):
        mistake = "the file has this key or table twice"
    problem = f"line {line}, column {column}: {mistake}"
    problem += f" in {written[:80]!r}" if written else ""
    return ConfigError(source, problem=problem, cure='write each line as key = value or [table], and text in "quotes"')
