"""What travels between peers: a range of a flat vector, or chosen elements of it, in a codec's bytes.

`encode` turns a payload into a parcel (a small head and one raw body), `decode` is its inverse and trusts nothing.
"""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any

import msgspec
import numpy as np

from grapevine.peer.codecs import BY_NUMBER, OWN_NUMBERS, Codec
from grapevine.peer.wire import HEAD_LIMIT_BYTES, WireError

SCALARS_LIMIT = 16
_DENSE, _SPARSE, _MARKS = 0, 1, 2
_UInt = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


def all_finite(values: np.ndarray) -> bool:
    """Whether no element is nan or infinite, in one pass and without memory (float32 or float64 [count]).

    The sum of squares is finite only if all elements are; where it is not, it may have overflowed: then each is looked at.
    """
    with np.errstate(all="ignore"):
        return isfinite(values.dot(values)) or bool(np.isfinite(values).all())


class _Values:
    """Values float32 [count], and whether they are finite (None = not looked at yet)."""

    __slots__ = ("known_finite", "values")

    def __init__(self, values: np.ndarray, known_finite: bool | None) -> None:
        self.values = values
        self.known_finite = known_finite

    @property
    def count(self) -> int:
        """How many elements."""
        return len(self.values)

    @property
    def finite(self) -> bool:
        """Whether all values are finite; found out once, however many peers share the payload."""
        if self.known_finite is None:
            self.known_finite = all_finite(self.values)
        return self.known_finite


class Dense(_Values):
    """The elements start .. start + len(values) of a flat vector; values float32."""

    __slots__ = ("start",)

    def __init__(self, values: np.ndarray, start: int = 0, known_finite: bool | None = None) -> None:
        super().__init__(values, known_finite)
        self.start = start

    @property
    def stop(self) -> int:
        return self.start + len(self.values)

    def where(self) -> slice:
        """The elements as an index into the flat vector."""
        return slice(self.start, self.stop)


class Sparse(_Values):
    """Chosen elements of a flat vector: indices uint32, strictly ascending, and their values float32."""

    __slots__ = ("indices",)

    def __init__(self, indices: np.ndarray, values: np.ndarray, known_finite: bool | None = None) -> None:
        super().__init__(values, known_finite)
        self.indices = indices

    def where(self) -> np.ndarray:
        """The elements as an index into the flat vector."""
        return self.indices


class Marks:
    """Elements of a flat vector that are named without their values: indices uint32, strictly ascending."""

    __slots__ = ("indices",)
    finite = True  # nothing that could be otherwise

    def __init__(self, indices: np.ndarray) -> None:
        self.indices = indices

    @property
    def count(self) -> int:
        """How many elements."""
        return len(self.indices)

    @property
    def values(self) -> np.ndarray:
        """Nothing to add to any of them."""
        return np.zeros(len(self.indices), np.float32)

    def where(self) -> np.ndarray:
        """The elements as an index into the flat vector."""
        return self.indices


Payload = Dense | Sparse | Marks


class Head(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The few numbers that say what a body is."""

    kind: Annotated[int, msgspec.Meta(ge=0, le=2)]
    codec: Annotated[int, msgspec.Meta(ge=0, le=255)]
    step: _UInt
    start: _UInt
    count: _UInt
    scalars: Annotated[tuple[float, ...], msgspec.Meta(max_length=SCALARS_LIMIT)] = ()


_head_encoder = msgspec.msgpack.Encoder()
_head_decoder = msgspec.msgpack.Decoder(Head)


class Parcel:
    """One message ready for the wire: its head in bytes, its body as one flat uint8 array.

    `payload` is what the receiver will read; a world in which nothing goes over a wire hands that over as it is.
    """

    __slots__ = ("body", "head", "payload", "scalars", "size_bytes", "step")

    def __init__(self, head: bytes, body: np.ndarray, step: int, payload: Payload, scalars: tuple[float, ...] = ()) -> None:
        self.head = head
        self.body = body
        self.step = step
        self.payload = payload
        self.scalars = scalars
        self.size_bytes = len(head) + body.nbytes


def encode(payload: Payload, codec: Codec, step: int, scalars: tuple[float, ...] = ()) -> tuple[Parcel, np.ndarray]:
    """Put a payload into a codec's bytes.

    Returns the parcel and the values as the receiver will read them (float32; the difference to what was given is the
    rounding that a ledger takes back).  The body is a copy: the caller may change its vector at once.
    """
    if isinstance(payload, Marks):
        indices = np.array(payload.indices, "<u4")
        head = _head_encoder.encode(Head(_MARKS, codec.number, step, 0, len(indices), scalars))
        return Parcel(head, indices.view(np.uint8), step, Marks(indices), scalars), payload.values
    body, read = codec.encode(payload.values)
    finite = payload.known_finite if codec.lossless else None
    kind, start, written = _DENSE, 0, payload
    if isinstance(payload, Dense):
        start = payload.start
        written = Dense(read, start, finite)
    else:
        kind = _SPARSE
        written = Sparse(payload.indices, read, finite)
        body = np.concatenate([np.ascontiguousarray(payload.indices, "<u4").view(np.uint8), body])
    head = _head_encoder.encode(Head(kind, codec.number, step, start, len(payload.values), scalars))
    return Parcel(head, body, step, written, scalars), read


def decode_head(data: Any) -> Head:
    """Read a head; raises WireError on anything that is not exactly one."""
    if len(data) > HEAD_LIMIT_BYTES:
        raise WireError("head", f"a head of {len(data)} bytes; at most {HEAD_LIMIT_BYTES} are allowed")
    try:
        return _head_decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
        raise WireError("head", f"not a message head: {error}") from None


def decode(head: Head, body: np.ndarray, size: int, own: Codec | None = None) -> Payload:
    """Read a body (uint8 [bytes]) that belongs to a vector of `size` elements; `own` is the codec that the reader writes with,
    which need be none of the menu.

    Raises WireError where the body's length, the range or the indices do not fit; takes no memory before that is known.
    float32 values are a read-only view of the body where they lie aligned.
    """
    codec = own if own is not None and own.number == head.codec else BY_NUMBER.get(head.codec)
    if codec is None:
        raise WireError("codec", f"codec number {head.codec}; known are {sorted(BY_NUMBER)}")
    values_bytes = codec.body_bytes(head.count)
    if head.kind == _DENSE:
        if head.start + head.count > size:
            raise WireError("range", f"elements {head.start}..{head.start + head.count} of a vector of {size}")
        if body.nbytes != values_bytes:
            raise WireError("length", f"{body.nbytes} bytes for {head.count} elements; expected {values_bytes}")
        return Dense(_values(codec, body, head.count), head.start)
    if head.kind == _MARKS:
        values_bytes = 0
    if head.count > size or body.nbytes != 4 * head.count + values_bytes:
        raise WireError("length", f"{body.nbytes} bytes for {head.count} chosen elements of {size}")
    indices = np.frombuffer(body[: 4 * head.count].tobytes(), "<u4")
    if head.count and (indices[-1] >= size or np.any(indices[1:] <= indices[:-1])):
        raise WireError("indices", f"indices must ascend strictly and stay below {size}")
    if head.kind == _MARKS:
        return Marks(indices)
    return Sparse(indices, _values(codec, body[4 * head.count :], head.count))


def _values(codec: Codec, body: np.ndarray, count: int) -> np.ndarray:
    """What a body decodes to, float32 [count]; WireError where a user's own codec makes something else of it, or raises."""
    if codec.number < OWN_NUMBERS.start:
        return codec.decode(body, count)
    try:
        values = codec.decode(body, count)
        fits = values.shape == (count,) and values.dtype == np.float32
    except Exception as error:  # noqa: BLE001 - the user's own code may raise anything
        raise WireError("codec", f"codec number {codec.number} raised {type(error).__name__}: {error}") from None
    if not fits:
        raise WireError("codec", f"codec number {codec.number} made something else than float32 [{count}]")
    return values
