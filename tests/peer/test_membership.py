"""One peer among members that change: rows, errands on the wire, and ledgers of those that join."""

from __future__ import annotations

import numpy as np
import pytest

from grapevine.peer.codecs import Float32
from grapevine.peer.ledger import All, Ledger, Next
from grapevine.peer.membership import PART, Errand, Handover, Row, Rows, _Head, is_errand, read_errand
from grapevine.peer.message import Message
from grapevine.peer.payloads import Dense, encode
from grapevine.peer.peer import Peer
from grapevine.peer.wire import WireError


def drive(coroutine) -> object:
    """Run a coroutine whose effects need no answer."""
    try:
        while True:
            coroutine.send(None)
    except StopIteration as end:
        return end.value


def peer_of(identity: int, mixing: dict[int, float], size: int = 6) -> Peer:
    peer = Peer(identity, 5, mixing, np.arange(size, dtype=np.float32))
    peer.members_change = True
    return peer


# ---- errands --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 5])
def test_an_errand_comes_off_the_wire_as_it_went_on(count: int) -> None:
    values = np.linspace(-1, 1, count, dtype=np.float32)
    parcel = Errand(_Head(3, 7, 0.5, 2, 2 + count), values).parcel()
    assert is_errand(parcel.head)
    found = read_errand(parcel.head, parcel.body, 10)
    assert (found.head.step, found.head.loss, found.head.start, found.head.stop) == (7, 0.5, 2, 2 + count)
    assert np.array_equal(found.values, values)


def test_no_strategys_message_is_taken_for_an_errand() -> None:
    for step in (0, 1, 127, 128, 2**31):
        assert not is_errand(encode(Dense(np.zeros(3, np.float32)), Float32(), step)[0].head)


@pytest.mark.parametrize(
    ("head", "body_bytes"),
    [
        (b"\xc1", 0),
        (b"\xc1\xff\xff", 0),
        (b"\xc1" + b"\x95\x09\x00\xcb" + b"\x00" * 8 + b"\x00\x00", 0),  # no such kind
        (bytes(Errand(_Head(3, 0, 0.0, 0, 4), np.zeros(4, np.float32)).parcel().head), 12),
        (bytes(Errand(_Head(3, 0, 0.0, 0, 11), np.zeros(11, np.float32)).parcel().head), 44),  # beyond the vector
        (bytes(Errand(_Head(0)).parcel().head), 4),
        (b"\xc1" + b"\x00" * 600, 0),
    ],
)
def test_a_message_that_is_not_an_errand_is_refused(head: bytes, body_bytes: int) -> None:
    with pytest.raises(WireError):
        read_errand(head, np.zeros(body_bytes, np.uint8), 10)


def test_weights_are_given_in_bounded_parts_all_of_one_instant() -> None:
    giver = peer_of(0, {1: 0.5}, size=PART + 10)
    handover = Handover(giver)
    first = handover.take(3, Errand(_Head(2, 0, 0.0, 0, PART + 10)))
    assert first is not None
    part = read_errand(first.head, first.body, giver.size)
    assert (part.head.start, part.head.stop) == (0, PART), "no more than a part, whatever was asked for"
    before = giver.weights.copy()
    giver.weights += 1
    second = handover.take(3, Errand(_Head(2, 0, 0.0, PART, PART + 10)))
    assert second is not None
    assert np.array_equal(read_errand(second.head, second.body, giver.size).values, before[PART:])
    assert handover.take(3, Errand(_Head(2, 0, 0.0, PART, PART + 99))) is None, "beyond the weights there is nothing"


def test_a_peer_without_weights_gives_none() -> None:
    peer = peer_of(0, {1: 0.5})
    handover = Handover(peer)
    handover.taking = True
    assert handover.take(1, Errand(_Head(0))) is None
    handover.taking, peer.member = False, False
    assert handover.take(1, Errand(_Head(0))) is None


# ---- rows -----------------------------------------------------------------------------------------------------------------


def test_rows_hold_from_their_step_on_and_a_peer_in_no_row_is_parted_from() -> None:
    peer = peer_of(0, {1: 0.25, 2: 0.25})
    rows = Rows(peer, Row({1: 0.25, 2: 0.25}))
    peer.rounds = rows
    peer.admit(3, 0.5)
    rows.plan(4, Row({2: 0.3, 3: 0.3}), [2, 3])
    assert peer.targets == [1, 2]
    assert [peer.sources(step) for step in (3, 4)] == [[1, 2], [2, 3]]
    assert peer.weight(Message(1, 3, Dense(peer.weights), (), 0)) == 0.25
    assert peer.weight(Message(1, 4, Dense(peer.weights), (), 0)) == 0.0
    peer.step = 4
    assert peer.targets == [2, 3]
    assert peer.neighbours == [2, 3], "the neighbour that no row has any more is parted with, now and not before"


def test_a_row_that_is_replaced_keeps_no_neighbour() -> None:
    peer = peer_of(0, {1: 0.25})
    peer.rounds = rows = Rows(peer, Row({1: 0.25}))
    peer.admit(3, 0.5)
    rows.plan(4, Row({3: 0.5}), [3])
    rows.plan(4, Row({1: 0.5}), [1])
    peer.step = 4
    assert peer.targets == [1]
    assert peer.neighbours == [1]


# ---- ledgers --------------------------------------------------------------------------------------------------------------


def test_a_new_account_owes_from_now_on() -> None:
    ledger = Ledger(4, [1])
    ledger.add(np.ones(4))
    ledger.open(2)
    assert not ledger.owed(2).any()
    ledger.add(np.ones(4))
    assert (ledger.owed(2) == 1).all()
    assert (ledger.owed(1) == 2).all()


def test_a_giver_owes_a_joiner_what_it_made_since_it_gave() -> None:
    giver = peer_of(0, {1: 0.5})
    ledger = giver.new_ledger()
    ledger.add(np.full(6, 2.0))
    giver.hand_over(4)
    ledger.add(np.full(6, 3.0))
    giver.admit(4, 0.3, {0: -1})
    np.testing.assert_array_equal(ledger.owed(4), np.full(6, 3.0))
    assert not giver.joiner_debts.handed, "what was set aside is forgotten"


def test_a_third_peer_owes_a_joiner_what_it_owes_the_giver_and_what_was_on_its_way_there() -> None:
    third = peer_of(0, {1: 0.5, 2: 0.5})
    ledger = third.new_ledger()
    for step in range(3):
        third.step = step
        ledger.add(np.arange(6.0) + 10 * step)
        drive(third.pay(1, Next(2)))
    lacked = ledger.owed(1).copy()
    lacked[2:6] += ledger.paid[1][2:6]  # what was paid at steps 1 and 2: the giver had taken in what was sent at step 0
    third.admit(4, 0.3, {1: 0})
    np.testing.assert_allclose(ledger.owed(4), lacked, atol=1e-6)


def test_of_the_mean_of_two_givers_a_joiner_lacks_the_mean_of_what_they_lack() -> None:
    third = peer_of(0, {1: 0.5, 2: 0.5})
    ledger = third.new_ledger()
    ledger.add(np.full(6, 4.0))
    drive(third.pay(1, All()))
    third.admit(4, 0.3, {1: 0, 2: -1})
    np.testing.assert_allclose(ledger.owed(4), np.full(6, 2.0))


def test_a_ledger_of_one_account_for_all_opens_none() -> None:
    peer = peer_of(0, {1: 0.5})
    peer.ledger = Ledger(6, [0])
    peer.admit(2, 0.3)
    assert list(peer.ledger.paid) == [0]


# ---- leaving --------------------------------------------------------------------------------------------------------------


def test_a_peer_runs_until_the_step_at_which_it_leaves() -> None:
    peer = peer_of(0, {1: 0.5})
    peer.leave_at(3)
    assert peer.running
    assert not peer.leaving
    peer.step = 3
    assert not peer.running
    assert peer.leaving


def test_a_strategy_that_leaves_has_to_say_so() -> None:
    with pytest.raises(RuntimeError, match="leaves = True"):
        drive(peer_of(0, {1: 0.5}).leave())


def test_a_peer_that_enters_begins_with_nothing_owed_or_heard() -> None:
    peer = peer_of(0, {1: 0.5})
    peer.new_ledger()
    peer.depart()
    assert (peer.member, peer.neighbours) == (False, [])
    peer.enter(7, {2: 0.25})
    assert (peer.member, peer.neighbours, peer.step, peer.first_step, peer.ledger) == (True, [2], 7, 7, None)
