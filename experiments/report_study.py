"""One page for a whole sweep: cells with their intervals as tables, bars and curves, and how each was tuned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np

from experiments.connectivity import read_connectivity
from experiments.connectivity_ranks import connectivity_rows, verdicts
from experiments.report import section, write_page
from experiments.report_connectivity import conclusions, connectivity_sections
from experiments.report_figures import COLOURS, Figure, frame
from experiments.summary import figure, percent
from experiments.sweep_cells import CellResult, Measure, measures
from experiments.sweep_plan import Sweep
from experiments.sweep_table import write_table
from experiments.sweep_tune import Score, best, plain, trials_told

DRAWN = ("time_to_target_s", "accuracy_mean", "accuracy_spread", "loss_mean")
DASHES = ("solid", "dash", "dot")


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
        return ", ".join(f"{_short(axis)} {place}" for axis, place in zip(axes, places, strict=True))

    def _places(self, at: int) -> list[str]:
        return list(dict.fromkeys(self._of(cell, at) for cell in self.cells))

    def _of(self, cell: CellResult, at: int) -> str:
        return plain(cell.values[self.sweep.axes[at]]) if at < len(self.sweep.axes) else ""

    def _rest(self, cell: CellResult) -> tuple[str, ...]:
        return tuple(plain(cell.values[axis]) for axis in self.sweep.axes[2:])


def write_study(study: Study, out: Path) -> tuple[list[Path], list[str]]:
    """Write the page to `out`, and tables of what else was worked out beside it; the files, and what they say in words.

    Raises ValueError where a run folder is damaged, or the page cannot be written.
    """
    figures: dict[str, Figure] = {}
    shown = measures(study.cells, study.sweep.target)
    connectivity = read_connectivity(study.sweep, study.cells)
    parts = [_told(study, connectivity is None), _doubts(study)]
    files, said = [out], list[str]()
    if connectivity is not None:
        found = verdicts(connectivity)
        said = conclusions(connectivity, found)
        files += write_table(connectivity_rows(connectivity), out.parent, "connectivity")
        parts += connectivity_sections(connectivity, found, study.command, figures)
    for panel in study.panels:
        parts.append(_table(study, panel, shown))
        if connectivity is None:
            parts += ['<div class="grid">', *_pictures(study, panel, shown, figures), "</div>"]
    parts += [_tuning(study), _runs(study, out.parent), _file(study)]
    write_page(out, study.name, "\n".join(parts), figures)
    return files, said


def _told(study: Study, drawn: bool) -> str:
    sweep, cells = study.sweep, study.cells
    counts = sorted({len(cell.attempts) for cell in cells})
    each = " to ".join(str(count) for count in (counts if len(counts) == 1 else (counts[0], counts[-1])))
    text = f"{len(cells):,} combinations of {', '.join(map(_short, sweep.axes)) or 'nothing but seeds'}, {each} "
    text += "run with a seed of its own each. " if each == "1" else "runs each, which differ in the seed alone. "
    if max(counts) > 1:
        text += "Figures are means over these runs ± half of the 95 % interval (Student's t)"
        text += "; so are the bars' whiskers and the curves' bands. " if drawn else ". "
    if sweep.tune:
        text += (
            f"Every combination was tuned by the same {len(sweep.tune.candidates)} trials ({_tuned_names(sweep)}: "
            f"{trials_told(sweep.tune.candidates)}) on seed {sweep.tune.seed}, which is none of the measured ones. The best "
            f"reaches a mean accuracy of {100 * sweep.target:g} % first; where none does, it is the most accurate at the end. "
        )
    return f'<p class="told">{escape(text)}</p><p class="note">Made by <code>{escape(study.command)}</code></p>'


def _doubts(study: Study) -> str:
    doubts = []
    at_an_end: list[str] = []
    for cell in study.cells:
        label = ", ".join(plain(value) for value in cell.values.values()) or "all"
        missing = [attempt for attempt in cell.attempts if not attempt.done]
        if missing:
            doubts.append(f"{label}: {len(missing)} of {len(cell.attempts)} runs are missing ({missing[0].reason})")
        if (failed := cell.scores.count(None)) and cell.tuned:
            doubts.append(f"{label}: {failed} of {len(cell.scores)} trials were not completed")
        if study.sweep.tune and (ends := study.sweep.tune.at_an_end(cell.tuned)):
            at_an_end.append(f"{label} ({', '.join(plain(cell.tuned[key]) for key in ends)})")
    if at_an_end:
        places = f"{len(at_an_end)} of {len(study.cells)} combinations"
        text = f"In {places} what was tuned is best at an end of its list, so that a wider one may do better: "
        doubts.append(text + "; ".join(at_an_end))
    items = "".join(f"<li>{escape(doubt)}</li>" for doubt in doubts)
    return f'<div class="warnings"><b>Before you trust these figures</b><ul>{items}</ul></div>' if doubts else ""


def _table(study: Study, panel: tuple[str, ...], shown: Sequence[Measure]) -> str:
    """Rows by the first axis; columns by the second, or, where there is none, by what was measured."""
    tune = study.sweep.tune
    by_measure = study.columns == [""]
    titles = [_titled(measure) for measure in shown] + (["tuned"] if tune else []) if by_measure else study.columns
    lines = []
    for row in study.rows:
        cells = [study.at(panel, row, column) for column in study.columns]
        if by_measure:
            cell = cells[0]
            found = [cell.shown(measure) if cell else "-" for measure in shown]
            found += [tune.told(cell.tuned) if cell and cell.tuned else "-"] if tune else []
            texts = [f"<td>{escape(text)}</td>" for text in found]
        else:
            texts = [_cell(study, cell, shown) for cell in cells]
        lines.append(f"<tr><th>{escape(row)}</th>{''.join(texts)}</tr>")
    head = "".join(f"<th>{escape(title)}</th>" for title in ("", *titles))
    title = study.called(panel) or "Figures"
    note = "" if by_measure else f"In each cell: {', '.join(_titled(m) for m in shown)}{'; what was tuned' if tune else ''}. "
    return (
        f'<section class="card"><h2>{escape(title)}</h2><p class="how">{escape(note)}<code>{escape(study.command)}</code></p>'
        f'<div class="scroll"><table class="runs"><tr>{head}</tr>{"".join(lines)}</table></div></section>'
    )


def _cell(study: Study, cell: CellResult | None, shown: Sequence[Measure]) -> str:
    if cell is None or not cell.runs:
        return "<td>-</td>"
    lines = [_with_unit(cell.shown(measure), measure) for measure in shown]
    lines[0] = f"<b>{escape(lines[0])}</b>"
    lines[1:] = [escape(line) for line in lines[1:]]
    if study.sweep.tune and cell.tuned:
        lines.append(f"<small>{escape(study.sweep.tune.told(cell.tuned))}</small>")
    return f"<td>{'<br>'.join(lines)}</td>"


def _with_unit(text: str, measure: Measure) -> str:
    """A figure that says what it is: "0.70 ± 0.25 s", "1 of 3 in time", "0.9 ± 1.1 points apart"."""
    if " of " in text:
        return f"{text} in time"
    if measure.key == "accuracy_spread":
        return f"{text} points apart"
    return f"{text} {measure.unit}".rstrip() + ("" if measure.unit in ("s", "%") else f" {measure.title}")


def _pictures(study: Study, panel: tuple[str, ...], shown: Sequence[Measure], figures: dict[str, Figure]) -> Iterable[str]:
    where = study.called(panel)
    for measure in shown:
        if measure.key in DRAWN:
            text = (
                f"Means and 95 % intervals. {'No bar: not all runs reach it. ' if 'time' in measure.key else ''}{study.command}"
            )
            title = measure.title[0].upper() + measure.title[1:] + (f": {where}" if where else "")
            yield section(title, text, _bars(study, panel, measure), "No run came to it.", figures, wide=len(study.columns) > 1)
    for column in study.columns:
        if (drawn := _curves(study, panel, column)) is not None:
            title = "Accuracy over time" + (f": {called}" if (called := study.called(panel, column)) else "")
            text = f"Test accuracy, mean over the peers and over the runs; bands are 95 % intervals. {study.command}"
            yield section(title, text, drawn, "", figures)


def _bars(study: Study, panel: tuple[str, ...], measure: Measure) -> Figure | None:
    data: list[Figure] = []
    for number, row in enumerate(study.rows):
        cells = [study.at(panel, row, column) for column in study.columns]
        whole = [cell.estimate(measure.key) if cell else None for cell in cells]
        whole = [
            found if found and cell and found.n == len(cell.runs) else None for cell, found in zip(cells, whole, strict=True)
        ]
        halves = [(found.half or 0.0) / measure.scale if found else 0.0 for found in whole]
        bar: Figure = {"type": "bar", "name": escape(row) or "all runs"}
        bar["x"] = [escape(column or row) for column in study.columns]
        bar["y"] = [found.mean / measure.scale if found else None for found in whole]
        bar["error_y"] = {"type": "data", "array": halves, "thickness": 1.4}
        bar["marker"] = {"color": COLOURS[number % len(COLOURS)], "opacity": 1.0 if number < len(COLOURS) else 0.55}
        data.append(bar)
    if all(value is None for bar in data for value in bar["y"]):
        return None
    layout = frame("", _titled(measure), named=min(len(data), 8))
    layout |= {"barmode": "group" if any(study.columns) else "overlay", "hovermode": "x"}
    layout["xaxis"] |= {"type": "category"}
    return {"data": data, "layout": layout}


def _curves(study: Study, panel: tuple[str, ...], column: str) -> Figure | None:
    data: list[Figure] = []
    for number, row in enumerate(study.rows):
        cell = study.at(panel, row, column)
        times, mean, half = cell.accuracy() if cell else (np.empty(0),) * 3
        if not len(times):
            continue
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]
        name = escape(row) or "all runs"
        line: Figure = {"type": "scatter", "mode": "lines", "x": times.tolist(), "legendgroup": name}
        edge = line | {"showlegend": False, "hoverinfo": "skip", "line": {"width": 0, "color": colour}}
        if len(cell.runs if cell else ()) > 1:
            data.append(edge | {"y": (mean - half).tolist()})
            data.append(edge | {"y": (mean + half).tolist(), "fill": "tonexty", "fillcolor": f"{colour}26"})
        line |= {"y": mean.tolist(), "name": name, "line": {"color": colour, "width": 2.2, "dash": dash}}
        data.append(line)
    if not data:
        return None
    layout = frame("emulated time (s)", "test accuracy", named=min(len(study.rows), 8))
    layout["yaxis"] |= {"tickformat": ".0%"}
    return {"data": data, "layout": layout}


def _tuning(study: Study) -> str:
    tune = study.sweep.tune
    if tune is None:
        return ""
    head = "".join(f"<th>{escape(title)}</th>" for title in ("", *(trials_told([c]) for c in tune.candidates)))
    lines = []
    for cell in study.cells:
        chosen = best(cell.scores)
        texts = [_scored(score, place == chosen) for place, score in enumerate(cell.scores)]
        label = ", ".join(plain(value) for value in cell.values.values())
        lines.append(f"<tr><th>{escape(label)}</th>{''.join(texts)}</tr>")
    text = f"Each trial: the time to {100 * study.sweep.target:g} %, or else what it came to at the end. In bold: chosen. "
    return (
        f'<section class="card"><h2>Tuning: {escape(_tuned_names(study.sweep))}</h2><p class="how">{escape(text)}'
        f"<code>{escape(study.command)}</code></p><details><summary>All trials</summary>"
        f'<div class="scroll"><table class="runs"><tr>{head}</tr>{"".join(lines)}</table></div></details></section>'
    )


def _scored(score: Score | None, chosen: bool) -> str:
    if score is None:
        return "<td>not completed</td>"
    text = figure(score.reached_s, "s") if score.reached_s is not None else percent(score.accuracy)
    text = f"loss {figure(score.loss)}" if text == "-" else text
    return f"<td><b>{escape(text)}</b></td>" if chosen else f"<td>{escape(text)}</td>"


def _runs(study: Study, folder: Path) -> str:
    items = "".join(
        f'<li><a href="{escape(quote(str(run.relative_to(folder) / "report.html")))}">{escape(run.name)}</a></li>'
        for cell in study.cells
        for run in cell.folders
        if (run / "report.html").is_file()
    )
    fold = '<p class="how"><code>grapevine report DIR</code> makes the page of a single run.</p>'
    if items:
        fold = f"<details><summary>Each run has a report of its own</summary><ul>{items}</ul></details>"
    return f'<section class="card"><h2>Runs</h2>{fold}</section>'


def _file(study: Study) -> str:
    pre = f"<pre>{escape(study.text)}</pre>"
    return (
        f'<section class="card"><h2>The file</h2><details><summary>{escape(study.command)}</summary>{pre}</details></section>'
    )


def _titled(measure: Measure) -> str:
    return f"{measure.title} ({measure.unit})" if measure.unit else measure.title


def _tuned_names(sweep: Sweep) -> str:
    return ", ".join(map(_short, sweep.tune.candidates[0])) if sweep.tune else ""


def _short(key: str) -> str:
    """ "optimizer.learning_rate" -> "learning rate", "strategy.name" -> "strategy"."""
    table, _, last = key.rpartition(".")
    return table if last == "name" and table else last.replace("_", " ")
