"""Reads tables of an experiment file into configuration values, field by field; each error names its exact key."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import inspect

from grapevine.experiments.config.errors import ConfigError, config_error, show_value, unknown_key
from grapevine.netem.units import duration_ns, rate_bytes_per_s, speed_samples_per_s

S = TypeVar("S", bound=msgspec.Struct)

UNITS: dict[str, Callable[[str], float]] = {
    "duration": duration_ns,
    "rate": rate_bytes_per_s,
    "speed": speed_samples_per_s,
}
"""The functions that read the text of a field with a unit (`Meta(extra={"unit": ..., "example": ...})`)."""

MOST_WHOLE, MOST, LEAST = 10**9, 1e12, 1e-12
"""The limits of a field that states none: the largest whole number, the largest other number, the smallest one above 0."""

_LISTS = inspect.ListType | inspect.VarTupleType
_NUMBER = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)\s*(%?)\s*", re.ASCII)
_PATH = re.compile(r" - at `\$((?:\[\d+\])*)")


fields_of = functools.cache(msgspec.structs.fields)
"""The fields of a class, cached, because msgspec would read them from the annotations each time."""


def read_struct(
    cls: type[S],
    table: Mapping[str, Any],
    key: str,
    owner: str,
    hint: Callable[[str], str] | None = None,
    limits: bool = True,
) -> S:
    """Return the `cls` that `table` describes; `key` is the table's place in the file, `owner` its name in messages.

    Raises ConfigError with the key of the wrong field; `hint` returns the place of a key that belongs to another table, and
    `limits` is as in `read_field`.
    """
    fields = {field.encode_name: field for field in fields_of(cls)}
    for name in table:
        if name not in fields:
            raise unknown_key(_join(key, name), owner, fields, hint(name) if hint else "")
    for name, field in fields.items():
        if field.required and name not in table:
            cure = f"{owner} needs it: give {expectation(field.type)}"
            raise ConfigError(key=_join(key, name), problem="is missing", cure=cure)
    values = {
        fields[name].name: read_field(fields[name].type, value, _join(key, name), limits) for name, value in table.items()
    }
    try:
        return cls(**values)
    except ValueError as error:
        raise _located(error, table, fields, key) from None


def check_struct(part: msgspec.Struct, key: str) -> None:
    """Raise ConfigError for a field of a value given from Python that its annotation (`Meta`) does not allow.

    `key` is the part's place in an experiment. Numbers of numpy count as numbers; a field whose annotation msgspec cannot
    read has no range and is not checked.
    """
    try:
        fields = fields_of(type(part))
    except NameError:  # annotations with names that are local to the function that defined the class
        return
    for field in fields:
        value, place = getattr(part, field.name), _join(key, field.encode_name)
        if isinstance(value, msgspec.Struct):
            check_struct(value, place)
            continue
        try:
            read_field(field.type, value.item() if isinstance(value, np.generic) else value, place, False)
        except TypeError:
            continue


def read_field(type_: Any, value: Any, key: str, limits: bool = True) -> Any:
    """Return `value`, as TOML gave it, as a value of `type_`; raise ConfigError that names the expected values.

    A number must be finite, and with `limits` within the limits of any run (MOST_WHOLE, MOST, LEAST).
    """
    try:
        converted = msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise _refusal(error, _info(type_), value, key) from None
    _check_text(_info(type_), converted, key, limits)
    return converted


def _info(type_: Any) -> inspect.Type:
    try:
        return _known_info(type_)
    except TypeError:  # an annotation that cannot be hashed
        return inspect.type_info(type_)


_known_info = functools.cache(inspect.type_info)


def expectation(type_: Any) -> str:
    """Return the values that a field of this type takes, in words: "a number above 0 and at most 1"."""
    return _expected(inspect.type_info(type_))


def _refusal(error: msgspec.ValidationError, info: inspect.Type, value: Any, key: str) -> ConfigError:
    """Return msgspec's error as a ConfigError, in the words of the experiment file."""
    path = _PATH.search(str(error))
    for place in re.findall(r"\d+", path.group(1)) if path else ():
        lists = [kind for kind, _ in _kinds(info) if isinstance(kind, _LISTS)]
        if len(lists) != 1:
            break
        info, value, key = lists[0].item_type, value[int(place)], f"{key}[{place}]"
    for _, extra in _kinds(info):
        if "unit" in extra and isinstance(value, int | float) and not isinstance(value, bool):
            cure = f"write for example {show_value(extra['example'])}"
            return ConfigError(key=key, value=value, problem=f"{show_value(value)} has no unit", cure=cure)
    for kind, _ in _kinds(info):
        if isinstance(kind, inspect.StructType) and isinstance(value, Mapping):
            try:
                read_struct(kind.cls, value, key, kind.cls.__name__.lower())
            except ConfigError as inner:
                return inner
    if any(isinstance(kind, inspect.CustomType) for kind, _ in _kinds(info)):
        kinds = " or ".join(kind.cls.__name__ for kind, _ in _kinds(info) if isinstance(kind, inspect.CustomType))
        return ConfigError(key=key, problem="a file cannot hold this", cure=f"give a {kinds} from Python")
    cure = f"expected {_expected(info)}{_as_number(info, value)}"
    return ConfigError(key=key, value=value, problem=f"{show_value(value)} is not valid", cure=cure)


def _as_number(info: inspect.Type, value: Any) -> str:
    """Return a hint for text that is a number, or a percentage, where a number is expected; else ""."""
    number = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if number is None or not any(isinstance(kind, inspect.IntType | inspect.FloatType) for kind, _ in _kinds(info)):
        return ""
    if number.group(2):
        return f"; write a share without the percent sign: {float(number.group(1)) / 100:.12g}"
    return f"; write the number without quotation marks: {number.group(1)}"


def _check_text(info: inspect.Type, value: Any, key: str, limits: bool) -> None:
    """Raise ConfigError for text with a wrong unit, and for numbers that are not finite or beyond the limits."""
    kinds = _kinds(info)
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_size(info, value, key, limits)
    if isinstance(value, list | tuple):
        for kind, _ in kinds:
            if isinstance(kind, _LISTS) and not _all_ordinary(value):
                for place, part in enumerate(value):
                    _check_text(kind.item_type, part, f"{key}[{place}]", limits)
    if isinstance(value, str) and not any(isinstance(kind, inspect.LiteralType) and value in kind.values for kind, _ in kinds):
        for _, extra in kinds:
            if extra.get("unit") in UNITS:
                try:
                    UNITS[extra["unit"]](value)
                except ValueError as error:
                    raise config_error(error, key=key) from None


def _all_ordinary(values: Sequence[Any]) -> bool:
    """Return whether all are numbers that `_check_text` accepts; it would need seconds for vectors of many thousands."""
    if not {int, float}.issuperset(map(type, values)):
        return False
    return all(value == 0 or LEAST <= abs(value) <= MOST_WHOLE for value in values)


def _check_size(info: inspect.Type, value: float, key: str, limits: bool) -> None:
    """Raise ConfigError for a number that is not finite; with `limits` also for one beyond the limits of any run."""
    if not math.isfinite(value):
        cure = f"expected {_expected(info)}"
        raise ConfigError(key=key, value=value, problem=f"{value} is not a finite number", cure=cure)
    if not limits:
        return
    limited = any(getattr(kind, limit, None) is not None for kind, _ in _kinds(info) for limit in ("le", "lt"))
    most = abs(value) if limited else MOST_WHOLE if isinstance(value, int) else MOST
    if abs(value) > most or 0 < abs(value) < LEAST:
        cure = f"expected 0, or a size from {LEAST:g} to {most:,}" if isinstance(value, float) else f"expected at most {most:,}"
        raise ConfigError(key=key, value=value, problem=f"{value:.6g} is out of range", cure=cure)


def _located(error: ValueError, table: Mapping[str, Any], fields: Mapping[str, Any], key: str) -> ConfigError:
    """Return a part's own error with the key of the field at fault: its message begins with it, or quotes its value."""
    text = str(error)
    for name in fields:
        begin = re.match(rf"{re.escape(name)}(?: = [^:;]*)?: ", text)
        if begin or re.match(rf"{re.escape(name)}\b", text):
            located = config_error(ValueError(text[begin.end() :] if begin else text), key=_join(key, name))
            located.value = table.get(name)
            return located
    quoted = [name for name, value in table.items() if isinstance(value, str) and repr(value) in text]
    return config_error(error, key=_join(key, quoted[0]) if len(quoted) == 1 else key)


def _kinds(info: inspect.Type) -> list[tuple[inspect.Type, Mapping[str, Any]]]:
    """Return the types that a field takes, each with its `extra` notes; without None, which a file cannot hold."""
    extra: dict[str, Any] = {}
    while isinstance(info, inspect.Metadata):
        extra |= info.extra or {}
        info = info.type
    if isinstance(info, inspect.UnionType):
        return [found for part in info.types for found in _kinds(part)]
    return [] if isinstance(info, inspect.NoneType) else [(info, extra)]


def _expected(info: inspect.Type) -> str:
    return " or ".join(dict.fromkeys(_words(kind, extra) for kind, extra in _kinds(info)))


def _words(kind: inspect.Type, extra: Mapping[str, Any]) -> str:
    if "unit" in extra:
        return f"a {extra['unit']} such as {show_value(extra['example'])}"
    match kind:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "a whole number" + _limits(kind.gt, kind.ge, kind.lt, kind.le)
        case inspect.FloatType():
            hint = f" ({extra['hint']})" if "hint" in extra else ""
            return "a number" + _limits(kind.gt, kind.ge, kind.lt, kind.le) + hint
        case inspect.StrType():
            most = f", at most {kind.max_length} characters" if kind.max_length else ""
            return "text" + (" that is not empty" if kind.min_length else "") + most
        case inspect.LiteralType():
            return "one of " + ", ".join(show_value(value) for value in kind.values)
        case inspect.ListType() | inspect.VarTupleType():
            least = f"at least {kind.min_length} " if kind.min_length else ""
            return f"a list of {least}{_plural(_expected(kind.item_type))}"
        case inspect.TupleType():
            return f"a list of {len(kind.item_types)} {_plural(_expected(kind.item_types[0]))}"
        case inspect.DictType() | inspect.StructType():
            return "a table"
        case _:
            return "a value from Python"


def _plural(words: str) -> str:
    return re.sub(r"\b(?:a|true or) ((?:whole )?\w+)", r"\1s", words)


def _limits(gt: float | None, ge: float | None, lt: float | None, le: float | None) -> str:
    words = (("above", gt), ("of at least", ge), ("below", lt), ("at most", le))
    limits = [f"{word} {limit if isinstance(limit, int) else format(limit, 'g')}" for word, limit in words if limit is not None]
    return " " + " and ".join(limits) if limits else ""


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
