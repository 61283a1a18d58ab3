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

WRONG: list[tuple[str, str, str, str]] = [
    ("seed =", "", "line 1, column 7: invalid value", 'text stands in "quotes"'),
    ("name = ring", "", "line 1, column 8: invalid value in 'name = ring'", 'text stands in "quotes"'),
    ("peers = 8\npeers = 9", "", "line 2, column 10: this key or table stands in the file already", "key = value"),
    ("x = " + "[" * 5000, "", "nested too deeply", "examples"),
    ("persons = 8", "persons", "no such field; an experiment has: name, seed, peers,", "did you mean peers?"),
    ("learning_rate = 0.5", "learning_rate", "no such field", "learning_rate belongs to [optimizer]"),
    ("[topologie]", "topologie", "no such field", "did you mean topology?"),
    ('[sweep]\n"seed" = [1]', "sweep", "is for many runs", "grapevine sweep"),
    ('[strategy]\nname = "ako"\nfil = 0.5', "strategy.fil", "no such field; ako has: fill, least", "did you mean fill?"),
    ('[strategy]\nname = "ako"\nseed = 3', "strategy.seed", "no such field", "seed stands at the top, above the first [table]"),
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
        '"1 %" will not do',
        "is written without a sign: 0.01",
    ),
    ('[network]\nname = "uniform"\nloss = "0.1"', "network.loss", '"0.1" will not do', "without quotation marks: 0.1"),
    ('[strategy]\nname = "ako"\nlearning_rate = 1', "strategy.learning_rate", "no such field", "belongs to [optimizer]"),
    ('[codec]\nname = "int8"\nbits = 4', "codec.bits", "no such field", "int8 has none"),
    ("[stop]\nstep = 5", "stop.step", "no such field; stop has: time, steps, accuracy", "did you mean steps?"),
    ('[strategy]\nname = "d_psgdd"', "strategy.name", 'there is no strategy "d_psgdd"', "did you mean d-psgd? known: ad-psgd"),
    ('[strategy]\nname = "qqqq"', "strategy.name", 'there is no strategy "qqqq"', "known: ad-psgd, ako, all-reduce, d-psgd"),
    ("[strategy]\nname = 3", "strategy.name", "there is no strategy 3", "known: ad-psgd"),
    ("[strategy]\nfill = 0.5", "strategy.name", "is missing", "known: ad-psgd"),
    ('strategy = "ako"', "strategy", '"ako" is no table', 'write strategy.name = "ako"'),
    ("strategy = [1]", "strategy", "[1] is no table", "write strategy.name = "),
    ("stop = 5", "stop = 5", "is no table", "write [stop]"),
    ('[task]\nname = "module"', "task", "is for Python", "digits or quadratic"),
    ("peers = 0", "peers", "0 will not do", "expected a whole number of at least 1"),
    ("peers = 2.5", "peers", "2.5 will not do", "expected a whole number of at least 1"),
    ("peers = true", "peers", "true will not do", "expected a whole number"),
    ('peers = "8"', "peers", '"8" will not do', "expected a whole number"),
    ("seed = -1", "seed", "-1 will not do", "expected a whole number of at least 0 and at most 9223372036854775807"),
    ("seed = 9223372036854775808", "seed", "a whole number has more than 64 bits", "to 9223372036854775807"),
    ('name = ""', "name", '"" will not do', "expected text that is not empty"),
    ("name = 1979-05-27", "name", "1979-05-27 will not do", "expected text"),
    (
        '[strategy]\nname = "ako"\nfill = "much"',
        "strategy.fill",
        '"much" will not do',
        "expected a number above 0 and at most 1",
    ),
    ('[strategy]\nname = "ako"\nfill = 3', "strategy.fill", "3 will not do", "expected a number above 0 and at most 1"),
    ('[strategy]\nname = "ako"\nfill = nan', "strategy.fill", "nan will not do", "expected a number above 0 and at most 1"),
    ('[optimizer]\nname = "sgd"\nlearning_rate = inf', "optimizer.learning_rate", "inf is no number to work with", "above 0"),
    ('[optimizer]\nname = "sgd"\nnesterov = 1', "optimizer.nesterov", "1 will not do", "expected true or false"),
    (
        '[optimizer]\nname = "sgd"\nnesterov = true',
        "optimizer.nesterov",
        "nesterov = true needs a momentum above 0",
        "momentum = 0.9",
    ),
    ('[world]\nname = "processes"\ntransport = "udp"', "world.transport", '"udp" will not do', 'expected one of "ipc", "tcp"'),
    ('[world]\nname = "processes"\nport = 70000', "world.port", "70000 will not do", "at least 0 and at most 65535"),
    ('[world]\nname = "processes"\nport = 7000', "world.port = 7000", '"ipc" has no ports', 'transport = "tcp"'),
    ('[world]\nname = "processes"\ndilation = 0', "world.dilation", "0 will not do", "expected a number of at least 0.01"),
    ('[network]\nname = "uniform"\nrate = 20', "network.rate", "20 has no unit", 'write for example "20 Mbit/s"'),
    ('[network]\nname = "uniform"\ndelay = 0.04', "network.delay", "0.04 has no unit", 'write for example "80 ms"'),
    ('[network]\nname = "uniform"\nrate = "20"', "network.rate", "'20' is no rate", "for example '20 Mbit/s'"),
    ('[network]\nname = "uniform"\nrate = "20 mbps"', "network.rate", "no such unit 'mbps'", "(bit/s, kbit/s, Mbit/s"),
    ('[network]\nname = "uniform"\nrate = "0 Mbit/s"', "network.rate", "'0 Mbit/s' is no rate", "1 bit/s to 1e6 Gbit/s"),
    ('[network]\nname = "uniform"\ndelay = "-4 ms"', "network.delay", "'-4 ms' is no duration", "for example '80 ms'"),
    ('[network]\nname = "uniform"\ndelay = ["4 ms"]', "network.delay", '["4 ms"] will not do', "a duration such as"),
    ('[network]\nname = "uniform"\nloss = 1', "network.loss", "1 will not do", "expected a number of at least 0 and below 1"),
    ('[network]\nname = "regions"\ntable = "moon"', "network.table", '"moon" will not do', 'one of "aws18", "dtfm10", "ec2"'),
    (
        '[network]\nname = "regions"\nplaces = ["Paris"]',
        'network.places = ["Paris"]',
        "'Paris' is no region of ec2",
        "Virginia",
    ),
    ('[devices]\nname = "uniform"', "devices.speed", "is missing", 'uniform needs it: a speed such as "2000 samples/s"'),
    ('[devices]\nname = "mixed"\nspeeds = ["5 samples/s", 3]', "devices.speeds[1]", "3 has no unit", '"2000 samples/s"'),
    ('[devices]\nname = "mixed"\nspeeds = ["5 s"]', "devices.speeds[0]", "no such unit 's'", "samples/s"),
    ('[devices]\nname = "mixed"\nspeeds = []', "devices.speeds", "[] will not do", "expected a list of at least 1 speeds"),
    ('[topology]\nname = "file"', "topology.path", "is missing", "file needs it: text"),
    ('[topology]\nname = "random-regular"\ndegree = 1', "topology.degree", "1", "2 or more"),
    ('[topology]\nname = "ring"\nmixing = "metro"', "topology.mixing", '"metro" will not do', '"metropolis"'),
    ('[partition]\nname = "dirichlet"\nalpha = -1', "partition.alpha = -1", "must be above 0", "for example 0.3"),
    ('[partition]\nname = "dirichlet"\nalpha = nan', "partition.alpha", "nan is no number to work with", "expected a number"),
    ('[task]\nname = "digits"\nhidden = [64, "x"]', "task.hidden[1]", '"x" will not do', "expected a whole number"),
    ('[task]\nname = "digits"\nhidden = {a = 1}', "task.hidden", "{a = 1} will not do", "expected a list of whole numbers"),
    ('[task]\nname = "quadratic"\ntargets = [[1.0, inf]]', "task.targets[0][1]", "inf is no number to work with", "a number"),
    ("[stop]\naccuracy = 0.9", "stop", "needs time or steps", "write for example steps = 500"),
    ("[stop]\nsteps = 0", "stop.steps", "0 will not do", "expected a whole number of at least 1"),
    ("[stop]\nsteps = 1\naccuracy = 90", "stop.accuracy", "90 will not do", "expected a number above 0 and at most 1"),
    ("[stop]\ntime = 60", "stop.time", "60 has no unit", 'write for example "80 ms"'),
    ('[stop]\ntime = "0 s"', "stop.time", "'0 s' stops before anything began", "'60 s'"),
    (f"seed = {'[' * 40}{']' * 40}", "seed", "is nested too deeply, in more than 32 levels", "take brackets away"),
    (f"seed = 0x{'f' * 6000}", "seed", "a whole number has more than 64 bits", "9223372036854775807"),
    (f"seed = {'9' * 6000}", "", "a whole number has more than 64 bits", ""),
    (f'[topology]\nname = "moshpit"\nsize = 0x{"f" * 400}', "topology", "a whole number has more than 64 bits", "write one"),
    (f"[network]\na{'.b' * 900} = 1", "network", "is nested too deeply", "take brackets away"),
    ('[record]\nevery = "0 ms"', "record.every", "'0 ms' would record without a pause", "'1 s'"),
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
        ({"strategy": Ako(fill=3)}, "strategy.fill: 3 will not do; expected a number above 0 and at most 1"),
        ({"strategy": "ako"}, "strategy: str is no strategy; write strategy=Ako()"),
        ({"strategy": Ako}, "strategy: Ako is a class; write strategy=Ako(...)"),
        ({"topology": 4}, "topology: int is no topology; give a Topology"),
        ({"optimizer": Adam(beta1=1.0)}, "optimizer.beta1: 1.0 will not do"),
        ({"stop": 5}, "stop: 5 will not do; expected a table: Stop(...)"),
        ({"stop": Stop(steps=0)}, "stop.steps: 0 will not do"),
        ({"peers": 0}, "peers: 0 will not do"),
        ({"name": 3}, "name: 3 will not do"),
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
        ({".x": 1}, "--set: .x: is no key"),
        ({"x.": 1}, "--set: x.: is no key"),
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
