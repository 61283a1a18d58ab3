"""Vector operations in one pass over memory, by the level 1 routines of BLAS (scipy.linalg.blas), where numpy takes several."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np


def add_scaled(out: np.ndarray, row: np.ndarray, weight: float) -> None:
    """Add a vector, scaled, to another: out <- out + weight x row, both contiguous float32."""
    _routines().saxpy(row, out, a=weight)


def add_all_scaled(out: np.ndarray, rows: Sequence[np.ndarray], weights: Sequence[float]) -> None:
    """Add several vectors, each with its own weight: out <- out + sum_j weights_j x rows_j."""
    saxpy = _routines().saxpy
    for row, weight in zip(rows, weights, strict=True):
        saxpy(row, out, a=weight)


def all_finite(values: np.ndarray) -> bool:
    """Whether no element is nan or infinite (float32 or float64 [count]).

    The sum of squares is finite only if all elements are; if it is not, it may have overflowed, and each element is checked.
    """
    if not len(values):
        return True
    routines = _routines()
    squares = (routines.ddot if values.dtype == np.float64 else routines.sdot)(values, values)
    return isfinite(squares) or bool(np.isfinite(values).all())


@functools.cache
def _routines() -> Any:
    """The library, loaded on first use: a process that only reads a configuration needs no scipy."""
    from scipy.linalg import blas

    return blas
