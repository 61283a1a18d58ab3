"""How several contributions become one: the menu of aggregators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np


class Aggregator(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """How several contributions become one."""

    def combine(self, rows: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
        """One new vector (float32 [size]) from k >= 1 vectors and their weights, which add up to one."""
        raise AssertionError("an aggregator combines")


class Mean(Aggregator, frozen=True, tag="mean"):
    """The weighted mean: sum_j W_ij x_j."""

    def combine(self, rows: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
        total = rows[0] * np.float32(weights[0])
        scratch = np.empty_like(total)
        for row, weight in zip(rows[1:], weights[1:], strict=True):
            np.multiply(row, np.float32(weight), out=scratch)
            total += scratch
        return total


class Median(Aggregator, frozen=True, tag="median"):
    """The coordinate-wise median (mean of both middle values), blind to weights: half of the rows may be arbitrary."""

    def combine(self, rows: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
        return np.median(np.stack(rows), axis=0).astype(np.float32)


class TrimmedMean(Aggregator, frozen=True, tag="trimmed-mean"):
    """The coordinate-wise mean without the `trim` smallest and `trim` largest values, blind to weights."""

    trim: Annotated[int, msgspec.Meta(ge=0)] = 1
    """Values dropped at each end; fewer (as many as leave one) where there are not enough rows."""

    def combine(self, rows: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
        trim = min(self.trim, (len(rows) - 1) // 2)
        return np.sort(np.stack(rows), axis=0)[trim : len(rows) - trim].mean(axis=0, dtype=np.float32)


AnyAggregator = Mean | Median | TrimmedMean
