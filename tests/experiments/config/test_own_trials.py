"""A user's own parts are tried before anything starts: what does not keep the promise of its family is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import networkx as nx
import numpy as np
import pytest

from grapevine import (
    Aggregator,
    Codec,
    ConfigError,
    Device,
    Devices,
    Event,
    Experiment,
    Float32,
    JoinEvent,
    Membership,
    Optimizer,
    Problem,
    Quadratic,
    Stepper,
    Stop,
    Task,
    Topology,
    UniformDevices,
    Virtual,
    run,
)  # fmt: skip
from grapevine.experiments.config.menus import LISTS, MENUS
from grapevine.experiments.config.own_parts import unwritten
from grapevine.experiments.config.own_trials import try_aggregator, try_optimizer
from grapevine.experiments.fleet import build
from grapevine.netem.links.profile_laws import ProfileLaw
from grapevine.netem.networks.changing import Changing
from grapevine.topology import Schedule, TimeVarying
from grapevine.topology.schedules.switching import OverGraph

BASE = Experiment(
    peers=4, world=Virtual(), task=Quadratic(dimension=3), devices=UniformDevices(speed="10 samples/s"), stop=Stop(time="2 s")
)


def refused(**parts: Any) -> str:
    """Return the message with which an experiment is refused before it starts."""
    with pytest.raises(ConfigError) as caught:
        build(BASE.replace(**parts))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- aggregators


class Returning(Aggregator, frozen=True, tag="returning"):
    def combine(self, rows: Sequence[np.ndarray], weights: Sequence[float], out: np.ndarray) -> None:
        return np.mean(rows, axis=0)  # type: ignore[no-any-return]


class Partial(Aggregator, frozen=True, tag="partial"):
    def combine(self, rows: Sequence[np.ndarray], weights: Sequence[float], out: np.ndarray) -> None:
        out[1:] = rows[0][1:]


class Careless(Aggregator, frozen=True, tag="careless"):
    def combine(self, rows: Sequence[np.ndarray], weights: Sequence[float], out: np.ndarray) -> None:
        rows[0][:] += rows[1]
        out[:] = rows[0]


class Choosy(Aggregator, frozen=True, tag="choosy"):
    """It needs three rows."""

    def combine(self, rows: Sequence[np.ndarray], weights: Sequence[float], out: np.ndarray) -> None:
        out[:] = rows[2]


def test_an_aggregator_must_fill_out_and_leave_the_rows_as_they_are() -> None:
    name = f'aggregator.name = "{__name__}'
    assert refused(aggregator=Returning()).startswith(
        f'{name}:Returning": with 3 vectors of 7 elements it left 7 elements of out unwritten, or nan, and it returned '
        "ndarray; let combine(rows, weights, out) write the result into out"
    )
    assert "it left 1 elements of out unwritten" in refused(aggregator=Partial())
    assert "it changed one of them" in refused(aggregator=Careless())


def test_an_aggregator_is_tried_with_as_many_rows_as_a_peer_combines() -> None:
    build(BASE.replace(aggregator=Choosy()))
    message = refused(aggregator=Choosy(), peers=2, topology=nx.path_graph(2))
    assert f"with 2 vectors of 7 elements it raised IndexError: list index out of range ({__file__}, line " in message


@pytest.mark.parametrize("cls", MENUS["aggregator"].members.values())
def test_built_in_aggregators_pass_the_trial(cls: type[Aggregator]) -> None:
    for rows in (1, 2, 9):
        try_aggregator(cls(), rows)


# -- optimizers


class Stepping(Optimizer, frozen=True, tag="stepping"):
    """Steps of a chosen kind."""

    kind: str = "in place"

    def start(self, size: int) -> Stepper:
        return _Steps(self.kind) if self.kind else None  # type: ignore[return-value]


class _Steps:
    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.sum: Any = 0.0
        self.calls = 0

    def step(self, weights: np.ndarray, gradient: np.ndarray) -> None:
        self.calls += 1
        self.sum = self.sum + gradient
        if self.kind == "every 8":
            if self.calls % 8 == 0:
                weights -= 1e-12 * self.sum
        elif self.kind == "a new array":
            weights = weights - gradient
        elif self.kind == "the gradient":
            gradient *= 0.1
            weights -= gradient
        else:
            weights -= gradient


def test_an_optimizer_must_change_the_weights_in_place() -> None:
    place = f'optimizer.name = "{__name__}:Stepping": with 7 weights '
    cure = "; let start(size) return an object with step(weights, gradient), which changes weights in place: weights -= ..."
    assert refused(optimizer=Stepping(kind="a new array")) == f"{place}100 steps left them as they were{cure}"
    assert "its step changed the gradient" in refused(optimizer=Stepping(kind="the gradient"))
    missing = "it raised AttributeError: 'NoneType' object has no attribute 'step'"
    assert refused(optimizer=Stepping(kind="")) == place + missing + cure
    for kind in ("in place", "every 8"):
        build(BASE.replace(optimizer=Stepping(kind=kind)))


@pytest.mark.parametrize("cls", MENUS["optimizer"].members.values())
@pytest.mark.parametrize("learning_rate", [1e-12, 1.0, 1e12])
def test_built_in_optimizers_pass_the_trial(cls: type[Optimizer], learning_rate: float) -> None:
    try_optimizer(cls(learning_rate=learning_rate))


# -- codecs that fail later


class LatelyShort(Codec, frozen=True, tag="lately-short"):
    """It leaves out the last element of a vector of three, which no trial finds."""

    number: ClassVar[int] = 140

    def body_bytes(self, count: int) -> int:
        return 4 * count

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        body, read = Float32().encode(values, rng)
        return (body[:-4] if len(values) == 3 else body), read

    def decode(self, body: np.ndarray, count: int) -> np.ndarray:
        return body.view("<f4")


class LatelyWide(LatelyShort, frozen=True, tag="lately-wide"):
    def encode(self, values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        body, read = Float32().encode(values, rng)
        return body, read.astype(float) if len(values) == 3 else read


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (LatelyShort(), "LatelyShort.encode returned uint8 [8] for 3 elements, and body_bytes(3) promises uint8 [12]"),
        (LatelyWide(), "LatelyWide.encode returned float64 [3] as the values that will be read; expected float32 [3]"),
    ],
)
def test_a_codec_is_held_to_its_size_at_each_message_in_virtual_time_too(codec: Codec, message: str, tmp_path: Path) -> None:
    summary = run(BASE.replace(codec=codec), out=tmp_path / "run").summary
    assert summary["peers_lost"]
    assert message in " ".join(summary["warnings"])


# -- graphs, devices, members


class Drawn(Topology, frozen=True, kw_only=True, tag="drawn"):
    """Edges as given."""

    pairs: tuple[tuple[int, int], ...]
    directed: bool = False

    @property
    def one_way(self) -> bool:
        return self.directed

    def edges(self, n: int, seed: int) -> tuple[tuple[int, int], ...]:
        return self.pairs


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        (Drawn(pairs=((0, 1), (2, 3))), "drawn on 4 peers is not connected: it falls into 2 pieces, and peer 2 "),
        (Drawn(pairs=((0, 1), (1, 2), (2, 3), (3, 4))), "an edge of drawn names peer 4, and the 4 peers are 0 to 3"),
        (Drawn(pairs=((-1, 0), (0, 1), (1, 2), (2, 3))), "an edge of drawn names peer -1, and the 4 peers are 0 to 3"),
        (Drawn(pairs=((0, 1), (1, 2), (2, 2), (2, 3))), "an edge of drawn joins peer 2 with itself"),
        (Drawn(pairs=((0, 1), (1, 2), (2, 3)), directed=True), "is not strongly connected: it falls into 4 pieces"),
    ],
)  # fmt: skip
def test_the_edges_of_a_topology_of_ones_own_are_checked(topology: Drawn, message: str) -> None:
    assert message in refused(topology=topology)


class Rounds(TimeVarying, frozen=True, kw_only=True, tag="rounds"):
    """A schedule for a number of peers of its own choice."""

    n: int

    def rounds(self, n: int, seed: int) -> Schedule:
        return Schedule(self.name, self.n, lambda t: np.eye(self.n), max_degree=1) if self.n else None  # type: ignore[return-value]


def test_a_schedule_must_be_one_for_all_peers() -> None:
    assert "rounds returned one for 3, not a schedule for 4 peers" in refused(topology=Rounds(n=3))
    assert "rounds returned NoneType, not a schedule for 4 peers" in refused(topology=Rounds(n=0))


class Odd(Devices, frozen=True, kw_only=True, tag="odd"):
    """Devices as given."""

    samples_per_s: float = 1.0
    overhead_ns: int = 0

    def plan(self, peers: int, seed: int = 0) -> list[Device]:
        return [Device(self.samples_per_s, self.overhead_ns)] * peers


@pytest.mark.parametrize("samples_per_s", [-5.0, 0.0, float("nan")])
def test_a_device_computes_at_a_speed_above_0(samples_per_s: float) -> None:
    with pytest.raises(ValueError, match=f"a device of {samples_per_s} samples a second; expected more than 0"):
        Device(samples_per_s)
    if samples_per_s == -5.0:
        message = refused(devices=Odd(samples_per_s=-5.0))
        assert message.startswith("devices: a device of -5.0 samples a second (")
        assert message.endswith(", in plan); expected more than 0")
        assert "overhead of -1 ns" in refused(devices=Odd(overhead_ns=-1))


class Joining(Membership, frozen=True, kw_only=True, tag="joining"):
    """Members and events as given; a law need not say that it draws."""

    first: tuple[int, ...] = (0, 1, 2)
    joins: tuple[tuple[int, str], ...] = ()

    def events(self, peers: int, seed: int, stop_ns: int) -> tuple[list[int], list[Event]]:
        return list(self.first), [JoinEvent(at=at, peer=peer) for peer, at in self.joins]


class Nothing(Joining, frozen=True, tag="nothing"):
    def events(self, peers: int, seed: int, stop_ns: int) -> Any:
        return None


@pytest.mark.parametrize(
    ("membership", "message"),
    [
        (Joining(first=(0, 1, 2, 99)), "there is no peer 99, which events(...) names; the peers are 0 to 3"),
        (Joining(first=(0, 1, -1)), "there is no peer -1"),
        (Joining(joins=((99, "1 s"),)), "there is no peer 99"),
        (Joining(joins=((3, "2 s"),)), "peer 3 joins at 2 s, and the run stops at 2 s; raise stop.time, or give earlier times"),
        (
            Nothing(),
            "events(...) returned None; return a pair: the list of the members at the start, and the list",
        ),
    ],
)
def test_the_members_of_a_law_of_ones_own_are_checked(membership: Membership, message: str) -> None:
    assert refused(membership=membership).startswith(f"membership: {message}")


def test_a_law_of_ones_own_draws_without_saying_so() -> None:
    fleet = build(BASE.replace(membership=Joining(joins=((3, "1 s"),))))
    assert fleet.membership is not None
    assert [(change.peer, change.joins) for change in fleet.membership.changes] == [(3, True)]


# -- tasks


class Given(Task, frozen=True, tag="given"):
    """A task with a problem of a chosen class."""

    kind: str = "Whole"

    def problem(self, peers: int, partition: Any, seed: int) -> Problem:
        kinds = {kind.__name__: kind for kind in (Whole, Scoreless, Promising)}
        return kinds[self.kind](np.zeros(2), [np.arange(5)] * peers)


class Scoreless(Problem):
    promised: ClassVar[str] = ""

    def gradient(self, weights: np.ndarray, batch: Any) -> tuple[float, np.ndarray]:
        return 1.0, np.ones(2, np.float32)

    def offers(self) -> dict[str, Any]:
        return {**super().offers(), **({self.promised: lambda *_: 1} if self.promised else {})}


class Whole(Scoreless):
    def evaluate(self, weights: np.ndarray, data: str = "test") -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(len(weights)), np.zeros(len(weights))


class Promising(Whole):
    pass


def test_a_problem_needs_the_methods_of_all_that_it_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    build(BASE.replace(task=Given()))
    scoreless = f'task = "{__name__}:Given": the class Scoreless does not define evaluate; write it'
    assert refused(task=Given(kind="Scoreless")).startswith(scoreless)
    for work, method in (("solve", "solve"), ("predict", "predict"), ("targets", "soft_gradients")):
        monkeypatch.setattr(Promising, "promised", work)
        start = f'task: Promising offers "{work}" and does not define {method}; write it'
        assert refused(task=Given(kind="Promising")).startswith(start)
    monkeypatch.setattr(Promising, "promised", "clip")
    build(BASE.replace(task=Given(kind="Promising")))


# -- methods that a class must define


@pytest.mark.parametrize("menu", [*MENUS.values(), *LISTS.values()], ids=lambda menu: menu.plural)
def test_no_built_in_part_lacks_a_method(menu: Any) -> None:
    assert {name: unwritten(cls) for name, cls in menu.members.items() if unwritten(cls)} == {}


@pytest.mark.parametrize(
    ("base", "methods"),
    [
        (Topology, ["edges"]),
        (TimeVarying, ["rounds"]),
        (OverGraph, ["over"]),
        (Changing, ["profile_law"]),
        (ProfileLaw, ["mean_rate_bytes_per_s", "steps"]),
        (Membership, ["events"]),
        (Problem, ["evaluate", "gradient"]),
        (Event, ["about", "describe"]),
        (Devices, ["plan"]),
        (Task, ["problem"]),
    ],
)
def test_each_base_names_the_methods_that_it_needs(base: type, methods: list[str]) -> None:
    assert unwritten(base) == methods


class Edgeless(Topology, frozen=True, tag="edgeless"):
    """A topology without edges."""


class Lawless(Changing, frozen=True, kw_only=True, tag="lawless"):
    """A network without a law."""


def test_a_class_without_its_methods_is_refused_in_a_file_and_from_python() -> None:
    message = f'topology = "{__name__}:Edgeless": the class Edgeless does not define edges; write it'
    with pytest.raises(ConfigError) as caught:
        Experiment(topology=Edgeless())
    assert str(caught.value).startswith(message)
    for table, name, method in (("topology", "Edgeless", "edges"), ("network", "Lawless", "profile_law")):
        with pytest.raises(ConfigError, match=f"the class {name} does not define {method}"):
            Experiment.parse(f'[{table}]\nname = "{__name__}:{name}"')


class Extended(Quadratic, frozen=True, tag="extended"):
    """The task quadratic with more work, as CONTRIBUTING.md describes it."""

    def problem(self, peers: int, partition: Any, seed: int) -> Any:
        made = super().problem(peers, partition, seed)
        made.__class__ = ExtendedProblem
        return made


class ExtendedProblem(type(Quadratic().problem(1, BASE.partition, 0))):  # type: ignore[misc]
    def offers(self) -> dict[str, Any]:
        return {**super().offers(), "half": lambda peer: 1}

    def half(self, peer: int, weights: np.ndarray) -> np.ndarray:
        return weights / 2


def test_a_built_in_problem_can_be_extended() -> None:
    problem = build(BASE.replace(task=Extended(dimension=3))).problem
    assert {"half", "solve", "gradient"} <= problem.offers().keys()
    assert problem.half(0, np.ones(3)).tolist() == [0.5] * 3  # type: ignore[attr-defined]
