"""Named spaces beside the model: what may be declared, what travels exactly, and what is refused before it is read."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grapevine.peer import payloads
from grapevine.peer.codecs import QSGD, Float16, Int8
from grapevine.peer.effects import Receive
from grapevine.peer.endpoint import Arrival
from grapevine.peer.expected import Expected, misfit
from grapevine.peer.ledger import All, Next
from grapevine.peer.message import Message
from grapevine.peer.meter import LinkMeter
from grapevine.peer.payloads import Dense, Head, Marks, Payload, Sparse, decode, decode_head, encode, message_limit_bytes
from grapevine.peer.peer import Peer
from grapevine.peer.spaces import MODEL, Space, Spaces, checked
from grapevine.peer.wire import WireError
from tests.helpers import answer, give, make_peer, run_until_blocked

VOTES, FLAGS, KEYS = Space("votes", 6, "uint32"), Space("flags", 11, "uint8"), Space("keys", 2000)
DECLARED = (VOTES, FLAGS, KEYS)
EXTREMES = {"uint32": [0, 2**32 - 1, 77], "uint8": [255, 0, 1], "float32": [-1.5, 3e38, 0.25]}


def space_peer(identity: int = 0, **options: Any) -> Peer:
    return make_peer(identity, {1 - identity: 0.5}, spaces=DECLARED, **options)


def sent(peer: Peer, payload: Payload, scalars: tuple[float, ...] = ()) -> Arrival:
    """What a neighbour gets when a peer sends it a payload, in bytes."""
    (effect,), _, _ = run_until_blocked(peer.send(1, payload, scalars))
    parcel = effect.parcel
    return Arrival(peer.id, 0, parcel.head, np.frombuffer(parcel.body.tobytes(), np.uint8), 0, parcel.size_bytes)


@pytest.mark.parametrize("codec", [None, Float16(), Int8(), QSGD()])
@pytest.mark.parametrize("space", [VOTES, FLAGS])
def test_whole_numbers_arrive_exactly_whatever_the_codec_is(space: Space, codec: Any) -> None:
    values = np.array(EXTREMES[space.dtype], np.dtype(space.dtype))
    source, target = space_peer(0, codec=codec), space_peer(1, codec=codec)
    target.deliver(sent(source, Dense(values, 2, space=space.name)))
    target.deliver(sent(source, Sparse(np.array([0, 3, 5], np.uint32), values, space=space.name)))
    target.deliver(sent(source, Marks(np.array([1, 4], np.uint32), space.name)))
    dense, sparse, marks = target.arrived()
    assert all(message.payload.space == space.name for message in (dense, sparse, marks))
    assert dense.payload.values.dtype == sparse.payload.values.dtype == values.dtype
    assert np.array_equal(dense.payload.values, values)
    assert np.array_equal(sparse.payload.values, values)
    assert (dense.payload.where(), sparse.payload.where().tolist()) == (slice(2, 5), [0, 3, 5])
    assert marks.payload.where().tolist() == [1, 4]
    assert not target.errors
    assert sent(source, Dense(values, space=space.name)).body.nbytes == 3 * values.itemsize


def test_spaces_of_floats_travel_in_the_experiments_codec() -> None:
    values = np.linspace(-1, 1, 2000, dtype=np.float32)
    source, target = space_peer(0, codec=Int8()), space_peer(1, codec=Int8())
    arrival = sent(source, Dense(values, space="keys"))
    assert arrival.body.nbytes == Int8().body_bytes(2000)
    target.deliver(arrival)
    (message,) = target.arrived()
    assert 0 < np.abs(message.payload.values - values).max() <= 1 / 254 * 1.001
    source.errors.clear()
    empty = sent(source, Dense(np.array([np.nan], np.float32), space="keys"))
    assert source.errors == {"sent-empty": 1}
    assert decode(decode_head(empty.head), empty.body, source.spaces).space == "keys"


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (Dense(np.zeros(3, np.uint32), space="ballots"), "declared are model, votes, flags, keys"),
        (Dense(np.zeros(3, np.uint32), 4, space="votes"), "does not fit into space 'votes', which has 6"),
        (Dense(np.zeros(3, np.float32), -1), "does not fit into space 'model'"),
        (Sparse(np.array([6], np.uint32), np.zeros(1, np.uint32), space="votes"), "does not fit"),
        (Sparse(np.array([2, 1], np.uint32), np.zeros(2, np.float32)), "ascend without repeats"),
        (Sparse(np.array([1, 2], np.uint32), np.zeros(3, np.float32)), "one for each value"),
        (Sparse(np.array([1, 1], np.uint32), np.zeros(2, np.float32)), "ascend without repeats"),
        (Sparse(np.array([-1, 1]), np.zeros(2, np.float32)), "does not fit"),
        (Marks(np.array([0.0, 1.0])), "are whole numbers"),
        (Marks(np.array([11], np.uint32), "flags"), "does not fit"),
        (Dense(np.zeros(3, np.float32), space="votes"), "must be whole numbers, and these are float32"),
        (Dense(np.array([256]), space="flags"), "from 256 to 256 do not fit uint8"),
        (Dense(np.array([-1]), space="votes"), "from -1 to -1 do not fit uint32"),
    ],
)
def test_a_sender_hears_what_it_did_wrong(payload: Payload, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        run_until_blocked(space_peer().send(1, payload))


def test_other_whole_numbers_that_fit_are_taken() -> None:
    """As np.bincount makes them, int64."""
    peer = space_peer()
    read = run_until_blocked(peer.send(1, Dense(np.bincount([1, 1, 3], minlength=6), space="votes")))[1]
    assert (read.dtype, read.tolist()) == (np.uint32, [0, 2, 0, 1, 0, 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.dtype("uint8"), "uint8"])
def test_a_dtype_may_be_given_as_numpys_own(dtype: Any) -> None:
    assert checked((Space("votes", 3, dtype),)) == (Space("votes", 3, "uint8"),)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ([Space(MODEL, 3)], "the model's own name"),
        ([Space("a", 3), Space("a", 4)], "declared twice"),
        ([Space("", 3)], "is empty"),
        ([Space("a", 0)], "has 0 elements"),
        ([Space("a", 2**32 + 1)], "from 1 to 2\\^32"),
        ([Space("a", 3, "float64")], 'write its dtype as text, one of "float32", "uint32", "uint8"'),  # type: ignore[arg-type]
        ([Space("a", 3, np.int8)], "holds <class .numpy.int8.>; write its dtype as text"),  # type: ignore[arg-type]
        ([("a", 3)], "is not a space"),
        ([Space(f"s{number}", 1) for number in range(65)], "at most 64"),
    ],
)
def test_what_cannot_be_a_space_is_refused(declared: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        checked(declared)


@pytest.mark.parametrize(
    ("head", "body_bytes", "word"),
    [
        ({"space": 4}, 12, "space"),
        ({"space": 64}, 12, "space"),
        ({"space": 1, "count": 7}, 28, "range"),
        ({"space": 1, "start": 4}, 12, "range"),
        ({"space": 1, "count": 2**40}, 12, "range"),
        ({"space": 1}, 11, "length"),
        ({"space": 1}, 13, "length"),
        ({"space": 1}, 3, "length"),
        ({"space": 2}, 12, "length"),
        ({"space": 2, "count": 12}, 12, "range"),
        ({"space": 1, "codec": 2}, 12, "codec"),
        ({"space": 3, "codec": 2}, 12, "codec"),
        ({"space": 1, "kind": 1}, 23, "length"),
        ({"space": 1, "kind": 1, "count": 7}, 56, "range"),
        ({"space": 1, "kind": 2, "count": 7}, 28, "range"),
        ({"space": 1, "kind": 9}, 12, "kind"),
        ({"space": 65}, 12, "head"),
        ({"space": -1}, 12, "head"),
    ],
)
def test_a_message_that_does_not_fit_its_space_is_counted_and_dropped(head: dict[str, int], body_bytes: int, word: str) -> None:
    fields = {"kind": 0, "codec": 0, "step": 0, "start": 0, "count": 3, "scalars": (), "space": 0} | head
    peer = space_peer(1)
    data = msgspec.msgpack.encode(tuple(fields.values()))
    peer.deliver(Arrival(0, 0, data, np.zeros(body_bytes, np.uint8), 0, body_bytes))
    assert peer.arrived() == []
    assert peer.errors == {word: 1}


@pytest.mark.parametrize("indices", [[6], [2, 2], [3, 1], [2**32 - 1]])
def test_indices_are_held_against_the_size_of_their_space(indices: list[int]) -> None:
    """All of them would fit the model, but not the votes."""
    places = np.array(indices, np.uint32)
    for payload in (Sparse(places, np.zeros(len(places), np.uint32), space="votes"), Marks(places, "votes")):
        parcel, _ = encode(payload, Spaces(2**32, declared=DECLARED).codecs[1], 0, number=1)
        with pytest.raises(WireError) as caught:
            decode(decode_head(parcel.head), parcel.body, Spaces(2**32, declared=DECLARED))
        assert caught.value.kind == "indices"


def test_the_largest_message_is_that_of_the_largest_space() -> None:
    """Every element with its index; and no more than that is ever needed."""
    assert message_limit_bytes(Spaces(100)) == 8 * 100 + 4_096
    assert message_limit_bytes(Spaces(100, declared=[Space("bytes", 1000, "uint8")])) == 5 * 1000 + 4_096
    spaces = Spaces(10, Int8(), DECLARED)
    for number, space in enumerate(spaces.all):
        indices, values = np.arange(space.size, dtype=np.uint32), np.zeros(space.size, np.dtype(space.dtype))
        for payload in (Dense(values, space=space.name), Sparse(indices, values, space=space.name), Marks(indices, space.name)):
            parcel, _ = encode(payload, spaces.codecs[number], 0, number=number)
            assert parcel.body.nbytes == type(payload).body_bytes(space.size, spaces.codecs[number])
            assert parcel.body.nbytes <= type(payload).limit_bytes(space) <= message_limit_bytes(spaces)


PARCELS = [
    (head, body.tobytes())
    for spaces in [Spaces(8, declared=DECLARED)]
    for payload in (
        Dense(np.arange(8, dtype=np.float32)),
        Dense(np.arange(6, dtype=np.uint32), space="votes"),
        Dense(np.arange(9, dtype=np.uint8), 2, space="flags"),
        Sparse(np.array([1, 5], np.uint32), np.array([7, 8], np.uint32), space="votes"),
        Sparse(np.array([1, 10], np.uint32), np.array([7, 8], np.uint8), space="flags"),
        Sparse(np.array([1, 1999], np.uint32), np.array([7, 8], np.float32), space="keys"),
        Marks(np.array([0, 3, 10], np.uint32), "flags"),
    )
    for number, _, _ in [spaces.find(payload.space)]
    for parcel in [encode(payload, spaces.codecs[number], 3, (1.0,), number)[0]]
    for head, body in [(parcel.head, parcel.body)]
]


@pytest.mark.slow
@given(
    st.sampled_from(PARCELS),
    st.integers(0, 500),
    st.sampled_from(["flip", "cut", "grow", "other body"]),
    st.sampled_from(PARCELS),
    st.booleans(),
)
@settings(max_examples=600, deadline=None)
def test_a_spoilt_message_is_within_its_space_or_refused(
    parcel: tuple[bytes, bytes], place: int, how: str, other: tuple[bytes, bytes], spoil_head: bool
) -> None:
    head, body = parcel
    if how == "other body":
        body = other[1]
    else:
        part = bytearray(head if spoil_head else body)
        if how == "flip":
            part[place // 8 % len(part)] ^= 1 << place % 8
        elif how == "cut":
            part = part[: place % len(part)]
        else:
            part += bytes(place % 9 + 1)
        head, body = (bytes(part), body) if spoil_head else (head, bytes(part))
    spaces = Spaces(8, declared=DECLARED)
    try:
        payload = decode(decode_head(head), np.frombuffer(body, np.uint8), spaces)
    except WireError:
        return
    _, space, _ = spaces.find(payload.space)
    assert payload.within(space.size)
    if isinstance(payload, Marks):
        assert len(np.unique(payload.indices)) == payload.count
    else:
        assert payload.values.dtype == np.dtype(space.dtype)
        assert len(np.zeros(space.size)[payload.where()]) == payload.count


def message(payload: Dense | Sparse) -> Message:
    return Message(1, 0, payload, (), 0)


def test_what_is_expected_names_its_space() -> None:
    forms = (Expected("whole"), Expected("whole", space="votes"), Expected("chosen", space="flags"))
    ones = np.ones(6, np.uint32)
    flags = Sparse(np.array([3], np.uint32), np.ones(1, np.uint8), space="flags")
    assert misfit(message(Dense(ones, space="votes")), 6, forms) == ""
    assert misfit(message(Dense(ones[:5], space="votes")), 6, forms) == "unexpected"
    assert misfit(message(Dense(ones, space="flags")), 6, forms) == "unexpected"
    assert misfit(message(flags), 11, forms) == ""
    assert misfit(message(Dense(np.ones(6, np.float32))), 6, forms[1:]) == "unexpected"
    assert misfit(message(Dense(ones[:0], space="votes")), 6, forms) == "empty"


def test_the_size_of_its_own_space_is_what_whole_means() -> None:
    peer, source = space_peer(1), space_peer(0)
    peer.expected = (Expected("whole", space="votes"),)
    peer.deliver(sent(source, Dense(np.ones(6, np.uint32), space="votes")))
    peer.deliver(sent(source, Dense(np.ones(5, np.uint32), space="votes")))
    peer.deliver(sent(source, Dense(np.ones(8, np.float32))))
    assert [message.payload.count for message in peer.arrived()] == [6]
    assert peer.errors == {"unexpected": 2}


def test_gather_takes_one_message_of_its_space_and_leaves_the_others() -> None:
    peer, source = space_peer(1), space_peer(0)
    source.step = peer.step = 4
    votes, model = Dense(np.arange(6, dtype=np.uint32), space="votes"), Dense(np.ones(8, np.float32))
    work = peer.gather(step=4)
    peer.deliver(sent(source, votes))
    effects, _, ended = run_until_blocked(work)
    assert isinstance(effects[-1], Receive)
    assert not ended
    peer.deliver(sent(source, model))
    assert [message.payload.space for message in run_until_blocked(work)[1]] == [MODEL]
    peer.step = 6
    (message,) = run_until_blocked(peer.gather(step=4, space="votes"))[1]
    assert message.payload.values.tolist() == [0, 1, 2, 3, 4, 5]
    assert (peer.staleness[0].steps, peer.staleness[0].messages) == (2, 2)


def test_only_the_model_is_mixed_and_blended() -> None:
    peer = make_peer(1, {0: 0.5}, spaces=[Space("twin", 8)])
    source = make_peer(0, {1: 0.5}, spaces=[Space("twin", 8)])
    peer.deliver(sent(source, Dense(np.ones(8, np.float32), space="twin")))
    (message,) = peer.arrived()
    peer.mix([message], peer.weights.copy())
    assert not peer.weights.any()
    assert peer.errors == {"range": 1}
    with pytest.raises(ValueError, match="space 'twin'"):
        peer.blend(message, 0.5)


def test_a_ledger_of_a_space_pays_in_that_space() -> None:
    peer, other = space_peer(0, codec=Int8()), space_peer(1, codec=Int8())
    keys, model = peer.new_ledger("keys"), peer.new_ledger()
    made = np.random.default_rng(1).normal(size=2000).astype(np.float32)
    keys.add(made)
    model.add(np.ones(8))
    read = np.zeros(2000)
    for pick in (Next(700), Next(700), Next(700), All()):
        (effect,), payload, _ = run_until_blocked(peer.pay(1, pick, space="keys"))
        other.deliver(Arrival(0, 0, effect.parcel.head, effect.parcel.body, 0, 0))
        (message,) = other.arrived()
        assert (payload.space, message.payload.space) == ("keys", "keys")
        read[message.payload.where()] += message.payload.values
    np.testing.assert_allclose(read + keys.owed(1), made, atol=1e-6)
    assert model.owed(1).tolist() == [1.0] * 8
    peer.lose(1)
    assert keys.paid == model.paid == {}


def test_debts_are_for_floats() -> None:
    with pytest.raises(ValueError, match="holds uint32, and ledgers are for float32"):
        space_peer().new_ledger("votes")
    with pytest.raises(ValueError, match="no space 'none'"):
        space_peer().new_ledger("none")


def test_room_counts_the_bytes_of_its_space() -> None:
    """One rate, three widths: four bytes an element of the model, one of the flags."""
    sizes = [Space("flags", 100_000, "uint8"), Space("wide", 100_000, "uint32")]
    peer = make_peer(0, {1: 0.5}, size=100_000, spaces=sizes, codec=Float16())
    meter: LinkMeter = peer.meters[1]
    for turn in range(30):
        answer(meter, give(meter, 20_000, turn * 10**9, 20e6), 190_000_000, turn * 10**9 + 200_000_000)
    peer.now_ns = 40 * 10**9
    rooms = {space.name: peer.room(1, space=space.name) for space in peer.spaces.all}
    assert 0 < rooms["wide"] < 100_000
    assert abs(rooms[MODEL] - 2 * rooms["wide"]) <= 1
    assert abs(rooms["flags"] - 4 * rooms["wide"]) <= 3


class Signs(payloads._Values):
    """A kind with bits of its own: one bit an element, and the scale in front."""

    __slots__ = ("start",)
    number, form = 3, "signs"

    def __init__(self, values: np.ndarray, start: int = 0, space: str = MODEL) -> None:
        self.values, self.known_finite, self.space = values, True, space
        self.start = start

    def where(self) -> slice:
        return slice(self.start, self.start + self.count)

    def within(self, size: int) -> bool:
        return self.start + self.count <= size

    @staticmethod
    def body_bytes(count: int, codec: Any) -> int:
        return 4 + -(-count // 8)

    @staticmethod
    def limit_bytes(space: Space) -> int:
        return Signs.body_bytes(space.size, None)

    def encode(self, codec: Any, rng: np.random.Generator) -> Any:
        scale = np.abs(self.values).mean(keepdims=True, dtype=np.float32)
        body = np.concatenate([scale.view(np.uint8), np.packbits(self.values > 0)])
        return self.start, self.count, body, Signs(np.where(self.values > 0, scale, -scale), self.start, self.space)

    @staticmethod
    def decode(head: Head, body: np.ndarray, space: Space, codec: Any) -> Signs:
        payloads._check_length(body, head.count, Signs.body_bytes(head.count, codec))
        scale = body[:4].copy().view(np.float32)
        positive = np.unpackbits(body[4:], count=head.count).astype(bool)
        return Signs(np.where(positive, scale, -scale), head.start, space.name)


def test_a_kind_with_bits_of_its_own_is_one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named in the menu it is sent, bounded, decoded, expected and dropped like the others."""
    monkeypatch.setitem(payloads.KINDS, 3, Signs)  # type: ignore[arg-type]
    source, target = space_peer(0), space_peer(1)
    target.expected = (Expected("signs", space="keys"),)  # type: ignore[arg-type]
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    arrival = sent(source, Signs(values, 5, "keys"))  # type: ignore[arg-type]
    assert arrival.body.nbytes == 4 + 125
    target.deliver(arrival)
    target.deliver(arrival._replace(body=arrival.body[:-1]))
    (message,) = target.arrived()
    assert target.errors == {"length": 1}
    np.testing.assert_allclose(message.payload.values, np.sign(values) * np.abs(values).mean(), rtol=1e-5)
