"""Conversion of text with units, as in experiment files, to plain numbers and back.

Prefixes are decimal (1 kB = 1000 bytes), and capital and small letters differ: `Mbit/s` is not `MB/s`.
"""

import math
import re
from collections.abc import Callable, Collection
from typing import Annotated, Any, TypeVar

import msgspec

Duration = Annotated[str, msgspec.Meta(extra={"unit": "duration", "example": "80 ms"})]
Rate = Annotated[str, msgspec.Meta(extra={"unit": "rate", "example": "20 Mbit/s"})]
Speed = Annotated[str, msgspec.Meta(extra={"unit": "speed", "example": "2000 samples/s"})]

T = TypeVar("T")

UNLIMITED = "unlimited"
_NUMBER_AND_UNIT = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([^\s\d].*?)\s*", re.ASCII)
_LONGEST_NS = 315_576_000 * 10**9
"""Ten years: a sum of several still fits a signed 64-bit clock."""
_SLOWEST_BYTES_PER_S, _FASTEST_BYTES_PER_S = 1 / 8, 1e15 / 8
_SLOWEST_SAMPLES_PER_S, _FASTEST_SAMPLES_PER_S = 1e-6, 1e12

_NS = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9, "min": 6e10, "h": 3.6e12}
_BITS = {"bit/s": 1 / 8, "kbit/s": 1e3 / 8, "Mbit/s": 1e6 / 8, "Gbit/s": 1e9 / 8}
_BYTES_PER_S = _BITS | {"B/s": 1.0, "kB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9}
_SAMPLES_PER_S = {"samples/s": 1.0}
_S_PER_SAMPLE = {"s/sample": 1.0, "ms/sample": 1e-3, "us/sample": 1e-6}
_SPELLINGS = {
    "us": ("usec", "usecs", "microsecond", "microseconds"),
    "ms": ("msec", "msecs", "millisecond", "milliseconds"),
    "s": ("sec", "secs", "second", "seconds"),
    "min": ("m", "mins", "minute", "minutes"),
    "h": ("hr", "hrs", "hour", "hours"),
    "samples/s": ("sample/s", "samples/sec", "sample/sec", "samples/second", "sps"),
    "ms/sample": ("ms/samples", "msec/sample"),
}
"""Other common spellings of the units, for hints."""


def duration_ns(text: str) -> int:
    """Return the duration `text` ("80 ms", "1.5 s", "0 s") in whole nanoseconds.

    Raises ValueError if it is not a number with a unit of time, is negative, or is longer than ten years.
    """
    value = _parse(text, "duration", _NS, "80 ms")
    if not 0 <= value <= _LONGEST_NS:
        raise ValueError(f"{text!r} is out of range: expected a duration from 0 s to 10 years, for example '80 ms'")
    return round(value)


def rate_bytes_per_s(text: str) -> float:
    """Return the rate `text` ("20 Mbit/s", "2.5 MB/s") in bytes a second; "unlimited" is infinity.

    Raises ValueError if it is not a number with a unit of rate, or is not from 1 bit/s to 1 Pbit/s (10**15 bit/s).
    """
    if text == UNLIMITED:
        return math.inf
    value = _parse(text, "rate", _BYTES_PER_S, "20 Mbit/s")
    if not _SLOWEST_BYTES_PER_S <= value <= _FASTEST_BYTES_PER_S:
        raise ValueError(
            f"{text!r} is out of range: expected a rate from 1 bit/s to 1e6 Gbit/s, or {UNLIMITED!r}, for example '20 Mbit/s'"
        )
    return value


def speed_samples_per_s(text: str) -> float:
    """Return the speed `text` ("2000 samples/s" or "0.5 ms/sample") in training samples a second.

    Raises ValueError if it is not a number with such a unit, or is not from 1e-6 (12 days a sample) to 1e12 samples/s.
    """
    value = _parse(text, "speed", _SAMPLES_PER_S | _S_PER_SAMPLE, "2000 samples/s")
    if text.rstrip().endswith("/sample"):
        value = 1 / value if value else math.inf
    if not _SLOWEST_SAMPLES_PER_S <= value <= _FASTEST_SAMPLES_PER_S:
        raise ValueError(
            f"{text!r} is out of range: expected a speed from 1e-6 to 1e12 samples/s, "
            "for example '2000 samples/s' or '0.5 ms/sample'"
        )
    return value


def show_duration(duration_ns: int | float) -> str:
    """Return a duration as text with a unit, to four digits: 80000000 becomes "80 ms"."""
    for unit in ("s", "ms", "us"):
        if abs(duration_ns) >= _NS[unit]:
            return f"{_digits(duration_ns / _NS[unit])} {unit}"
    return "0 s" if duration_ns == 0 else f"{_digits(duration_ns)} ns"


def show_rate(rate_bytes_per_s: float) -> str:
    """Return a rate as text in bits, to four digits: 2500000.0 becomes "20 Mbit/s", infinity "unlimited"."""
    if rate_bytes_per_s == math.inf:
        return UNLIMITED
    for unit in ("Gbit/s", "Mbit/s", "kbit/s"):
        if rate_bytes_per_s >= _BYTES_PER_S[unit]:
            return f"{_digits(rate_bytes_per_s / _BYTES_PER_S[unit])} {unit}"
    return f"{_digits(rate_bytes_per_s * 8)} bit/s"


def show_bytes(size_bytes: int | float) -> str:
    """Return a size as text with a unit, to four digits: 1400000 becomes "1.4 MB"."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(size_bytes) >= scale:
            return f"{_digits(size_bytes / scale)} {unit}"
    return f"{_digits(size_bytes)} B"


def read(field: str, parse: Callable[[Any], T], value: Any) -> T:
    """Return `parse(value)`; put the field's name before the message of a ValueError."""
    try:
        return parse(value)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


def _parse(text: str, quantity: str, units: dict[str, float], example: str) -> float:
    expected = f"expected a number and a unit ({', '.join(units)}), for example {example!r}"
    match = _NUMBER_AND_UNIT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a {quantity}: {expected}")
    number, unit = match.groups()
    unit = unit.replace("\u00b5", "u").replace("\u03bc", "u")  # both signs that people type for micro
    if unit not in units:
        alike = _likely(unit, units)
        hint = f"; did you mean {' or '.join(alike)}?" if alike else ""
        hint += " capital and small letters differ" if any(known.lower() == unit.lower() for known in alike) else ""
        rest = f" {expected}" if hint.endswith("?") else f"; {expected}"
        raise ValueError(f"{text!r} is not a {quantity}: unknown unit {unit!r}{hint}{rest}")
    value = float(number) * units[unit]
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is too large for a {quantity}: {expected}")
    return value


def _likely(unit: str, units: Collection[str]) -> list[str]:
    """Return the units that another spelling most likely means: "Mbps" and "Mb/s" mean Mbit/s."""
    words = re.fullmatch(r"([kmg]?)(b|bits?|bytes?)(?:ps|/s|/sec|/second|p?/?sec)", unit, re.IGNORECASE | re.ASCII)
    if words and "bit/s" in units:
        prefix, stem = words.group(1).upper().replace("K", "k"), words.group(2)
        return [prefix + ("B/s" if stem == "B" or stem.lower().startswith("byte") else "bit/s")]
    for known, spellings in _SPELLINGS.items():
        if known in units and unit.lower() in spellings:
            return [known]
    return [known for known in units if known.lower() == unit.lower()]


def _digits(value: float) -> str:
    """Return four significant digits without an exponent and without trailing zeros."""
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.4g}"
