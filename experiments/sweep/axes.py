"""The axes of a `[sweep]` table: lists of values, and named choices that set several keys at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from grapevine.experiments.config.errors import ConfigError, show_value
from grapevine.experiments.config.experiment import Experiment
from grapevine.experiments.config.menus import LISTS, MENUS, name_of

LABEL = "label"
SEED = "seed"
SKIP_INVALID, BASELINE, TARGET_LOSS = "skip_invalid", "baseline", "target_loss"
MOST_RUNS = 10_000


class Options(NamedTuple):
    """The options of a `[sweep]` table, beside its lists."""

    skip_invalid: bool = False
    """Whether combinations that cannot be built are left out; else they stop the sweep before its first run."""
    baseline: str = ""
    """The choice of the first axis whose row all others are compared with; "" = the best row."""
    target_loss: float | None = None
    """The mean test loss of which the tables report the time; None = the accuracy, or a loss chosen from the runs."""


@dataclass(frozen=True)
class Choice:
    """One choice on an axis."""

    shown: Any
    """Its name in tables and folders: the value, or the label of a named choice."""
    settings: dict[str, Any]
    """"table.key" -> value."""


@dataclass(frozen=True)
class Axis:
    """One key, or one name for several keys, with its choices."""

    name: str
    choices: tuple[Choice, ...]


def read_blocks(given: Any, source: str) -> tuple[list[list[Axis]], Options]:
    """Return the axes of each `[sweep]` table, and the options; several tables must vary the same names.

    Options may be in any of the tables and apply to the whole sweep. Raises ConfigError, with the cure, for a value that is not
    a list, for two equal choices, and for a key that two axes set.
    """
    tables = given if isinstance(given, list) else [given]
    options = Options()
    if all(isinstance(table, Mapping) for table in tables):
        options = _options(tables, source)
        tables = [{key: value for key, value in table.items() if key not in Options._fields} for table in tables]
    if not tables or not all(isinstance(table, Mapping) and table for table in tables):
        cure = 'add [sweep], and below it lists, such as "strategy.fill" = [0.5, 0.9]; for a single run use `grapevine run`'
        raise ConfigError(source, "sweep", problem="is missing or empty", cure=cure)
    blocks = [[_axis(name, values, source) for name, values in flat(table)] for table in tables]
    names = [sorted(axis.name for axis in axes) for axes in blocks]
    for number, other in enumerate(names[1:], start=2):
        if other != names[0]:
            problem = f"the first table [[sweep]] varies {', '.join(names[0])}, but table {number} varies {', '.join(other)}"
            cure = "let all tables vary the same names; a list may have one value"
            raise ConfigError(source, "sweep", problem=problem, cure=cure)
    for axes in blocks:
        _refuse_two_of_a_key(axes, source)
    order = [axis.name for axis in blocks[0]]
    blocks = [sorted(axes, key=lambda axis: order.index(axis.name)) for axes in blocks]
    _refuse_unknown_baseline(options.baseline, blocks, source)
    return blocks, options


def _options(tables: list[Mapping[str, Any]], source: str) -> Options:
    found: dict[str, Any] = {}
    kinds = ((SKIP_INVALID, bool, "true or false"), (BASELINE, str, 'text, such as "solo"'))
    for name, kind, cure in (*kinds, (TARGET_LOSS, int | float, "a number, such as 0.1")):
        for value in (table[name] for table in tables if name in table):
            number = kind is not bool and isinstance(value, bool)  # true is 1 in Python
            if number or not isinstance(value, kind) or (isinstance(value, float) and not math.isfinite(value)):
                raise ConfigError(source, f"sweep.{name}", value, f"{show_value(value)} is not valid", f"write {cure}")
            if found.setdefault(name, value) != value:
                cure = "write it once, in any of the tables"
                raise ConfigError(source, f"sweep.{name}", problem="has different values in two [[sweep]] tables", cure=cure)
    return Options(**found)


def _refuse_unknown_baseline(baseline: str, blocks: list[list[Axis]], source: str) -> None:
    first = next((axis.name for axis in blocks[0] if axis.name != SEED), "")
    shown = [
        choice.shown if isinstance(choice.shown, str) else show_value(choice.shown)
        for axes in blocks
        for axis in axes
        if axis.name == first
        for choice in axis.choices
    ]
    if baseline and baseline not in shown:
        problem = f"{show_value(baseline)} is not a choice of the first axis{f', {first}' if first else ''}"
        cure = f"name one of: {', '.join(dict.fromkeys(shown))}" if shown else "leave it out"
        raise ConfigError(source, f"sweep.{BASELINE}", problem=problem, cure=cure)


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys of a table as dotted keys, with their values; nested tables are the same as dotted keys."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read_list(key: str, values: Any, source: str) -> list[Any]:
    """Return the list if it has one value or more; raise ConfigError for anything else."""
    if not isinstance(values, list) or not values:
        cure = f'write a list of one value or more, such as "{key.partition(".")[2]}" = [{_example(values)}]'
        problem = "the list is empty" if isinstance(values, list) else f"{show_value(values)} is not a list"
        raise ConfigError(source, key, values, problem, cure)
    if len(values) > MOST_RUNS:
        raise too_many(len(values), source, key)
    return values


def too_many(runs: int, source: str, key: str) -> ConfigError:
    """Return the error for lists that give more runs than a sweep may have."""
    problem = f"the lists give {runs:,} runs, more than {MOST_RUNS:,}"
    return ConfigError(source, key, problem=problem, cure="shorten the lists, or split the sweep")


def _axis(name: str, given: Any, source: str) -> Axis:
    values = read_list(f"sweep.{name}", given, source)
    if name in MENUS and any(isinstance(value, str) for value in values):
        bare = all(isinstance(value, str) for value in values)
        cure = f'write "{name}.name" = {show_value(values)}' if bare else 'write {name = "..."} in place of a name alone'
        word = next(show_value(value) for value in values if isinstance(value, str))
        raise ConfigError(source, f"sweep.{name}", problem=f"{word} is not a table", cure=cure)
    labelled = [isinstance(value, Mapping) and LABEL in value for value in values]
    if not any(labelled):
        shown = _labels(values) if name in MENUS or name in LISTS else values
        return Axis(
            name, tuple(Choice(*pair) for pair in zip(shown, ({name: _laid(name, value)} for value in values), strict=True))
        )
    where = f"sweep.{name}"
    if not all(labelled):
        bare = values[labelled.index(False)]
        cure = f'write {{label = "...", "strategy.name" = "...", ...}} for each of the {len(values)}'
        raise ConfigError(source, where, problem=f"this choice has no label, but others have: {show_value(bare)}", cure=cure)
    if name.partition(".")[0] in _parts():
        problem = "choices with a label cannot be under the name of a part of an experiment, because they name their own keys"
        raise ConfigError(source, where, problem=problem, cure='give the axis another name, such as "variant"')
    choices = tuple(_named(value, where, source) for value in values)
    labels = [str(choice.shown) for choice in choices]
    if twice := [label for label in labels if labels.count(label) > 1]:
        problem = f"two choices have the label {show_value(twice[0])}"
        raise ConfigError(source, where, problem=problem, cure="use each label once")
    return Axis(name, choices)


def _labels(values: Sequence[Any]) -> list[Any]:
    """Return the names of several values of a part in tables; parts from Python with equal names also show their fields."""
    bare = [value if _is_plain(value) and not isinstance(value, list) else _called(value) for value in values]
    names = [
        f"{name} ({fields})"
        if bare.count(name) > 1 and isinstance(value, msgspec.Struct) and (fields := _differing(value))
        else name
        for name, value in zip(bare, values, strict=True)
    ]
    return [
        f"{name} {names[: place + 1].count(name)}" if isinstance(name, str) and names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def _called(part: Any) -> str:
    """Return the name of a part, or the names of a list of parts; of a graph or schedule its own name, or that of its class."""
    if isinstance(part, list | tuple):
        return " and ".join(each["name"] if isinstance(each, Mapping) else _called(each) for each in part) or "none"
    return name_of(part) if isinstance(part, msgspec.Struct) else getattr(part, "name", "") or type(part).__name__.lower()


def _differing(part: msgspec.Struct) -> str:
    """Return the fields of a part that differ from their defaults, in words."""
    fields = [field for field in msgspec.structs.fields(type(part)) if getattr(part, field.name) != field.default]
    return ", ".join(f"{field.encode_name} = {show_value(getattr(part, field.name))}" for field in fields)


def _laid(key: str, value: Any) -> Any:
    """Return a value as a file would write it; a part that a file cannot hold unchanged."""
    if key in LISTS and isinstance(value, list | tuple):
        return [part if _is_plain(part) else LISTS[key].table(part) or part for part in value]
    return value if _is_plain(value) or key not in MENUS else MENUS[key].table(value) or value


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | list | Mapping)


def _named(value: Mapping[str, Any], where: str, source: str) -> Choice:
    label = value[LABEL]
    if not isinstance(label, str) or not label.strip():
        cure = 'write it as text, such as label = "p = 4"'
        raise ConfigError(source, where, problem=f"{show_value(label)} is not valid as a label", cure=cure)
    settings = {key: part for key, part in value.items() if key != LABEL}
    if not settings:
        cure = 'add keys, such as "strategy.name" = "ako"'
        raise ConfigError(source, where, problem=f"the choice {show_value(label)} sets no key", cure=cure)
    if SEED in settings:
        cure = "vary the seed in its own list: seed = [1, 2, 3]"
        raise ConfigError(source, where, problem=f"the choice {show_value(label)} sets the seed", cure=cure)
    return Choice(label, {key: _laid(key, part) for key, part in _dotted(settings).items()})


def _dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by dotted key; a nested table with a name stays a whole table, any other becomes dotted keys."""
    dotted: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and "name" not in value and "." not in key:
            dotted |= {f"{key}.{inner}": part for inner, part in value.items()}
        else:
            dotted[key] = value
    return dotted


def _refuse_two_of_a_key(axes: list[Axis], source: str) -> None:
    """Raise ConfigError if two axes set the same key, because the second would hide the first."""
    owner: dict[str, str] = {}
    for axis in axes:
        for key in {key for choice in axis.choices for key in choice.settings}:
            if key in owner:
                problem = f"both {owner[key]} and {axis.name} set {key}"
                raise ConfigError(source, "sweep", problem=problem, cure="set it in one of them only")
            owner[key] = axis.name


def _parts() -> set[str]:
    return {field.name for field in msgspec.structs.fields(Experiment)}


def _example(values: Any) -> str:
    return "..." if values == [] else show_value(values)
