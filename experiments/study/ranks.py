"""Which figure of a graph best predicts a fleet's results on it: rank correlations over the graphs of a study."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from grapevine.experiments.study.connectivity import DECAY, Connectivity, Panel, Place
from grapevine.experiments.study.correlation import Correlation, correlation, jackknife, spearman
from grapevine.experiments.sweep.estimate import Estimate


class Measure(NamedTuple):
    """A figure of a graph that is known before a run."""

    key: str
    title: str
    of: Callable[[Panel, Place], float]


class Outcome(NamedTuple):
    """A result of a run; lower is better."""

    title: str
    network: str
    of: Callable[[Panel, Place], float]


class Verdict(NamedTuple):
    """How well each measure predicts the order of the graphs by an outcome."""

    outcome: Outcome
    single: Mapping[tuple[tuple[str, ...], str], Correlation]
    """The correlation of each panel and measure."""
    overall: Mapping[str, Correlation]
    """The correlation of each measure: of the only panel, or the mean over the panels with an interval over the graphs."""
    best: Measure | None
    second: Measure | None
    panels: int
    """The number of panels that have this outcome."""
    lead: tuple[float, float]
    """The difference in size of the mean correlations of the best and the second measure, and half of its interval."""

    @property
    def clear(self) -> bool:
        """Whether the interval of the lead does not contain 0."""
        return self.lead[0] > self.lead[1]


MEASURES = (
    Measure("gap", "spectral gap", lambda panel, place: place.gap),
    Measure("neighbours", f"effective neighbours (decay {DECAY:g})", lambda panel, place: place.neighbours),
    Measure("degree", "degree", lambda panel, place: place.degree),
    Measure("predicted", "predicted consensus distance", lambda panel, place: panel.predicted.get(place.graph, math.nan)),
)


@dataclass(frozen=True)
class _Case:
    """The values of an outcome and a measure, for all graphs in all panels."""

    outcome: Outcome
    measure: Measure
    pairs: Mapping[tuple[str, ...], Mapping[str, tuple[float, float]]]
    """(measure, outcome) of each panel and graph."""

    @classmethod
    def of(cls, study: Connectivity, outcome: Outcome, measure: Measure) -> _Case:
        pairs = {}
        for panel in study.panels:
            both = {place.graph: (measure.of(panel, place), outcome.of(panel, place)) for place in panel.on(outcome.network)}
            pairs[panel.values] = {graph: pair for graph, pair in both.items() if not math.isnan(sum(pair)) or _lost(pair)}
        return cls(outcome, measure, pairs)

    def mean(self, graphs: set[str]) -> float:
        """Return the mean over the panels of the rank correlation over these graphs."""
        found = [
            spearman(*zip(*chosen, strict=True))
            for pairs in self.pairs.values()
            if len(chosen := [pair for graph, pair in pairs.items() if graph in graphs]) > 1
        ]
        known = [rho for rho in found if not math.isnan(rho)]
        return float(np.mean(known)) if known else math.nan


def verdicts(study: Connectivity) -> list[Verdict]:
    """Return a verdict for every outcome: which measure best predicts the order of the graphs."""
    return [_verdict(study, outcome) for outcome in outcomes(study)]


def outcomes(study: Connectivity) -> list[Outcome]:
    """Return the outcomes of a study: steps, bytes and consensus distance on the first network, and the time on each."""
    first = study.networks[0]
    found = [Outcome("consensus distance", first, lambda panel, place: place.consensus.mean)]
    if any(panel.level is None for panel in study.panels):
        return found
    found.insert(0, Outcome("steps to the target", first, lambda panel, place: reached(panel, place, "steps")))
    for network in study.networks:
        title = "time to the target" + (f", {network}" if network else "")
        found.append(Outcome(title, network, lambda panel, place: reached(panel, place, "time_s")))
    return [*found, Outcome("bytes to the target", first, lambda panel, place: reached(panel, place, "bytes"))]


def reached(panel: Panel, place: Place, over: str) -> float:
    """Return the mean steps, time or bytes after which a graph's runs reach the panel's level; infinite unless all do."""
    found = place.reached(panel.level, over) if panel.level is not None else None
    return math.inf if found is None else found.mean


def connectivity_rows(study: Connectivity) -> list[dict[str, Any]]:
    """Return one row per topology, network and panel: the figures of the graph, the predictions and the measurements.

    `NAME.half` is half of the 95 % interval over the runs; None if there is none, or if not all runs reach the target.
    """
    rows = []
    for panel in study.panels:
        for place in panel.places:
            row: dict[str, Any] = {"panel": panel.name, "topology": place.graph, "network": place.network}
            row |= {"runs": len(place.curves), "spectral_gap": place.gap, "degree": place.degree}
            row[f"effective_neighbours_{DECAY:g}"] = None if math.isnan(place.neighbours) else place.neighbours
            row["consensus_predicted"] = panel.predicted.get(place.graph)
            row["target"] = panel.level
            found: dict[str, Estimate | None] = {"consensus": place.consensus}
            for over in ("steps", "time_s", "bytes"):
                found[f"{over}_to_target"] = place.reached(panel.level, over) if panel.level is not None else None
            for name, each in found.items():
                row |= {f"{name}.mean": each.mean if each else None, f"{name}.half": each.half if each else None}
                row[f"{name}.grain"] = each.grain if each else None
            rows.append(row)
    return rows


def _verdict(study: Connectivity, outcome: Outcome) -> Verdict:
    cases = {measure: _Case.of(study, outcome, measure) for measure in MEASURES}
    cases = {measure: case for measure, case in cases.items() if any(case.pairs.values())}
    single = {
        (values, measure.key): correlation(*(zip(*pairs.values(), strict=True) if pairs else ((), ())))
        for measure, case in cases.items()
        for values, pairs in case.pairs.items()
    }
    overall = {measure.key: _overall(study, case, single) for measure, case in cases.items()}
    known = [measure for measure in cases if not math.isnan(overall[measure.key].rho)]
    order = sorted(known, key=lambda measure: -abs(overall[measure.key].rho))
    panels = max((sum(map(bool, case.pairs.values())) for case in cases.values()), default=0)
    if len(order) < 2:
        return Verdict(outcome, single, overall, order[0] if order else None, None, panels, (math.nan, math.nan))
    one, two = cases[order[0]], cases[order[1]]
    lead = jackknife(study.graphs, lambda graphs: abs(one.mean(graphs)) - abs(two.mean(graphs)))
    return Verdict(outcome, single, overall, order[0], order[1], panels, lead)


def _overall(study: Connectivity, case: _Case, single: Mapping[tuple[tuple[str, ...], str], Correlation]) -> Correlation:
    """Return the correlation of the only panel, with its own interval, or the mean over several with a jackknife interval."""
    panels = [values for values, pairs in case.pairs.items() if pairs]
    if len(panels) == 1:
        return single[panels[0], case.measure.key]
    rho, half = jackknife(study.graphs, case.mean)
    return Correlation(rho, max(-1.0, rho - half), min(1.0, rho + half), len(study.graphs))


def _lost(pair: tuple[float, float]) -> bool:
    """Return whether the target was never reached; such a pair is kept, with the last rank."""
    return math.isinf(pair[1]) and not math.isnan(pair[0])


def accuracy_of_prediction(study: Connectivity) -> tuple[float, float] | None:
    """Return the median of predicted / measured consensus distance, and the typical factor between a single ratio and it.

    Taken over all graphs and panels on the first network; the factor is e to the root mean square of the logarithms. None
    if nothing is predicted.
    """
    ratios = [
        panel.predicted[place.graph] / place.consensus.mean
        for panel in study.panels
        for place in panel.on(study.networks[0])
        if place.consensus.mean > 0 and panel.predicted.get(place.graph, 0.0) > 0
    ]
    if not ratios:
        return None
    logs = np.log(ratios)
    middle = float(np.median(logs))
    return math.exp(middle), math.exp(math.sqrt(float(((logs - middle) ** 2).mean())))
