"""Handles by which a strategy refers to samples of its task without reading them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

Source = Literal["training", "held-out", "probe"]


class Samples:
    """A handle of some samples of the task, which a strategy passes to the verbs of its peer; it cannot read the samples.

    `len(samples)` is the number of samples.  `samples[rows]` is a handle of a part of them; `rows` is a slice, an array of
    positions or an array of truth values.  `source` is the set that they come from; only the task uses `batch`.
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
            cure = "choose at least one by a slice, positions or truth values; skip the gradient of an empty lot, which is 0"
            raise ValueError(f"{rows!r} chooses no samples out of {self.count}: {cure}")
        return Samples(part(positions), len(positions), self.source)
