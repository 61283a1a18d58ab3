"""Paired differences between the cells of a study: each row against a baseline, or against the best row of its place."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from grapevine.experiments.study.study import Study
from grapevine.experiments.sweep.cells import CellResult, Measure
from grapevine.experiments.sweep.estimate import Estimate, interval

TIME = "time_to_target_s"
COMPARED = (TIME, "accuracy_mean", "excess_loss", "loss_mean")
HIGHER_IS_BETTER = ("accuracy_mean",)
BETTER, WORSE, UNDECIDED, MISSING = "better", "worse", "undecided", "not comparable"


class Difference(NamedTuple):
    """The difference of a row and its reference row, in one place (panel and column)."""

    panel: tuple[str, ...]
    column: str
    row: str
    against: str
    measure: Measure
    found: Estimate | None
    """The mean over the seeds that both rows have; None if a run of one of them does not have the figure."""
    lacking: tuple[str, ...] = ()
    """For a time to the target: the rows of the two with a run that never reached it."""

    @property
    def verdict(self) -> str:
        """Better or worse if the difference exceeds its 95 % interval and the time between two records, else undecided.

        For a time to the target that one of the rows never reached: the names of those rows.
        """
        if self.found is None:
            return f"not reached by {' and '.join(self.lacking)}" if self.lacking else MISSING
        if self.found.half is None or abs(self.found.mean) <= max(self.found.half, self.found.grain):
            return UNDECIDED
        return BETTER if (self.found.mean > 0) == (self.measure.key in HIGHER_IS_BETTER) else WORSE

    def shown(self) -> str:
        """Return the difference as text: "+3.2 ± 1.1 (n = 3)"; without a difference, the reason."""
        if self.found is None:
            return self.verdict if self.lacking else "-"
        sign = "+" if self.found.mean > 0 else ""
        return f"{sign}{interval(self.found, self.measure.scale)} (n = {self.found.n})"


def differences(study: Study, shown: Sequence[Measure]) -> list[Difference]:
    """Return the differences of every row, in every place, from the sweep's baseline or else from the best row of the place."""
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
                found += [_difference(panel, column, row, against, measure, cells) for row in cells if row != against]
    return found


def _difference(
    panel: tuple[str, ...], column: str, row: str, against: str, measure: Measure, cells: dict[str, CellResult]
) -> Difference:
    found = cells[against].ahead_of(cells[row], measure.key)
    lacking = tuple(name for name in (against, row) if any(TIME not in run for run in cells[name].runs))
    return Difference(panel, column, row, against, measure, found, lacking if measure.key == TIME and found is None else ())


def _best(cells: dict[str, CellResult], measure: Measure) -> str:
    """Return the row with the best mean, among rows whose runs all have the figure; "" if there is none."""
    means = {
        row: found.mean
        for row, cell in cells.items()
        if (found := cell.estimate(measure.key)) is not None and found.n == len(cell.runs)
    }
    sign = -1.0 if measure.key in HIGHER_IS_BETTER else 1.0
    return min(means, key=lambda row: sign * means[row], default="")


def difference_rows(study: Study, found: Sequence[Difference]) -> list[dict[str, Any]]:
    """Return one row per difference, for `differences.csv`."""
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
    """Return sentences: in how many places each row is better or worse than the baseline, or else in how many places the best
    row is better than all others."""
    sentences = []
    for measure in dict.fromkeys(each.measure for each in found):
        own = [each for each in found if each.measure == measure]
        if study.sweep.options.baseline:
            for row in dict.fromkeys(each.row for each in own):
                verdicts = [each.verdict for each in own if each.row == row]
                kinds = dict.fromkeys((BETTER, WORSE, UNDECIDED, *sorted(verdicts)))
                counts = ", ".join(f"{kind} in {verdicts.count(kind)}" for kind in kinds)
                against = study.sweep.options.baseline
                sentences.append(f"{measure.title}: {row} against {against}: {counts} of {_places(len(verdicts))}.")
            continue
        places: dict[tuple[Any, ...], list[bool]] = {}
        for each in own:
            behind = each.found is None or each.verdict == WORSE
            places.setdefault((each.panel, each.column, each.against), []).append(behind)
        clear = sum(map(all, places.values()))
        count = f"{clear} of {_places(len(places))}"
        sentences.append(f"{measure.title}: the best row is ahead of every other, seed by seed, in {count}.")
    return [text[:1].upper() + text[1:] for text in sentences]


def _places(number: int) -> str:
    return f"{number} place" if number == 1 else f"{number} places"


def differences_section(study: Study, found: Sequence[Difference]) -> str:
    """Return the section with the sentences and one table per measure and panel; "" if nothing can be compared."""
    if not found:
        return ""
    baseline = study.sweep.options.baseline
    against = f"the baseline {baseline!r}" if baseline else "the best row of its column"
    text = (
        f"Each row minus {against}, seed by seed: the mean over the n seeds that both rows have ± half of its 95 % interval "
        "(Student's t). A place is one column of one table. Bold: the interval does not contain 0; by chance this happens for "
        "one in twenty rows without a true difference. "
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
