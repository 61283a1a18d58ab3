"""Every way in which an experiment's text or values can be wrong: file, key, value and cure are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from grapevine.experiments.config.errors import config_error, nearest, show_value
from grapevine.experiments.config.experiment import ConfigError, Experiment, Stop
from grapevine.experiments.terminal import printable
from grapevine.peer.optimizers import Adam
from grapevine.peer.strategies import Ako
from tests.experiments.config.wrong import WRONG


@pytest.mark.parametrize(
    ("text", "key", "problem", "cure"), WRONG, ids=[f"{number}-{row[1]}" for number, row in enumerate(WRONG)]
)
def test_each_wrong_file_is_refused_with_file_key_value_and_cure(text: str, key: str, problem: str, cure: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Experiment.parse(text, "ring.toml")
    message = str(caught.value)
    assert message.startswith(f"ring.toml: {key}: " if key else "ring.toml: ")
    assert problem in message
    assert cure in message
    assert "\n" not in message
    assert "msgspec" not in message
    assert "$" not in message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b'name = "\xff"')
    wrong = {
        "no.toml": "no such file or directory",
        ".": "is a directory",
        "bytes.toml": "byte 8 is not UTF-8",
        "a\0b": "null byte",
    }
    for name, problem in wrong.items():
        with pytest.raises(ConfigError) as caught:
            Experiment.read(f"{tmp_path}/{name}")
        assert str(caught.value).startswith(printable(f"{tmp_path}/{name}: "))
        assert problem in str(caught.value)
        assert caught.value.cure


def test_values_from_python_are_checked_like_those_of_a_file() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"strategy": Ako(fill=3)}, "strategy.fill: 3 is not valid; expected a number above 0 and at most 1"),
        (
            {"strategy": "ako"},
            "strategy: a value of type str is not valid here; write strategy=Ako() (from grapevine",
        ),
        ({"strategy": Ako}, "strategy: Ako is a class, not a value; write strategy=Ako(...)"),
        (
            {"topology": "complete"},
            "topology: a value of type str is not valid here; write topology=Complete() (from grapevine.topology",
        ),
        ({"topology": 4}, "topology: a value of type int is not valid here; give a Topology"),
        ({"optimizer": Adam(beta1=1.0)}, "optimizer.beta1: 1.0 is not valid"),
        ({"stop": 5}, "stop: 5 is not valid; expected a table: Stop(...)"),
        ({"stop": Stop(steps=0)}, "stop.steps: 0 is not valid"),
        ({"peers": 0}, "peers: 0 is not valid"),
        ({"name": 3}, "name: 3 is not valid"),
        ({"peers": 9, "topology": nx.petersen_graph()}, "peers: 9 peers, but the graph given has 10 nodes; pass peers=10"),
    ]
    for parts, message in wrong:
        with pytest.raises(ConfigError) as caught:
            Experiment(**parts)
        assert str(caught.value).startswith(message)


def test_a_wrong_setting_is_named_in_the_message() -> None:
    for changes, message in [
        ({"strategy.fil": 1}, "--set: strategy.fil: no such field"),
        ({"strategy.name": "nope"}, "--set: strategy.name: there is no strategy"),
        ({"devices.name": "uniform"}, "--set: devices.speed: is missing"),
        ({"stop.accuracy": 0.5}, "--set: stop"),
        ({".x": 1}, "--set: .x: is not a key"),
        ({"x.": 1}, "--set: x.: is not a key"),
        ({"nonsense.key": 1}, "--set: nonsense"),
    ]:
        with pytest.raises(ConfigError) as caught:
            Experiment.parse("[stop]\naccuracy = 0.9\n" if "stop.accuracy" in changes else "", "ring.toml", settings=changes)
        assert str(caught.value).startswith(message)
    with pytest.raises(ConfigError, match=r"^ring.toml: strategy.name: there is no"):
        Experiment.parse('[strategy]\nname = "nope"', "ring.toml", settings={"seed": 1})


def test_errors_of_the_rooms_become_one_sentence_with_the_key() -> None:
    error = config_error(ValueError("the ring is\n broken: mend it; use glue"), "ring.toml", "topology")
    assert str(error) == "ring.toml: topology: the ring is broken: mend it; use glue"
    assert error.cure == "use glue"
    assert (
        str(ConfigError(key="a.b", value=3, problem="is odd", cure="take 4").at("f.toml", "x"))
        == "f.toml: a.b = 3: is odd; take 4"
    )
    assert str(ConfigError("f", "a.b", 3, "3 is odd")) == "f: a.b: 3 is odd"
    assert str(ConfigError("f", "a.b", 3, "not 30 or 1.3")) == "f: a.b = 3: not 30 or 1.3"


def test_the_nearest_name_and_values_in_messages() -> None:
    assert nearest("D_PSGD", ["ako", "d-psgd"]) == "d-psgd"
    assert nearest("", ["ako"]) is None
    assert nearest("wd", ["learning_rate", "weight_decay"]) == "weight_decay"
    assert nearest("fr", ["fill_rate", "free_room"]) is None
    assert nearest("zzz", ["ako"]) is None
    assert show_value(["a", True, 1.5, {"b": [1]}]) == '["a", true, 1.5, {b = [1]}]'
    assert len(show_value("x" * 999)) == 120
    assert len(show_value(list(range(9999)))) <= 120
