"""The tables of a study's page: the results of its cells, and the tuning of each."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from grapevine.experiments.results.numbers import figure, percent
from grapevine.experiments.study.study import Study, short_name
from grapevine.experiments.sweep.cells import LEFT_OUT, MARKS, CellResult, Measure
from grapevine.experiments.sweep.estimate import COARSE
from grapevine.experiments.sweep.plan import Sweep
from grapevine.experiments.sweep.tune import Score, best, candidate_words, plain


def table(study: Study, panel: tuple[str, ...], shown: Sequence[Measure]) -> str:
    """Return a table with rows by the first axis; columns by the second axis or, if there is none, by measure."""
    if study.columns != [""]:
        return _tables(study, panel, shown)
    tune = study.sweep.tune
    lines = []
    for row in study.rows:
        cell = study.at(panel, row, "")
        found = [cell.shown(measure) if cell else "-" for measure in shown]
        found += [_tuned(study, cell)] if tune else []
        lines.append(_line(row, found))
    head = _line("", [*map(titled, shown), *(["tuned"] if tune else [])], "th")
    return _card(study, study.called(panel) or "Figures", f'<table class="runs">{head}{"".join(lines)}</table>')


def _tables(study: Study, panel: tuple[str, ...], shown: Sequence[Measure]) -> str:
    """Return one table per measure, the first unfolded and the others folded: rows by the first axis, columns by the second."""
    tables = []
    for measure in shown:
        cells = [[study.at(panel, row, column) for column in study.columns] for row in study.rows]
        texts = [[_with_unit(cell.shown(measure), measure) if cell and cell.runs else "-" for cell in line] for line in cells]
        tables.append((titled(measure), texts))
    if study.sweep.tune:
        tuned = [[_tuned(study, study.at(panel, row, column)) for column in study.columns] for row in study.rows]
        tables.append(("tuned", tuned))
    parts = []
    for place, (title, texts) in enumerate(tables):
        lines = "".join(_line(row, line) for row, line in zip(study.rows, texts, strict=True))
        table = f'<table class="runs">{_line("", study.columns, "th")}{lines}</table>'
        summary = f"<summary>{escape(title[:1].upper() + title[1:])}</summary>"
        parts.append(f"<details{'' if place else ' open'}>{summary}{table}</details>")
    return _card(study, study.called(panel) or "Figures", "".join(parts))


def _line(title: str, texts: Sequence[str], tag: str = "td") -> str:
    return f"<tr><th>{escape(title)}</th>{''.join(f'<{tag}>{escape(text)}</{tag}>' for text in texts)}</tr>"


def _card(study: Study, title: str, body: str) -> str:
    marks = "".join(f"<li>{escape(mark.strip())} {escape(text)}</li>" for mark, text in MARKS.items() if mark in body)
    notes = f'<ul class="note">{marks}</ul>' if marks else ""
    return (
        f'<section class="card"><h2>{escape(title)}</h2><p class="how"><code>{escape(study.command)}</code></p>'
        f'<div class="scroll">{body}</div>{notes}</section>'
    )


def _tuned(study: Study, cell: CellResult | None) -> str:
    return study.sweep.tune.in_words(cell.tuned, cell.tried) if study.sweep.tune and cell and cell.tuned else "-"


def _with_unit(text: str, measure: Measure) -> str:
    """Return a figure with its unit: "0.70 ± 0.25 s", "1 of 3 in time"; footnote marks come last."""
    unit = measure.unit if measure.unit in ("s", "%", "ms") else ""
    if " of " in text:
        unit = "in time"
    elif measure.key == "accuracy_spread":
        unit = "points apart"
    marks = "".join(mark for mark in (COARSE, LEFT_OUT) if mark in text)
    bare = text.replace(COARSE, "").replace(LEFT_OUT, "")
    return f"{bare} {unit}".rstrip() + marks if bare != "-" else text


def tuning(study: Study) -> str:
    """Return a table of all trials of all cells; "" if nothing is tuned."""
    tune = study.sweep.tune
    if tune is None:
        return ""
    titles = ("", *(candidate_words([candidate]) for candidate in tune.candidates), "widened to")
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    lines = []
    for cell in study.cells:
        chosen = best(cell.scores)
        texts = [_scored(score, place == chosen) for place, score in enumerate(cell.scores)]
        listed, added = texts[: len(tune.candidates)], texts[len(tune.candidates) :]
        names = [", ".join(plain(each[key]) for key in tune.widened(each)) for each in cell.tried[len(tune.candidates) :]]
        more = "; ".join(f"{escape(name)}: {text[4:-5]}" for name, text in zip(names, added, strict=True))
        texts = [*listed, f"<td>{more or '-'}</td>"]
        label = ", ".join(plain(value) for value in cell.values.values())
        lines.append(f"<tr><th>{escape(label)}</th>{''.join(texts)}</tr>")
    text = f"For each trial: the time to a validation accuracy of {100 * study.sweep.target:g} %; if it was not reached, the "
    text += "validation accuracy at the end (for a task without accuracy, the loss). Bold: the chosen trial. "
    return (
        f'<section class="card"><h2>Tuning: {escape(tuned_names(study.sweep))}</h2><p class="how">{escape(text)}'
        f"<code>{escape(study.command)}</code></p><details><summary>All trials</summary>"
        f'<div class="scroll"><table class="runs"><tr>{head}</tr>{"".join(lines)}</table></div></details></section>'
    )


def _scored(score: Score | None, chosen: bool) -> str:
    if score is None:
        return "<td>not completed</td>"
    text = figure(score.reached_s, "s") if score.reached_s is not None else percent(score.accuracy)
    text = f"loss {figure(score.loss)}" if text == "-" else text
    return f"<td><b>{escape(text)}</b></td>" if chosen else f"<td>{escape(text)}</td>"


def titled(measure: Measure) -> str:
    """Return a measure's title with its unit: "accuracy (%)"."""
    return f"{measure.title} ({measure.unit})" if measure.unit else measure.title


def tuned_names(sweep: Sweep) -> str:
    """Return the names of the tuned keys: "learning rate, fill"."""
    return ", ".join(map(short_name, sweep.tune.candidates[0])) if sweep.tune else ""
