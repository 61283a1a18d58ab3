"""Conservation: what a peer made = what it paid + what it owes, after any interleaving."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grapevine.peer.codecs import AnyCodec, Float16, Float32, Int8
from grapevine.peer.ledger import Above, All, Largest, Ledger, Next
from grapevine.peer.payloads import Dense, decode, decode_head, encode
from grapevine.peer.spaces import Spaces

SIZE = 23
NEIGHBOURS = (3, 7, 9)

picks = st.one_of(
    st.builds(Next, st.integers(0, SIZE + 5)),
    st.builds(Largest, st.integers(0, SIZE + 5)),
    st.builds(Above, st.floats(0, 3)),
    st.just(All()),
)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 2**32 - 1)),
        st.tuples(st.just("pay"), st.sampled_from(NEIGHBOURS), picks),
    ),
    max_size=40,
)


@pytest.mark.slow
@given(actions, st.sampled_from([Float32(), Float16(), Int8()]))
@settings(max_examples=150, deadline=None)
def test_made_is_paid_and_owed(steps: list[tuple], codec: AnyCodec) -> None:
    """Through the wire: what neighbours read, plus what is still owed to them, is exactly what was made."""
    ledger = Ledger(SIZE, NEIGHBOURS)
    made = np.zeros(SIZE)
    read_by = {neighbour: np.zeros(SIZE) for neighbour in NEIGHBOURS}
    for step in steps:
        if step[0] == "add":
            update = np.random.default_rng(step[1]).normal(size=SIZE).astype(np.float32)
            ledger.add(update)
            made += update
            continue
        _, neighbour, pick = step
        payload = ledger.take(neighbour, pick)
        parcel, read = encode(payload, codec, step=0)
        ledger.refund(neighbour, payload, read)
        arrived = decode(decode_head(parcel.head), parcel.body, Spaces(SIZE, codec))
        read_by[neighbour][arrived.where()] += arrived.values
    for neighbour in NEIGHBOURS:
        np.testing.assert_allclose(read_by[neighbour] + ledger.owed(neighbour), made, rtol=0, atol=1e-9)


def test_lossless_payment_in_full_leaves_no_debt_beyond_float32() -> None:
    ledger = Ledger(SIZE, [1])
    update = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)
    ledger.add(update)
    assert np.array_equal(ledger.take(1, All()).values, update)
    assert not ledger.owed(1).any()


def test_next_goes_round_and_each_neighbour_starts_elsewhere() -> None:
    ledger = Ledger(12, [0, 1, 2])
    starts = {neighbour: ledger.take(neighbour, Next(5)).start for neighbour in (0, 1, 2)}
    assert starts == {0: 0, 1: 4, 2: 8}
    second = [ledger.take(0, Next(5)) for _ in range(3)]
    assert [(part.start, part.stop) for part in second if isinstance(part, Dense)] == [(5, 10), (10, 12), (0, 5)]


def test_every_element_is_paid_once_a_round() -> None:
    ledger = Ledger(12, [5])
    ledger.add(np.ones(12))
    total = np.zeros(12)
    for _ in range(4):
        part = ledger.take(5, Next(3))
        total[part.where()] += part.values
    assert np.array_equal(total, np.ones(12))


def test_largest_and_above_pick_what_they_say() -> None:
    ledger = Ledger(6, [1])
    ledger.add(np.array([0.1, -5, 2, 0, 3, -0.2]))
    assert ledger.take(1, Largest(2)).where().tolist() == [1, 4]
    assert ledger.take(1, Above(0.15)).where().tolist() == [2, 5]
    assert ledger.take(1, Largest(0)).values.size == 0
    assert ledger.owed(1) == pytest.approx([0.1, 0, 0, 0, 0, 0], abs=1e-6)


def test_a_small_update_is_not_lost_in_a_large_total() -> None:
    ledger = Ledger(1, [1])
    ledger.add(np.array([1e6]))
    ledger.take(1, All())
    for _ in range(1000):
        ledger.add(np.array([1e-5], np.float32))
    assert ledger.owed(1)[0] == pytest.approx(1e-2, rel=1e-4)  # float32 sums would still say 0


def test_a_forgotten_neighbour_has_no_account() -> None:
    ledger = Ledger(4, [1, 2])
    ledger.forget(1)
    assert list(ledger.paid) == [2]


@pytest.mark.parametrize("update", [np.ones(3), np.ones((4, 1)), np.float64(1.0)])
def test_an_update_of_another_shape_is_refused(update: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\[4\] is needed"):
        Ledger(4, [1]).add(update)
