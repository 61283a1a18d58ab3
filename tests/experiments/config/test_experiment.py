"""An experiment from text and back, and every way in which the text can be wrong."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import networkx as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from grapevine.experiments.config.errors import config_error, nearest, show_value
from grapevine.experiments.config.experiment import ConfigError, Experiment, Processes, Record, Stop, Virtual
from grapevine.experiments.config.fields import LEAST, MOST
from grapevine.experiments.config.menus import FROM_PYTHON, MENUS
from grapevine.experiments.tasks import Dirichlet, Module, Quadratic
from grapevine.experiments.terminal import printable
from grapevine.netem import MixedDevices, Regions, Uniform
from grapevine.peer.optimizers import Adam, Sgd
from grapevine.peer.peer import Peer
from grapevine.peer.strategies import Ako, Slices, Strategy
from grapevine.topology.graphs.menu import Complete, File, RandomRegular

FULL = """
name = "slices-on-four-regions"
seed = 7
peers = 8

[world]
name = "processes"
dilation = 2
[topology]
name = "random-regular"
degree = 4
[network]
name = "uniform"
rate = "20 Mbit/s"
delay = "40 ms"
[devices]
name = "mixed"
speeds = ["2000 samples/s", "500 samples/s"]
[task]
name = "digits"
batch_size = 16
[partition]
name = "dirichlet"
alpha = 0.3
[strategy]
name = "slices"
fill = 0.5
[codec]
name = "int8"
[aggregator]
name = "mean"
[optimizer]
name = "sgd"
momentum = 0.9
[stop]
time = "60 s"
accuracy = 0.9
[record]
every = "500 ms"
"""


class Mine(Strategy, frozen=True):
    """A user's own strategy."""

    pace: Annotated[float, msgspec.Meta(le=1.0)] = 0.5
    inner: msgspec.Struct | None = None

    async def run(self, peer: Peer) -> None:
        while peer.running:
            peer.apply(await peer.gradient())


def test_the_ranges_of_a_part_of_ones_own_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"^strategy\.pace: 3\.0 is not valid; expected a number at most 1$"):
        Experiment(strategy=Mine(pace=3.0))
    with pytest.raises(ConfigError, match=r"^strategy\.inner\.pace: 2\.0 is not valid"):
        Experiment(strategy=Mine(inner=Mine(pace=2.0)))
    with pytest.raises(ConfigError, match=r"^strategy\.fill: 3\.0 is not valid"):  # no file can hold a number of numpy
        Experiment(strategy=Ako(fill=np.float64(3.0)))
    assert Experiment(strategy=Mine(pace=np.float64(0.25))).strategy.pace == 0.25  # type: ignore[attr-defined]


# -- what is read


def test_a_file_says_everything_or_nothing() -> None:
    experiment = Experiment.parse(FULL)
    assert (experiment.name, experiment.seed, experiment.peers) == ("slices-on-four-regions", 7, 8)
    assert experiment.world == Processes(dilation=2.0)
    assert experiment.topology == RandomRegular(degree=4)
    assert experiment.network == Uniform(rate="20 Mbit/s", delay="40 ms")
    assert experiment.devices == MixedDevices(speeds=("2000 samples/s", "500 samples/s"))
    assert experiment.partition == Dirichlet(alpha=0.3)
    assert experiment.strategy == Slices(fill=0.5)
    assert experiment.optimizer == Sgd(momentum=0.9)
    assert experiment.stop == Stop(time="60 s", accuracy=0.9)
    assert experiment.record == Record(every="500 ms")
    assert Experiment.parse("") == Experiment()
    assert (Experiment().peers, Experiment().stop.steps) == (8, 100)


def test_an_experiment_is_a_frozen_value() -> None:
    experiment = Experiment.parse(FULL)
    with pytest.raises(AttributeError):
        experiment.seed = 3  # type: ignore[misc]
    assert experiment.replace(seed=3).seed == 3
    assert experiment.seed == 7
    assert copy.deepcopy(experiment) == experiment
    assert hash(experiment) == hash(Experiment.parse(FULL))


def test_parts_may_be_given_from_python() -> None:
    experiment = Experiment(peers=10, strategy=Mine(pace=0.1), topology=nx.petersen_graph())
    assert experiment.strategy == Mine(pace=0.1)
    assert experiment.peers == len(experiment.topology)
    assert Experiment(topology=nx.petersen_graph()).peers == 10
    assert Experiment().replace(topology=nx.petersen_graph()).peers == 10
    assert Experiment(world=Virtual()).replace(strategy=Ako(fill=0.5)).strategy == Ako(fill=0.5)


# -- what is written


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
    assert "test_experiment.Mine" in text
    assert "pace=0.25" in text
    with pytest.raises(ConfigError) as caught:
        Experiment.parse(text, "experiment.toml")
    assert str(caught.value).startswith(
        "experiment.toml: topology: this topology was given from Python (networkx.classes.graph.Graph)"
    )
    assert f'name = "{FROM_PYTHON}"' in text


# -- one key changed


def test_set_changes_one_key() -> None:
    experiment = Experiment.parse(FULL)
    assert experiment.set("strategy.fill", "0.25").strategy == Slices(fill=0.25)
    assert experiment.set("network.rate", "5 Mbit/s").network == Uniform(rate="5 Mbit/s", delay="40 ms")
    assert experiment.set("network.rate", '"5 Mbit/s"') == experiment.set("network.rate", "5 Mbit/s")
    assert experiment.set("seed", "9").seed == 9
    assert experiment.set("name", "two words").name == "two words"
    assert experiment.set("optimizer.nesterov", "true").optimizer == Sgd(momentum=0.9, nesterov=True)
    assert experiment.set("strategy", '{name = "ako", fill = 0.5}').strategy == Ako(fill=0.5)


def test_a_file_that_names_no_run_lends_it_its_own_name(tmp_path: Path) -> None:
    file = tmp_path / "two-rings.toml"
    file.write_text("peers = 4")
    assert Experiment.read(file).name == "two-rings"
    assert Experiment.read(file, {"name": "x"}).name == "x"
    file.write_text('name = "own"')
    assert Experiment.read(file).name == "own"


@pytest.mark.parametrize("text", ["", "# nothing yet\n"])
def test_a_file_that_says_nothing_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "empty.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"empty\.toml: is empty; write at least one key"):
        Experiment.read(file)


def test_another_name_resets_its_table_and_the_same_name_does_not() -> None:
    experiment = Experiment.parse(FULL)
    assert experiment.set("strategy.name", "ako").strategy == Ako()
    assert experiment.set("strategy.name", "slices").strategy == Slices(fill=0.5)


def test_an_empty_value_brings_the_default_back() -> None:
    experiment = Experiment.parse(FULL)
    assert experiment.set("optimizer.momentum", "").optimizer == Sgd()
    assert experiment.set("stop.accuracy", "").stop == Stop(time="60 s")
    assert experiment.set("seed", "").seed == 0


def test_set_leaves_what_came_from_python() -> None:
    experiment = Experiment(strategy=Mine(pace=0.1), topology=nx.petersen_graph())
    assert experiment.set("seed", "5").strategy == Mine(pace=0.1)
    assert experiment.set("seed", "5").topology is experiment.topology
    assert experiment.set("strategy.name", "solo").set("topology.name", "complete").topology == Complete()
    assert experiment.set("strategy.pace", "0.5").strategy == Mine(pace=0.5)
    with pytest.raises(ConfigError, match=r"topology.mixing.*replace\(topology=...\)"):
        experiment.set("topology.mixing", "lazy")


def test_settings_are_checked_together_whatever_their_order() -> None:
    settings = {"devices.speed": "100 samples/s", "devices.name": "uniform", "stop.time": "3 s"}
    experiment = Experiment.parse('[stop]\nsteps = 5\n[devices]\nname = "mixed"\nspeeds = ["1 samples/s"]', settings=settings)
    assert experiment.devices.plan(1)[0].step_ns(100) == 1_000_000_000
    assert experiment.stop == Stop(steps=5, time="3 s")
    assert Experiment.parse("", settings={"optimizer.learning_rate": 0.5}).optimizer == Sgd(learning_rate=0.5)
    assert Experiment.parse("", settings={"stop.time": "3 s"}).stop == Stop(time="3 s")


def test_paths_are_relative_to_the_file_that_holds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "graph.toml"
    file.write_text('[topology]\nname = "file"\npath = "../graph.gml"')
    assert Experiment.read(file).topology == File(path=str(tmp_path / "graph.gml"))
    monkeypatch.chdir(tmp_path)
    assert Experiment.read(file, {"topology.path": "here.gml"}).topology == File(path=str(tmp_path / "here.gml"))
    assert Experiment.parse(Experiment.read(file).to_toml()) == Experiment.read(file)


# -- what is refused: (text, key, what the message says, what to do)

WRONG: list[tuple[str, str, str, str]] = [
    ("seed =", "", "line 1, column 7: invalid value", 'and text in "quotes"'),
    ("name = ring", "", "line 1, column 8: invalid value in 'name = ring'", 'and text in "quotes"'),
    ("peers = 8\npeers = 9", "", "line 2, column 10: the file has this key or table twice", "key = value"),
    ("x = " + "[" * 5000, "", "nested too deeply", "examples"),
    ("persons = 8", "persons", "no such field; an experiment has: name, seed, peers,", "did you mean peers?"),
    ("learning_rate = 0.5", "learning_rate", "no such field", "learning_rate belongs to [optimizer]"),
    ("[topologie]", "topologie", "no such field", "did you mean topology?"),
    ('[sweep]\n"seed" = [1]', "sweep", "belongs to a sweep of many runs", "grapevine sweep"),
    ('[strategy]\nname = "ako"\nfil = 0.5', "strategy.fil", "no such field; ako has: fill, least", "did you mean fill?"),
    (
        '[strategy]\nname = "ako"\nseed = 3',
        "strategy.seed",
        "no such field",
        "write seed at the top of the file",
    ),
    (
        '[topology]\nname = "ring"\ndegree = 3',
        "topology.degree",
        "no such field; ring has: mixing",
        "degree belongs to random-regular",
    ),
    ('[optimizer]\nname = "sgd"\nlr = 1', "optimizer.lr", "no such field; sgd has: momentum", "did you mean learning_rate?"),
    (
        '[network]\nname = "uniform"\nloss = "1 %"',
        "network.loss",
        '"1 %" is not valid',
        "write a share without the percent sign: 0.01",
    ),
    ('[network]\nname = "uniform"\nloss = "0.1"', "network.loss", '"0.1" is not valid', "without quotation marks: 0.1"),
    ('[strategy]\nname = "ako"\nlearning_rate = 1', "strategy.learning_rate", "no such field", "belongs to [optimizer]"),
    ('[codec]\nname = "int8"\nbits = 4', "codec.bits", "no such field", "int8 has none"),
    ("[stop]\nstep = 5", "stop.step", "no such field; stop has: time, steps, accuracy", "did you mean steps?"),
    ('[strategy]\nname = "d_psgdd"', "strategy.name", 'there is no strategy "d_psgdd"', "did you mean d-psgd? known: ad-psgd"),
    ('[strategy]\nname = "qqqq"', "strategy.name", 'there is no strategy "qqqq"', "known: ad-psgd, ako, all-reduce, d-psgd"),
    ("[strategy]\nname = 3", "strategy.name", "there is no strategy 3", "known: ad-psgd"),
    ("[strategy]\nfill = 0.5", "strategy.name", "is missing", "known: ad-psgd"),
    ('strategy = "ako"', "strategy", '"ako" is not a table', 'write strategy.name = "ako"'),
    ("strategy = [1]", "strategy", "[1] is not a table", "write strategy.name = "),
    ("stop = 5", "stop = 5", "is not a table", "write [stop]"),
    ('[task]\nname = "module"', "task", "from Python only", "digits or quadratic"),
    ("peers = 0", "peers", "0 is not valid", "expected a whole number of at least 1"),
    ("peers = 2.5", "peers", "2.5 is not valid", "expected a whole number of at least 1"),
    ("peers = true", "peers", "true is not valid", "expected a whole number"),
    ('peers = "8"', "peers", '"8" is not valid', "expected a whole number"),
    ("seed = -1", "seed", "-1 is not valid", "expected a whole number of at least 0 and at most 9223372036854775807"),
    ("seed = 9223372036854775808", "seed", "a whole number has more than 64 bits", "to 9223372036854775807"),
    ('name = ""', "name", '"" is not valid', "expected text that is not empty"),
    ("name = 1979-05-27", "name", "1979-05-27 is not valid", "expected text"),
    (
        '[strategy]\nname = "ako"\nfill = "much"',
        "strategy.fill",
        '"much" is not valid',
        "expected a number above 0 and at most 1",
    ),
    ('[strategy]\nname = "ako"\nfill = 3', "strategy.fill", "3 is not valid", "expected a number above 0 and at most 1"),
    ('[strategy]\nname = "ako"\nfill = nan', "strategy.fill", "nan is not valid", "expected a number above 0 and at most 1"),
    ('[optimizer]\nname = "sgd"\nlearning_rate = inf', "optimizer.learning_rate", "inf is not a finite number", "above 0"),
    ('[optimizer]\nname = "sgd"\nnesterov = 1', "optimizer.nesterov", "1 is not valid", "expected true or false"),
    (
        '[optimizer]\nname = "sgd"\nnesterov = true',
        "optimizer.nesterov",
        "nesterov = true needs a momentum above 0",
        "momentum = 0.9",
    ),
    ('[world]\nname = "processes"\ntransport = "udp"', "world.transport", '"udp" is not valid', 'expected one of "ipc", "tcp"'),
    ('[world]\nname = "processes"\nport = 70000', "world.port", "70000 is not valid", "at least 0 and at most 65535"),
    ('[world]\nname = "processes"\nport = 7000', "world.port = 7000", '"ipc" has no ports', 'transport = "tcp"'),
    ('[world]\nname = "processes"\ndilation = 0', "world.dilation", "0 is not valid", "expected a number of at least 0.01"),
    ('[network]\nname = "uniform"\nrate = 20', "network.rate", "20 has no unit", 'write for example "20 Mbit/s"'),
    ('[network]\nname = "uniform"\ndelay = 0.04', "network.delay", "0.04 has no unit", 'write for example "80 ms"'),
    ('[network]\nname = "uniform"\nrate = "20"', "network.rate", "'20' is not a rate", "for example '20 Mbit/s'"),
    ('[network]\nname = "uniform"\nrate = "20 mbps"', "network.rate", "unknown unit 'mbps'", "(bit/s, kbit/s, Mbit/s"),
    ('[network]\nname = "uniform"\nrate = "0 Mbit/s"', "network.rate", "'0 Mbit/s' is out of range", "1 bit/s to 1e6 Gbit/s"),
    ('[network]\nname = "uniform"\ndelay = "-4 ms"', "network.delay", "'-4 ms' is out of range", "for example '80 ms'"),
    ('[network]\nname = "uniform"\ndelay = ["4 ms"]', "network.delay", '["4 ms"] is not valid', "a duration such as"),
    ('[network]\nname = "uniform"\nloss = 1', "network.loss", "1 is not valid", "expected a number of at least 0 and below 1"),
    ('[network]\nname = "regions"\ntable = "moon"', "network.table", '"moon" is not valid', 'one of "aws18", "dtfm10", "ec2"'),
    (
        '[network]\nname = "regions"\nplaces = ["Paris"]',
        'network.places = ["Paris"]',
        "'Paris' is not a region of ec2",
        "Virginia",
    ),
    ('[devices]\nname = "uniform"', "devices.speed", "is missing", 'uniform needs it: give a speed such as "2000 samples/s"'),
    ('[devices]\nname = "mixed"\nspeeds = ["5 samples/s", 3]', "devices.speeds[1]", "3 has no unit", '"2000 samples/s"'),
    ('[devices]\nname = "mixed"\nspeeds = ["5 s"]', "devices.speeds[0]", "unknown unit 's'", "samples/s"),
    ('[devices]\nname = "mixed"\nspeeds = []', "devices.speeds", "[] is not valid", "expected a list of at least 1 speeds"),
    ('[topology]\nname = "file"', "topology.path", "is missing", "file needs it: give text"),
    ('[topology]\nname = "random-regular"\ndegree = 1', "topology.degree", "1", "2 or more"),
    ('[topology]\nname = "ring"\nmixing = "metro"', "topology.mixing", '"metro" is not valid', '"metropolis"'),
    ('[partition]\nname = "dirichlet"\nalpha = -1', "partition.alpha = -1", "must be above 0", "for example 0.3"),
    ('[partition]\nname = "dirichlet"\nalpha = nan', "partition.alpha", "nan is not a finite number", "expected a number"),
    ('[task]\nname = "digits"\nhidden = [64, "x"]', "task.hidden[1]", '"x" is not valid', "expected a whole number"),
    ('[task]\nname = "digits"\nhidden = {a = 1}', "task.hidden", "{a = 1} is not valid", "expected a list of whole numbers"),
    ('[task]\nname = "quadratic"\ntargets = [[1.0, inf]]', "task.targets[0][1]", "inf is not a finite number", "a number"),
    ("[stop]\naccuracy = 0.9", "stop", "needs time or steps", "write for example steps = 500"),
    ("[stop]\nsteps = 0", "stop.steps", "0 is not valid", "expected a whole number of at least 1"),
    ("[stop]\nsteps = 1\naccuracy = 90", "stop.accuracy", "90 is not valid", "expected a number above 0 and at most 1"),
    ("[stop]\ntime = 60", "stop.time", "60 has no unit", 'write for example "80 ms"'),
    ('[stop]\ntime = "0 s"', "stop.time", "'0 s' is too short", "'60 s'"),
    (f"seed = {'[' * 40}{']' * 40}", "seed", "is nested too deeply, in more than 32 levels", "use fewer levels of brackets"),
    (f"seed = 0x{'f' * 6000}", "seed", "a whole number has more than 64 bits", "9223372036854775807"),
    (f"seed = {'9' * 6000}", "", "a whole number has more than 64 bits", ""),
    (
        f'[topology]\nname = "moshpit"\nsize = 0x{"f" * 400}',
        "topology",
        "a whole number has more than 64 bits",
        "write a number",
    ),
    (f"[network]\na{'.b' * 900} = 1", "network", "is nested too deeply", "use fewer levels of brackets"),
    ('[record]\nevery = "0 ms"', "record.every", "'0 ms' is too short", "'1 s'"),
]


@pytest.mark.parametrize(
    ("text", "key", "problem", "cure"), WRONG, ids=[f"{number}-{row[1]}" for number, row in enumerate(WRONG)]
)
def test_what_is_wrong_is_told_with_file_key_value_and_cure(text: str, key: str, problem: str, cure: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Experiment.parse(text, "ring.toml")
    message = str(caught.value)
    assert message.startswith(f"ring.toml: {key}: " if key else "ring.toml: ")
    assert problem in message
    assert cure in message
    assert "\n" not in message
    assert "msgspec" not in message
    assert "$" not in message


def test_the_mark_of_an_encoding_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "ring.toml").write_bytes(b"\xef\xbb\xbfpeers = 5\r\nseed = 3\r\n")
    assert Experiment.read(tmp_path / "ring.toml") == Experiment(name="ring", peers=5, seed=3)


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
        ({"strategy": "ako"}, "strategy: a value of type str is not valid here; write strategy=Ako()"),
        ({"strategy": Ako}, "strategy: Ako is a class, not a value; write strategy=Ako(...)"),
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


def test_a_setting_at_fault_is_told_as_such() -> None:
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


@pytest.mark.slow
def test_reading_is_quick_to_import() -> None:
    """What is heavy must not be imported before a command needs it."""
    heavy = "torch pandas sklearn scipy plotly pyarrow zmq matplotlib"
    code = f"import sys, grapevine.experiments.config.experiment; print([m for m in '{heavy}'.split() if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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
