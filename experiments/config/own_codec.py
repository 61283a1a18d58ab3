"""The check of a user's own codec before a run: its number on the wire, and that it reads what it wrote."""

from __future__ import annotations

import traceback

import numpy as np

from grapevine.experiments.config.errors import ConfigError
from grapevine.experiments.config.menus import MENUS
from grapevine.peer.codecs import OWN_NUMBERS, Codec
from grapevine.peer.payloads import Dense, decode, decode_head, encode
from grapevine.peer.spaces import Spaces

KEY = "codec.name"
COUNTS = (0, 1, 7, 4096)
"""The numbers of elements with which a codec is tried."""
_CURE = "let encode return body_bytes(count) bytes (uint8), and the float32 values that decode returns for them"


def refuse_codec(codec: Codec) -> None:
    """Raise ConfigError for a user's own codec whose number is not from 128 to 255, or whose decode does not fit its encode."""
    if type(codec) in MENUS["codec"].members.values():
        return
    name, number = MENUS["codec"].called(codec), getattr(codec, "number", None)
    if number not in OWN_NUMBERS:
        owners = [name for name, member in MENUS["codec"].members.items() if member.number == number]  # type: ignore[attr-defined]
        problem = f"its number on the wire is {number}" + (f", the number of {owners[0]}" if owners else "")
        cure = f"write number: ClassVar[int] = {OWN_NUMBERS[0]} in the class, or another number up to {OWN_NUMBERS[-1]}"
        raise ConfigError(key=KEY, value=name, problem=problem, cure=cure)
    rng = np.random.default_rng(0)
    for count in COUNTS:
        _try(codec, name, rng.standard_normal(count).astype(np.float32))


def _try(codec: Codec, name: str, values: np.ndarray) -> None:
    """Write values (float32 [count]) and read them again."""
    count = len(values)
    try:
        parcel, read = encode(Dense(values), codec, 0)
        again = decode(decode_head(parcel.head), parcel.body, Spaces(count, codec)).values
    except Exception as error:  # noqa: BLE001 - the user's own code may raise anything
        problem = f"with {count} elements it raised {traceback.format_exception_only(error)[-1].strip()}"
        raise ConfigError(key=KEY, value=name, problem=problem, cure=_CURE) from None
    if read.shape != (count,) or read.dtype != np.float32 or not np.array_equal(read, again):
        problem = f"with {count} elements decode does not return the values that encode returned"
        raise ConfigError(key=KEY, value=name, problem=problem, cure=_CURE)
    if codec.lossless and not np.array_equal(read, values):
        problem = f"it has lossless = True but changes some of {count} elements"
        raise ConfigError(key=KEY, value=name, problem=problem, cure="take lossless = True out of the class")
