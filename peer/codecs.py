"""Codecs: they turn the numbers of a message into bytes and back.

A codec is lossless (float32), or its docstring gives the bound of its rounding error.  The sender knows the rounding error,
because `encode` returns the values as they will be read; a ledger adds the error to the debt again.  This is error feedback
without a residual of its own.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

INT8_BLOCK = 1024  # elements that share one scale: 0.4 % overhead, and an outlier coarsens at most 1,024 elements


OWN_NUMBERS = range(128, 256)
"""The numbers that codecs of users may have; smaller numbers belong to the built-in codecs."""


class Codec(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """A rule that turns the numbers of a message into bytes and back.

    `number` identifies the codec on the wire: all peers of a run use the same codec and refuse messages in another one.  A
    codec of a user has the number 128, which is the default, or another one up to 255.  `lossless` means that the receiver
    reads exactly the values that were given, so that a ledger needs no correction.
    """

    number: ClassVar[int] = OWN_NUMBERS.start
    lossless: ClassVar[bool] = False

    @abstractmethod
    def body_bytes(self, count: int) -> int:
        """Return the exact number of bytes of `count` encoded elements."""
        raise NotImplementedError

    @abstractmethod
    def encode(self, values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return float32 [count] in bytes (uint8 [body_bytes(count)]), and the values as they will be read (float32 [count]).

        `rng` is a stream of random numbers that only this peer's codec uses: its draws change no other draw of the run.
        """
        raise NotImplementedError

    @abstractmethod
    def decode(self, body: np.ndarray, count: int) -> np.ndarray:
        """Return the values, float32 [count], from uint8 [body_bytes(count)]; the caller has checked the length."""
        raise NotImplementedError

    def elements(self, size_bytes: float) -> int:
        """Return the largest number of elements that fit into `size_bytes` bytes; 0 if none fits."""
        if size_bytes == float("inf"):
            return 2**40
        return bisect_right(range(max(0, int(size_bytes)) + 1), size_bytes, key=self.body_bytes) - 1 if size_bytes > 0 else 0


class Float32(Codec, frozen=True, tag="float32"):
    """Four bytes for each element, lossless."""

    number: ClassVar[int] = 0
    lossless: ClassVar[bool] = True

    def body_bytes(self, count: int) -> int:
        return 4 * count

    def elements(self, size_bytes: float) -> int:
        return int(min(max(size_bytes, 0), 2**40) // 4)

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        copy = np.array(values, "<f4")
        return copy.view(np.uint8), copy

    def decode(self, body: np.ndarray, count: int) -> np.ndarray:
        return _aligned(body).view("<f4")


class Float16(Codec, frozen=True, tag="float16"):
    """Two bytes for each element, IEEE half precision: relative error at most 2^-11 between 6.1e-5 and 65504."""

    number: ClassVar[int] = 1

    def body_bytes(self, count: int) -> int:
        return 2 * count

    def elements(self, size_bytes: float) -> int:
        return int(min(max(size_bytes, 0), 2**40) // 2)

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        half = np.clip(values, -65504.0, 65504.0).astype("<f2")
        return half.view(np.uint8), half.astype(np.float32)

    def decode(self, body: np.ndarray, count: int) -> np.ndarray:
        return _aligned(body).view("<f2").astype(np.float32)


class Int8(Codec, frozen=True, tag="int8"):
    """One byte for each element and one float32 scale for each block of 1,024: error at most (largest of the block) / 254."""

    number: ClassVar[int] = 2

    def body_bytes(self, count: int) -> int:
        return count + 4 * -(-count // INT8_BLOCK)

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        count = len(values)
        blocks = np.zeros((-(-count // INT8_BLOCK), INT8_BLOCK), np.float32)
        blocks.reshape(-1)[:count] = values
        scales = (np.abs(blocks).max(axis=1) / 127.0).astype("<f4")
        safe = np.where(scales > 0, scales, np.float32(1.0))
        levels = np.clip(np.rint(blocks / safe[:, None]), -127, 127).astype(np.int8)
        body = np.concatenate([scales.view(np.uint8), levels.reshape(-1)[:count].view(np.uint8)])
        return body, self._read(scales, levels.reshape(-1)[:count])

    def decode(self, body: np.ndarray, count: int) -> np.ndarray:
        scales_bytes = 4 * -(-count // INT8_BLOCK)
        return self._read(_aligned(body[:scales_bytes]).view("<f4"), body[scales_bytes:].view(np.int8))

    @staticmethod
    def _read(scales: np.ndarray, levels: np.ndarray) -> np.ndarray:
        values: np.ndarray = levels.astype(np.float32) * np.repeat(scales, INT8_BLOCK)[: len(levels)]
        return values


class QSGD(Codec, frozen=True, tag="qsgd"):
    """One byte for each element and one float32 scale for each bucket, rounded at random without bias (Alistarh et al. 2017).

    Q(v_i) = scale sgn(v_i) l / levels, where l is one of the two whole numbers next to levels |v_i| / scale, the upper one with
    the probability that makes E Q(v_i) = v_i; the error is below scale / levels.  Source: D. Alistarh, D. Grubic, J. Li, R.
    Tomioka and M. Vojnovic, "QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding", NIPS 2017, section 3.1
    (the quantiser) and section 4 (buckets, each with a scale of its own, and scaling by the largest value).
    Departures: a level travels as one signed byte, not in the Elias code of section 3.1 (theorem 3.2), so that the size follows
    from the number of elements alone: fewer `levels` save no byte; a message to several neighbours is rounded once for all of
    them; a ledger owes the rounding error again, as with every codec.
    """

    number: ClassVar[int] = 3

    levels: Annotated[int, msgspec.Meta(ge=1, le=127)] = 127
    """Steps from 0 to a bucket's scale, the paper's s; 1 to 127. It changes the error, never the size of a message."""
    bucket: Annotated[int, msgspec.Meta(ge=1, le=2**20)] = 512
    """Elements that share one scale, the paper's d; 1 to 1,048,576."""
    norm: Literal["largest", "euclidean"] = "largest"
    """Scale of a bucket: its "largest" absolute value, or its "euclidean" norm (coarser). The variance bound of lemma 3.1
    holds for both, its sparsity bound for "euclidean" alone."""

    def body_bytes(self, count: int) -> int:
        return count + 4 * -(-count // self.bucket)

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        count = len(values)
        buckets = np.zeros((-(-count // self.bucket), self.bucket), np.float32)
        buckets.reshape(-1)[:count] = values
        scales = self._scales(buckets)
        sizes = np.abs(buckets) / np.where(scales > 0, scales, np.float32(1.0))[:, None] * np.float32(self.levels)
        draws = np.zeros(buckets.size, np.float32)
        draws[:count] = rng.random(count, np.float32)
        sizes += draws.reshape(buckets.shape)
        levels = np.minimum(np.floor(sizes), self.levels)
        levels = np.copysign(levels, buckets).astype(np.int8).reshape(-1)[:count]
        return np.concatenate([scales.view(np.uint8), levels.view(np.uint8)]), self._read(scales, levels)

    def decode(self, body: np.ndarray, count: int) -> np.ndarray:
        scales_bytes = 4 * -(-count // self.bucket)
        return self._read(_aligned(body[:scales_bytes]).view("<f4"), body[scales_bytes:].view(np.int8))

    def _scales(self, buckets: np.ndarray) -> np.ndarray:
        """Return one scale for each bucket, float32, at least its largest absolute value."""
        largest: np.ndarray = np.abs(buckets).max(axis=1, initial=0.0).astype("<f4")
        if self.norm == "largest":
            return largest
        norms = np.sqrt(np.square(buckets, dtype=np.float64).sum(axis=1))
        scales: np.ndarray = np.maximum(np.minimum(norms, np.finfo(np.float32).max).astype("<f4"), largest)
        return scales

    def _read(self, scales: np.ndarray, levels: np.ndarray) -> np.ndarray:
        shares = levels.astype(np.float32) / np.float32(self.levels)
        values: np.ndarray = shares * np.repeat(scales, self.bucket)[: len(levels)]
        return values


class Plain(Codec, frozen=True):
    """Whole numbers as they lie in memory: the codec of uint32 and uint8 spaces, independent of the experiment's codec."""

    number: ClassVar[int] = 0
    lossless: ClassVar[bool] = True

    dtype: Literal["uint32", "uint8"]

    def body_bytes(self, count: int) -> int:
        return count * self._type.itemsize

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return whole numbers [count] in bytes, and in the space's dtype; raise ValueError for values that do not fit it."""
        given = np.asarray(values)
        if given.dtype.kind not in "bui":
            raise ValueError(f"values of a space of {self.dtype} must be whole numbers, and these are {given.dtype}")
        if given.dtype != self._type and len(given) and not 0 <= given.min() <= given.max() <= np.iinfo(self._type).max:
            raise ValueError(f"values from {given.min()} to {given.max()} do not fit {self.dtype}")
        copy = np.array(given, self._type)
        return copy.view(np.uint8), copy

    def decode(self, body: np.ndarray, count: int) -> np.ndarray:
        values: np.ndarray = _aligned(body).view(self._type)
        return values

    @property
    def _type(self) -> np.dtype[np.unsignedinteger]:
        return np.dtype("<u4" if self.dtype == "uint32" else "u1")


def _aligned(body: np.ndarray) -> np.ndarray:
    """Return the bytes aligned to 4 bytes, so that numbers can be viewed in them: the array itself, or a copy."""
    if body.ctypes.data % 4 == 0 and body.flags.c_contiguous:
        return body
    return body.copy()


AnyCodec = Float32 | Float16 | Int8 | QSGD
