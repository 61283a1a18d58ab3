"""The page's part on convergence against connectivity: conclusions, rank correlations and pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from grapevine.experiments.report.figures import Figure
from grapevine.experiments.report.html import section
from grapevine.experiments.study.connectivity import DECAY, Connectivity, Panel
from grapevine.experiments.study.connectivity_figures import Key, curves, key_of, prediction, scatter
from grapevine.experiments.study.correlation import Correlation
from grapevine.experiments.study.ranks import MEASURES, Measure, Verdict, accuracy_of_prediction

WEAK = 0.5
"""A rank correlation below this in size is reported as weak."""
SINGLE = ("gap", "neighbours", "degree")
"""The measures against which times, steps and bytes are drawn."""


def connectivity_sections(study: Connectivity, found: Sequence[Verdict], command: str, figures: dict[str, Figure]) -> list[str]:
    """Return the sections on connectivity, which come first on the page of a sweep over topologies."""
    key = key_of(study)
    parts = [_head(study, found), _ranks(study, found, command), _legend(key)]
    for panel in study.panels:
        parts += _panel(study, panel, found, key, command, figures)
    return parts


def conclusions(study: Connectivity, found: Sequence[Verdict]) -> list[str]:
    """Return one sentence for each outcome, and one for the predicted consensus distance."""
    sentences = [sentence(verdict) for verdict in found if verdict.best]
    accuracy = accuracy_of_prediction(study)
    if accuracy is not None:
        middle, factor = accuracy
        sentences.append(
            f"The predicted consensus distance is {middle:.2g} times the measured one (median); single graphs typically differ "
            f"from this by a factor of {factor:.2f}. Nothing in it was fitted to the distances."
        )
    elif study.why_unpredicted:
        sentences.append(f"No consensus distance is predicted: {study.why_unpredicted}.")
    return sentences


def sentence(verdict: Verdict) -> str:
    """Return a sentence: the measure that best predicts the order of the graphs, its correlation, and the second best."""
    best, second, title = verdict.best, verdict.second, _capital(verdict.outcome.title)
    assert best is not None
    correlation = verdict.overall[best.key]
    found = f"rank correlation {_interval(correlation)}"
    found += f", mean over {verdict.panels} panels" if verdict.panels > 1 else ""
    if abs(correlation.rho) < WEAK or correlation.low <= 0.0 <= correlation.high:
        return f"{title}: no figure clearly predicts the order of the topologies; the best is the {best.title}, {found}."
    way = "the higher, the less" if correlation.rho < 0 else "the higher, the more"
    text = f"{title}: best predicted by the {best.title}, {found}: {way}."
    if second is None:
        return text
    other = f"the {second.title}, {_interval(verdict.overall[second.key])}"
    return f"{text} {'Clearly ahead of' if verdict.clear else 'Not clearly better than'} the second, {other}."


def _head(study: Connectivity, found: Sequence[Verdict]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in conclusions(study, found))
    text = (
        f"The results of {len(study.graphs)} topologies against figures that are known before a run: the spectral gap (1 minus "
        "the second largest modulus of the mixing matrix's eigenvalues; for a schedule, per round), the effective neighbours "
        f"(the number of peers with which one effectively averages; decay {DECAY:g}: over about {round(1 / (1 - DECAY))} "
        "rounds) and the degree (the mean number of models that a peer sends in a round); and against the consensus distance "
        "predicted from the gradients. A rank correlation of 1 or -1 means a perfect order, 0 no order; its 95 % interval "
        "is in brackets. More in docs/connectivity.md."
    )
    head = f'<section class="card"><h2>Convergence against connectivity</h2><p class="how">{escape(text)}</p>'
    return f"{head}<ul>{items}</ul></section>"


def _ranks(study: Connectivity, found: Sequence[Verdict], command: str) -> str:
    shown = [measure for measure in MEASURES if any(measure.key in verdict.overall for verdict in found)]
    head = "".join(f"<th>{escape(_capital(measure.title))}</th>" for measure in shown)
    lines = []
    for verdict in found:
        cells = "".join(_rank(verdict, measure) for measure in shown)
        lines.append(f"<tr><th>{escape(_capital(verdict.outcome.title))}</th>{cells}</tr>")
    several = len(study.panels) > 1
    how = "mean over the panels, with its 95 % interval (jackknife over the topologies)"
    how = how if several else "with its 95 % interval (Bonett and Wright 2000)"
    text = (
        f"Spearman's rank correlation over the topologies, {how}. Bold: the largest. "
        f"A topology has the last rank if not all its runs reach the target.{_targets(study)} "
    )
    table = f'<table class="runs"><tr><th></th>{head}</tr>{"".join(lines)}</table>'
    title = f'<h2>Which figure predicts best?</h2><p class="how">{escape(text)}<code>{escape(command)}</code></p>'
    table = f'<div class="scroll">{table}</div>{_each_panel(study, found, shown) if several else ""}'
    return f'<section class="card">{title}{table}</section>'


def _targets(study: Connectivity) -> str:
    """Return a sentence with the target accuracy of each panel."""
    levels: dict[float, list[str]] = {}
    for panel in study.panels:
        if panel.level is not None:
            levels.setdefault(panel.level, []).append(panel.name)
    if len(levels) == 1:
        return f" The target is a mean accuracy of {100 * next(iter(levels)):g} %."
    listed = "; ".join(f"{100 * level:g} % with {' and '.join(names)}" for level, names in levels.items())
    return f" Targets (levels that most topologies reach): {listed}." if listed else ""


def _each_panel(study: Connectivity, found: Sequence[Verdict], shown: Sequence[Measure]) -> str:
    head = "".join(f"<th>{escape(_capital(measure.title))}</th>" for measure in shown)
    lines = []
    for panel in study.panels:
        for verdict in found:
            single = [verdict.single.get((panel.values, measure.key)) for measure in shown]
            cells = "".join(f"<td>{escape(_interval(each))}</td>" for each in single)
            where = ": ".join(filter(None, (panel.name, verdict.outcome.title)))
            lines.append(f"<tr><th>{escape(where)}</th>{cells}</tr>")
    text = "Each panel separately, with the interval of Bonett and Wright (2000)"
    return (
        f'<details><summary>{text}</summary><div class="scroll"><table class="runs"><tr><th></th>{head}</tr>'
        f"{''.join(lines)}</table></div></details>"
    )


def _rank(verdict: Verdict, measure: Measure) -> str:
    if measure.key not in verdict.overall or math.isnan(verdict.overall[measure.key].rho):
        return "<td>-</td>"
    text = escape(_interval(verdict.overall[measure.key]))
    return f"<td><b>{text}</b></td>" if verdict.best is measure else f"<td>{text}</td>"


def _legend(key: Key) -> str:
    """Return the section with the colours of the topologies, for all pictures below."""
    items = "".join(
        f'<span style="white-space:nowrap;margin-right:18px"><svg width="26" height="10"><line x1="0" y1="5" x2="26" y2="5" '
        f'stroke="{colour}" stroke-width="3"{dash}/></svg> {escape(graph)}</span>'
        for graph, (colour, dashed) in key.items()
        for dash in (' stroke-dasharray="4 3"' if dashed else "",)
    )
    text = (
        "The colours in all pictures below, from few effective neighbours to many. Dashed: topologies that change from round "
        "to round."
    )
    head = f'<section class="card"><h2>The topologies</h2><p class="how">{text}</p>'
    return f'{head}<p style="margin:4px 0">{items}</p></section>'


def _panel(
    study: Connectivity, panel: Panel, found: Sequence[Verdict], key: Key, command: str, figures: dict[str, Figure]
) -> list[str]:
    where = f": {panel.name}" if panel.name else ""
    level = "" if panel.level is None else f"{100 * panel.level:g} %"
    parts = [f"<h2 style='margin:26px 0 10px'>{escape(_capital(panel.name) or 'All topologies')}</h2>", '<div class="grid">']
    means = "Means over the runs; the buttons change the axis. "
    if panel.level is not None:
        text = f"{means}{_fastest(panel, study, level)} Command: {command}"
        drawn = curves(study, panel, "accuracy", key)
        parts.append(section(f"Accuracy{where}", text, drawn, "No accuracy was measured.", figures, wide=True))
    text = f"{means}{_closest(panel, study)} Command: {command}"
    drawn = curves(study, panel, "consensus", key)
    parts.append(section(f"Consensus distance{where}", text, drawn, "No consensus distance was measured.", figures, wide=True))
    for measure in MEASURES:
        if measure.key in SINGLE and panel.level is not None:
            text = f"{_single(panel, found, measure)} Whiskers: 95 % intervals over the seeds.{_missing(panel, study)} "
            text += f"Command: {command}"
            drawn = scatter(study, panel, measure, key, level)
            title = f"Time, steps and bytes to {level} against {measure.title}{where}"
            parts.append(section(title, text, drawn, f"No topology reached {level} in every run.", figures))
    if panel.predicted:
        text = f"{_predicted(panel, study)} {_single(panel, found, MEASURES[-1])} Command: {command}"
        title = f"Consensus distance, predicted and measured{where}"
        parts.append(section(title, text, prediction(study, panel, key), "Nothing was predicted.", figures))
    return [*parts, "</div>"]


def _fastest(panel: Panel, study: Connectivity, level: str) -> str:
    assert panel.level is not None
    found = [(place.reached(panel.level, "steps"), place.graph) for place in panel.on(study.networks[0])]
    known = sorted((each.mean, graph) for each, graph in found if each is not None)
    if not known:
        return f"No topology reaches {level} in every run."
    least = f"Fewest steps to {level}: {known[0][1]} ({known[0][0]:,.0f})"
    never = [graph for each, graph in found if each is None]
    most = f"most: {known[-1][1]} ({known[-1][0]:,.0f})" if len(known) > 1 else ""
    not_all = f"not reached in every run: {', '.join(never)}" if never else ""
    return "; ".join(filter(None, (least, most, not_all))) + "."


def _closest(panel: Panel, study: Connectivity) -> str:
    found = sorted((place.consensus.mean, place.graph) for place in panel.on(study.networks[0]))
    (low, closest), (high, furthest) = found[0], found[-1]
    times = f", {high / low:,.1f} times as much" if low > 0 else ""
    text = f"Over the last fifth of the steps the distance is smallest on {closest} ({low:.2g})"
    return f"{text} and largest on {furthest} ({high:.2g}{times})."


def _single(panel: Panel, found: Sequence[Verdict], measure: Measure) -> str:
    """Return a sentence with the rank correlations of one panel and one measure."""
    parts = []
    for verdict in found:
        single = verdict.single.get((panel.values, measure.key))
        about_distance = verdict.outcome.title == "consensus distance"
        if single is not None and not math.isnan(single.rho) and about_distance == (measure.key not in SINGLE):
            outcome = "" if about_distance else f"with {verdict.outcome.title.replace(' to the target', '')} "
            parts.append(f"{outcome}{_interval(single)}")
    return f"Rank correlation {'; '.join(parts)}." if parts else ""


def _predicted(panel: Panel, study: Connectivity) -> str:
    found = [
        panel.predicted[place.graph] / place.consensus.mean
        for place in panel.on(study.networks[0])
        if panel.predicted.get(place.graph, 0.0) > 0 and place.consensus.mean > 0
    ]
    gradients = panel.gradients
    if not found or gradients is None:
        return ""
    return (
        "Means over the last fifth of the steps; on the dashed line prediction and measurement are equal. The median of "
        f"predicted / measured is {float(np.median(found)):.2g} ({min(found):.2g} to {max(found):.2g}). Predicted from the "
        f"gradients at the end of the runs on {panel.reference}: noise {gradients.noise:.3g}, differences "
        f"{gradients.difference:.3g}, pull {gradients.pull:.3g}; nothing was fitted."
    )


def _missing(panel: Panel, study: Connectivity) -> str:
    """Return a sentence with the topologies that have no dot in the pictures of times."""
    assert panel.level is not None
    missing = [
        f"{place.graph}{f' ({place.network})' if place.network else ''}"
        for network in study.networks
        for place in panel.on(network)
        if place.reached(panel.level, "time_s") is None
    ]
    return f" No dot, because not all runs reach the target: {', '.join(missing)}." if missing else ""


def _interval(found: Correlation | None) -> str:
    if found is None or math.isnan(found.rho):
        return "-"
    if math.isnan(found.low):
        return f"{found.rho:.2f}"
    return f"{found.rho:.2f} ({found.low:.2f} to {found.high:.2f})"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
