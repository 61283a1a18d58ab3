"""From an experiment file with a `[sweep]` table to the runs it stands for."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import toml_text
from experiments.config import Experiment
from experiments.config_errors import ConfigError, show_value
from experiments.settings import SOURCE, anchor_settings, concerns

MOST_RUNS = 10_000
LONGEST_NAME = 100


@dataclass(frozen=True)
class Point:
    """One run of a sweep."""

    name: str
    """Of its folder: the same values have the same name."""
    values: dict[str, Any]
    """What was chosen of each swept key."""
    experiment: Experiment


def read_sweep(path: Path, settings: Mapping[str, Any] | None = None) -> list[Point]:
    """All runs of a file: each combination of the lists of its `[sweep]` table, the last one varying fastest.

    `settings` ("table.key" -> value) are laid over the file, the swept values over these. Raises ConfigError where one
    of the runs could not be, so that nothing starts then.
    """
    document = toml_text.read_document(path, str(path))
    lists = _lists(document.pop("sweep", None), str(path))
    combinations = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    names = _names(combinations, str(path))
    settings = anchor_settings(settings or {}, Path())
    points = []
    for name, values in zip(names, combinations, strict=True):
        chosen = anchor_settings(values, path.parent)
        try:
            experiment = Experiment.from_document(document, str(path), path.parent, {**settings, **chosen})
        except ConfigError as error:
            if error.source == SOURCE and concerns(chosen, error.key):
                error.source = f"{path}: [sweep]"
            raise
        points.append(Point(name, values, experiment))
    return points


def _lists(table: Any, source: str) -> dict[str, list[Any]]:
    """The swept keys and their values; nested tables are the same as dotted keys."""
    if not isinstance(table, Mapping) or not table:
        cure = 'add [sweep] and below it lists, such as "strategy.fill" = [0.5, 0.9]; for a single run use `grapevine run`'
        raise ConfigError(source, "sweep", problem="is missing or empty", cure=cure)
    lists = dict(_flat(table))
    for key, values in lists.items():
        if not isinstance(values, list) or not values:
            cure = f'write a list of one value or more, such as "{key}" = [{show_value(values) if values != [] else "..."}]'
            raise ConfigError(source, f"sweep.{key}", values, f"{show_value(values)} will not do", cure)
    runs = math.prod(len(values) for values in lists.values())
    if runs > MOST_RUNS:
        problem = f"the lists make {runs:,} runs, more than {MOST_RUNS:,}"
        raise ConfigError(source, "sweep", problem=problem, cure="shorten the lists, or split the sweep")
    return lists


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _names(combinations: list[dict[str, Any]], source: str) -> list[str]:
    """A folder name for each combination; where plain names would be too long or alike, a digest tells them apart."""
    exact = [toml_text.dump_value(values) for values in combinations]
    twice = [text for text, count in Counter(exact).items() if count > 1]
    if twice:
        raise ConfigError(source, "sweep", problem=f"the same run comes twice: {twice[0]}", cure="name each value once")
    plain = [",".join(f"{key}={_slug(value)}" for key, value in values.items()) for values in combinations]
    counts = Counter(name.lower() for name in plain)
    names = []
    for name, text in zip(plain, exact, strict=True):
        if len(name) > LONGEST_NAME or counts[name.lower()] > 1:
            name = f"{name[:LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        names.append(name)
    return names


def _slug(value: Any) -> str:
    """A value as part of a folder's name: "20 Mbit/s" is "20Mbit-s"."""
    if isinstance(value, Mapping):
        return "_".join(_slug(part) for part in value.values()) or "default"
    if isinstance(value, list):
        return "_".join(_slug(part) for part in value) or "none"
    text = str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "")
    return re.sub(r"[^\w.+-]+", "-", text, flags=re.ASCII).strip(".") or "empty"
