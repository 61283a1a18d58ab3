"""Single keys of an experiment are changed by `set` and by settings."""

from __future__ import annotations

import networkx as nx
import pytest

from grapevine.experiments.config.experiment import ConfigError, Experiment, Stop
from grapevine.netem import Uniform
from grapevine.peer.optimizers import Sgd
from grapevine.peer.strategies import Ako, Slices
from grapevine.topology.graphs.menu import Complete
from tests.experiments.config.examples import FULL, Mine


def test_set_changes_one_key() -> None:
    experiment = Experiment.parse(FULL)
    assert experiment.set("strategy.fill", "0.25").strategy == Slices(fill=0.25)
    assert experiment.set("network.rate", "5 Mbit/s").network == Uniform(rate="5 Mbit/s", delay="40 ms")
    assert experiment.set("network.rate", '"5 Mbit/s"') == experiment.set("network.rate", "5 Mbit/s")
    assert experiment.set("seed", "9").seed == 9
    assert experiment.set("name", "two words").name == "two words"
    assert experiment.set("optimizer.nesterov", "true").optimizer == Sgd(momentum=0.9, nesterov=True)
    assert experiment.set("strategy", '{name = "ako", fill = 0.5}').strategy == Ako(fill=0.5)


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
