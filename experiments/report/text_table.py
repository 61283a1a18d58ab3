"""Tables of figures for a terminal: columns are as wide as their content, and no number is ever broken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

GAP = 2
WIDEST_WORD = 26
"""The largest width of a column of words, in characters; longer words are cut."""


def print_columns(console: Console, titles: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> int:
    """Print the columns that fit the terminal, from the left; return the number of columns that do not fit.

    `titles` may have several lines, such as "sent\\nMB"; the first `words` columns are text, the others numbers.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    widths = [_width(column) for column in zip(titles, *rows, strict=True)]
    widths[:words] = [min(width, WIDEST_WORD) for width in widths[:words]]
    shown, used = 0, 0
    while shown < len(titles) and used + widths[shown] <= console.width:
        used += widths[shown] + GAP
        shown += 1
    shown = max(shown, 1)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    for at, title in enumerate(titles[:shown]):
        table.add_column(Text(title), justify="left" if at < words else "right", no_wrap=True, width=widths[at])
    for row in rows:
        table.add_row(*(Text(cell) for cell in row[:shown]))
    console.print(table)
    return len(titles) - shown


def one_unit(values: Sequence[float | None], units: Sequence[tuple[str, float]]) -> tuple[str, float]:
    """Return the largest unit, of units listed from small to large, in which the median of the values is 1 or more."""
    known = sorted(abs(value) for value in values if value is not None and math.isfinite(value) and value)
    middle = known[(len(known) - 1) // 2] if known else 0.0
    fitting = [unit for unit in units if middle >= unit[1]]
    return fitting[-1] if fitting else units[0]


def in_unit(value: float | None, scale: float, digits: int = 4) -> str:
    """Return a figure in a unit as short text; unknown -> "-", infinite -> "none"."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "none"
    scaled = value / scale
    decimals = max(0, digits - 1 - (math.floor(math.log10(abs(scaled))) if abs(scaled) >= 1 else 0))
    text = f"{scaled:,.{min(decimals, digits - 1)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _width(cells: Sequence[str]) -> int:
    return max(len(line) for cell in cells for line in cell.split("\n"))
