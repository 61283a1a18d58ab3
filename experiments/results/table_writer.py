"""The writer of the run folder's tables, `metrics.parquet` and `links.parquet`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grapevine.experiments.results.atomic_files import whole
from grapevine.experiments.results.run_files import COLUMNS, schema

if TYPE_CHECKING:
    import pyarrow


class TableWriter:
    """Rows that are added one by one and written as one parquet file."""

    def __init__(self, file: str) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self._file = file
        self._parts: list[pyarrow.Table] = []

    def table(self) -> pyarrow.Table:
        import pyarrow

        if self.rows:
            kinds = COLUMNS[self._file].values()
            arrays = [_arrow(column, kind) for column, kind in zip(zip(*self.rows, strict=True), kinds, strict=True)]
            self._parts.append(pyarrow.Table.from_arrays(arrays, schema=schema(self._file)))
            self.rows = []
        return pyarrow.concat_tables(self._parts) if self._parts else schema(self._file).empty_table()

    def write(self, folder: Path) -> None:
        import pyarrow.parquet

        with whole(folder / self._file) as part, open(part, "wb") as file:  # arrow cannot open every path
            pyarrow.parquet.write_table(self.table(), file)


def _arrow(column: Sequence[Any], kind: str) -> pyarrow.Array:
    """Return a column as an arrow array, made from buffers: `pyarrow.array` would load pandas, which is slow."""
    import pyarrow

    buffers: list[Any]
    if kind == "string":
        texts = [text.encode() for text in column]
        buffers = [np.cumsum([0, *map(len, texts)], dtype=np.int32), b"".join(texts)]
    else:
        buffers = [np.array(column, dtype=kind)]
    return pyarrow.Array.from_buffers(pyarrow.type_for_alias(kind), len(column), [None, *map(pyarrow.py_buffer, buffers)])
