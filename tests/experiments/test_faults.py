"""Mistakes in parts of a user's own: each is one sentence with the part, the exception and the line of the user's file."""

from __future__ import annotations

import asyncio
import json
import operator
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import networkx as nx
import numpy as np
import pytest

from grapevine import (
    Aggregator,
    ConfigError,
    Dense,
    Device,
    Devices,
    Experiment,
    JoinEvent,
    Membership,
    Network,
    Optimizer,
    Outgoing,
    Partition,
    Peer,
    Problem,
    Processes,
    Record,
    Result,
    Space,
    Station,
    Stop,
    Strategy,
    Task,
    UniformDevices,
    Virtual,
    Wrapper,
)
from grapevine.experiments.cli.main import main
from grapevine.experiments.faults import located
from grapevine.experiments.fleet import build
from grapevine.experiments.report.summary_text import describe
from grapevine.experiments.run import run_experiment
from grapevine.experiments.tasks import Quadratic
from grapevine.topology.graphs.base import Topology
from tests.experiments.own_modules import forgotten

HERE = "tests/experiments/test_faults.py"
PEERS = 4


def line_of(words: str) -> int:
    """The line of this file that ends with the comment `# here: words`."""
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith(f"# here: {words}"))


class Trains(Strategy, frozen=True, tag="trains-own"):
    """Goes wrong at step `at` of peer `who`, or of all peers (-1)."""

    way: str = "none"
    who: int = -1
    at: int = 2

    async def run(self, peer: Peer) -> None:
        while peer.running:
            peer.apply(await peer.gradient())
            if peer.step == self.at and self.who in (-1, peer.id):
                await getattr(self, f"do_{self.way}", self.do_none)(peer)

    async def do_none(self, peer: Peer) -> None:
        pass

    async def do_exit(self, peer: Peer) -> None:
        sys.exit(3)  # here: exit

    async def do_raise(self, peer: Peer) -> None:
        json.loads("{")  # here: json

    async def do_asyncio(self, peer: Peer) -> None:
        await asyncio.sleep(0.1)  # here: asyncio

    async def do_return(self, peer: Peer) -> None:
        peer.stopped = True

    async def do_forget(self, peer: Peer) -> None:
        peer.broadcast(Dense(peer.weights))  # type: ignore[unused-coroutine]  # here: forgotten

    async def do_gather(self, peer: Peer) -> None:
        await peer.broadcast(Dense(peer.weights))
        await peer.gather(step=peer.step + 1)  # here: gather


class Plain(Strategy, frozen=True, tag="plain-own"):
    def run(self, peer: Peer) -> None:  # type: ignore[override]
        peer.apply(peer.gradient())  # type: ignore[arg-type]


class Sparse(Trains, frozen=True, tag="sparse-own"):
    needs: ClassVar[str] = "sparse"  # type: ignore[assignment]


class Misspelt(Trains, frozen=True, tag="misspelt-own"):
    synchron: ClassVar[bool] = True


class Spaced(Trains, frozen=True, tag="spaced-own"):
    def spaces(self, facts: Any) -> tuple[Space, ...]:
        return (Space("votes", facts.clases),)  # here: spaces


class Line(Problem):
    """One parameter a peer, the gradient 1."""

    def __init__(self, peers: int, way: str) -> None:
        super().__init__(np.zeros(1), [np.arange(5)] * peers)
        self.way = way

    def gradient(self, weights: np.ndarray, batch: Any) -> tuple[float, np.ndarray]:
        if self.way == "gradient" and weights.any():
            return 1.0, np.ones(1) / {}[0]  # here: gradient
        if self.way == "exit" and weights.any():
            sys.exit("no data")  # here: task exits
        return 1.0, np.ones(1, np.float32)

    def evaluate(self, weights: np.ndarray, data: str = "test") -> Any:
        if self.way == "scores" and weights.any():
            raise ZeroDivisionError("scores")  # here: scores
        return 0.5 if self.way == "shape" else (np.zeros(len(weights)), np.zeros(len(weights)))


class Lines(Task, frozen=True, kw_only=True, tag="lines-own"):
    way: str = ""

    def problem(self, peers: int, partition: Partition, seed: int) -> Problem:
        if self.way == "problem":
            return {}["nothing"]  # type: ignore[no-any-return]  # here: problem
        if self.way == "sizes":
            np.zeros(-3)  # here: sizes
        if self.way == "split":
            partition.split(np.zeros(20, np.int64), peers, seed)
        return Line(peers, self.way)


class Halves(Partition, frozen=True, tag="halves-own"):
    parts: Any = 2

    def split(self, labels: np.ndarray, peers: int, seed: int) -> list[np.ndarray]:
        if self.parts == "few":
            raise ValueError("there are too few rows; give more")  # here: split
        return [np.arange(5)] * self.parts if isinstance(self.parts, int) else [np.asarray(self.parts)] * peers


class NoEdges(Topology, frozen=True, tag="no-edges-own"):
    def edges(self, n: int, seed: int) -> Any:
        pass


class NoPlan(Network, frozen=True, kw_only=True, tag="no-plan-own"):
    def plan(self, graph: nx.Graph, seed: int) -> Any:
        return None


class Few(Devices, frozen=True, kw_only=True, tag="few-own"):
    def plan(self, peers: int, seed: int = 0) -> list[Device]:
        return [Device(100.0)]


class Raising(Membership, frozen=True, kw_only=True, tag="raising-own"):
    draws: ClassVar[bool] = True

    def events(self, peers: int, seed: int, stop_ns: int) -> Any:
        return [JoinEvent(at="1 s", peer=1)][7]  # here: events


class Late:
    """The steps of an optimizer; the second one goes wrong."""

    steps = 0

    def step(self, weights: np.ndarray, gradient: np.ndarray) -> None:
        self.steps += 1
        if self.steps == 2:
            {}["late"]  # here: step
        weights -= gradient


class Stepping(Optimizer, frozen=True, kw_only=True, tag="stepping-own"):
    def start(self, size: int) -> Any:
        return Late()


class Combining(Aggregator, frozen=True, tag="combining-own"):
    def combine(self, rows: Any, weights: Any, out: np.ndarray) -> None:
        if out.size == 1:
            out[:] = np.zeros(3)  # here: combine
        out[:] = rows[0]


class Turning(Wrapper, frozen=True, tag="turning-own"):
    def sending(self, station: Station, message: Outgoing) -> Any:
        return [json.loads(message)]  # type: ignore[arg-type]  # here: wrapper


def experiment(**parts: Any) -> Experiment:
    given: dict[str, Any] = {
        "peers": PEERS, "world": Virtual(), "task": Lines(), "devices": UniformDevices(speed="320 samples/s"),
        "stop": Stop(time="1 s"), "record": Record(every="1 s", report=False),
    }  # fmt: skip
    return Experiment(**given | parts)


def ran(folder: Path, **parts: Any) -> tuple[Result, int]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Python's warnings about coroutines do not reach the terminal
        return run_experiment(experiment(**parts), folder / "run", quiet=True)


@pytest.mark.parametrize(
    ("parts", "key", "words", "here"),
    [
        ({"task": Lines(way="problem")}, "task", "raised KeyError: 'nothing'", "problem"),
        ({"task": Lines(way="sizes")}, "task", "negative dimensions are not allowed", "sizes"),
        ({"task": Lines(way="shape")}, "task", "Line.evaluate returned float: expected a pair of arrays", ""),
        ({"task": Lines(way="split"), "partition": Halves(parts="few")}, "partition", "there are too few rows", "split"),
        ({"task": Lines(way="split"), "partition": Halves()}, "partition", "split(...) returned 2 parts for 4 peers", ""),
        ({"task": Lines(way="split"), "partition": Halves(parts=[20])}, "partition", "indices from 20 to 20", ""),
        ({"task": Lines(way="split"), "partition": Halves(parts=[0.5])}, "partition", "returned float64 of shape [1]", ""),
        ({"topology": NoEdges()}, "topology", "", ""),
        ({"network": NoPlan()}, "network", "plan(graph, seed) returned NoneType: it must return a NetworkPlan", ""),
        ({"devices": Few()}, "devices", "plan(peers, seed) returned a list of 1 for 4 peers", ""),
        ({"membership": Raising()}, "membership", "raised IndexError: list index out of range", "events"),
        ({"strategy": Spaced()}, "strategy", "raised AttributeError: 'Facts' object has no attribute 'clases'", "spaces"),
        ({"strategy": Sparse()}, "strategy", 'needs = "sparse"; choose one of "connected", "complete", "hubs"', ""),
        ({"strategy": Misspelt()}, "strategy", "there is no declaration synchron; did you mean synchronous?", ""),
        ({"strategy": Plain()}, "strategy", "its run is not a coroutine; write `async def run(self, peer)`", ""),
    ],
)
def test_it_is_refused_before_the_start_with_its_part_and_its_line(
    parts: dict[str, Any], key: str, words: str, here: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        build(experiment(**parts))
    text = str(refused.value)
    assert refused.value.key == key, text
    assert words in text
    assert not here or f"({HERE}, line {line_of(here)}, in {here if here != 'sizes' else 'problem'})" in text


def test_too_many_targets_are_no_fault_of_the_partition() -> None:
    with pytest.raises(ConfigError, match="targets has 2 entries for 4 peers") as refused:
        build(experiment(task=Quadratic(targets=[1.0, 2.0])))
    assert refused.value.key == "task"


def test_a_fault_of_the_package_itself_is_raised_as_it_is() -> None:
    """Then the command line asks for a report; an own part whose code was not running is not blamed."""
    with pytest.raises(IndexError):
        located(experiment(strategy=Trains()), "network", partial(operator.getitem, [], 1))


@pytest.mark.parametrize(
    ("parts", "part", "exception", "here"),
    [
        ({"strategy": Trains(way="exit")}, "strategy", "SystemExit: 3", "exit"),
        ({"strategy": Trains(way="raise")}, "strategy", "json.decoder.JSONDecodeError: ", "json"),
        ({"strategy": Trains(way="asyncio")}, "strategy", "RuntimeError: no running event loop", "asyncio"),
        ({"task": Lines(way="gradient")}, "task", "KeyError: 0", "gradient"),
        ({"task": Lines(way="exit")}, "task", "SystemExit: no data", "task exits"),
        ({"optimizer": Stepping()}, "optimizer", "KeyError: 'late'", "step"),
        ({"aggregator": Combining()}, "aggregator", "ValueError: could not broadcast", "combine"),
        ({"wrappers": (Turning(),)}, "wrapper", "TypeError: the JSON object must be str", "wrapper"),
    ],
)
def test_in_a_run_the_part_and_the_innermost_line_of_the_users_file_are_named(
    parts: dict[str, Any], part: str, exception: str, here: str, tmp_path: Path
) -> None:
    result, status = ran(tmp_path, **parts)
    reason = result.summary["reason"]
    assert (status, result.summary["completed"]) == (1, False)
    assert f" failed: the {part} raised {exception}" in reason
    assert f"({HERE}, line {line_of(here)}, in " in reason
    assert ("write `await peer.sleep(...)`" in reason) == (here == "asyncio")
    assert result.weights.shape == (PEERS, 1)
    (warning,) = [warning for warning in result.summary["warnings"] if " lost: " in warning]
    assert f" were lost: the {part} raised {exception}" in warning


def test_losses_of_one_cause_are_one_warning_and_the_rest_reach_the_end(tmp_path: Path) -> None:
    result, status = ran(tmp_path, strategy=Trains(way="exit", who=1))
    reason = result.summary["reason"]
    assert (status, result.summary["peers_lost"]) == (1, [1])
    assert reason.startswith("1 s of emulated time over; peer 1 failed: the strategy raised SystemExit: 3")
    assert "ended early" not in describe(result.summary).plain
    assert "peer 1 was lost" in result.summary["warnings"][0]


def test_scores_that_raise_name_the_task_and_its_line(tmp_path: Path) -> None:
    result, status = ran(tmp_path, task=Lines(way="scores"))
    place = f"({HERE}, line {line_of('scores')}, in evaluate)"
    reason = f"the task raised ZeroDivisionError: scores {place}; events.jsonl has the whole traceback"
    assert (status, result.summary["reason"]) == (1, reason)


@pytest.mark.parametrize(("stop", "reason"), [(Stop(time="1 s"), "every strategy returned"), (Stop(steps=2), "2 steps done")])
def test_strategies_that_return_early_are_called_so(stop: Stop, reason: str, tmp_path: Path) -> None:
    result, status = ran(tmp_path, strategy=Trains(way="return"), stop=stop)
    assert (status, result.summary["reason"]) == (0, reason)


def test_a_forgotten_await_is_a_warning_with_its_line(tmp_path: Path) -> None:
    result, _ = ran(tmp_path, strategy=Trains(way="forget"))
    (warning,) = result.summary["warnings"]
    assert warning.startswith("a call of peer.broadcast had no effect, because it was not awaited")
    assert f"({HERE}, line {line_of('forgotten')})" in warning


def test_a_gather_of_a_wrong_step_names_the_steps_and_its_line(tmp_path: Path) -> None:
    result, _ = ran(tmp_path, strategy=Trains(way="gather"))
    reason = result.summary["reason"]
    assert f"deadlock: peers 0 to {PEERS - 1} wait for messages that no peer sends" in reason
    assert f"peer 0 waits for messages of step 3 ({HERE}, line {line_of('gather')}), and messages of step 2 have come" in reason
    (warning,) = result.summary["warnings"]
    assert f"8 messages came after peer.gather had asked for a later step, and were dropped: peers 0 to {PEERS - 1}" in warning


@pytest.mark.live
def test_a_gather_of_a_wrong_step_is_named_in_processes_too(tmp_path: Path) -> None:
    result, status = ran(tmp_path, strategy=Trains(way="gather", at=1), world=Processes(), stop=Stop(time="1 s"))
    assert status == 0
    assert [warning for warning in result.summary["warnings"] if "peer.gather had asked for a later step" in warning]


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_command_says_it_in_one_sentence_without_asking_for_a_report(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ring.toml").write_text('peers = 4\n[task]\nname = "raising_own:Raises"\n[stop]\nsteps = 2\n')
    (tmp_path / "raising_own.py").write_text(
        "from grapevine import Task\n"
        'class Raises(Task, frozen=True, tag="r"):\n'
        "    def problem(self, *_):\n"
        '        return {}["x"]\n'
    )
    monkeypatch.chdir(tmp_path)
    with forgotten():
        assert main([command, "ring.toml"]) == 2
    printed = capsys.readouterr().err
    assert printed == "ring.toml: task: raised KeyError: 'x' (raising_own.py, line 4, in problem)\n"
