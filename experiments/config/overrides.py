"""Single keys laid over an experiment file: `--set table.key=value`, and the lists of a sweep."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from grapevine.experiments.config import toml
from grapevine.experiments.config.errors import ConfigError

SOURCE = "--set"
"""What an error is said to come from where a setting is at fault."""

FROM = "from"
"""The key of a table that says in which folder the module of its "module:Class" is looked for; no field of a part can have
that name."""


def is_reference(name: object) -> bool:
    """Whether a name is meant as "module:Class", a part of the user's own, rather than as the name of a built-in one."""
    return isinstance(name, str) and ":" in name


def overlay(
    document: Mapping[str, Any], settings: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The document with every setting ("table.key" -> value) laid over it, whatever their order.

    A table that the document lacks begins as in `defaults`. Another `table.name` resets the rest of its table, a whole
    table takes the place of the old one, and an empty value takes the key away.
    """
    changed = {key: dict(value) if isinstance(value, Mapping) else value for key, value in document.items()}
    for key, value in sorted(settings.items(), key=lambda setting: _order(setting[0])):
        table, dot, field = key.partition(".")
        if not table or (dot and not field):
            raise ConfigError(key=key, problem="is no key", cure="write table.key=value, such as strategy.name=ako")
        if not dot:
            if value == "":
                changed.pop(key, None)
            else:
                changed[key] = value
            continue
        inner = changed.get(table)
        if field == "name" and not (isinstance(inner, dict) and inner.get("name") == value):
            changed[table] = {"name": value}
            continue
        if inner is None or isinstance(inner, bool | int | float | str | list):
            inner = changed[table] = dict(defaults.get(table, {}))
        elif not isinstance(inner, dict):
            cure = f"change it there: experiment.replace({table}=...)"
            raise ConfigError(key=key, problem=f"the {table} was given from Python", cure=cure)
        if value == "":
            inner.pop(field, None)
        else:
            inner[field] = value
    return changed


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """What `--set key=value` says, each value as TOML or else as text; ConfigError where there is no `=`."""
    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            cure = "write table.key=value, such as --set strategy.name=ako"
            raise ConfigError(SOURCE, problem=f"{text!r} sets nothing", cure=cure)
        settings[key.strip()] = toml.parse_value(_as_utf8(value.strip()), SOURCE, key.strip())
    return settings


def _as_utf8(text: str) -> str:
    """What was typed, where the locale of the command line could not read it."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def anchor(document: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The document with the `path` and `from` of every table made absolute, as seen from `folder`; all else is as it was."""
    return {key: _anchored(value, folder) for key, value in document.items()}


def anchor_settings(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The same for settings, whose paths stand behind "table.path" or in a whole table."""
    return {
        key: _absolute(value, folder) if key.endswith((".path", f".{FROM}")) else _anchored(value, folder)
        for key, value in settings.items()
    }


def anchor_table(table: Any, folder: Path) -> Any:
    """A table with its `path` and `from`, if it has them, made absolute as seen from `folder`; any other value as it is."""
    if not isinstance(table, Mapping):
        return table
    return {key: _absolute(value, folder) if key in ("path", FROM) else value for key, value in table.items()}


def look_beside(document: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The document in which every table that names a "module:Class", and no folder for it, is given `folder`."""

    def beside(value: Any) -> Any:
        own = isinstance(value, Mapping) and is_reference(value.get("name"))
        return {FROM: str(folder.absolute()), **value} if own else value

    return {
        key: [beside(part) for part in value] if isinstance(value, list) else beside(value) for key, value in document.items()
    }


def _anchored(value: Any, folder: Path) -> Any:
    """A table, or the tables of a list, with their paths made absolute."""
    return [anchor_table(part, folder) for part in value] if isinstance(value, list) else anchor_table(value, folder)


def concerns(settings: Mapping[str, Any], key: str) -> bool:
    """Whether what is wrong at `key` was brought in by one of the settings."""
    table = key.partition(".")[0]
    exact = any(key == setting or key.startswith((f"{setting}.", f"{setting}[")) for setting in settings)
    inside = key == table and any(setting.startswith(f"{table}.") for setting in settings)
    return bool(key) and (exact or inside or f"{table}.name" in settings)


def _order(key: str) -> int:
    return 0 if "." not in key else 1 if key.endswith(".name") else 2


def _absolute(path: Any, folder: Path) -> Any:
    return os.path.normpath(folder.absolute() / path) if isinstance(path, str) and path else path
