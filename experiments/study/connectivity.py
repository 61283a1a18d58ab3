"""Convergence against connectivity: the results of a sweep over topologies, with the figures of the graphs and theory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from grapevine.experiments.config.experiment import Experiment
from grapevine.experiments.fleet import Fleet, build
from grapevine.experiments.results.curves import Curve, curve_of
from grapevine.experiments.study.theory import Gradients, gains, measured_gradients, predicted
from grapevine.experiments.sweep.cells import CellResult
from grapevine.experiments.sweep.estimate import Estimate, estimate
from grapevine.experiments.sweep.plan import Sweep
from grapevine.experiments.sweep.target import ACCURACY
from grapevine.experiments.sweep.tune import DEFAULT_TARGET, plain
from grapevine.experiments.tasks import Quadratic
from grapevine.peer.aggregators import Mean
from grapevine.peer.optimizers import Sgd

DECAY = 0.9
"""The decay of the effective neighbours: a model remembers about the last 1 / (1 - decay) = 10 rounds."""
FEWEST_GRAPHS = 5
LEVELS = tuple(round(0.05 * number, 2) for number in range(19, 3, -1))
REACHED_BY = 0.75
"""The reported level is the highest accuracy that at least this share of the graphs reaches in every run."""


@dataclass(frozen=True)
class Place:
    """One graph on one network in one panel: its runs, which differ in the seed alone."""

    graph: str
    network: str
    panel: tuple[str, ...]
    cell: CellResult
    curves: tuple[Curve, ...]
    experiments: tuple[Experiment, ...]
    gap: float
    neighbours: float
    """Effective neighbours at `DECAY`; nan if the weights make the walk grow."""
    degree: float
    """Mean number of models that a peer sends in a round."""

    def reached(self, level: float, over: str) -> Estimate | None:
        """Return mean and interval, over the runs, of the steps, time or bytes to a level; None unless all runs reach it."""
        every = [curve.reached(level, over) for curve in self.curves]
        found = [each for each in every if each is not None]
        if len(found) < len(every):
            return None
        mean = estimate([each.value for each in found])
        return mean._replace(grain=max(each.grain for each in found)) if mean else None

    @cached_property
    def consensus(self) -> Estimate:
        """The mean consensus distance over the last fifth of the steps."""
        found = estimate([curve.settled(curve.consensus) for curve in self.curves])
        assert found is not None
        return found


@dataclass(frozen=True)
class Panel:
    """All graphs on all networks, with the same number of peers and the same data."""

    name: str
    """The values of the other axes, in words; "" if nothing else is varied."""
    values: tuple[str, ...]
    places: tuple[Place, ...]
    level: float | None
    """The accuracy whose time is reported; None for a task without accuracy."""
    gradients: Gradients | None
    """Measured at the end of the runs of `reference`; None if the theory does not apply."""
    reference: str
    """The graph with the largest gap; among equals the one with the most effective neighbours."""
    predicted: Mapping[str, float] = field(default_factory=dict)
    """The predicted consensus distance of each graph over the last fifth of the steps, mean over the seeds."""

    def on(self, network: str) -> list[Place]:
        """Return the places of one network, in the order of the sweep."""
        return [place for place in self.places if place.network == network]


@dataclass(frozen=True)
class Connectivity:
    """The results of a sweep over topologies."""

    graphs: tuple[str, ...]
    networks: tuple[str, ...]
    panels: tuple[Panel, ...]
    why_unpredicted: str
    """The reason why nothing is predicted, in words; "" if something is."""


def read_connectivity(sweep: Sweep, cells: Sequence[CellResult]) -> Connectivity | None:
    """Return the results and predictions of a sweep over five topologies or more; None for any other sweep.

    Raises ValueError if a run folder is damaged.
    """
    graph_axes = _axes_of(sweep, "topology")
    network_axes = [axis for axis in _axes_of(sweep, "network") if axis not in graph_axes]
    rest = [axis for axis in sweep.axes if axis not in (*graph_axes, *network_axes)]
    graphs = _distinct(cells, graph_axes)
    if not graph_axes or len(graphs) < FEWEST_GRAPHS:
        return None
    theory = _Theory()
    places = [
        place
        for cell in cells
        if (place := theory.place(_label(cell, graph_axes), _label(cell, network_axes), _values(cell, rest), cell))
    ]
    panels = [
        _panel(values, rest, [place for place in places if place.panel == values], theory)
        for values in dict.fromkeys(place.panel for place in places)
    ]
    panels = [panel for panel in panels if len({place.graph for place in panel.places}) >= FEWEST_GRAPHS]
    if not panels:
        return None
    unlike = next((why for place in places if (why := _unpredictable(place.experiments[0]))), "")
    return Connectivity(graphs, _distinct(cells, network_axes), tuple(panels), unlike)


class _Theory:
    """The figures and predictions of graphs, each computed once."""

    def __init__(self) -> None:
        self._fleets: dict[str, Fleet] = {}
        self._figures: dict[str, tuple[float, float, float]] = {}
        self._predicted: dict[tuple[str, Gradients], np.ndarray] = {}

    def place(self, graph: str, network: str, panel: tuple[str, ...], cell: CellResult) -> Place | None:
        """Return a cell with the figures of its graph; None if it has no complete run with at least two records."""
        done = [attempt.point.experiment for attempt in cell.attempts if attempt.done]
        found = [(experiment, curve_of(result)) for experiment, result in zip(done, cell.results, strict=True)]
        runs = [(experiment, curve) for experiment, curve in found if len(curve.steps) > 1]
        if not runs:
            return None
        figures = np.array([self.figures(experiment) for experiment, _ in runs]).mean(axis=0)
        experiments, curves = zip(*runs, strict=True)
        return Place(graph, network, panel, cell, curves, experiments, *map(float, figures))

    def fleet(self, experiment: Experiment) -> Fleet:
        key = _same_graph(experiment)
        if key not in self._fleets:
            self._fleets[key] = build(experiment)
        return self._fleets[key]

    def figures(self, experiment: Experiment) -> tuple[float, float, float]:
        """Return gap, effective neighbours and degree of the experiment's graph."""
        key = _same_graph(experiment)
        if key not in self._figures:
            figures = self.fleet(experiment).figures
            try:
                neighbours = figures.effective_neighbours(DECAY)
            except ValueError:
                neighbours = math.nan
            self._figures[key] = figures.gap, neighbours, figures.messages_per_round / experiment.peers
        return self._figures[key]

    def predicted(self, experiment: Experiment, gradients: Gradients, steps: int) -> np.ndarray:
        """Return the predicted consensus distance after 0, 1, ... steps, float64 [steps + 1]."""
        key = f"{_same_graph(experiment)} {experiment.optimizer} {experiment.strategy} {steps}", gradients
        if key not in self._predicted:
            fleet = self.fleet(experiment)
            optimizer = experiment.optimizer
            assert isinstance(optimizer, Sgd)
            rate, adapt_first = optimizer.learning_rate, experiment.strategy.gossip == "adapt-then-combine"
            noise_pull = gradients.pull if isinstance(experiment.task, Quadratic) else 0.0
            found = gains(fleet.rounds or fleet.mixing, steps, rate, gradients.pull, noise_pull, adapt_first)
            self._predicted[key] = predicted(found, gradients, rate)
        return self._predicted[key]


def _panel(values: tuple[str, ...], axes: Sequence[str], places: Sequence[Place], theory: _Theory) -> Panel:
    best = max(places, key=lambda place: (place.gap, place.neighbours))
    name = ", ".join(_in_words(axis, value) for axis, value in zip(axes, values, strict=True))
    if any(_unpredictable(place.experiments[0]) for place in places):
        return Panel(name, values, tuple(places), _level(places), None, best.graph)
    gradients = _gradients(best)
    expected: dict[str, float] = {}
    for place in places:
        if place.graph not in expected:  # once for all networks: rounds do not depend on the network
            pairs = zip(place.curves, place.experiments, strict=True)
            expected[place.graph] = float(np.mean([_expected(curve, each, gradients, theory) for curve, each in pairs]))
    return Panel(name, values, tuple(places), _level(places), gradients, best.graph, expected)


def _expected(curve: Curve, experiment: Experiment, gradients: Gradients, theory: _Theory) -> float:
    whole = theory.predicted(experiment, gradients, math.ceil(curve.steps[-1]))
    return curve.settled(np.interp(curve.steps, np.arange(len(whole)), whole))


def _gradients(reference: Place) -> Gradients:
    """Return noise, difference and pull at the end of the reference's runs, mean over the seeds."""
    found = []
    for experiment, result in zip(reference.experiments, reference.cell.results, strict=False):
        problem = experiment.task.problem(experiment.peers, experiment.partition, experiment.seed)
        found.append(measured_gradients(problem, result.weights, experiment.task.batch_size, experiment.seed))
    return Gradients(*map(float, np.mean(found, axis=0)))


def _level(places: Sequence[Place]) -> float | None:
    """Return the sweep's target, or the highest level below it that most graphs reach in every run on the first network."""
    first = [place for place in places if place.network == places[0].network]
    if not all(np.isfinite(curve.accuracy).all() for place in first for curve in place.curves):
        return None
    target = first[0].cell.target
    highest = target.level if target.figure == ACCURACY else DEFAULT_TARGET
    wanted = [highest, *(level for level in LEVELS if level < highest)]
    for level in wanted:
        if sum(place.reached(level, "steps") is not None for place in first) >= REACHED_BY * len(first):
            return level
    return wanted[-1]


def _unpredictable(experiment: Experiment) -> str:
    """Return the reason why the linear theory does not apply to an experiment; "" if it does."""
    if experiment.strategy.gossip == "none":
        return "the strategy does not average whole models in rounds, as d-psgd does"
    if not isinstance(experiment.optimizer, Sgd) or experiment.optimizer.momentum:
        return "the optimizer is not plain sgd"
    if not isinstance(experiment.aggregator, Mean):
        return "the aggregator is not the mean"
    if getattr(experiment.topology, "mixing", "") == "push-sum":
        return "push-sum averages by mass"
    return ""


def _same_graph(experiment: Experiment) -> str:
    """Return a key that is equal for experiments with the same graph and the same mixing."""
    after = getattr(experiment.topology, "laid_after", "nothing")
    if getattr(experiment.topology, "mixing", "") == "sinkhorn":
        after = "network"
    keys = ["topology", "peers", "seed", *({"data": ["task", "partition"], "network": ["network"]}.get(after, []))]
    return experiment.alike(keys)


def _axes_of(sweep: Sweep, part: str) -> list[str]:
    """Return the axes along which one part of the experiment changes while the other axes are fixed."""
    found = []
    for axis in sweep.axes:
        groups: dict[tuple[str, ...], list[object]] = {}
        for cell in sweep.cells:
            others = tuple(plain(value) for name, value in cell.values.items() if name != axis)
            groups.setdefault(others, []).append(getattr(cell.points[0].experiment, part))
        if any(value != values[0] for values in groups.values() for value in values[1:]):
            found.append(axis)
    return found


def _values(cell: CellResult, axes: Iterable[str]) -> tuple[str, ...]:
    return tuple(plain(cell.values[axis]) for axis in axes)


def _label(cell: CellResult, axes: Sequence[str]) -> str:
    return ", ".join(_values(cell, axes))


def _distinct(cells: Sequence[CellResult], axes: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_label(cell, axes) for cell in cells))


def _in_words(axis: str, value: str) -> str:
    """ "peers" and "16" -> "16 peers"; "data" and "iid" -> "data iid"."""
    if axis == "peers":
        return f"{value} peers"
    table, _, last = axis.rpartition(".")
    return f"{table if last == 'name' and table else last.replace('_', ' ')} {value}"
