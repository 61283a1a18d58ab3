"""Aggregators: rules that combine several vectors into one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np

from grapevine.peer.blas import add_all_scaled

BLOCK = 1 << 15  # elements worked on at a time: they stay in the cache between the passes


class Aggregator(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """A rule that combines the vectors of several peers into one."""

    @abstractmethod
    def combine(self, rows: Sequence[np.ndarray], weights: Sequence[float], out: np.ndarray) -> None:
        """Combine k >= 1 vectors by their weights, which add up to one, and write the result into `out` (float32 [size]).

        `out` must not be one of the rows.
        """
        raise NotImplementedError


class Mean(Aggregator, frozen=True, tag="mean"):
    """The weighted mean: sum_j W_ij x_j."""

    def combine(self, rows: Sequence[np.ndarray], weights: Sequence[float], out: np.ndarray) -> None:
        if len(out) <= BLOCK:
            _weighted_sum(rows, weights, out)
            return
        for start in range(0, len(out), BLOCK):
            block = slice(start, start + BLOCK)
            _weighted_sum([row[block] for row in rows], weights, out[block])


def _weighted_sum(rows: Sequence[np.ndarray], weights: Sequence[float], out: np.ndarray) -> None:
    """Write sum_j w_j x_j into `out`; the vectors are short enough to stay in the cache between the passes."""
    np.multiply(rows[0], weights[0], out=out)
    add_all_scaled(out, rows[1:], weights[1:])


class Median(Aggregator, frozen=True, tag="median"):
    """The coordinate-wise median, which ignores weights and withstands arbitrary values in fewer than half of the rows.

    With an even number of rows it is the mean of both middle values.
    """

    def combine(self, rows: Sequence[np.ndarray], weights: Sequence[float], out: np.ndarray) -> None:
        out[:] = np.median(np.stack(rows), axis=0)


class TrimmedMean(Aggregator, frozen=True, tag="trimmed-mean"):
    """The coordinate-wise mean without the `trim` smallest and `trim` largest values; it ignores weights."""

    trim: Annotated[int, msgspec.Meta(ge=0)] = 1
    """Number of values dropped at each end, >= 0; with too few rows fewer are dropped, so that at least one remains."""

    def combine(self, rows: Sequence[np.ndarray], weights: Sequence[float], out: np.ndarray) -> None:
        trim = min(self.trim, (len(rows) - 1) // 2)
        out[:] = np.sort(np.stack(rows), axis=0)[trim : len(rows) - trim].mean(axis=0, dtype=np.float32)


AnyAggregator = Mean | Median | TrimmedMean
