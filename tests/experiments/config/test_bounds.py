"""Every number of an experiment file: taken, and then the fleet can be built, or refused in a sentence that names its key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import get_annotations
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from grapevine.experiments.config import bounds
from grapevine.experiments.config.errors import ConfigError
from grapevine.experiments.config.experiment import PLAIN_TABLES, Experiment
from grapevine.experiments.config.menus import LISTS, MENUS
from grapevine.experiments.fleet import build

WHOLE = [0, 1, -1, 2, 10**5, 10**9, 10**12, 10**30, -(10**30)]
NUMBERS = [0.0, -1.0, 5e-324, 1e-300, 1e-9, 0.5, 1.0, 90.0, 1e12, 1e300, float("nan"), float("inf"), -float("inf")]
TEXTS = {
    "duration": ["0 s", "-1 s", "1 ns", "1e-300 s", "9e18 ns", "1e300 s", "10000 h", "nan s", "inf s"],
    "rate": ["0 bit/s", "-1 bit/s", "1e-300 bit/s", "1e-9 bit/s", "1 bit/s", "1e300 Gbit/s", "nan bit/s", "unlimited"],
    "speed": ["0 samples/s", "-1 samples/s", "1e-300 samples/s", "1e300 samples/s", "0 s/sample", "1e300 s/sample", "x/s"],
}  # fmt: skip
BASE: dict[str, Any] = {"peers": 8, "world": {"name": "virtual"}, "stop": {"steps": 5}, "record": {"report": False}}
NEEDED: dict[str, Any] = {
    "speed": "2000 samples/s", "speeds": ["2000 samples/s"], "core": "50 samples/s", "rate": "20 Mbit/s", "at": "1 s",
    "lines": ["20 Mbit/s"], "times": ["0 s", "1 s"], "rates": ["20 Mbit/s", "5 Mbit/s"], "groups": [[0, 1]], "peer": 1,
    "length": "1 s", "inside_rate": "1 Gbit/s", "link": [0, 1], "factor": 0.5,
}  # fmt: skip
"""What fields without a default are given; parts that need a file or something from Python are left out."""


def _values(info: inspect.Type, extra: dict[str, Any]) -> Iterator[Any]:
    """What to try for a field: every kind of number that it may hold, alone or in a list."""
    while isinstance(info, inspect.Metadata):
        extra = extra | (info.extra or {})
        info = info.type
    if "unit" in extra:
        yield from TEXTS[extra["unit"]]
    elif isinstance(info, inspect.UnionType):
        for part in info.types:
            yield from _values(part, extra)
    elif isinstance(info, inspect.IntType):
        yield from WHOLE
    elif isinstance(info, inspect.FloatType):
        yield from NUMBERS
    elif isinstance(info, inspect.ListType | inspect.VarTupleType):
        yield from ([value] for value in _values(info.item_type, {}))
    elif isinstance(info, inspect.TupleType):
        yield from ([value] * len(info.item_types) for value in _values(info.item_types[0], {}))


def _cases() -> Iterator[Any]:
    seen: set[tuple[str, type, str]] = set()
    for menu in [*MENUS.values(), *LISTS.values()]:
        for name, part in menu.members.items():
            fields = msgspec.structs.fields(part)
            needed = [field.name for field in fields if field.required]
            if any(field not in NEEDED for field in needed):
                continue
            table = {menu.chooser: name, **{field: NEEDED[field] for field in needed}}
            for field in fields:
                written = next(kin for kin in part.__mro__ if field.name in get_annotations(kin))
                if (menu.key, written, field.name) in seen:
                    continue
                seen.add((menu.key, written, field.name))
                if values := list(_values(inspect.type_info(field.type), {})):
                    yield pytest.param(menu.key, table, field.name, values, id=f"{menu.key}.{name}.{field.name}")
    for key, plain in PLAIN_TABLES.items():
        for field in msgspec.structs.fields(plain):
            if values := list(_values(inspect.type_info(field.type), {})):
                yield pytest.param(key, dict(BASE[key]), field.name, values, id=f"{key}.{field.name}")


def _document(table_key: str, table: dict[str, Any]) -> dict[str, Any]:
    document = {**BASE, "devices": {"name": "uniform", "speed": "2000 samples/s"}}
    if table_key == "event":
        return {**document, "network": {"name": "uniform", "rate": "20 Mbit/s"}, "events": [table], "stop": {"time": "100 s"}}
    if table_key == "wrapper":
        return {**document, "wrappers": [table]}
    if table_key not in ("task", "partition"):
        document["task"] = {"name": "quadratic"}
    return {**document, table_key: table}


def _refusal(document: dict[str, Any]) -> ConfigError | None:
    try:
        build(Experiment.from_document(document))
    except ConfigError as error:
        return error
    return None


@pytest.mark.slow
@pytest.mark.parametrize(("table_key", "table", "field", "values"), list(_cases()))
def test_a_number_is_taken_or_refused_in_a_sentence(
    table_key: str, table: dict[str, Any], field: str, values: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "free_memory_bytes", lambda: 10**9)
    taken = 0
    for value in values:
        refusal = _refusal(_document(table_key, {**table, field: value}))
        if refusal is None:
            taken += 1
            continue
        assert re.split(r"[.\[]", refusal.key)[0] in (*MENUS, *PLAIN_TABLES, "peers", *LISTS), str(refusal)
        assert len(str(refusal)) > len(refusal.key) + 10
    assert taken < len(values), f"{field} takes whatever it is given"


BATCHES = {"name": "digits", "batch_size": 1_000}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "key", "figure"),
    [
        ({"stop": {"time": "1000 h"}, "record": {"every": "1 ms"}}, "record.every", "3,600,000,000 records"),
        ({"peers": 100_000, "topology": {"name": "complete"}}, "topology", "4,999,950,000 links"),
        ({"peers": 5_000, "topology": {"name": "random-matching"}, "strategy": {"name": "ad-psgd"}}, "topology", "links"),
        ({"peers": 100_000, "topology": {"name": "one-peer-exponential"}}, "peers", "rounds of a schedule of 100,000 peers"),
        ({"task": {"name": "digits", "hidden": [500_000]}}, "peers", "free"),
        ({"peers": 1_000, "world": {"name": "processes"}}, "peers", "one process each"),
        ({"network": {"name": "access", "lines": ["20 Mbit/s"], "rate_factor": 1e-9}}, "network", "0.02 bit/s"),
        ({"devices": {"name": "uniform", "speed": "1e-6 samples/s"}, "task": BATCHES}, "devices", "ten years"),
    ],
)  # fmt: skip
def test_values_that_are_too_large_together_are_refused_with_their_figure(
    changes: dict[str, Any], key: str, figure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "free_memory_bytes", lambda: 2 * 10**9)
    with pytest.raises(ConfigError) as refused:
        build(Experiment.from_document({**BASE, "task": {"name": "quadratic"}, **changes}))
    assert refused.value.key == key
    assert figure in str(refused.value)


@pytest.mark.parametrize("name", ["\x1b]0;x\x07", "two\nlines", "right\u202eleft", "x" * 201])
def test_a_name_that_could_steer_a_terminal_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name") as refused:
        Experiment(name=name)
    assert str(refused.value).isprintable()


def test_a_unit_in_other_letters_is_suggested() -> None:
    with pytest.raises(ConfigError, match=r"did you mean Mbit/s\? capital and small letters differ"):
        Experiment.from_document({**BASE, "network": {"name": "uniform", "rate": "2 mbit/s"}})


def test_a_percentage_and_a_key_written_twice_are_named_in_the_message() -> None:
    with pytest.raises(ConfigError, match=r"stop.accuracy: 90 is not valid; expected .*a share: 0.9 is 90 %"):
        Experiment.from_document({**BASE, "stop": {"steps": 5, "accuracy": 90}})
    for text in ("peers = 4\npeers = 5", "[stop]\nsteps = 5\n[stop]\nsteps = 5"):
        with pytest.raises(ConfigError, match=r"line [23], column \d+: the file has this key or table twice"):
            Experiment.parse(text)
