"""Experiments from Python: a user's strategy, graph and module; and strategies that fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch

from grapevine import Experiment, Result, run
from grapevine.experiments.config.experiment import Stop
from grapevine.experiments.tasks import Module, Quadratic
from grapevine.netem import UniformDevices
from grapevine.peer.payloads import Dense
from grapevine.peer.peer import Peer
from grapevine.peer.strategies import Strategy


class HalfTheWay(Strategy, frozen=True, tag="half-the-way"):
    """A user's strategy: each step moves half the way to each neighbour in turn."""

    async def run(self, peer: Peer) -> None:
        while peer.running:
            peer.apply(await peer.gradient())
            await peer.broadcast(Dense(peer.weights))
            for message in peer.arrived():
                peer.blend(message, 0.5)


class Raises(Strategy, frozen=True, tag="raises"):
    """A user's strategy with a mistake."""

    async def run(self, peer: Peer) -> None:
        peer.apply(await peer.gradient())
        if peer.id == 1:
            raise ZeroDivisionError("a mistake of mine")
        while peer.running:
            peer.apply(await peer.gradient())


def tiny_module() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


@pytest.mark.live
def test_own_strategy_graph_and_module_in_processes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)).astype(np.float32)
    y = (x.sum(axis=1) > 0).astype(np.int64)
    experiment = Experiment(
        strategy=HalfTheWay(),
        topology=nx.petersen_graph(),
        task=Module(factory=tiny_module, train=(x[:150], y[:150]), test=(x[150:], y[150:])),
        stop=Stop(steps=60),
    )
    result = run(experiment, out=tmp_path / "run")
    assert result.summary["completed"]
    assert result.summary["strategy"] == "half-the-way"
    assert result.summary["accuracy_mean"] > 0.85
    assert result.weights.shape[0] == 10
    assert Result.read(tmp_path / "run").summary == result.summary


@pytest.mark.slow
def test_a_run_of_the_perceptron_loads_neither_pandas_nor_torch(tmp_path: Path) -> None:
    """Each of them takes longer to load than a short run takes."""
    program = (
        "import sys; from grapevine import Experiment, run\n"
        "devices = {'name': 'uniform', 'speed': '100 samples/s'}\n"
        "virtual = {'world': {'name': 'virtual'}, 'devices': devices, 'stop': {'steps': 2}}\n"
        "run(Experiment.from_document(virtual), sys.argv[1])\n"
        "print([name for name in ('pandas', 'torch') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "run")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.live
@pytest.mark.parametrize("world", ["processes", "virtual"])
def test_a_strategy_that_raises_is_named_and_ends_no_other_peer(tmp_path: Path, world: str) -> None:
    experiment = Experiment(
        strategy=Raises(), peers=3, task=Quadratic(), stop=Stop(steps=20), devices=UniformDevices(speed="1000 samples/s")
    ).set("world.name", world)
    result = run(experiment, out=tmp_path / "run")
    assert not result.summary["completed"]
    assert "a mistake of mine" in result.summary["reason"]
    assert result.summary["peers_lost"] == [1]
    assert result.summary["steps_max"] == 20
    assert any("ZeroDivisionError" in event.get("text", "") for event in result.events if event["kind"] == "fault")
