"""A completed sweep arranged for its page: rows, columns and panels of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grapevine.experiments.sweep.cells import CellResult
from grapevine.experiments.sweep.plan import Sweep
from grapevine.experiments.sweep.tune import plain


@dataclass(frozen=True)
class Study:
    """A completed sweep with the data of its page."""

    name: str
    sweep: Sweep
    cells: Sequence[CellResult]
    command: str
    """The command that makes the page."""
    text: str
    """The text of the experiment file."""

    @property
    def rows(self) -> list[str]:
        """The values of the first axis, in order; one empty value if there is no axis."""
        return self._places(0)

    @property
    def columns(self) -> list[str]:
        """The values of the second axis, in order; one empty value if there is none."""
        return self._places(1)

    @property
    def panels(self) -> list[tuple[str, ...]]:
        """The combinations of values of all further axes; each has its own table."""
        return list(dict.fromkeys(self._rest(cell) for cell in self.cells))

    def at(self, panel: tuple[str, ...], row: str, column: str) -> CellResult | None:
        """Return one cell; None if a sweep of several parts does not have it."""
        found = (c for c in self.cells if self._rest(c) == panel and self._of(c, 0) == row and self._of(c, 1) == column)
        return next(found, None)

    def called(self, panel: tuple[str, ...], column: str = "") -> str:
        """Return the name of a panel, or of one column of it: axes with their values."""
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
