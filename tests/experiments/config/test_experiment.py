"""An experiment from text and from Python."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from grapevine.experiments.config.experiment import ConfigError, Experiment, Processes, Record, Stop, Virtual
from grapevine.experiments.tasks import Dirichlet
from grapevine.netem import MixedDevices, Uniform
from grapevine.peer.optimizers import Sgd
from grapevine.peer.strategies import Ako, Slices
from grapevine.topology.graphs.menu import File, RandomRegular
from tests.experiments.config.examples import FULL, Mine


def test_the_ranges_of_a_part_of_ones_own_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"^strategy\.pace: 3\.0 is not valid; expected a number at most 1$"):
        Experiment(strategy=Mine(pace=3.0))
    with pytest.raises(ConfigError, match=r"^strategy\.inner\.pace: 2\.0 is not valid"):
        Experiment(strategy=Mine(inner=Mine(pace=2.0)))
    with pytest.raises(ConfigError, match=r"^strategy\.fill: 3\.0 is not valid"):  # no file can hold a number of numpy
        Experiment(strategy=Ako(fill=np.float64(3.0)))
    assert Experiment(strategy=Mine(pace=np.float64(0.25))).strategy.pace == 0.25  # type: ignore[attr-defined]


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


def test_paths_are_relative_to_the_file_that_holds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "graph.toml"
    file.write_text('[topology]\nname = "file"\npath = "../graph.gml"')
    assert Experiment.read(file).topology == File(path=str(tmp_path / "graph.gml"))
    monkeypatch.chdir(tmp_path)
    assert Experiment.read(file, {"topology.path": "here.gml"}).topology == File(path=str(tmp_path / "here.gml"))
    assert Experiment.parse(Experiment.read(file).to_toml()) == Experiment.read(file)


def test_the_mark_of_an_encoding_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "ring.toml").write_bytes(b"\xef\xbb\xbfpeers = 5\r\nseed = 3\r\n")
    assert Experiment.read(tmp_path / "ring.toml") == Experiment(name="ring", peers=5, seed=3)


@pytest.mark.slow
def test_reading_is_quick_to_import() -> None:
    """What is heavy must not be imported before a command needs it."""
    heavy = "torch pandas sklearn scipy plotly pyarrow zmq matplotlib"
    code = f"import sys, grapevine.experiments.config.experiment; print([m for m in '{heavy}'.split() if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
