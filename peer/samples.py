"""Handles by which a strategy names samples of its task without seeing them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

Source = Literal["training", "held-out", "probe"]


class Samples:
    """Some samples of the task: a strategy names them by this handle, and cannot read them.

    `len(samples)` is how many there are. `samples[rows]` is a part of them, for a slice or an array of positions or of truth
    values. `source` says where they come from; `batch` is for the task alone.
    """

    __slots__ = ("batch", "count", "source")

    def __init__(self, batch: Any, count: int, source: Source = "training") -> None:
        self.batch = batch
        self.count = count
        self.source = source

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: slice | np.ndarray) -> Samples:
        part = getattr(self.batch, "part", None)
        if part is None:
            raise ValueError("the samples of this task cannot be divided: use the whole handle")
        positions = np.arange(self.count)[rows]
        if positions.ndim != 1 or not len(positions):
            raise ValueError(f"{rows!r} chooses no samples out of {self.count}: give a slice or an array of positions")
        return Samples(part(positions), len(positions), self.source)
