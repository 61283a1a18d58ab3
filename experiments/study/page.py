"""One page for a whole sweep: cells with their intervals as tables, dots and curves, and the tuning of each."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from grapevine.experiments.report.figures import Figure
from grapevine.experiments.report.html import section, write_page
from grapevine.experiments.results.numbers import plural
from grapevine.experiments.results.summary import EXCESS_LOSS
from grapevine.experiments.study.connectivity import read_connectivity
from grapevine.experiments.study.connectivity_page import conclusions, connectivity_sections
from grapevine.experiments.study.differences import counted, difference_rows, differences, differences_section
from grapevine.experiments.study.figures import CURVES, TARGET, curves, dots
from grapevine.experiments.study.ranks import connectivity_rows, verdicts
from grapevine.experiments.study.study import Study, short_name
from grapevine.experiments.study.tables import table, tuned_names, tuning
from grapevine.experiments.sweep.cells import CellResult, Measure, measures
from grapevine.experiments.sweep.forecast import no_solo
from grapevine.experiments.sweep.table import write_table
from grapevine.experiments.sweep.target import ACCURACY, LOSS
from grapevine.experiments.sweep.tune import MOST_WIDENED, candidate_words, plain

DRAWN = ("time_to_target_s", ACCURACY, "accuracy_spread", EXCESS_LOSS, LOSS)


def write_study(study: Study, out: Path) -> tuple[list[Path], list[str]]:
    """Write the page to `out`, and tables of differences and connectivity beside it; return the files and the conclusions.

    Raises ValueError if a run folder is damaged, and if the page cannot be written.
    """
    figures: dict[str, Figure] = {}
    shown = measures(study.cells)
    connectivity = read_connectivity(study.sweep, study.cells)
    parts = [_intro(study, connectivity is None), _warnings(study)]
    files, sentences = [out], list[str]()
    if connectivity is not None:
        found = verdicts(connectivity)
        sentences = conclusions(connectivity, found)
        files += write_table(connectivity_rows(connectivity), out.parent, "connectivity")
        parts += connectivity_sections(connectivity, found, study.command, figures)
    if compared := differences(study, shown):
        sentences += counted(study, compared)
        files += write_table(difference_rows(study, compared), out.parent, "differences")
        parts.append(differences_section(study, compared))
    for panel in study.panels:
        parts.append(table(study, panel, shown))
        if connectivity is None:
            parts += ['<div class="grid">', *_pictures(study, panel, shown, figures), "</div>"]
    parts += [tuning(study), _runs(study, out.parent), _file(study)]
    write_page(out, study.name, "\n".join(parts), figures)
    return files, sentences


def _intro(study: Study, drawn: bool) -> str:
    sweep, cells = study.sweep, study.cells
    counts = sorted({len(cell.attempts) for cell in cells})
    each = " to ".join(str(count) for count in (counts if len(counts) == 1 else (counts[0], counts[-1])))
    axes = ", ".join(map(short_name, sweep.axes))
    text = f"{plural(len(cells), 'combination')} of {axes}, " if axes else "One combination, "
    text += "one run each. " if each == "1" else f"{each} runs each, which differ in the seed only. "
    if max(counts) > 1:
        text += "Figures are means over these runs ± half of the 95 % interval (Student's t); an interval that would go beyond "
        text += "the possible values is cut there and shown by its ends, such as 4 (0 to 15). "
        text += "The dots' whiskers and the curves' bands show the same intervals. " if drawn else ""
    text += _target(study) if drawn else ""
    if sweep.tune:
        text += (
            f"Every combination was tuned with the same {len(sweep.tune.candidates)} trials ({tuned_names(sweep)}: "
            f"{candidate_words(sweep.tune.candidates)}) on seed {sweep.tune.seed}, which no measured run uses. The best trial "
            f"is the first to reach a mean validation accuracy of {100 * sweep.target:g} %; if none reaches it, the one with "
            "the highest validation accuracy at the end; for a task without accuracy, the one with the lowest loss. If the "
            "best value is at an end of its list, the list is continued by its own ratio, by at most "
            f"{MOST_WIDENED} values. {_budget(study)} "
        )
    return f'<p class="told">{escape(text)}</p><p class="note">Made by <code>{escape(study.command)}</code></p>'


def _target(study: Study) -> str:
    """Return a sentence on a target that the sweep chose; "" for one of the file, and for an accuracy."""
    target = study.cells[0].target
    if not target.chosen:
        return ""
    if math.isnan(target.level):
        return "No time to a target is shown: most combinations have a run whose loss never fell below that of the start. "
    return (
        f"The target, {target.words}, is the lowest, rounded up to two digits, that two thirds of the combinations reach in "
        "every run; target_loss below [sweep] sets another. "
    )


def _warnings(study: Study) -> str:
    warnings = []
    at_an_end: list[str] = []
    for cell in study.cells:
        label = ", ".join(plain(value) for value in cell.values.values()) or "all"
        missing = [attempt for attempt in cell.attempts if not attempt.done and not attempt.damaged]
        if missing:
            warnings.append(f"{label}: {len(missing)} of {len(cell.attempts)} runs are missing ({missing[0].reason})")
        for attempt in cell.damaged:
            others = f"means are over the other {len(cell.runs)} of {len(cell.attempts)}" if cell.runs else "there is no other"
            cure = "the same sweep repeats this run"
            warnings.append(f"{attempt.point.name} is left out, and {others}: it {attempt.reason}; {cure}")
        warnings += _warnings_of_runs(label, cell)
        if (failed := cell.scores.count(None)) and cell.tuned:
            warnings.append(f"{label}: {failed} of {len(cell.scores)} trials were not completed")
        if study.sweep.tune and (ends := study.sweep.tune.at_an_end(cell.tuned, cell.tried)):
            at_an_end.append(f"{label} ({', '.join(plain(cell.tuned[key]) for key in ends)})")
    if at_an_end:
        places = f"{len(at_an_end)} of {len(study.cells)} combinations"
        text = f"In {places} the best tuned value is at the end of its list, and the list could not be widened further: "
        warnings.append(text + "; ".join(at_an_end))
    if lacking := no_solo(study.sweep):
        warnings.append(lacking[:1].upper() + lacking[1:])
    warnings += [f"Left out, as the file says: {each}" for each in study.sweep.left_out]
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<div class="warnings"><b>Before you trust these figures</b><ul>{items}</ul></div>' if warnings else ""


def _warnings_of_runs(label: str, cell: CellResult) -> list[str]:
    """Return the warnings of a cell's runs, each once, with the number of runs that have it."""
    counts = Counter(_without_figures(text) for result in cell.results for text in result.summary.get("warnings") or ())
    return [f"{label}: {number} of {len(cell.runs)} runs: {text}" for text, number in counts.items()]


def _without_figures(warning: str) -> str:
    """Return the first part of a warning; the figures that follow differ from run to run."""
    return re.split(r"[:;]", warning, maxsplit=1)[0]


def _budget(study: Study) -> str:
    """Return a sentence with the number of trials per cell."""
    counts = sorted({len(cell.scores) for cell in study.cells})
    span = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"Each combination had {span} trials." if counts else ""


def _pictures(study: Study, panel: tuple[str, ...], shown: Sequence[Measure], figures: dict[str, Figure]) -> Iterable[str]:
    where = study.called(panel)
    for measure in shown:
        if measure.key in DRAWN:
            text = "Means and 95 % intervals. "
            text += "A row without a dot has a run that never reached the target. " if "time" in measure.key else ""
            text += f"Command: {study.command}"
            title = measure.title[0].upper() + measure.title[1:] + (f": {where}" if where else "")
            yield section(title, text, dots(study, panel, measure), "No run has a value.", figures, wide=len(study.columns) > 1)
    for figure, (title, what, _) in CURVES.items():
        if not any(measure.key == figure for measure in shown):
            continue
        for column in study.columns:
            if (drawn := curves(study, panel, column, figure)) is not None:
                full = title + (f": {called}" if (called := study.called(panel, column)) else "")
                text = f"{what}, mean over the peers and over the runs; bands are 95 % intervals. "
                text += "The dotted line is the target. " if drawn["data"][-1]["name"] == TARGET else ""
                yield section(full, f"{text}Command: {study.command}", drawn, "", figures)


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
    fold = f"<details><summary>{escape(study.command)}</summary><pre>{escape(study.text)}</pre></details>"
    return f'<section class="card"><h2>The experiment file</h2>{fold}</section>'
