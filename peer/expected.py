"""The forms of message that a strategy expects, and the check of every message before the strategy sees it."""

from __future__ import annotations

from collections.abc import Container, Sequence
from math import isfinite
from sys import float_info
from typing import NamedTuple

from grapevine.peer.message import Message
from grapevine.peer.payloads import Dense, Form, Payload
from grapevine.peer.spaces import MODEL

Bounds = tuple[float, float]
LARGEST = float_info.max
FINITE: Bounds = (-LARGEST, LARGEST)
COUNT: Bounds = (0.0, 2.0**53)
"""Bounds of a scalar that is a count: above 2^53 a float64 cannot hold every whole number."""
NOT_FINITE, EMPTY, UNEXPECTED = "not-finite", "empty", "unexpected"
"""The kinds of error by which `Peer.errors` counts the messages that are dropped here."""


class Expected(NamedTuple):
    """One form that a message may have.

    `payload`: "whole" is every element of the vector, "part" one range of it, "chosen" some elements by index, "marks" indices
    alone (each of these has at least one element), "none" no element.  `scalars` gives the bounds of each scalar in turn, both
    inclusive; nan is never within them.  `sources` are the peers that may send it, `elements` is the only range that it may
    hold (None = any).  `space` is the name of the vector that the elements belong to.
    """

    payload: Form
    scalars: tuple[Bounds, ...] = ()
    sources: Container[int] | None = None
    elements: slice | None = None
    space: str = MODEL

    def fits(self, source: int, payload: Payload, scalars: Sequence[float], size: int) -> bool:
        """Whether a message of a peer has this form; `size` is the length of the whole vector that its payload belongs to."""
        form, bounds, sources, elements, space = self
        if space != payload.space or len(scalars) != len(bounds) or (sources is not None and source not in sources):
            return False
        if scalars:
            for scalar, (least, most) in zip(scalars, bounds, strict=True):
                if not least <= scalar <= most:
                    return False
        dense = isinstance(payload, Dense)
        count = len(payload.values) if dense else payload.count
        if form == "none" or not count:
            return form == "none" and not count
        if dense:
            if elements is not None and payload.where() != elements:
                return False
            return form == "part" or (form == "whole" and count == size)
        return form == payload.form


def misfit(message: Message, size: int, expected: Sequence[Expected] | None) -> str:
    """Return the kind of error of a message, "" if it has none; `size` is the number of elements of its payload's space.

    Every value must be finite, and the message must have one of the expected forms.  If no forms are declared (None) it must
    hold at least one element, and its scalars must be finite.
    """
    source, _, payload, scalars, _ = message
    if not payload.finite:
        return NOT_FINITE
    if expected is None:
        if not payload.count:
            return EMPTY
        return "" if all(map(isfinite, scalars)) else UNEXPECTED
    for form in expected:
        if form.fits(source, payload, scalars, size):
            return ""
    return UNEXPECTED if payload.count else EMPTY
