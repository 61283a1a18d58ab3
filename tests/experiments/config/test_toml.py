"""An experiment written as TOML reads back equal."""

from __future__ import annotations

from typing import Any

import msgspec
import networkx as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from grapevine.experiments.config.experiment import ConfigError, Experiment
from grapevine.experiments.config.fields import LEAST, MOST
from grapevine.experiments.config.menus import FROM_PYTHON, MENUS
from grapevine.experiments.tasks import Module, Quadratic
from grapevine.netem import Regions
from tests.experiments.config.examples import FULL, Mine


def test_what_is_written_holds_every_default_and_reads_back_equal() -> None:
    text = Experiment().to_toml()
    for key in MENUS:
        part = getattr(Experiment(), key)
        assert f"[{key}]" in text
        for field in part.__struct_fields__:
            assert f"\n{field} = " in text.partition(f"[{key}]")[2].partition("\n[")[0]
    assert Experiment.parse(text) == Experiment()
    assert Experiment.parse(Experiment.parse(FULL).to_toml()) == Experiment.parse(FULL)


@pytest.mark.slow
@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_experiment_of_the_menus_reads_back_equal(data: st.DataObject) -> None:
    parts = {
        key: data.draw(st.sampled_from(list(menu.members.values())).flatmap(_instances), label=key)
        for key, menu in MENUS.items()
    }
    name = data.draw(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=200))
    experiment = Experiment(name=name, seed=data.draw(st.integers(0, 2**63 - 1)), peers=data.draw(st.integers(1, 999)), **parts)
    assert Experiment.parse(experiment.to_toml()) == experiment


def test_awkward_values_survive_the_trip() -> None:
    task = Quadratic(targets=[[1.5, 2], [1e-12, -0.0]], start=[3, 4])
    experiment = Experiment(name='a "b" \\ é', task=task, peers=2, network=Regions(places=["Sao Paulo"]))
    again = Experiment.parse(experiment.to_toml())
    assert again == experiment
    assert again.name == experiment.name


def test_what_came_from_python_is_named_and_cannot_be_read_again() -> None:
    task = Module(factory=dict, train=(np.zeros((2, 3)), np.zeros(2)), test=(np.zeros((2, 3)), np.zeros(2)))
    mine = type("Mine", (Mine,), {}, frozen=True)(pace=0.25)  # a class that no name leads to
    text = Experiment(topology=nx.petersen_graph(), strategy=mine, task=task).to_toml()
    assert text.startswith("# This file cannot be read again: topology, task, strategy came from Python.")
    assert "networkx.classes.graph.Graph" in text
    assert "test_toml.Mine" in text
    assert "pace=0.25" in text
    with pytest.raises(ConfigError) as caught:
        Experiment.parse(text, "experiment.toml")
    assert str(caught.value).startswith(
        "experiment.toml: topology: this topology was given from Python (networkx.classes.graph.Graph)"
    )
    assert f'name = "{FROM_PYTHON}"' in text


TEXTS = {
    "duration": ["80 ms", "1.5 s", "2 min"],
    "rate": ["20 Mbit/s", "unlimited"],
    "speed": ["2000 samples/s", "0.5 samples/s"],
}


@st.composite
def _instances(draw: st.DrawFn, cls: type[msgspec.Struct]) -> msgspec.Struct:
    """A part of that class whose fields are drawn at random, as far as their types tell what they take."""
    if cls is Module:
        cls = Quadratic
    fields = {field.name: field for field in msgspec.structs.fields(cls)}
    chosen = [name for name, field in fields.items() if field.required or draw(st.booleans())]
    values = {name: draw(_values(inspect.type_info(fields[name].type))) for name in chosen}
    try:
        return cls(**values)
    except ValueError:  # the fields do not go together
        return cls(**{name: value for name, value in values.items() if fields[name].required})


def _values(info: inspect.Type, extra: dict[str, Any] | None = None) -> st.SearchStrategy[Any]:
    extra = extra or {}
    match info:
        case inspect.Metadata():
            return _values(info.type, {**extra, **(info.extra or {})})
        case inspect.UnionType():
            return st.one_of([_values(kind, extra) for kind in info.types])
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.LiteralType():
            return st.sampled_from(info.values)
        case inspect.IntType():
            return st.integers(info.ge if info.ge is not None else 1, info.le if info.le is not None else 9)
        case inspect.FloatType():
            low, high = info.ge if info.gt is None else info.gt, info.le if info.lt is None else info.lt
            low, high = 0.0 if low is None else low, MOST if high is None else high
            numbers = st.floats(low, high, exclude_min=info.gt is not None, exclude_max=info.lt is not None)
            return numbers.map(lambda number: number if number == 0 else max(number, LEAST))
        case inspect.ListType() | inspect.VarTupleType():
            return st.lists(_values(info.item_type), min_size=info.min_length or 0, max_size=3).map(tuple)
        case inspect.StructType():
            return _instances(info.cls)
        case inspect.DictType():
            return st.dictionaries(_values(info.key_type), _values(info.value_type), max_size=2)
        case inspect.StrType():
            if "unit" in extra:
                return st.sampled_from(TEXTS[extra["unit"]])
            return st.text(st.characters(exclude_categories=["Cs"]), min_size=info.min_length or 0)
    raise AssertionError(f"no values known for {info}")
