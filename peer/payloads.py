"""What travels between peers: parts of a flat vector, in a codec's bytes; the menu of payload kinds.

`encode` turns a payload into a parcel (a small head and one raw body), `decode` is its inverse and trusts nothing.  A kind
says all about itself: its number on the wire, how it is encoded and decoded, its exact size and its bounds.
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
"""What a codec may need besides the bytes of the numbers themselves, as for scales."""
_UInt = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
Form = Literal["whole", "part", "chosen", "marks", "none"]
"""What a strategy may expect: a kind's own `form`, "whole" of a part that is everything, "none" of one without elements."""


class Head(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The few numbers that say what a body is; the number of its space stands last, and only where it is not the model's."""

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
    """Values [count] of one space, and whether they are finite (None = not looked at yet; whole numbers always are)."""

    __slots__ = ("known_finite", "space", "values")
    values: np.ndarray
    known_finite: bool | None
    space: str

    @property
    def count(self) -> int:
        """How many elements."""
        return len(self.values)

    @property
    def finite(self) -> bool:
        """Whether all values are finite; found out once, however many peers share the payload."""
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
        """The elements as an index into the flat vector."""
        return slice(self.start, self.stop)

    def within(self, size: int) -> bool:
        """Whether the elements are ones of a vector of this size."""
        return self.start >= 0 and self.start + len(self.values) <= size

    @staticmethod
    def body_bytes(count: int, codec: Codec) -> int:
        """Bytes of so many elements, exactly."""
        return codec.body_bytes(count)

    @staticmethod
    def limit_bytes(space: Space) -> int:
        """The largest body of this kind that an honest peer sends in a space."""
        return space.size_bytes + SLACK_BYTES

    def encode(self, codec: Codec, rng: np.random.Generator) -> Encoded:
        body, read = codec.encode(self.values, rng)
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
        """The elements as an index into the flat vector."""
        return self.indices

    def within(self, size: int) -> bool:
        """Whether the elements are ones of a vector of this size."""
        return not len(self.indices) or int(self.indices[-1]) < size

    @staticmethod
    def body_bytes(count: int, codec: Codec) -> int:
        """Bytes of so many elements, exactly."""
        return INDEX_BYTES * count + codec.body_bytes(count)

    @staticmethod
    def limit_bytes(space: Space) -> int:
        """The largest body of this kind that an honest peer sends in a space."""
        return space.size_bytes + INDEX_BYTES * space.size + SLACK_BYTES

    def encode(self, codec: Codec, rng: np.random.Generator) -> Encoded:
        body, read = codec.encode(self.values, rng)
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
    """Elements of a space's vector that are named without their values: indices uint32, strictly ascending."""

    __slots__ = ("indices", "space")
    number: ClassVar[int] = 2
    form: ClassVar[Form] = "marks"
    finite = True  # nothing that could be otherwise

    def __init__(self, indices: np.ndarray, space: str = MODEL) -> None:
        self.indices = indices
        self.space = space

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

    def within(self, size: int) -> bool:
        """Whether the elements are ones of a vector of this size."""
        return not len(self.indices) or int(self.indices[-1]) < size

    @staticmethod
    def body_bytes(count: int, codec: Codec) -> int:
        """Bytes of so many elements, exactly."""
        return INDEX_BYTES * count

    @staticmethod
    def limit_bytes(space: Space) -> int:
        """The largest body of this kind that an honest peer sends in a space."""
        return INDEX_BYTES * space.size

    def encode(self, codec: Codec, rng: np.random.Generator) -> Encoded:
        indices = np.array(self.indices, "<u4")
        return 0, len(indices), indices.view(np.uint8), Marks(indices, self.space)

    @staticmethod
    def decode(head: Head, body: np.ndarray, space: Space, codec: Codec) -> Marks:
        _check_length(body, head.count, Marks.body_bytes(head.count, codec))
        return Marks(_indices(body, space), space.name)


Payload = Dense | Sparse | Marks
"""The menu of kinds.  A kind of its own bits is a class like these, named here: nothing else asks which kinds there are."""
KINDS: dict[int, type[Payload]] = {kind.number: kind for kind in get_args(Payload)}


def message_limit_bytes(spaces: Spaces) -> int:
    """The largest body that a peer of a run with these spaces ever sends."""
    return max(kind.limit_bytes(space) for kind in KINDS.values() for space in spaces.all)


def _check_length(body: np.ndarray, count: int, expected_bytes: int) -> None:
    if body.nbytes != expected_bytes:
        raise WireError("length", f"{body.nbytes} bytes for {count} elements; expected {expected_bytes}")


def _values(codec: Codec, body: np.ndarray, count: int) -> np.ndarray:
    """What a body decodes to, [count]; WireError where a user's own codec does not make float32 of it."""
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


def _indices(body: np.ndarray, space: Space) -> np.ndarray:
    """Indices into a space, read from their bytes; raises WireError where they do not ascend or do not fit."""
    indices = np.frombuffer(body.tobytes(), "<u4")
    if len(indices) and (indices[-1] >= space.size or np.any(indices[1:] <= indices[:-1])):
        raise WireError("indices", f"indices must ascend strictly and stay below {space.size}")
    return indices


_encode_head = msgspec.msgpack.Encoder().encode
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


def encode(
    payload: Payload,
    codec: Codec,
    step: int,
    scalars: tuple[float, ...] = (),
    number: int = 0,
    rng: np.random.Generator | None = None,
) -> tuple[Parcel, np.ndarray]:
    """Put a payload into a codec's bytes; `number` is its space's.

    `rng` is what a codec that rounds may draw from (None = a new generator).  Returns the parcel and the values as the receiver
    will read them (float32, or the space's dtype; the difference to what was given is the rounding that a ledger takes back).
    The body is a copy: the caller may change its vector at once.
    """
    draws: Any = np.random.default_rng(0) if rng is None and not codec.lossless else rng
    start, count, body, read = payload.encode(codec, draws)
    fields = (payload.number, codec.number, step, start, count, scalars)
    head = _encode_head((*fields, number) if number else fields)
    return Parcel(head, body, step, read, scalars), read.values


def decode_head(data: Any) -> Head:
    """Read a head; raises WireError on anything that is not exactly one."""
    if len(data) > HEAD_LIMIT_BYTES:
        raise WireError("head", f"a head of {len(data)} bytes; at most {HEAD_LIMIT_BYTES} are allowed")
    try:
        return _head_decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
        raise WireError("head", f"not a message head: {error}") from None


def decode(head: Head, body: np.ndarray, spaces: Spaces) -> Payload:
    """Read a body (uint8 [bytes]) that belongs to one of a run's spaces.

    Raises WireError where the kind, the space or the codec is none of this run's, and where the body's length, the range or the
    indices do not fit the space; takes no memory before that is known.  Values are a read-only view of the body where the codec
    rounds nothing and they lie aligned.
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
