"""The peer's verbs, without any world: what they await, what they take, and what a loss changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from grapevine.peer.codecs import QSGD, Codec, Float16, Int8
from grapevine.peer.effects import Receive, Send, Sleep, Work
from grapevine.peer.endpoint import Arrival, Endpoint
from grapevine.peer.expected import Expected, misfit
from grapevine.peer.ledger import All
from grapevine.peer.message import Message
from grapevine.peer.payloads import Dense, Marks, Parcel, Payload, Sparse, encode
from grapevine.peer.peer import Peer
from tests.helpers import answer, give, make_peer, run_until_blocked


def arrival(peer: Peer, source: int, payload: Payload, step: int = 0, arrived_ns: int = 0) -> None:
    parcel, _ = encode(payload, peer.codec, step)
    peer.deliver(Arrival(source, 0, parcel.head, parcel.body, arrived_ns, parcel.size_bytes))


def model(value: float, size: int = 8) -> Dense:
    return Dense(np.full(size, value, np.float32))


def test_gather_waits_for_every_neighbour_and_keeps_later_steps() -> None:
    peer = make_peer(0, {1: 0.3, 2: 0.3})
    work = peer.gather(step=4)
    arrival(peer, 2, model(2), step=4)
    arrival(peer, 1, model(9), step=3)  # too late: dropped
    arrival(peer, 2, model(5), step=5)
    effects, _, ended = run_until_blocked(work)
    assert isinstance(effects[-1], Receive)
    assert not ended
    arrival(peer, 1, model(1), step=4)
    _, messages, ended = run_until_blocked(work)
    assert ended
    assert [(message.source, message.payload.values[0]) for message in messages] == [(1, 1.0), (2, 2.0)]
    arrival(peer, 1, model(6), step=5)
    _, messages, _ = run_until_blocked(peer.gather(step=5))
    assert [message.payload.values[0] for message in messages] == [6.0, 5.0]


def test_gather_forgets_messages_of_past_steps() -> None:
    """However many come too late, the inbox does not grow."""
    peer = make_peer(0, {1: 0.3, 2: 0.3})
    for step in range(1, 6):
        for late in range(step):
            arrival(peer, 1, model(9), step=late)
        for source in (1, 2):
            arrival(peer, source, model(source), step=step)
        _, messages, ended = run_until_blocked(peer.gather(step=step))
        assert ended
        assert [message.step for message in messages] == [step, step]
        assert len(peer.inbox) == 0


@pytest.mark.parametrize("bad", [np.full(8, np.nan), np.r_[np.zeros(7), np.inf], np.zeros(0)], ids=["nan", "inf", "empty"])
def test_gather_counts_a_message_that_does_not_fit_as_missing(bad: np.ndarray) -> None:
    """Nobody waits for another, and the sender's weight stays with the receiver."""
    peer = make_peer(0, {1: 0.3, 2: 0.3})
    work = peer.gather(step=0)
    arrival(peer, 2, model(5))
    arrival(peer, 1, Dense(bad.astype(np.float32)))
    _, messages, ended = run_until_blocked(work)
    assert ended
    assert [message.source for message in messages] == [2]
    assert peer.errors == {"not-finite" if len(bad) else "empty": 1}
    peer.mix(messages, own=peer.weights.copy())
    np.testing.assert_allclose(peer.weights, 0.3 * 5)


def test_values_that_are_not_finite_never_leave() -> None:
    peer = make_peer(0, {1: 0.3})
    peer.weights[3] = np.nan
    effects, read, _ = run_until_blocked(peer.send(1, Dense(peer.weights)))
    assert isinstance(effects[0], Send)
    assert effects[0].parcel.payload.count == 0
    assert np.isnan(read[3])
    assert peer.errors == {"sent-empty": 1}


FORMS = (Expected("whole", ((0.0, 2.0),)), Expected("part", (), (1,), slice(2, 4)), Expected("chosen"), Expected("none"))


@pytest.mark.parametrize(
    ("source", "payload", "scalars", "word"),
    [
        (2, model(1), (2.0,), ""),
        (2, model(1), (2.5,), "unexpected"),
        (2, model(1), (float("nan"),), "unexpected"),
        (2, model(1), (1.0, 1.0), "unexpected"),
        (2, model(1, size=7), (1.0,), "unexpected"),
        (2, model(1, size=0), (1.0,), "empty"),
        (1, Dense(np.ones(2, np.float32), 2), (), ""),
        (2, Dense(np.ones(2, np.float32), 2), (), "unexpected"),
        (1, Dense(np.ones(2, np.float32), 3), (), "unexpected"),
        (2, Sparse(np.array([7], np.uint32), np.array([2], np.float32)), (), ""),
        (2, Sparse(np.array([7], np.uint32), np.array([-np.inf], np.float32)), (), "not-finite"),
        (2, Marks(np.array([7], np.uint32)), (), "unexpected"),
        (2, Sparse(np.zeros(0, np.uint32), np.zeros(0, np.float32)), (), ""),
    ],
)
def test_a_message_is_held_against_what_is_expected(
    source: int, payload: Payload, scalars: tuple[float, ...], word: str
) -> None:
    assert misfit(Message(source, 0, payload, scalars, 0), 8, FORMS) == word


def test_gather_goes_on_without_a_lost_neighbour() -> None:
    peer = make_peer(0, {1: 0.3, 2: 0.3})
    work = peer.gather(step=0)
    arrival(peer, 1, model(1))
    run_until_blocked(work)
    assert peer.lose(2)
    _, messages, ended = run_until_blocked(work)
    assert ended
    assert [message.source for message in messages] == [1]


def test_receive_returns_none_when_a_neighbour_is_lost() -> None:
    peer = make_peer(0, {1: 0.3, 2: 0.3})
    work = peer.receive()
    run_until_blocked(work)
    peer.lose(1)
    assert run_until_blocked(work)[1:] == (None, True)


def test_arrived_takes_everything_in_order_and_drops_the_dead() -> None:
    peer = make_peer(0, {1: 0.3, 2: 0.3})
    for source, value in ((2, 1), (1, 2), (2, 3)):
        arrival(peer, source, model(value))
    peer.lose(1)
    assert [message.payload.values[0] for message in peer.arrived()] == [1.0, 3.0]
    assert peer.arrived() == []


def test_a_message_that_does_not_fit_is_counted_and_dropped() -> None:
    peer = make_peer(0, {1: 0.3})
    arrival(peer, 1, model(1, size=9))
    peer.deliver(Arrival(1, 0, b"\xff\xff", np.zeros(4, np.uint8), 0, 4))
    assert peer.arrived() == []
    assert peer.errors == {"range": 1, "head": 1}


def test_a_loss_returns_the_weight_to_the_peer_itself() -> None:
    """Survivors' rows still add up to one, and their matrix stays symmetric: nobody else's weight has changed."""
    peer = make_peer(0, {1: 0.25, 2: 0.35})
    peer.weights[:] = 1
    peer.lose(2)
    assert not peer.lose(2)
    peer.mix([Message(1, 0, model(5), (), 0)], own=peer.weights.copy())
    np.testing.assert_allclose(peer.weights, 0.75 * 1 + 0.25 * 5)


@pytest.mark.parametrize("codec", [None, Int8()])
def test_mixing_keeps_the_mean_of_a_pair(codec: Int8 | None) -> None:
    """Also with a codec that rounds: what one takes the other gives."""
    rng = np.random.default_rng(0)
    first, second = (make_peer(identity, {1 - identity: 0.5}, size=2000, codec=codec) for identity in (0, 1))
    for peer in (first, second):
        peer.weights[:] = rng.normal(size=2000)
    before = first.weights.astype(float) + second.weights
    read = [encode(Dense(peer.weights), peer.codec, 0)[1] for peer in (first, second)]
    for peer, other in ((first, 1), (second, 0)):
        peer.mix([Message(other, 0, Dense(read[other]), (), 0)], own=read[peer.id])
    np.testing.assert_allclose(first.weights.astype(float) + second.weights, before, atol=1e-6)


def test_mix_ignores_a_model_that_is_not_whole() -> None:
    peer = make_peer(0, {1: 0.5})
    peer.weights[:] = 1
    peer.mix([Message(1, 0, Dense(np.ones(3, np.float32) * 9), (), 0)], own=peer.weights.copy())
    assert peer.weights.tolist() == [1.0] * 8
    assert peer.errors["range"] == 1


def test_blend_moves_only_what_came() -> None:
    peer = make_peer(0, {1: 0.5})
    peer.blend(Message(1, 0, Dense(np.array([4, 8], np.float32), 2), (), 0), 0.25)
    peer.blend(Message(1, 0, Sparse(np.array([7], np.uint32), np.array([2], np.float32)), (), 0), 0.5)
    assert peer.weights.tolist() == [0, 0, 1, 2, 0, 0, 0, 1]


@pytest.mark.parametrize(
    "payload",
    [
        Dense(np.zeros(0, np.float32)),
        Dense(np.zeros(0, np.float32), 8),
        Sparse(np.zeros(0, np.uint32), np.zeros(0, np.float32)),
    ],
)
def test_blend_with_a_message_without_elements_moves_nothing(payload: Payload) -> None:
    peer = make_peer(0, {1: 0.5})
    peer.weights[:] = np.arange(8)
    peer.blend(Message(1, 0, payload, (), 0), 0.25)
    assert peer.weights.tolist() == list(range(8))


def test_weights_are_one_array_that_an_assignment_fills() -> None:
    peer = make_peer(0, {1: 0.5})
    before, copied = peer.weights, peer.weights.copy()
    peer.weights = np.ones(8, np.float32)
    assert peer.weights is before
    assert (peer.weights - before).tolist() == [0.0] * 8
    assert (peer.weights - copied).tolist() == [1.0] * 8


def test_verbs_await_what_they_say() -> None:
    peer = make_peer(0, {1: 0.5, 2: 0.5})
    peer.now_ns = 10
    sends, _, _ = run_until_blocked(peer.broadcast(model(1)))
    assert isinstance(sends[0], Send)
    assert sends[0].targets == (1, 2)
    sleep = run_until_blocked(peer.sleep(5))[0][0]
    assert isinstance(sleep, Sleep)
    assert sleep.until_ns == 15
    work = peer.gradient()
    (effect,), _, _ = run_until_blocked(work)
    assert isinstance(effect, Work)
    assert (effect.name, effect.count, effect.batch, effect.weights) == ("gradient", 32, None, None)
    peer.now_ns = 30
    gradient = np.ones(8, np.float32)
    assert run_until_blocked(work, (0.5, gradient))[1] is gradient
    assert (peer.speed.step_ns, peer.take_loss(), peer.samples) == (20, 0.5, 32)


def test_paying_with_a_rounding_codec_leaves_the_rounding_owed() -> None:
    peer = make_peer(0, {1: 0.5}, codec=Int8())
    ledger = peer.new_ledger()
    made = np.random.default_rng(1).normal(size=8)
    ledger.add(made)
    sends, _, _ = run_until_blocked(peer.pay(1, All()))
    assert isinstance(sends[0], Send)
    owed = ledger.owed(1)
    assert 0 < np.abs(owed).max() <= np.abs(made).max() / 254 * 1.001


def test_running_ends_with_the_steps_or_the_world() -> None:
    peer = make_peer(0, {1: 0.5}, steps_limit=2)
    for _ in range(2):
        assert peer.running
        peer.apply(np.ones(8, np.float32))
    assert not peer.running
    other = make_peer(0, {1: 0.5})
    other.stopped = True
    assert not other.running


def test_staleness_counts_steps_behind() -> None:
    peer = make_peer(0, {1: 0.5})
    peer.step = 7
    arrival(peer, 1, model(1), step=4)
    arrival(peer, 1, model(1), step=9)
    peer.arrived()
    assert (peer.staleness[1].steps, peer.staleness[1].messages) == (3, 2)


@pytest.mark.parametrize(("fill", "index_bytes"), [(1.0, 0), (0.1, 0), (0.9, 4)])
def test_a_link_measured_far_too_slow_saves_up_for_a_message_that_measures(fill: float, index_bytes: int) -> None:
    """A message across a cut measured 100 bytes/s: what goes next can be cut in two, so the link is measured again."""
    peer = make_peer(0, {1: 0.5}, size=10_000)
    meter = peer.meters[1]
    answer(meter, give(meter, 2_000, 0, 20e6), 10_000_000_000, 0)
    assert meter.rate_bytes_per_s == pytest.approx(100)
    answer(meter, give(meter, int(peer.size), 0, 20e6), 90_000_000_000, 0)
    waited_s = 0
    while not (count := peer.room(1, fill, index_bytes)):
        waited_s += 1
        peer.now_ns = waited_s * 1_000_000_000
        assert waited_s < 200
    body_bytes = (4 + index_bytes) * count
    prepared = Endpoint(0, [1], 10**6).prepare(1, Parcel(b"", np.zeros(body_bytes, np.uint8), 0, Marks(np.zeros(0))), 0, 0.0)
    assert prepared.first_bytes < prepared.size_bytes


def test_room_is_in_elements_and_at_least_one_where_there_is_any() -> None:
    peer = make_peer(0, {1: 0.5}, size=10_000)
    meter = peer.meters[1]
    answer(meter, give(meter, 2_000, 0, 20e6), 1_000_000, 0)  # 1 MB/s: 20 ms hold 20,000 bytes
    overhead = 20_000 - 4 * peer.room(1)
    assert 0 < overhead < 200
    message = give(meter, 20_000, 0, 20e6)
    peer.room(1, 0.5)
    answer(meter, message, 19_000_000, 10_000_000)
    peer.now_ns = 16_000_000
    assert peer.room(1, 0.5) == pytest.approx((8_000 - overhead) / 4, abs=1)  # half of what the link carries in 16 ms
    tiny = make_peer(0, {1: 0.5}, size=1)
    assert tiny.room(1, 0.9) == 1
    give(meter, 20_000, 0, 20e6)
    assert peer.room(1) == 0


def test_weights_that_are_assigned_go_into_the_worlds_array() -> None:
    peer = make_peer(0, {1: 0.5}, size=3)
    of_the_world = peer.weights
    peer.weights = np.array([1.0, 2.0, 3.0])
    assert peer.weights is of_the_world
    assert of_the_world.tolist() == [1.0, 2.0, 3.0]
    for wrong in (np.zeros(2), np.zeros((3, 1)), 1.0):
        with pytest.raises(ValueError, match=r"\[3\] is needed"):
            peer.weights = wrong  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("gradient", "words"), [(np.zeros(2), r"an array of shape \[2\]"), (np.float32(0.1), "a float32"), (0.1, "a float")]
)
def test_only_a_gradient_of_the_models_size_is_applied(gradient: Any, words: str) -> None:
    peer = make_peer(0, {1: 0.5}, size=3)
    with pytest.raises(ValueError, match=rf"the gradient is {words}.*\[3\] is needed"):
        peer.apply(gradient)
    assert (peer.step, peer.weights.tolist()) == (0, [0.0, 0.0, 0.0])


def test_a_forgotten_await_is_named() -> None:
    peer = make_peer(0, {1: 0.5}, size=3)
    forgotten: Any = peer.gradient()
    with pytest.raises(ValueError, match="write await before it"):
        peer.apply(forgotten)
    forgotten.close()


def test_a_message_to_a_stranger_is_refused_and_one_to_a_lost_neighbour_is_not() -> None:
    peer = make_peer(0, {1: 0.5, 2: 0.25}, size=3)
    peer.lose(1)
    run_until_blocked(peer.send(1, Dense(peer.weights)))
    with pytest.raises(ValueError, match=r"peer 5 is not a neighbour of peer 0; its neighbours are \[2\]"):
        run_until_blocked(peer.send(5, Dense(peer.weights)))


@pytest.mark.parametrize("codec", [None, Float16(), Int8()])
def test_what_is_added_between_sending_and_mixing_is_kept(codec: Codec | None) -> None:
    """x_i <- x_i + (sum_j W_ij q_j) - q_i, whatever has been added to x_i since q_i was sent."""
    peers = [make_peer(i, {1 - i: 0.5}, size=40, codec=codec) for i in (0, 1)]
    rng = np.random.default_rng(0)
    for peer in peers:
        peer.weights = rng.normal(size=40).astype(np.float32)
    sent = [run_until_blocked(peer.broadcast_model())[1] for peer in peers]
    before = sum(peer.weights.astype(np.float64) for peer in peers)
    peers[0].weights += np.float32(3.0)
    for peer, other in zip(peers, sent[::-1], strict=True):
        peer.mix([Message(1 - peer.id, 0, Dense(other), (), 0)], sent[peer.id])
    np.testing.assert_allclose(sum(peer.weights.astype(np.float64) for peer in peers), before + 3.0, atol=1e-5)


def mass_and_sum(peer: Peer) -> tuple[float, np.ndarray]:
    assert peer.mass is not None
    kept = 0.0 if peer._unsent is None else peer._unsent.astype(np.float64)
    return peer.mass, peer.mass * peer.weights.astype(np.float64) + kept


@pytest.mark.parametrize("codec", [None, Int8(), QSGD(levels=1)])
@pytest.mark.parametrize("pairs", ["together", "one-by-one", "twice"])
def test_push_sum_keeps_mass_and_mean_at_every_moment(codec: Codec | None, pairs: str) -> None:
    """Sum of mass and of mass x model over peers and messages: also if several rounds are sent before one is mixed."""
    edges = {0: {1: 0.5, 2: 0.5}, 1: {2: 0.5, 0: 0.5}, 2: {0: 0.5, 1: 0.5}}
    peers = [make_peer(i, edges[i], size=30, codec=codec, push_sum=True) for i in range(3)]
    rng = np.random.default_rng(1)
    for peer in peers:
        peer.weights = rng.normal(size=30).astype(np.float32)
    total = sum(mass_and_sum(peer)[1] for peer in peers)
    way: list[tuple[int, Message]] = []
    for step in range(6):
        own = {}
        for peer in peers[: step % 3 + 1]:  # some send more often than others
            for _ in range(2 if pairs == "twice" else 1):
                effects, own[peer.id], _ = run_until_blocked(peer.broadcast_model())
                parcel = effects[0].parcel
                way += [(to, Message(peer.id, 0, parcel.payload, parcel.scalars, 0)) for to in effects[0].targets]
        for peer in peers:
            mine = [message for to, message in way if to == peer.id][step % 2 :]
            way = [(to, message) for to, message in way if to != peer.id or not any(message is one for one in mine)]
            for group in [[message] for message in mine] if pairs == "one-by-one" else [mine]:
                peer.mix(group, own.get(peer.id, peer.weights.copy()))
        mass = sum(mass_and_sum(peer)[0] for peer in peers) + sum(message.scalars[0] for _, message in way)
        held = sum(mass_and_sum(peer)[1] for peer in peers)
        held = held + sum(message.scalars[0] * np.asarray(message.payload.values, np.float64) for _, message in way)
        assert mass == pytest.approx(3.0, rel=1e-12)
        np.testing.assert_allclose(held, total, atol=1e-4)
