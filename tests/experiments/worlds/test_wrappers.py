"""Wrappers between strategies and their effects: what they change is exactly what the closed forms say; in both worlds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from grapevine import (
    ConfigError,
    Dense,
    Expected,
    Experiment,
    Facts,
    Outgoing,
    Peer,
    Space,
    Station,
    Strategy,
    Wrapper,
    run,
)
from grapevine.experiments.config.experiment import Record, Stop, Virtual
from grapevine.experiments.config.wrappers import Delay, Drop, Scale
from grapevine.experiments.fleet import build
from grapevine.experiments.tasks import Quadratic
from grapevine.experiments.worlds.peer_report import make_peer
from grapevine.netem import Uniform, UniformDevices
from grapevine.peer.codecs import Int8
from grapevine.peer.endpoint import BLOCKED, Arrival
from grapevine.peer.message import Message
from grapevine.peer.optimizers import Sgd
from grapevine.peer.payloads import Marks, Sparse, decode, decode_head, encode
from grapevine.peer.strategies import DPSGD, Ako, Slices
from grapevine.peer.wrappers.wrapped import WrappedPeer
from grapevine.topology.graphs.menu import Complete, Ring
from tests.experiments.strategies.fleets import make_world
from tests.helpers import run_until_blocked

RATE = 0.1
TARGETS = (3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, -6.0)


def asked(**changes: Any) -> Experiment:
    base = Experiment(
        peers=8, world=Virtual(), topology=Ring(), task=Quadratic(targets=TARGETS, dimension=3),
        devices=UniformDevices(speed="100 samples/s"), network=Uniform(rate="1 Mbit/s", delay="5 ms"),
        optimizer=Sgd(learning_rate=RATE), stop=Stop(steps=300), record=Record(report=False),
    )  # fmt: skip
    return base.replace(**changes)


class Nothing(Wrapper, frozen=True, tag="nothing"):
    """Looks, and changes nothing."""


class Ascent(Wrapper, frozen=True, tag="ascent"):
    """Turns gradients round."""

    def computed(self, station: Station, gradient: np.ndarray) -> np.ndarray:
        return -gradient


class Shift(Wrapper, frozen=True, tag="shift"):
    """Adds to every value sent and received."""

    by: float = 1.0

    def sending(self, station: Station, message: Outgoing) -> Iterable[Outgoing]:
        return [message._replace(payload=Dense(message.payload.values + np.float32(self.by)))]

    def arriving(self, station: Station, message: Message) -> Iterable[Message]:
        return [message._replace(payload=Dense(message.payload.values + np.float32(self.by)))]


class Double(Wrapper, frozen=True, tag="double"):
    """Doubles every value sent and received."""

    def sending(self, station: Station, message: Outgoing) -> Iterable[Outgoing]:
        return [message._replace(payload=Dense(message.payload.values * np.float32(2)))]

    def arriving(self, station: Station, message: Message) -> Iterable[Message]:
        return [message._replace(payload=Dense(message.payload.values * np.float32(2)))]


class Deaf(Wrapper, frozen=True, tag="deaf"):
    """Never hears one neighbour, and hears another twice."""

    deaf_to: int = 0
    twice: int = 0

    def arriving(self, station: Station, message: Message) -> Iterable[Message]:
        return [message] * (0 if message.source == self.deaf_to else 2 if message.source == self.twice else 1)


def fixed_point(flipped_sends: int | None = None, flipped_gradients: int | None = None) -> np.ndarray:
    """Of x_i <- W_ii x_i + sum_j W_ij s_j x_j - eta g_i (x_i - b_i), where s and g are -1 for who is flipped."""
    w = build(asked()).mixing
    heard, pull = w.copy(), np.ones(8)
    if flipped_sends is not None:
        heard[:, flipped_sends] *= -1
        heard[flipped_sends, flipped_sends] *= -1
    if flipped_gradients is not None:
        pull[flipped_gradients] = -1
    step = heard - RATE * np.diag(pull)
    assert np.abs(np.linalg.eigvals(step)).max() < 1, "no fixed point that iterations reach"
    return np.linalg.solve(np.eye(8) - step, RATE * pull * TARGETS)


def test_flipped_signs_move_the_fixed_point_exactly(tmp_path: Path) -> None:
    result = run(asked(wrappers=[Scale(peers=(2,))]), out=tmp_path / "run")
    assert result.summary["completed"], result.summary["reason"]
    np.testing.assert_allclose(result.weights, np.tile(fixed_point(flipped_sends=2)[:, None], 3), atol=1e-5)
    assert np.abs(fixed_point(flipped_sends=2) - fixed_point()).max() > 0.3
    assert result.summary["wrapped"] == [2]
    assert result.summary["altered"] == {"scale: sends altered": 2 * 300}
    assert [event["text"] for event in result.events if event["kind"] == "wrapped"] == ["scale stands at peer 2"]


def test_turned_gradients_move_the_fixed_point_exactly(tmp_path: Path) -> None:
    result = run(asked(wrappers=[Ascent(peers=(5,))]), out=tmp_path / "run")
    np.testing.assert_allclose(result.weights, np.tile(fixed_point(flipped_gradients=5)[:, None], 3), atol=1e-4)
    assert result.summary["altered"] == {"ascent: gradients altered": 300}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [DPSGD(), Slices(), Ako()])
def test_a_wrapper_that_changes_nothing_leaves_the_digest(tmp_path: Path, strategy: Any) -> None:
    """Not one byte: neither what is drawn, nor when anything leaves, nor what links carry."""
    plain = asked(strategy=strategy, topology=Complete(), codec=Int8(), stop=Stop(steps=40))
    digests = [
        run(plain.replace(wrappers=wrappers), out=tmp_path / str(number)).summary["digest"]
        for number, wrappers in enumerate([(), (Nothing(),), (Nothing(), Nothing(peers=(3,)))])
    ]
    assert len(set(digests)) == 1


@pytest.mark.slow
def test_dropped_messages_are_a_binomial_share_and_leave_books_and_meters_sound(tmp_path: Path) -> None:
    share = 0.2
    experiment = asked(strategy=Ako(), topology=Complete(), stop=Stop(steps=150), wrappers=[Drop(share=share, peers=(1, 4))])
    world = make_world(tmp_path, experiment)
    outcome = world.run()
    assert outcome.completed, outcome.reason
    peers = [member.peer for member in world.members]
    dropped = sum(peer.altered["drop: sends dropped"] for peer in peers if isinstance(peer, WrappedPeer))
    left = sum(link.sent.messages for pair, link in world.transport.links.items() if pair[0] in (1, 4))
    sent = dropped + left
    assert sent > 1500
    assert abs(dropped - share * sent) <= 4 * np.sqrt(sent * share * (1 - share))
    assert outcome.altered == {"drop: sends dropped": dropped}
    for peer in peers:
        assert peer.ledger is not None
        peer.now_ns = world.now_ns + 10**10
        for neighbour, paid in peer.ledger.paid.items():
            np.testing.assert_allclose(paid + peer.ledger.owed(neighbour), peer.ledger.total, atol=1e-9)
            assert peer.idle(neighbour), "a message that never left is not under way either"


def test_everything_dropped_is_nothing_sent(tmp_path: Path) -> None:
    result = run(asked(strategy=Slices(), wrappers=[Drop(share=1.0)], stop=Stop(steps=20)), out=tmp_path / "run")
    assert (result.summary["messages_sent"], result.summary["bytes_sent"]) == (0, 0)
    alone = np.array(TARGETS) * (1 - (1 - RATE) ** 20)
    np.testing.assert_allclose(result.weights[:, 0], alone, atol=1e-5)


class Pings(Strategy, frozen=True, tag="pings"):
    """Peer 0 says when it sends; peer 1 keeps how long each message took, in the elements of its weights."""

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        return (Expected("whole", ((0.0, 1e12),)),)

    async def run(self, peer: Peer) -> None:
        while peer.running:
            if peer.id == 0:
                await peer.send(1, Dense(peer.weights), (float(peer.instant_ns),))
                await peer.gradient()
                peer.apply(np.zeros(peer.size, np.float32))
            else:
                message = await peer.receive()
                assert message is not None
                peer.weights[peer.step] = message.arrived_ns - message.scalars[0]
                peer.step += 1


def took_ns(folder: Path, world: Any, *wrappers: Wrapper) -> np.ndarray:
    experiment = asked(
        peers=2, topology=Complete(), task=Quadratic(targets=(0.0, 0.0), dimension=8), strategy=Pings(), world=world,
        stop=Stop(steps=8), devices=UniformDevices(speed="10 samples/s"), wrappers=wrappers,
    )  # fmt: skip
    result = run(experiment, out=folder)
    assert result.summary["completed"], result.summary["reason"]
    return result.weights[1].astype(float)


@pytest.mark.parametrize("delay_ns", [1_000_000, 30_000_000, 250_000_000])
def test_a_delay_shifts_each_arrival_by_exactly_its_time(tmp_path: Path, delay_ns: int) -> None:
    """Also where it leaves in the middle of a gradient, or some steps later, and after its strategy has ended."""
    before = took_ns(tmp_path / "plain", Virtual())
    after = took_ns(tmp_path / "late", Virtual(), Delay(time=f"{delay_ns} ns", peers=(0,)))
    assert np.ptp(before) == 0.0
    assert before[0] > 5_000_000
    np.testing.assert_allclose(after - before, delay_ns, atol=16)  # float32 holds times to 16 ns


@pytest.mark.live
def test_a_delay_in_real_time_is_that_of_virtual_time(tmp_path: Path) -> None:
    """Messages are stamped with the time at which they should leave, however late the process lets them go."""
    late = Delay(time="130 ms", peers=(0,))
    virtual, live = (
        took_ns(tmp_path / str(number), world, late) for number, world in enumerate([Virtual(), Experiment().world])
    )
    np.testing.assert_allclose(live, virtual, atol=32)


def test_wrappers_stack_in_order() -> None:
    """What is sent passes the first one first, (5 + 1) x 2 or 5 x 2 + 1; what arrives passes it last."""
    fleet = build(asked(peers=2, topology=Complete(), task=Quadratic()))
    for wrappers, sent, arrived in (((Shift(), Double()), 12.0, 11.0), ((Double(), Shift()), 11.0, 12.0)):
        peer = make_peer(replace(fleet, experiment=fleet.experiment.replace(wrappers=wrappers)), 0, np.zeros(1, np.float32))
        assert isinstance(peer, WrappedPeer)
        five = Dense(np.full(1, 5.0, np.float32))
        (effect,), _, _ = run_until_blocked(peer._between(peer.send(1, five)))  # type: ignore[arg-type]
        parcel: Any = effect.parcel  # type: ignore[attr-defined]
        assert decode(decode_head(parcel.head), parcel.body, peer.spaces).values == [sent]
        peer.deliver(Message(1, 0, five, (), 0))
        assert [message.payload.values[0] for message in peer.arrived()] == [arrived]


def test_arrivals_are_dropped_and_added(tmp_path: Path) -> None:
    """The strategy of peer 0 never hears peer 3, and peer 5 twice; the fleet carries the same messages as ever."""
    experiment = asked(
        strategy=Slices(), topology=Complete(), stop=Stop(steps=30), wrappers=[Deaf(deaf_to=3, twice=5, peers=(0,))]
    )
    world = make_world(tmp_path, experiment)
    outcome = world.run()
    assert outcome.completed
    peer = world.members[0].peer
    assert isinstance(peer, WrappedPeer)
    assert peer.staleness[3].messages == 0
    assert peer.altered["deaf: arrivals dropped"] > 10
    heard = peer.staleness[5].messages + sum(item.source == 5 for item in peer.inbox)
    assert heard == 2 * peer.altered["deaf: arrivals added"]


class Together(Wrapper, frozen=True, tag="together"):
    """Colluders take the mean of all their gradients of two steps before."""

    colludes: ClassVar[bool] = True

    def computed(self, station: Station, gradient: np.ndarray) -> np.ndarray:
        station.post(gradient)
        step = station.peer.step
        shared = [each.payload.values for each in station.posted() if each.step == step - 2]
        if step < 2:
            return gradient
        assert len(shared) == len(self.among(station.peer.peers))
        return np.mean(shared, axis=0, dtype=np.float64).astype(np.float32)


def test_colluders_act_on_what_they_share(tmp_path: Path) -> None:
    """With everybody averaging each step, the models of a step are all known: x <- W x - eta g, two of the g shared and old."""
    colluders, steps = [1, 6], 40
    experiment = asked(topology=Complete(), wrappers=[Together(peers=tuple(colluders))], stop=Stop(steps=steps))
    result = run(experiment, out=tmp_path / "run")
    assert result.summary["completed"], result.summary["reason"]
    models, targets = np.zeros(8), np.array(TARGETS)
    made: list[np.ndarray] = []
    for step in range(steps):
        made.append(models - targets)
        used = made[-1].copy()
        if step >= 2:
            used[colluders] = made[step - 2][colluders].mean()
        models = models.mean() - RATE * used
    np.testing.assert_allclose(result.weights, np.tile(models[:, None], 3), atol=1e-4)


@pytest.mark.live
def test_both_worlds_agree_on_wrapped_peers(tmp_path: Path) -> None:
    """Colluders in processes of their own share a board in a file; what is altered and counted is the same."""
    wrappers = (Together(peers=(1, 3)), Scale(peers=(0,), factor=0.5), Ascent(peers=(2,)))
    task = Quadratic(targets=TARGETS[:4], dimension=3)
    wrapped = asked(peers=4, topology=Complete(), task=task, wrappers=wrappers, stop=Stop(steps=30), codec=Int8())
    virtual = run(wrapped, out=tmp_path / "virtual")
    live = run(wrapped.replace(world=Experiment().world), out=tmp_path / "live")
    assert live.summary["completed"], live.summary["reason"]
    np.testing.assert_allclose(live.weights, virtual.weights, atol=1e-5)
    for key, value in (("wrapped", [0, 1, 2, 3]), ("altered", virtual.summary["altered"])):
        assert live.summary[key] == value
    assert virtual.summary["altered"] == {
        "ascent: gradients altered": 30, "scale: sends altered": 90, "together: gradients altered": 56,
    }  # fmt: skip


class Spies(Wrapper, frozen=True, tag="spies"):
    """Colluders put all that they send and receive on the board, and look at it whenever they send."""

    colludes: ClassVar[bool] = True

    def sending(self, station: Station, message: Outgoing) -> Iterable[Outgoing]:
        station.post(message)
        return (message,)

    def arriving(self, station: Station, message: Message) -> Iterable[Message]:
        station.post(message)
        return (message,)


def test_the_board_holds_exactly_what_colluders_sent_and_received(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    delivered: list[tuple[int, int, int, int]] = []
    deliver = Peer.deliver

    def heard(peer: Peer, message: Any) -> None:
        delivered.append((message.source, peer.id, message.step, message.arrived_ns))
        deliver(peer, message)

    monkeypatch.setattr(Peer, "deliver", heard)
    world = make_world(tmp_path, asked(wrappers=[Spies(peers=(2, 5)), Nothing(peers=(4,))], stop=Stop(steps=12)))
    assert world.run().completed
    peer = world.members[2].peer
    assert isinstance(peer, WrappedPeer)
    peer.stations[0].now_ns = world.now_ns
    posted = peer.stations[0].posted()
    received = {(each.source, each.target, each.step, each.time_ns) for each in posted if each.source != each.peer}
    assert received == {each for each in delivered if each[1] in (2, 5)}
    sent = {(each.source, each.target, each.step) for each in posted if each.source == each.peer}
    assert sent == {(source, target, step) for source in (2, 5) for target in (source - 1, source + 1) for step in range(12)}
    assert [each.time_ns for each in posted] == sorted(each.time_ns for each in posted)
    lone = world.members[4].peer
    assert isinstance(lone, WrappedPeer)
    with pytest.raises(ValueError, match="Nothing has no board: set `colludes"):
        lone.stations[0].posted()


def test_what_a_wrapper_draws_is_its_own(tmp_path: Path) -> None:
    """Another wrapper elsewhere changes no draw of the first, and the same seed drops the same messages."""
    base = asked(strategy=Slices(), stop=Stop(steps=30))
    wrappers = [(Drop(share=0.5, peers=(1,)),), (Drop(share=0.5, peers=(1,)), Drop(share=0.0, peers=(6,)))]
    digests = {run(base.replace(wrappers=each), out=tmp_path / str(i)).summary["digest"] for i, each in enumerate(wrappers)}
    assert len(digests) == 1
    other = run(base.replace(wrappers=wrappers[0], seed=5), out=tmp_path / "other").summary["digest"]
    assert other not in digests


class Wide(Strategy, frozen=True, tag="wide"):
    """Declares a space that takes no memory until somebody uses it."""

    def spaces(self, facts: Facts) -> tuple[Space, ...]:
        return (Space("wide", 2**28),)

    async def run(self, peer: Peer) -> None:
        return


def test_a_board_too_large_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"wrappers\[0\].peers: the board of 8 colluders would take more than 1"):
        build(asked(strategy=Wide(), wrappers=[Together()]))


class Wrong(Wrapper, frozen=True, tag="wrong"):
    """Answers with what it must not."""

    answer: Any = None

    def sending(self, station: Station, message: Outgoing) -> Any:
        return self.answer


class Odd(Wrapper, frozen=True, tag="odd"):
    """Sends messages that no peer may take."""

    way: str

    def sending(self, station: Station, message: Outgoing) -> Iterable[Outgoing]:
        size, ones = station.peer.size, np.ones(2, np.float32)
        return [
            {
                "beyond": message._replace(payload=Dense(ones, start=size - 1)),
                "before": message._replace(payload=Dense(ones, start=-1)),
                "order": message._replace(payload=Sparse(np.array([2, 1], np.uint32), ones)),
                "far": message._replace(payload=Sparse(np.array([0, size], np.uint32), ones)),
                "marks": message._replace(payload=Marks(np.array([1, 1], np.uint32))),
                "scalars": message._replace(scalars=(1.0,) * 17),
                "step": message._replace(step=-1),
            }[self.way]
        ]


class Counts(Strategy, frozen=True, tag="counts"):
    """Peer 0 sends its model at each step; the others take what has arrived."""

    shares: ClassVar[Any] = "parameters"

    async def run(self, peer: Peer) -> None:
        while peer.running:
            peer.apply(await peer.gradient())
            if peer.id == 0:
                await peer.broadcast(Dense(peer.weights))
            for message in peer.arrived():
                peer.note("taken", peer.notes.get("taken", 0) + 1)
                peer.weights[message.payload.where()] += message.payload.values


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("beyond", "range"), ("before", "head"), ("order", "indices"), ("far", "indices"), ("marks", "indices"),
        ("scalars", "head"), ("step", "head"),
    ],
)  # fmt: skip
def test_a_message_of_a_wrapper_that_is_not_valid_is_dropped_and_counted_in_virtual_time(
    tmp_path: Path, way: str, kind: str
) -> None:
    """The link carries it, as it does in real time, and the receiver's checks of the wire refuse it."""
    experiment = asked(strategy=Counts(), wrappers=[Odd(way=way, peers=(0,))], stop=Stop(time="1 s"))
    world = make_world(tmp_path, experiment)
    outcome = world.run()
    assert outcome.completed, outcome.reason
    for receiver in (1, 7):
        peer = world.members[receiver].peer
        arrived = world.transport.links[0, receiver].sent.messages
        assert peer.errors.keys() == {kind}
        assert 80 <= peer.errors[kind] <= arrived <= 101
        assert "taken" not in peer.notes
    assert any(f"{kind} " in warning for warning in outcome.warnings)


def test_a_message_in_bytes_of_a_peer_that_is_a_neighbour_a_moment_later_is_kept() -> None:
    """A wrapped peer decides which neighbours it has when it takes a message, as any peer does."""
    fleet = build(asked(peers=8, wrappers=[Nothing()]))
    peer = make_peer(fleet, 0, np.zeros(3, np.float32))
    parcel = encode(Dense(np.ones(3, np.float32)), peer.codec, 0)[0]
    peer.deliver(Arrival(4, 0, parcel.head, parcel.body, 0, parcel.size_bytes))
    peer.admit(4, 0.1)
    assert [message.source for message in peer.arrived()] == [4]


class Late(Wrapper, frozen=True, tag="late"):
    """Lets messages leave a millisecond later, in a number of a given type."""

    number: Any

    def sending(self, station: Station, message: Outgoing) -> Iterable[Outgoing]:
        return [message._replace(leaves_ns=self.number(message.leaves_ns + 10**6))]


@pytest.mark.parametrize(
    ("number", "accepted"), [(int, True), (np.int64, True), (float, False), (np.float64, False), (str, False)]
)
def test_the_time_at_which_a_message_leaves_is_a_whole_number(tmp_path: Path, number: Any, accepted: bool) -> None:
    """The wire holds no other number, so virtual time refuses it too."""
    outcome = make_world(tmp_path, asked(wrappers=[Late(number=number, peers=(3,))], stop=Stop(steps=3))).run()
    assert outcome.completed == accepted
    assert accepted or "Late.sending returned" in outcome.reason
    assert accepted or "leaves_ns as a whole number of ns" in outcome.reason


def test_a_peer_that_could_not_read_for_seconds_is_named(tmp_path: Path) -> None:
    world = make_world(tmp_path, asked(stop=Stop(steps=3)))
    world.members[5].endpoint.errors[BLOCKED] = 2
    warnings = world.run().warnings
    assert [warning.partition(",")[0] for warning in warnings] == ["peer 5 read no messages for 2 s"]


@pytest.mark.parametrize("answer", [None, 5, [None]])
def test_a_wrapper_that_answers_wrongly_is_named(tmp_path: Path, answer: Any) -> None:
    outcome = make_world(tmp_path, asked(wrappers=[Wrong(answer=answer, peers=(3,))], stop=Stop(steps=3))).run()
    assert "Wrong.sending returned" in outcome.reason
    assert list(outcome.peers_lost) == [3]
