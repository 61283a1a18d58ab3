"""The wire under fire: truncated, oversized, bit-flipped and foreign frames are counted WireErrors, never a crash."""

from __future__ import annotations

import tracemalloc
from contextlib import nullcontext, suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grapevine.peer.endpoint import Endpoint
from grapevine.peer.wire import CHUNK_LIMIT_BYTES, HEADER_BYTES, Acknowledgement, Chunk, WireError, decode, encode
from tests.helpers import LIMIT_BYTES, chunks_of, pair, parcel_of

RUN = 12345


def frames(count: int = 5000) -> list[list[bytes]]:
    sender, _ = pair()
    chunks = chunks_of(sender, 1, count)
    parts = [[bytes(part) for part in encode(chunk, RUN)] for chunk in chunks]
    return [*parts, [bytes(encode(Acknowledgement(0, 1, 100, 200, 5), RUN)[0])]]


FRAMES = frames()


def test_a_frame_survives_the_wire() -> None:
    sender, _ = pair()
    for chunk in chunks_of(sender, 1, 5000):
        stamped = chunk._replace(due_ns=77, finish_ns=55)
        back = decode([bytes(part) for part in encode(stamped, RUN)], RUN, LIMIT_BYTES)
        assert isinstance(back, Chunk)
        assert back[:7] == stamped[:7]
        assert bytes(back.piece) == bytes(stamped.piece)
        assert back.size_bytes == sum(len(part) for part in encode(stamped, RUN))
    answer = Acknowledgement(3, 9, 1000, 2000, 5)
    assert decode(encode(answer, RUN), RUN, LIMIT_BYTES) == answer
    assert answer.size_bytes == len(encode(answer, RUN)[0]) == HEADER_BYTES


mutations = st.one_of(
    st.tuples(st.just("truncate"), st.integers(0, 2), st.integers(0, 20_000)),
    st.tuples(st.just("flip"), st.integers(0, 2), st.integers(0, 160_000)),
    st.tuples(st.just("extend"), st.integers(0, 2), st.binary(min_size=1, max_size=2000)),
    st.tuples(st.just("drop part"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("add part"), st.integers(0, 2), st.binary(max_size=50)),
)


def mutate(parts: list[bytes], kind: str, place: int, how: int | bytes) -> list[bytes]:
    parts, place = list(parts), place % len(parts)
    part = bytearray(parts[place])
    if kind == "truncate":
        parts[place] = bytes(part[: int(how)])
    elif kind == "flip" and part:
        part[int(how) // 8 % len(part)] ^= 1 << int(how) % 8
        parts[place] = bytes(part)
    elif kind == "extend":
        parts[place] = bytes(part) + bytes(how)
    elif kind == "drop part":
        parts.pop(place)
    elif kind == "add part":
        parts.insert(place, bytes(how))
    return parts


@pytest.mark.slow
@given(st.sampled_from(FRAMES), mutations)
@settings(max_examples=400, deadline=None)
def test_a_spoilt_frame_is_read_or_refused(parts: list[bytes], mutation: tuple) -> None:
    """Whatever comes out of the decoder is within the bounds; everything else is a WireError."""
    endpoint = Endpoint(1, [0], LIMIT_BYTES)
    with suppress(WireError):
        frame = decode(mutate(parts, *mutation), RUN, LIMIT_BYTES)
        if isinstance(frame, Chunk):
            assert len(frame.piece) <= frame.total_bytes <= LIMIT_BYTES
            endpoint.receive(frame, 0)
        else:
            endpoint.acknowledged(*frame[:-1], 0)


@given(st.lists(st.binary(max_size=200), max_size=5))
@settings(max_examples=300)
def test_foreign_frames_are_refused(parts: list[bytes]) -> None:
    with pytest.raises(WireError):
        decode(parts, RUN, LIMIT_BYTES)


@pytest.mark.parametrize("place", [0, 4, 5, 8])
def test_magic_version_kind_and_run_are_checked(place: int) -> None:
    header = bytearray(FRAMES[0][0])
    header[place] ^= 0xFF
    with pytest.raises(WireError):
        decode([bytes(header), *FRAMES[0][1:]], RUN, LIMIT_BYTES)


def test_an_announced_giant_takes_no_memory() -> None:
    giant = Chunk(0, 0, 0, 0, 2**50, 0, 0, b"", b"x" * 10)
    tracemalloc.start()
    with pytest.raises(WireError) as caught:
        decode(encode(giant, RUN), RUN, LIMIT_BYTES)
    with pytest.raises(WireError):
        Endpoint(1, [0], LIMIT_BYTES).receive(giant, 0)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
    assert caught.value.kind == "length"


@pytest.mark.parametrize(("number", "total", "refused"), [(0, 0, False), (0, 1, True), (1, 1, True), (1, 0, True)])
def test_only_an_empty_message_has_an_empty_chunk(number: int, total: int, refused: bool) -> None:
    """Empty first chunks would be free for their sender, and each would take memory here."""
    parts = encode(Chunk(0, 0, number, 0, total, 0, 0, b"", b""), RUN)
    with pytest.raises(WireError) if refused else nullcontext():
        decode(parts, RUN, LIMIT_BYTES)


def test_an_oversized_piece_is_refused() -> None:
    with pytest.raises(WireError):
        decode(encode(Chunk(0, 0, 0, 0, 2**22, 0, 0, b"", b"x" * (CHUNK_LIMIT_BYTES + 1)), RUN), RUN, 2**23)


def test_a_stranger_is_refused_by_the_endpoint() -> None:
    _, receiver = pair()
    with pytest.raises(WireError) as caught:
        receiver.receive(Chunk(5, 0, 0, 0, 3, 0, 0, b"", b"abc"), 0)
    assert caught.value.kind == "foreign"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), max_size=60), st.integers(1, 6000))
@settings(max_examples=100, deadline=None)
def test_chunks_in_any_order_never_make_a_wrong_message(order: list[tuple[int, int]], count: int) -> None:
    """Chunks of several messages, shuffled, repeated or left out: a message is right or it is not delivered."""
    sender, receiver = pair()
    sets = [sender.send(1, parcel_of(count), 0, 20e6) for _ in range(4)]
    for message, number in order:
        chunks = sets[message]
        try:
            complete = receiver.receive(chunks[number % len(chunks)], 0)
        except WireError:
            continue
        if complete is not None:
            assert complete[0].body.view(np.float32).tolist() == list(range(count))
