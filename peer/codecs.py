"""How numbers become bytes: the menu of codecs.

A codec is lossless (float32) or says how large its rounding is.  What rounding lost is known to the sender (`encode` returns
the values as they will be read), so that a ledger can take it back: error feedback without any state of its own.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import ClassVar

import msgspec
import numpy as np

INT8_BLOCK = 1024  # elements that share one scale: 0.4 % overhead, and one outlier spoils 1024 elements at most


class Codec(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """How the numbers of a message become bytes."""

    number: ClassVar[int]
    lossless: ClassVar[bool] = False

    def body_bytes(self, count: int) -> int:
        """Bytes of `count` encoded elements, exactly."""
        raise AssertionError("a codec says its size")

    def encode(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """float32 [count] -> (uint8 [body_bytes(count)], the values as they will be read, float32 [count])."""
        raise AssertionError("a codec encodes")

    def decode(self, body: np.ndarray, count: int) -> np.ndarray:
        """uint8 [body_bytes(count)] -> float32 [count]; the caller has checked the length."""
        raise AssertionError("a codec decodes")

    def elements(self, size_bytes: float) -> int:
        """How many elements fit into so many bytes (0 if none)."""
        if size_bytes == float("inf"):
            return 2**40
        return bisect_right(range(max(0, int(size_bytes)) + 1), size_bytes, key=self.body_bytes) - 1 if size_bytes > 0 else 0


class Float32(Codec, frozen=True, tag="float32"):
    """Four bytes an element, lossless."""

    number: ClassVar[int] = 0
    lossless: ClassVar[bool] = True

    def body_bytes(self, count: int) -> int:
        return 4 * count

    def elements(self, size_bytes: float) -> int:
        return int(min(max(size_bytes, 0), 2**40) // 4)

    def encode(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        copy = np.array(values, "<f4")
        return copy.view(np.uint8), copy

    def decode(self, body: np.ndarray, count: int) -> np.ndarray:
        return _aligned(body).view("<f4")


class Float16(Codec, frozen=True, tag="float16"):
    """Two bytes an element, IEEE half precision: relative error at most 2^-11 between 6.1e-5 and 65504."""

    number: ClassVar[int] = 1

    def body_bytes(self, count: int) -> int:
        return 2 * count

    def elements(self, size_bytes: float) -> int:
        return int(min(max(size_bytes, 0), 2**40) // 2)

    def encode(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        half = np.clip(values, -65504.0, 65504.0).astype("<f2")
        return half.view(np.uint8), half.astype(np.float32)

    def decode(self, body: np.ndarray, count: int) -> np.ndarray:
        return _aligned(body).view("<f2").astype(np.float32)


class Int8(Codec, frozen=True, tag="int8"):
    """One byte an element and one float32 scale per 1,024 elements: error at most (largest of the block) / 254."""

    number: ClassVar[int] = 2

    def body_bytes(self, count: int) -> int:
        return count + 4 * -(-count // INT8_BLOCK)

    def encode(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def _aligned(body: np.ndarray) -> np.ndarray:
    """The bytes as an array that numbers may be viewed in: itself where it lies aligned, else a copy."""
    if body.ctypes.data % 4 == 0 and body.flags.c_contiguous:
        return body
    return body.copy()


AnyCodec = Float32 | Float16 | Int8
BY_NUMBER: dict[int, AnyCodec] = {codec.number: codec() for codec in (Float32, Float16, Int8)}
