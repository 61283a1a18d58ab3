"""What the cells of a study differ by, seed by seed: each row against a baseline, or against the best of its place."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from grapevine.experiments.study.study import Study
from grapevine.experiments.sweep.cells import CellResult, Estimate, Measure, interval

COMPARED = ("time_to_target_s", "accuracy_mean", "loss_mean")
HIGHER_IS_BETTER = ("accuracy_mean",)
BETTER, WORSE, UNDECIDED, MISSING = "better", "worse", "undecided", "not comparable"


class Difference(NamedTuple):
    """One row less the row it is compared with, in one place."""

    panel: tuple[str, ...]
    column: str
    row: str
    against: str
    measure: Measure
    found: Estimate | None
    """Over the seeds that both have; None where a run of one of them does not have the figure."""

    @property
    def verdict(self) -> str:
        """Whether the row is better or worse than the other: only where the 95 % interval, and what a time is known to, leave
        out 0."""
        if self.found is None:
            return MISSING
        if self.found.half is None or abs(self.found.mean) <= max(self.found.half, self.found.grain):
            return UNDECIDED
        return BETTER if (self.found.mean > 0) == (self.measure.key in HIGHER_IS_BETTER) else WORSE

    def shown(self) -> str:
        """ "+3.2 ± 1.1 (n = 3)"."""
        if self.found is None:
            return "-"
        sign = "+" if self.found.mean > 0 else ""
        return f"{sign}{interval(self.found, self.measure.scale)} (n = {self.found.n})"


def differences(study: Study, shown: Sequence[Measure]) -> list[Difference]:
    """Every row of every place against the baseline of the sweep, or against the best row of the place where it names none."""
    found = []
    for measure in shown:
        if measure.key not in COMPARED:
            continue
        for panel in study.panels:
            for column in study.columns:
                cells = {row: cell for row in study.rows if (cell := study.at(panel, row, column)) and cell.runs}
                against = study.sweep.options.baseline or _best(cells, measure)
                if against not in cells:
                    continue
                found += [
                    Difference(panel, column, row, against, measure, cells[against].ahead_of(cell, measure.key))
                    for row, cell in cells.items()
                    if row != against
                ]
    return found


def _best(cells: dict[str, CellResult], measure: Measure) -> str:
    """The row of the best mean, of those all of whose runs have the figure; "" where there is none."""
    means = {
        row: found.mean
        for row, cell in cells.items()
        if (found := cell.estimate(measure.key)) is not None and found.n == len(cell.runs)
    }
    sign = -1.0 if measure.key in HIGHER_IS_BETTER else 1.0
    return min(means, key=lambda row: sign * means[row], default="")


def difference_rows(study: Study, found: Sequence[Difference]) -> list[dict[str, Any]]:
    """One row a difference, for `differences.csv`."""
    return [
        {
            "measure": each.measure.key, "place": study.called(each.panel, each.column),
            "row": each.row, "against": each.against,
            "difference": each.found.mean if each.found else None, "half": each.found.half if each.found else None,
            "grain": each.found.grain if each.found else None, "n": each.found.n if each.found else 0, "verdict": each.verdict,
        }
        for each in found
    ]  # fmt: skip


def counted(study: Study, found: Sequence[Difference]) -> list[str]:
    """In how many places each row is better or worse than the baseline, in words; of the best of each place how often it is
    ahead of every other row."""
    said = []
    for measure in dict.fromkeys(each.measure for each in found):
        own = [each for each in found if each.measure == measure]
        if study.sweep.options.baseline:
            for row in dict.fromkeys(each.row for each in own):
                verdicts = [each.verdict for each in own if each.row == row]
                told = ", ".join(f"{kind} in {verdicts.count(kind)}" for kind in (BETTER, WORSE, UNDECIDED, MISSING))
                against = study.sweep.options.baseline
                said.append(f"{measure.title}: {row} against {against}: {told} of {_places(len(verdicts))}.")
            continue
        places: dict[tuple[Any, ...], list[str]] = {}
        for each in own:
            places.setdefault((each.panel, each.column, each.against), []).append(each.verdict)
        clear = sum(all(verdict in (WORSE, MISSING) for verdict in verdicts) for verdicts in places.values())
        count = f"{clear} of {_places(len(places))}"
        said.append(f"{measure.title}: the best row is ahead of every other, seed by seed, in {count}.")
    return [text[:1].upper() + text[1:] for text in said]


def _places(number: int) -> str:
    return f"{number} place" if number == 1 else f"{number} places"


def differences_section(study: Study, found: Sequence[Difference]) -> str:
    """A table a measure and panel; "" where nothing can be compared."""
    if not found:
        return ""
    baseline = study.sweep.options.baseline
    against = f"{baseline!r}, as the file says" if baseline else "the best row of each column"
    text = (
        f"Each row less {against}, seed by seed: the mean over the seeds that both have ± half of its 95 % interval "
        "(Student's t), and their number n. In bold where the interval leaves out 0; of rows that are all alike one in twenty "
        "would do so by luck. "
    )
    tables = []
    for measure in dict.fromkeys(each.measure for each in found):
        for panel in study.panels:
            own = [each for each in found if each.measure == measure and each.panel == panel]
            if own:
                title = ", ".join(filter(None, (f"{measure.title} ({measure.unit})".replace(" ()", ""), study.called(panel))))
                tables.append(f"<h3>{escape(title)}</h3>{_table(study, own)}")
    items = "".join(f"<li>{escape(each)}</li>" for each in counted(study, found))
    return (
        f'<section class="card"><h2>Differences</h2><p class="how">{escape(text)}</p><ul>{items}</ul>'
        f"<details><summary>All differences</summary>{''.join(tables)}</details></section>"
    )


def _table(study: Study, own: Sequence[Difference]) -> str:
    at = {(each.row, each.column): each for each in own}
    reference = {each.column: each.against for each in own}
    head = "".join(f"<th>{escape(column)}</th>" for column in ("", *study.columns))
    lines = []
    for row in study.rows:
        cells = []
        for column in study.columns:
            each = at.get((row, column))
            if each is None:
                cells.append(f"<td>{'reference' if reference.get(column) == row else '-'}</td>")
            else:
                decided = each.verdict in (BETTER, WORSE)
                cells.append(f"<td><b>{escape(each.shown())}</b></td>" if decided else f"<td>{escape(each.shown())}</td>")
        lines.append(f"<tr><th>{escape(row)}</th>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table class="runs"><tr>{head}</tr>{"".join(lines)}</table></div>'
