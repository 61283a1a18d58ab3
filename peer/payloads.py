"""Payloads: the parts of a flat vector that peers exchange, and their bytes in a codec.

`encode` turns a payload into a parcel (a small head and one raw body); `decode` is its inverse and checks everything.  The
class of each kind defines its number on the wire, its encoding and decoding, its exact size and its bounds.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

import msgspec
import numpy as np

from grapevine.peer.blas import all_finite
from grapevine.peer.codecs import OWN_NUMBERS, Codec
from grapevine.peer.spaces import MODEL, MOST_SPACES, Space, Spaces
from grapevine.peer.wire import HEAD_LIMIT_BYTES, WireError

SCALARS_LIMIT = 16
INDEX_BYTES = 4
SLACK_BYTES = 4_096
"""Bytes that a codec may add to those of the numbers, such as scales."""
_UInt = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
Form = Literal["whole", "part", "chosen", "marks", "none"]
"""The forms that a strategy may expect: the `form` of a kind, "whole" for a whole vector, "none" for no element."""


class Head(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The numbers that describe a body; the number of its space stands last, and only if it is not the model's."""

    kind: Annotated[int, msgspec.Meta(ge=0, le=127)]
    codec: Annotated[int, msgspec.Meta(ge=0, le=255)]
    step: _UInt
    start: _UInt
    count: _UInt
    scalars: Annotated[tuple[float, ...], msgspec.Meta(max_length=SCALARS_LIMIT)] = ()
    space: Annotated[int, msgspec.Meta(ge=0, le=MOST_SPACES)] = 0


Encoded = tuple[int, int, np.ndarray, "Payload"]
"""A payload in bytes: start and count for its head, its body (uint8), and the payload as the receiver will read it."""


class _Values:
    """Values [count] of one space, and whether they are finite (None = not checked yet; whole numbers always are)."""

    __slots__ = ("known_finite", "space", "values")
    values: np.ndarray
    known_finite: bool | None
    space: str

    @property
    def count(self) -> int:
        """The number of elements."""
        return len(self.values)

    @property
    def finite(self) -> bool:
        """Whether all values are finite; checked once for all peers that share the payload."""
        if self.known_finite is None:
            self.known_finite = self.values.dtype.kind != "f" or all_finite(self.values)
        return self.known_finite


class Dense(_Values):
    """The elements start .. start + len(values) of a space's vector; values float32, or the space's own dtype."""

    __slots__ = ("start",)
    number: ClassVar[int] = 0
    form: ClassVar[Form] = "part"

    def __init__(self, values: np.ndarray, start: int = 0, known_finite: bool | None = None, space: str = MODEL) -> None:
        self.values = values
        self.known_finite = known_finite
        self.space = space
        self.start = start

    @property
    def stop(self) -> int:
        return self.start + len(self.values)

    def where(self) -> slice:
        """Return the elements as an index into the flat vector."""
        return slice(self.start, self.stop)

    def within(self, size: int) -> bool:
        """Whether all elements lie within a vector of `size` elements."""
        return self.start >= 0 and self.start + len(self.values) <= size

    @staticmethod
    def body_bytes(count: int, codec: Codec) -> int:
        """Return the exact number of bytes of `count` elements."""
        return codec.body_bytes(count)

    @staticmethod
    def limit_bytes(space: Space) -> int:
        """Return the largest number of bytes of a body of this kind in a space."""
        return space.size_bytes + SLACK_BYTES

    def encode(self, codec: Codec, rng: np.random.Generator) -> Encoded:
        body, read = _written(codec, self.values, rng)
        finite = self.known_finite if codec.lossless else None
        return self.start, len(read), body, Dense(read, self.start, finite, self.space)

    @staticmethod
    def decode(head: Head, body: np.ndarray, space: Space, codec: Codec) -> Dense:
        _check_length(body, head.count, Dense.body_bytes(head.count, codec))
        return Dense(_values(codec, body, head.count), head.start, space=space.name)


class Sparse(_Values):
    """Chosen elements of a space's vector: indices uint32, strictly ascending; values float32, or the space's own dtype."""

    __slots__ = ("indices",)
    number: ClassVar[int] = 1
    form: ClassVar[Form] = "chosen"

    def __init__(self, indices: np.ndarray, values: np.ndarray, known_finite: bool | None = None, space: str = MODEL) -> None:
        self.values = values
        self.known_finite = known_finite
        self.space = space
        self.indices = indices

    def where(self) -> np.ndarray:
        """Return the elements as an index into the flat vector."""
        return self.indices

    def within(self, size: int) -> bool:
        """Whether there is one value for each index, and the indices ascend and lie within a vector of `size` elements."""
        return len(self.values) == len(self.indices) and _ascend(self.indices, size)

    @staticmethod
    def body_bytes(count: int, codec: Codec) -> int:
        """Return the exact number of bytes of `count` elements."""
        return INDEX_BYTES * count + codec.body_bytes(count)

    @staticmethod
    def limit_bytes(space: Space) -> int:
        """Return the largest number of bytes of a body of this kind in a space."""
        return space.size_bytes + INDEX_BYTES * space.size + SLACK_BYTES

    def encode(self, codec: Codec, rng: np.random.Generator) -> Encoded:
        body, read = _written(codec, self.values, rng)
        finite = self.known_finite if codec.lossless else None
        body = np.concatenate([np.ascontiguousarray(self.indices, "<u4").view(np.uint8), body])
        return 0, len(read), body, Sparse(self.indices, read, finite, self.space)

    @staticmethod
    def decode(head: Head, body: np.ndarray, space: Space, codec: Codec) -> Sparse:
        places_bytes = INDEX_BYTES * head.count
        _check_length(body, head.count, Sparse.body_bytes(head.count, codec))
        indices = _indices(body[:places_bytes], space)
        return Sparse(indices, _values(codec, body[places_bytes:], head.count), space=space.name)


class Marks:
    """Elements of a space's vector without their values: indices uint32, strictly ascending."""

    __slots__ = ("indices", "space")
    number: ClassVar[int] = 2
    form: ClassVar[Form] = "marks"
    finite = True  # there are no values

    def __init__(self, indices: np.ndarray, space: str = MODEL) -> None:
        self.indices = indices
        self.space = space

    @property
    def count(self) -> int:
        """The number of elements."""
        return len(self.indices)

    @property
    def values(self) -> np.ndarray:
        """Zeros: there is nothing to add to the elements."""
        return np.zeros(len(self.indices), np.float32)

    def where(self) -> np.ndarray:
        """Return the elements as an index into the flat vector."""
        return self.indices

    def within(self, size: int) -> bool:
        """Whether the indices ascend without repeats and lie within a vector of `size` elements."""
        return _ascend(self.indices, size)

    @staticmethod
    def body_bytes(count: int, codec: Codec) -> int:
        """Return the exact number of bytes of `count` elements."""
        return INDEX_BYTES * count

    @staticmethod
    def limit_bytes(space: Space) -> int:
        """Return the largest number of bytes of a body of this kind in a space."""
        return INDEX_BYTES * space.size

    def encode(self, codec: Codec, rng: np.random.Generator) -> Encoded:
        indices = np.array(self.indices, "<u4")
        return 0, len(indices), indices.view(np.uint8), Marks(indices, self.space)

    @staticmethod
    def decode(head: Head, body: np.ndarray, space: Space, codec: Codec) -> Marks:
        _check_length(body, head.count, Marks.body_bytes(head.count, codec))
        return Marks(_indices(body, space), space.name)


Payload = Dense | Sparse | Marks
"""The kinds of payload.  A new kind is a class like these and is added here; no other place lists them."""
KINDS: dict[int, type[Payload]] = {kind.number: kind for kind in get_args(Payload)}


def message_limit_bytes(spaces: Spaces) -> int:
    """Return the largest number of bytes of a body in a run with these spaces."""
    return max(kind.limit_bytes(space) for kind in KINDS.values() for space in spaces.all)


def _ascend(indices: np.ndarray, size: int) -> bool:
    """Whether indices are whole numbers from 0 to `size` - 1, strictly ascending."""
    if not len(indices):
        return True
    if indices.dtype.kind not in "ui" or not 0 <= int(indices[0]) <= int(indices[-1]) < size:
        return False
    return bool((indices[1:] > indices[:-1]).all())


def _check_length(body: np.ndarray, count: int, expected_bytes: int) -> None:
    if body.nbytes != expected_bytes:
        raise WireError("length", f"{body.nbytes} bytes for {count} elements; expected {expected_bytes}")


def _written(codec: Codec, values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Encode values, [count]; raise ValueError if a codec of a user does not return the bytes that its body_bytes promises."""
    body, read = codec.encode(values, rng)
    if codec.number >= OWN_NUMBERS.start:
        count, name = len(values), type(codec).__name__
        expected = codec.body_bytes(count)
        if not isinstance(body, np.ndarray) or body.dtype != np.uint8 or body.shape != (expected,):
            given = f"{body.dtype} {list(body.shape)}" if isinstance(body, np.ndarray) else type(body).__name__
            raise ValueError(
                f"{name}.encode returned {given} for {count} elements, and body_bytes({count}) promises uint8 [{expected}]"
            )
        if not isinstance(read, np.ndarray) or read.dtype != np.float32 or read.shape != (count,):
            given = f"{read.dtype} {list(read.shape)}" if isinstance(read, np.ndarray) else type(read).__name__
            raise ValueError(f"{name}.encode returned {given} as the values that will be read; expected float32 [{count}]")
    return body, read


def _values(codec: Codec, body: np.ndarray, count: int) -> np.ndarray:
    """Decode a body, [count]; raise WireError if a codec of a user does not return float32 values of this number."""
    if codec.number < OWN_NUMBERS.start:
        return codec.decode(body, count)
    try:
        values = codec.decode(body, count)
        fits = values.shape == (count,) and values.dtype == np.float32
    except Exception as error:  # noqa: BLE001 - code of a user may raise anything
        raise WireError("codec", f"codec number {codec.number} raised {type(error).__name__}: {error}") from None
    if not fits:
        raise WireError("codec", f"codec number {codec.number} did not return float32 [{count}]")
    return values


def _indices(body: np.ndarray, space: Space) -> np.ndarray:
    """Read indices into a space from their bytes; raise WireError if they do not ascend or exceed the space."""
    indices = np.frombuffer(body.tobytes(), "<u4")
    if len(indices) and (indices[-1] >= space.size or np.any(indices[1:] <= indices[:-1])):
        raise WireError("indices", f"indices must ascend strictly and stay below {space.size}")
    return indices


_encode_head = msgspec.msgpack.Encoder().encode
_head_decoder = msgspec.msgpack.Decoder(Head)


class Parcel:
    """One message ready for the wire: its head in bytes, its body as one flat uint8 array.

    `payload` is the payload as the receiver will read it; a world without a wire delivers it directly.  None if the bytes may
    not be valid (a wrapper has made them): then each world delivers the bytes, and the receiver decodes and checks them.
    """

    __slots__ = ("body", "head", "payload", "scalars", "size_bytes", "step")

    def __init__(
        self, head: bytes, body: np.ndarray, step: int, payload: Payload | None, scalars: tuple[float, ...] = ()
    ) -> None:
        self.head = head
        self.body = body
        self.step = step
        self.payload = payload
        self.scalars = scalars
        self.size_bytes = len(head) + body.nbytes


def encode(
    payload: Payload,
    codec: Codec,
    step: int,
    scalars: tuple[float, ...] = (),
    number: int = 0,
    rng: np.random.Generator | None = None,
) -> tuple[Parcel, np.ndarray]:
    """Encode a payload by a codec; return the parcel, and the values as the receiver will read them.

    `number` is the number of the payload's space; a codec that rounds at random draws from `rng` (None = a new generator).  The
    values are float32 or of the space's dtype; their difference to the given values is the rounding error, which a ledger owes
    again.  The body is a copy: the caller may change its vector at once.
    """
    draws: Any = np.random.default_rng(0) if rng is None and not codec.lossless else rng
    start, count, body, read = payload.encode(codec, draws)
    fields = (payload.number, codec.number, step, start, count, scalars)
    head = _encode_head((*fields, number) if number else fields)
    return Parcel(head, body, step, read, scalars), read.values


def decode_head(data: Any) -> Head:
    """Decode a head; raise WireError if the bytes are not exactly one valid head."""
    if len(data) > HEAD_LIMIT_BYTES:
        raise WireError("head", f"a head of {len(data)} bytes; at most {HEAD_LIMIT_BYTES} are allowed")
    try:
        return _head_decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
        raise WireError("head", f"not a message head: {error}") from None


def decode(head: Head, body: np.ndarray, spaces: Spaces) -> Payload:
    """Decode a body (uint8 [bytes]) of one of a run's spaces.

    Raises WireError if the kind, the space or the codec does not belong to this run, or if the body's length, the range or the
    indices do not fit the space; memory is taken only after these checks.  The values are a read-only view of the body if the
    codec is lossless and they lie aligned.
    """
    kind = KINDS.get(head.kind)
    if kind is None:
        raise WireError("kind", f"payload kind {head.kind}; known are {sorted(KINDS)}")
    space, codec = spaces.numbered(head.space)
    if head.codec != codec.number:
        raise WireError("codec", f"codec number {head.codec}; space {space.name!r} travels in {codec.number}")
    if head.start + head.count > space.size:
        raise WireError("range", f"elements {head.start}..{head.start + head.count} of a vector of {space.size}")
    return kind.decode(head, body, space, codec)
