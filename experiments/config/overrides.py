"""Settings that replace single keys of an experiment file: `--set table.key=value`, and the lists of a sweep."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from grapevine.experiments.config import toml
from grapevine.experiments.config.errors import ConfigError

SOURCE = "--set"
"""The source in errors about a setting."""

FROM = "from"
"""The key of a table for the folder of the module in its "module:Class"; a field of a part cannot have this name."""


def is_reference(name: object) -> bool:
    """Return whether a name has the form "module:Class" (a user's own part), unlike the names of built-in parts."""
    return isinstance(name, str) and ":" in name


def overlay(
    document: Mapping[str, Any], settings: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the document with every setting ("table.key" -> value) applied; their order does not matter.

    A table that the document lacks begins as in `defaults`. Another `table.name` resets the rest of its table, a whole table
    replaces the old one, and an empty value removes the key.
    """
    changed = {key: dict(value) if isinstance(value, Mapping) else value for key, value in document.items()}
    for key, value in sorted(settings.items(), key=lambda setting: _order(setting[0])):
        table, dot, field = key.partition(".")
        if not table or (dot and not field):
            raise ConfigError(key=key, problem="is not a key", cure="write table.key=value, such as strategy.name=ako")
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
            cure = f"change it in Python: experiment.replace({table}=...)"
            raise ConfigError(key=key, problem=f"the {table} was given from Python", cure=cure)
        if value == "":
            inner.pop(field, None)
        else:
            inner[field] = value
    return changed


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Return the settings of `--set key=value`, each value read as TOML, else as text; raise ConfigError if `=` is missing."""
    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            cure = "write table.key=value, such as --set strategy.name=ako"
            raise ConfigError(SOURCE, problem=f"{text!r} does not have the form key=value", cure=cure)
        settings[key.strip()] = toml.parse_value(_as_utf8(value.strip()), SOURCE, key.strip())
    return settings


def _as_utf8(text: str) -> str:
    """Return the typed text in UTF-8, if the locale of the command line could not decode it."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def anchor(document: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the document with the `path` and `from` of every table made absolute, relative to `folder`."""
    return {key: _anchored(value, folder) for key, value in document.items()}


def anchor_settings(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return settings with their paths made absolute: values of "table.path" and "table.from", and those in whole tables."""
    return {
        key: _absolute(value, folder) if key.endswith((".path", f".{FROM}")) else _anchored(value, folder)
        for key, value in settings.items()
    }


def anchor_table(table: Any, folder: Path) -> Any:
    """Return a table with its `path` and `from`, if any, made absolute, relative to `folder`; any other value unchanged."""
    if not isinstance(table, Mapping):
        return table
    return {key: _absolute(value, folder) if key in ("path", FROM) else value for key, value in table.items()}


def look_beside(document: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the document with `folder` added to every table that names a "module:Class" without a folder."""

    def beside(value: Any) -> Any:
        own = isinstance(value, Mapping) and is_reference(value.get("name"))
        return {FROM: str(folder.absolute()), **value} if own else value

    return {
        key: [beside(part) for part in value] if isinstance(value, list) else beside(value) for key, value in document.items()
    }


def _anchored(value: Any, folder: Path) -> Any:
    """Return a table, or the tables of a list, with their paths made absolute."""
    return [anchor_table(part, folder) for part in value] if isinstance(value, list) else anchor_table(value, folder)


def concerns(settings: Mapping[str, Any], key: str) -> bool:
    """Return whether an error at `key` comes from one of the settings."""
    table = key.partition(".")[0]
    exact = any(key == setting or key.startswith((f"{setting}.", f"{setting}[")) for setting in settings)
    inside = key == table and any(setting.startswith(f"{table}.") for setting in settings)
    return bool(key) and (exact or inside or f"{table}.name" in settings)


def _order(key: str) -> int:
    return 0 if "." not in key else 1 if key.endswith(".name") else 2


def _absolute(path: Any, folder: Path) -> Any:
    return os.path.normpath(folder.absolute() / path) if isinstance(path, str) and path else path
