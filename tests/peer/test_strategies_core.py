"""What strategies share: the verbs, picks and payloads that more than one of them needs."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from grapevine.peer.codecs import AnyCodec, Float16, Float32, Int8
from grapevine.peer.effects import Receive
from grapevine.peer.endpoint import Arrival
from grapevine.peer.ledger import Chosen, Ledger, Next
from grapevine.peer.meter import LinkMeter, relative_speeds
from grapevine.peer.payloads import Dense, Marks, Payload, decode, decode_head, encode
from grapevine.peer.peer import Peer
from grapevine.peer.spaces import Spaces
from grapevine.peer.strategies.dgc import DGC
from grapevine.peer.wire import WireError
from tests.helpers import answer, give, make_peer, run_until_blocked


def arrival(peer: Peer, source: int, payload: Payload, step: int = 0) -> None:
    parcel, _ = encode(payload, peer.codec, step)
    peer.deliver(Arrival(source, 0, parcel.head, parcel.body, 0, parcel.size_bytes))


def number(value: float) -> Dense:
    return Dense(np.full(1, value, np.float32))


def test_expect_takes_one_neighbours_message_and_leaves_the_others() -> None:
    peer = make_peer(0, {1: 0.3, 2: 0.3})
    work = peer.expect(2)
    arrival(peer, 1, number(7))
    effects, _, ended = run_until_blocked(work)
    assert isinstance(effects[-1], Receive)
    assert not ended
    arrival(peer, 2, number(8))
    arrival(peer, 2, number(9))
    _, message, _ = run_until_blocked(work)
    assert (message.source, message.payload.values[0]) == (2, 8.0)
    assert [message.payload.values[0] for message in peer.arrived()] == [7.0, 9.0]


@pytest.mark.parametrize("lost", [1, 2])
def test_expect_ends_when_anybody_is_lost(lost: int) -> None:
    peer = make_peer(0, {1: 0.3, 2: 0.3})
    work = peer.expect(2)
    run_until_blocked(work)
    peer.lose(lost)
    assert run_until_blocked(work)[1:] == (None, True)


def test_receive_ends_at_its_deadline() -> None:
    peer = make_peer(0, {1: 0.3})
    work = peer.receive(deadline_ns=50)
    effects, _, _ = run_until_blocked(work)
    assert effects[-1].deadline_ns == 50  # type: ignore[attr-defined]
    peer.now_ns = 50
    assert run_until_blocked(work)[1:] == (None, True)


def test_receive_looks_behind_a_message_that_it_drops() -> None:
    """What a lost neighbour had sent must not keep a later message of a living one waiting."""
    peer = make_peer(0, {1: 0.3, 2: 0.3})
    arrival(peer, 1, number(1))
    arrival(peer, 2, number(2))
    peer.lose(1)
    _, message, ended = run_until_blocked(peer.receive())
    assert ended
    assert message.source == 2


@pytest.mark.parametrize("codec", [Float32(), Float16(), Int8()])
def test_room_for_chosen_elements_counts_their_indices(codec: AnyCodec) -> None:
    peer = make_peer(0, {1: 0.3}, 100_000, codec=codec)
    meter = peer.meters[1]
    answer(meter, give(meter, 100_000, 0, 20e6), 99_000_000, 101_000_000)  # 1 MB/s
    room_bytes = meter.room_bytes(0, 20e6) - 200
    count = peer.room(1, index_bytes=4)
    assert codec.body_bytes(count) + 4 * count <= room_bytes + 200
    assert codec.body_bytes(count + 40) + 4 * (count + 40) > room_bytes
    peer.lose(1)
    assert peer.room(1) == 0


def test_a_link_saves_up_room_for_as_many_steps_as_given() -> None:
    meter = LinkMeter()
    answer(meter, give(meter, 3_000, 0, 20e6), 20_000_000, 0)  # 100 kB/s: 2 kB in a horizon of 20 ms
    assert meter.room_bytes(0, 20e6) == pytest.approx(2_000)
    meter.patience = 5.0
    assert meter.room_bytes(40_000_000, 20e6) == pytest.approx(6_000)
    assert meter.room_bytes(10**9, 20e6) == pytest.approx(10_000)
    message = give(meter, 10_000, 10**9, 20e6)
    assert meter.room_bytes(10**9, 20e6) == 0  # under way
    answer(meter, message, 90_000_000, 10**9)
    assert meter.room_bytes(10**9 + 10_000_000, 20e6) == pytest.approx(1_000)


def test_a_round_goes_on_where_it_is_turned_to_and_a_debt_can_be_dropped() -> None:
    ledger = Ledger(10, [3, 5])
    ledger.add(np.arange(10.0))
    ledger.turn(3, 16)
    assert np.array_equal(ledger.take(3, Next(2)).values, [6, 7])
    assert np.array_equal(ledger.take(3, Chosen(np.array([1, 7, 9], np.uint32))).values, [1, 0, 9])
    ledger.settle(3)
    ledger.settle(4)  # a stranger, or lost meanwhile: nothing to drop
    assert not ledger.owed(3).any()
    assert np.array_equal(ledger.owed(5), np.arange(10.0))
    ledger.add(np.ones(10))
    assert np.array_equal(ledger.owed(3), np.ones(10))


def test_marks_name_elements_without_values() -> None:
    parcel, read = encode(Marks(np.array([2, 5, 7], np.uint32)), Int8(), 3)
    assert parcel.body.nbytes == 12
    payload = decode(decode_head(parcel.head), parcel.body, Spaces(8, Int8()))
    assert isinstance(payload, Marks)
    assert np.array_equal(payload.where(), [2, 5, 7])
    assert np.array_equal(payload.values, read)
    assert not payload.values.any()


@pytest.mark.parametrize("indices", [[2, 2], [5, 3], [1, 8]])
def test_marks_that_do_not_fit_are_refused(indices: list[int]) -> None:
    parcel, _ = encode(Marks(np.array(indices, np.uint32)), Float32(), 0)
    with pytest.raises(WireError, match="ascend"):
        decode(decode_head(parcel.head), parcel.body, Spaces(8))
    with pytest.raises(WireError, match="bytes"):
        decode(decode_head(parcel.head), parcel.body[:-1], Spaces(8))


def test_relative_speeds_have_the_mean_one() -> None:
    assert relative_speeds({0: 100.0, 1: 300.0}) == {0: 0.5, 1: 1.5}
    assert relative_speeds({0: inf, 1: 300.0, 2: 100.0}) == {0: 1.0, 1: 1.5, 2: 0.5}
    assert relative_speeds({0: inf}) == {0: 1.0}


def test_dgc_warms_up_in_the_stages_of_the_paper() -> None:
    stages = [DGC(warmup_steps=10).sparsity_at(step) for step in range(0, 60, 10)]
    assert stages == pytest.approx([0.75, 0.9375, 0.984375, 0.99609375, 0.999, 0.999])
    assert DGC(warmup_steps=0).sparsity_at(0) == 0.999
