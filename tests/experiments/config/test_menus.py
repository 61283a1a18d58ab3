"""`grapevine list` shows everything that there is to choose, in the words of the source."""

from __future__ import annotations

import importlib
import re
from typing import Annotated

import msgspec
import pytest

from grapevine.experiments.cli.main import main
from grapevine.experiments.config.experiment import PLAIN_TABLES, Experiment
from grapevine.experiments.config.fields import expectation
from grapevine.experiments.config.menus import LISTS, MENUS, field_docs, home_of_class, name_of, options, summary
from grapevine.netem.units import Duration
from grapevine.peer.strategies import Ako, Strategy

CONTRACT = {
    "worlds": ["virtual", "processes"],
    "strategies": [
        *["solo", "d-psgd", "full", "slices", "ako", "tfako", "dlion", "gaia", "dgc", "ad-psgd"],
        *["all-reduce", "parameter-server", "fed-avg"],
    ],
    "topologies": [
        *["ring", "path", "torus", "hypercube", "complete", "star"],
        *["random-regular", "erdos-renyi", "watts-strogatz", "barabasi-albert", "file"],
    ],
    "networks": ["unshaped", "uniform", "edges", "regions"],
    "devices": ["host", "uniform", "mixed"],
    "tasks": ["digits", "quadratic"],
    "partitions": ["iid", "dirichlet", "shards"],
    "codecs": ["float32", "float16", "int8", "qsgd"],
    "wrappers": ["drop", "delay", "scale"],
    "aggregators": ["mean"],
    "optimizers": ["sgd", "adam"],
}


class Base(Strategy, frozen=True):
    """The first line.

    The second.
    """

    pace: Annotated[float, msgspec.Meta(gt=0)] = 0.5
    """How fast,
    in steps."""
    plain: int = 3


class Derived(Base, frozen=True, kw_only=True, tag="derived"):
    pace: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.25
    """How slow."""
    pause: Duration
    """Between steps."""


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command prints, every run of white space as one blank."""
    assert main(["list", *arguments]) == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
@pytest.mark.parametrize("menu", CONTRACT)
def test_the_names_of_the_contract_are_listed(menu: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = listed(capsys, menu)
    for name in CONTRACT[menu]:
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", text)


@pytest.mark.slow
@pytest.mark.parametrize("menu", [*MENUS.values(), *LISTS.values()], ids=lambda menu: menu.plural)
def test_every_part_and_every_field_is_listed_with_its_words(menu, capsys: pytest.CaptureFixture[str]) -> None:
    text = listed(capsys, menu.plural)
    for name, part in menu.members.items():
        in_python = f"({part.__name__})"
        assert in_python in text
        assert f"{name} {summary(part)}" in text.replace(f" {in_python}", "")  # a long name has its class in the line below
        assert getattr(importlib.import_module(home_of_class(part)), part.__name__) is part
        for option in options(part):
            default = {None: " (needed)", "": ""}.get(option.default, f" = {option.default}")
            assert option.name + default in text
            assert option.meaning.rstrip(".") in text
    if menu.plural not in LISTS:
        assert listed(capsys, menu.key) == text


@pytest.mark.parametrize(
    "part", [part for menu in [*MENUS.values(), *LISTS.values()] for part in menu.members.values()], ids=name_of
)
def test_every_part_and_every_field_has_words(part: type[msgspec.Struct]) -> None:
    assert summary(part)
    assert "\n" not in summary(part)
    for option in options(part):
        assert option.meaning, f"{part.__name__}.{option.name} has no docstring under it"
        assert option.takes


@pytest.mark.slow
def test_all_menus_and_the_plain_keys_are_listed_together(capsys: pytest.CaptureFixture[str]) -> None:
    text = listed(capsys)
    for menu in MENUS.values():
        assert f"{menu.plural} ([{menu.key}] in the file; in Python the class in brackets, from grapevine" in text
    assert all(f"{key} ([[{key}]] in the file; in Python" in text for key in LISTS)
    for key in ("name", "seed", "peers", *(f"[{table}]" for table in PLAIN_TABLES)):
        assert key in listed(capsys, "experiment")
        assert key in text
    for table in PLAIN_TABLES.values():
        assert all(option.meaning in text or option.meaning.rstrip(".") in text for option in options(table))
    assert {*MENUS, *PLAIN_TABLES, "name", "seed", "peers", *LISTS} == set(Experiment.__struct_fields__)


def test_a_menu_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "strategis"]) == 2
    assert "did you mean strategies? known: aggregators, codecs," in capsys.readouterr().err


def test_docstrings_of_fields_are_read_from_the_source() -> None:
    assert field_docs(Derived) == {"pace": "How slow.", "pause": "Between steps."}
    assert field_docs(Base) == {"pace": "How fast, in steps."}
    assert [(option.name, option.default) for option in options(Base)] == [("pace", "0.5"), ("plain", "3")]
    assert {option.name: option.default for option in options(Derived)}["pause"] is None
    assert "pace" not in {option.name for option in options(Derived, without={"pace"})}


def test_names_of_parts() -> None:
    assert name_of(Ako) == name_of(Ako()) == "ako"
    assert name_of(Base()) == "Base"
    assert name_of(Derived(pause="1 s")) == "derived"
    assert summary(Base) == "The first line."


def test_what_a_field_takes_in_words() -> None:
    assert expectation(int) == "a whole number"
    assert expectation(Annotated[float, msgspec.Meta(gt=0, le=1)]) == "a number above 0 and at most 1"
    assert expectation(Duration | None) == 'a duration such as "80 ms"'
    assert expectation(tuple[float | tuple[int, ...], ...]) == "a list of numbers or lists of whole numbers"
    assert expectation(dict[str, int]) == "a table"
    assert expectation(bool | str) == "true or false or text"
