"""Codec round trips within the stated error, claimed sizes equal to encoded sizes, and nothing decoded that does not fit."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grapevine.peer.codecs import INT8_BLOCK, QSGD, AnyCodec, Codec, Float16, Float32, Int8
from grapevine.peer.payloads import HEAD_LIMIT_BYTES, KINDS, Dense, Head, Parcel, Payload, Sparse, decode, decode_head, encode
from grapevine.peer.spaces import Spaces
from grapevine.peer.wire import WireError

CODECS = [Float32(), Float16(), Int8(), QSGD(), QSGD(levels=3, bucket=7, norm="euclidean")]
DRAWS = np.random.default_rng(1)
vectors = hnp.arrays(np.float32, st.integers(0, 3000), elements=st.floats(-1000, 1000, width=32))


@pytest.mark.slow
@given(vectors, st.sampled_from(CODECS))
@settings(max_examples=120, deadline=None)
def test_round_trip_within_the_stated_error(values: np.ndarray, codec: AnyCodec) -> None:
    body, read = codec.encode(values, DRAWS)
    assert body.nbytes == codec.body_bytes(len(values))
    again = codec.decode(body.copy(), len(values))
    assert again.dtype == np.float32
    np.testing.assert_array_equal(again, read)
    if isinstance(codec, Float32):
        np.testing.assert_array_equal(read, values)
    elif isinstance(codec, Float16):
        assert np.all(np.abs(read - values) <= np.maximum(np.abs(values) * 2.0**-11, 2.0**-25))
    else:
        length = INT8_BLOCK if isinstance(codec, Int8) else codec.bucket
        for start in range(0, len(values), length):
            block = slice(start, start + length)
            if isinstance(codec, Int8):
                bound = np.abs(values[block]).max() / 254
            else:
                norm = np.linalg.norm(values[block].astype(float), np.inf if codec.norm == "largest" else 2)
                bound = norm / codec.levels
            assert np.all(np.abs(read[block] - values[block]) <= bound * (1 + 1e-5) + 1e-30)


def test_float16_saturates_instead_of_overflowing() -> None:
    assert Float16().encode(np.array([1e6, -1e6], np.float32), DRAWS)[1].tolist() == [65504.0, -65504.0]


@given(st.sampled_from(CODECS), st.floats(0, 1e6))
def test_elements_is_the_largest_count_that_fits(codec: Codec, room_bytes: float) -> None:
    count = codec.elements(room_bytes)
    assert codec.body_bytes(count) <= room_bytes or count == 0
    assert codec.body_bytes(count + 1) > room_bytes


def test_endless_room_holds_any_model() -> None:
    assert Float32().elements(float("inf")) >= 2**32


@pytest.mark.slow
@given(vectors.filter(len), st.sampled_from(CODECS), st.integers(0, 100), st.integers(0, 2**40))
@settings(max_examples=80, deadline=None)
def test_dense_survives_the_wire(values: np.ndarray, codec: AnyCodec, start: int, step: int) -> None:
    parcel, read = encode(Dense(values, start), codec, step, scalars=(1.5, -2.0))
    assert parcel.size_bytes == len(parcel.head) + parcel.body.nbytes
    head = decode_head(parcel.head)
    payload = decode(head, np.frombuffer(parcel.body.tobytes(), np.uint8), Spaces(len(values) + start, codec))
    assert isinstance(payload, Dense)
    assert (head.step, payload.start, head.scalars) == (step, start, (1.5, -2.0))
    np.testing.assert_array_equal(payload.values, read)


@pytest.mark.parametrize("codec", CODECS)
def test_sparse_survives_the_wire(codec: AnyCodec) -> None:
    indices = np.array([0, 5, 17], np.uint32)
    parcel, read = encode(Sparse(indices, np.array([1, -2, 3], np.float32)), codec, 3)
    payload = decode(decode_head(parcel.head), parcel.body, Spaces(18, codec))
    assert isinstance(payload, Sparse)
    np.testing.assert_array_equal(payload.indices, indices)
    np.testing.assert_array_equal(payload.values, read)


def test_the_encoded_body_does_not_follow_the_vector() -> None:
    weights = np.ones(10, np.float32)
    parcel, _ = encode(Dense(weights), Float32(), 0)
    weights[:] = 7
    assert decode(decode_head(parcel.head), parcel.body, Spaces(10)).values.tolist() == [1.0] * 10


def _sparse(indices: list[int], size: int) -> None:
    parcel, _ = encode(Sparse(np.array(indices, np.uint32), np.zeros(len(indices), np.float32)), Float32(), 0)
    decode(decode_head(parcel.head), parcel.body, Spaces(size))


@pytest.mark.parametrize("indices", [[3, 2], [2, 2], [0, 10]])
def test_indices_that_do_not_ascend_or_fit_are_refused(indices: list[int]) -> None:
    with pytest.raises(WireError) as caught:
        _sparse(indices, size=10)
    assert caught.value.kind == "indices"


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"count": 11}, "range"),
        ({"start": 1}, "range"),
        ({"count": 9}, "length"),
        ({"codec": 77}, "codec"),
        ({"codec": 2}, "codec"),
        ({"kind": 3}, "kind"),
        ({"space": 1}, "space"),
        ({"kind": 1}, "length"),
        ({"count": 2**40}, "range"),
    ],
)
def test_a_head_that_does_not_fit_its_body_is_refused(change: dict[str, int], kind: str) -> None:
    fields = {"kind": 0, "codec": 0, "step": 0, "start": 0, "count": 10} | change
    with pytest.raises(WireError) as caught:
        decode(Head(**fields), np.zeros(40, np.uint8), Spaces(10))
    assert caught.value.kind == kind


@given(st.binary(max_size=HEAD_LIMIT_BYTES + 50))
@settings(max_examples=300)
def test_any_bytes_are_a_head_or_a_wire_error(data: bytes) -> None:
    try:
        head = decode_head(data)
    except WireError:
        return
    assert isinstance(head, Head)


def test_every_codec_and_kind_has_its_own_number() -> None:
    members = get_args(AnyCodec)
    assert len({codec.number for codec in members} | {Codec.number}) == len(members) + 1
    assert len(KINDS) == len(get_args(Payload))
    assert Parcel(b"ab", np.zeros(3, np.uint8), 0, Dense(np.zeros(0, np.float32))).size_bytes == 5


def test_a_head_of_the_model_is_as_long_as_before_there_were_spaces() -> None:
    """One byte for each small number and for the list itself: the space's number stands only where it is not 0."""
    values = np.ones(3, np.float32)
    assert encode(Dense(values), Float32(), 9)[0].head == bytes([0x96, 0, 0, 9, 0, 3, 0x90])
    assert encode(Dense(values), Float32(), 9, number=5)[0].head == bytes([0x97, 0, 0, 9, 0, 3, 0x90, 5])


@pytest.mark.slow
@pytest.mark.parametrize("codec", [QSGD(), QSGD(levels=2, bucket=100), QSGD(bucket=64, norm="euclidean")])
def test_the_mean_over_many_draws_is_the_value(codec: QSGD) -> None:
    """E Q(v) = v: a level is one of two neighbours, so the deviation of the mean of n draws is known; five of them."""
    rng = np.random.default_rng(7)
    values = (rng.normal(size=300) * rng.choice([0.01, 1.0, 30.0], size=300)).astype(np.float32)
    draws = 3000
    total, squares = np.zeros(300), np.zeros(300)
    for _ in range(draws):
        read = codec.encode(values, rng)[1].astype(float)
        total += read
        squares += np.square(read - values)
    starts = np.arange(0, 300, codec.bucket)
    norms = [np.linalg.norm(values[start : start + codec.bucket], np.inf if codec.norm == "largest" else 2) for start in starts]
    width = np.repeat(norms, codec.bucket)[:300] / codec.levels
    share = np.abs(values) / width % 1
    variance = np.square(width) * share * (1 - share)
    assert np.all(np.abs(total / draws - values) <= 5 * np.sqrt(variance / draws) + 1e-5 * width)
    assert np.sum(squares / draws) == pytest.approx(np.sum(variance), rel=0.05)


@pytest.mark.parametrize("levels", [1, 4, 127])
@pytest.mark.parametrize("norm", ["largest", "euclidean"])
def test_the_variance_of_qsgd_is_within_the_bound_of_lemma_3_1(norm: Any, levels: int) -> None:
    """E |Q(v) - v|^2 <= min(n / s^2, sqrt(n) / s) |v|^2; the mean over the draws has 5 % left for chance."""
    rng = np.random.default_rng(11)
    codec, count, draws = QSGD(levels=levels, bucket=256, norm=norm), 256, 400
    for values in (rng.normal(size=count), np.ones(count), np.where(np.arange(count) == 3, 1.0, 0.01)):
        given = values.astype(np.float32)
        squares = [np.square(codec.encode(given, rng)[1] - given, dtype=np.float64).sum() for _ in range(draws)]
        bound = min(count / levels**2, np.sqrt(count) / levels) * np.square(given, dtype=np.float64).sum()
        assert np.mean(squares) <= 1.05 * bound


def test_the_sparsity_bound_of_lemma_3_1_holds_for_the_euclidean_norm_alone() -> None:
    """E |Q(v)|_0 <= s (s + sqrt(n)); equal values keep all elements if the largest of them is the scale."""
    rng, count = np.random.default_rng(12), 1024
    kept = {
        norm: np.mean([np.count_nonzero(QSGD(1, count, norm).encode(np.ones(count, np.float32), rng)[1]) for _ in range(100)])
        for norm in ("largest", "euclidean")
    }
    assert kept["euclidean"] <= 1.05 * (1 + np.sqrt(count))
    assert kept["largest"] == count


def test_the_levels_of_qsgd_change_no_size() -> None:
    assert {QSGD(levels=levels).body_bytes(4810) for levels in (1, 7, 127)} == {4810 + 4 * 10}


def test_what_a_codec_draws_is_its_own() -> None:
    """The same stream gives the same bytes, another gives others."""
    values = np.linspace(-1, 1, 100, dtype=np.float32)
    first, again, other = (QSGD().encode(values, np.random.default_rng(seed))[0].tobytes() for seed in (3, 3, 4))
    assert first == again != other
