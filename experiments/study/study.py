"""A sweep that was carried out, laid out for its page: rows, columns and panels of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grapevine.experiments.sweep.cells import CellResult
from grapevine.experiments.sweep.plan import Sweep
from grapevine.experiments.sweep.tune import plain


@dataclass(frozen=True)
class Study:
    """A sweep that was carried out, as its page tells it."""

    name: str
    sweep: Sweep
    cells: Sequence[CellResult]
    command: str
    """What makes it."""
    text: str
    """The file."""

    @property
    def rows(self) -> list[str]:
        """What the first axis was, in order; one row where there is none."""
        return self._places(0)

    @property
    def columns(self) -> list[str]:
        """What the second axis was."""
        return self._places(1)

    @property
    def panels(self) -> list[tuple[str, ...]]:
        """What further axes were: a table each."""
        return list(dict.fromkeys(self._rest(cell) for cell in self.cells))

    def at(self, panel: tuple[str, ...], row: str, column: str) -> CellResult | None:
        """One cell; None where a sweep of several parts leaves it out."""
        found = (c for c in self.cells if self._rest(c) == panel and self._of(c, 0) == row and self._of(c, 1) == column)
        return next(found, None)

    def called(self, panel: tuple[str, ...], column: str = "") -> str:
        """A panel, or one column of it, in words."""
        axes = [*self.sweep.axes[2:], *(self.sweep.axes[1:2] if column else [])]
        places = [*panel, *([column] if column else [])]
        return ", ".join(f"{short_name(axis)} {place}" for axis, place in zip(axes, places, strict=True))

    def _places(self, at: int) -> list[str]:
        return list(dict.fromkeys(self._of(cell, at) for cell in self.cells))

    def _of(self, cell: CellResult, at: int) -> str:
        return plain(cell.values[self.sweep.axes[at]]) if at < len(self.sweep.axes) else ""

    def _rest(self, cell: CellResult) -> tuple[str, ...]:
        return tuple(plain(cell.values[axis]) for axis in self.sweep.axes[2:])


def short_name(key: str) -> str:
    """ "optimizer.learning_rate" -> "learning rate", "strategy.name" -> "strategy"."""
    table, _, last = key.rpartition(".")
    return table if last == "name" and table else last.replace("_", " ")
