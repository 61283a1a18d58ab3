"""Tables on a terminal: numbers are never broken; columns that do not fit are left out and counted."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from grapevine.experiments.report.text_table import in_unit, one_unit, print_columns

UNITS = (("B", 1.0), ("kB", 1e3), ("MB", 1e6))


def printed(width: int, titles: list[str], rows: list[list[str]], words: int = 1) -> tuple[list[str], int]:
    out = io.StringIO()
    left = print_columns(Console(file=out, width=width), titles, rows, words)
    return out.getvalue().splitlines(), left


def test_every_number_is_unbroken_and_below_its_title() -> None:
    rows = [["5 Mbit/s", "47,713,123", "0.8187"], ["50 Mbit/s", "139,083,456", "0.8233"]]
    lines, left = printed(80, ["rate", "sent\nB", "accuracy"], rows)
    assert left == 0
    assert lines[-2].split("  ")[0] == "5 Mbit/s"
    assert [line.split()[-2:] for line in lines[-2:]] == [row[1:] for row in rows]
    assert len({len(line.rstrip()) for line in lines[-2:]}) == 1  # aligned to the right


@pytest.mark.parametrize("width", [40, 60, 80, 81, 82])
def test_columns_that_do_not_fit_are_left_out_and_counted(width: int) -> None:
    titles = ["link", *(f"column {number}\nMbit/s" for number in range(8))]
    lines, left = printed(width, titles, [["0 -> 1", *(f"{number},000.5" for number in range(8))]])
    assert max(len(line.rstrip()) for line in lines) <= width
    assert lines[-1].split() == ["0", "->", "1", *(f"{number},000.5" for number in range(8 - left))]
    assert left > 0 or width > 84


def test_long_words_are_cut_and_numbers_never() -> None:
    lines, left = printed(60, ["name", "count"], [["x" * 100, "123,456,789"]])
    assert left == 0
    assert lines[-1].endswith("123,456,789")


def test_one_unit_suits_the_middle_value() -> None:
    assert one_unit([1.0, 2e3, 3e6], UNITS) == ("kB", 1e3)
    assert one_unit([2e6, math.inf, math.nan, None], UNITS) == ("MB", 1e6)
    assert one_unit([], UNITS) == one_unit([0.0], UNITS) == ("B", 1.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(19.804e6, "19.8"), (2.4751e6, "2.475"), (8e9, "8,000"), (1234567e6, "1,234,567"), (0.0, "0"), (20e6, "20"),
     (-2.5e6, "-2.5"), (0.02e6, "0.02"), (None, "-"), (math.nan, "-"), (math.inf, "none")],
)  # fmt: skip
def test_figures_are_plain_and_short(value: float | None, text: str) -> None:
    assert in_unit(value, 1e6) == text
