"""The check of a sweep before it starts: the runs that cannot be built, and the estimated time of all."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np

from grapevine.experiments.config.experiment import Experiment
from grapevine.experiments.config.sections import Processes, Record, Stop, Virtual
from grapevine.experiments.fleet import Fleet, build, problem_of
from grapevine.experiments.forecast import forecast
from grapevine.experiments.sweep.plan import Cell, Point, Sweep
from grapevine.experiments.sweep.tune import plain
from grapevine.experiments.tasks import Problem
from grapevine.experiments.tasks.base import HeldOut
from grapevine.experiments.worlds.interrupt import Interrupt
from grapevine.experiments.worlds.threads import one_thread
from grapevine.peer.strategies import Strategy

TRIED_STEPS = 100
"""Steps, of all peers together, that are carried out in virtual time to measure this machine's speed; 3 a peer at least."""
REPEATED = 2
"""The number of measurements, of which the shortest counts: other programs only make them longer."""
MOST_TRIED = 8
"""The largest number of kinds of runs that are timed; other runs are estimated by the most similar one."""
START_S, START_LIVE_S = 1.8, 3.3
"""Real seconds of a run's start and end, in virtual and in real time: measured with 4 peers and 1 step on two cores."""
SCORED_AT_ONCE = 16


@dataclass(frozen=True)
class Invalid:
    """A combination of a sweep that cannot be built."""

    where: str
    """The chosen values, in words."""
    runs: int
    """The number of its runs, trials included."""
    reason: str
    """The error, with its cure, of the first of its runs that cannot be built."""

    def __str__(self) -> str:
        return f"{self.where} ({self.runs} {'run' if self.runs == 1 else 'runs'}): {self.reason}"


def invalid_cells(sweep: Sweep, look: Callable[[Cell, Fleet], None] = lambda cell, fleet: None) -> Mapping[int, Invalid]:
    """Build every run of a sweep as `grapevine run` does; return the cells with a run that cannot be built, by place.

    Runs that differ only in optimizer, name and record are built once. `look` is called with the first fleet of each good cell.
    """
    builder = _Builder()
    found: dict[int, Invalid] = {}
    for place, cell in enumerate(sweep.cells):
        fleets: list[Fleet] = []
        try:
            for experiment in _experiments(cell):
                builder.build(experiment, fleets)
        except ValueError as error:
            where = ", ".join(f"{axis} {plain(value)}" for axis, value in cell.values.items()) or "all runs"
            found[place] = Invalid(where, len(cell.points) + len(cell.trials), str(error))
            continue
        look(cell, fleets[0] if fleets else build(cell.points[0].experiment, make_problem=builder.problem))
    return found


def without(sweep: Sweep, invalid: Mapping[int, Invalid]) -> Sweep:
    """Return the sweep without these cells, which its `left_out` names."""
    cells = tuple(cell for place, cell in enumerate(sweep.cells) if place not in invalid)
    return replace(sweep, cells=cells, left_out=tuple(map(str, invalid.values())))


def no_solo(sweep: Sweep) -> str:
    """Return a warning if a sweep compares strategies and none of them is `solo`; else ""."""
    strategies = {type(cell.points[0].experiment.strategy) for cell in sweep.cells}
    if len(strategies) < 2 or any(strategy.shares == "nothing" for strategy in strategies):
        return ""
    return (
        'the sweep compares strategies without "solo": the benefit of exchanging anything at all stays unknown; '
        'add "solo" to the list of strategies'
    )


class Timing:
    """Estimates the real time of runs from a few steps of some of them, carried out in virtual time on this machine."""

    def __init__(self) -> None:
        self._seconds: dict[
            tuple[int, type[Strategy]], tuple[float, float]
        ] = {}  # (peers, strategy) -> seconds of a peer's step, and of a score

    def run_s(self, fleet: Fleet) -> float:
        """Return the estimated real seconds of a run, its start included, if no accuracy stops it earlier."""
        ahead, experiment = forecast(fleet), fleet.experiment
        if isinstance(experiment.world, Processes):
            return START_LIVE_S + (ahead.wall_ns or 0.0) / 1e9
        most = experiment.stop.steps or np.inf
        steps = [min(most, ahead.emulated_ns / max(step, 1.0)) for step in _paces_ns(fleet, ahead.step_ns, ahead.round_ns)]
        step_s, score_s = self._of(fleet)
        records = ahead.emulated_ns / fleet.every_ns + 2
        return START_S + step_s * sum(steps) + score_s * records * experiment.peers

    def _of(self, fleet: Fleet) -> tuple[float, float]:
        experiment = fleet.experiment
        key = experiment.peers, type(experiment.strategy)
        if key not in self._seconds and len(self._seconds) < MOST_TRIED:
            _step_s(fleet, 1)  # a first step, not timed: it includes work that is done once
            steps = max(3, TRIED_STEPS // experiment.peers)
            tries = range(REPEATED)
            self._seconds[key] = min(_step_s(fleet, steps) for _ in tries), min(_score_s(fleet) for _ in tries)
        near = min(self._seconds, key=lambda other: (other[1] != key[1], abs(other[0] - key[0])))
        return self._seconds[near]


def _paces_ns(fleet: Fleet, step_ns: list[float], round_ns: float) -> list[float]:
    return [round_ns] * len(step_ns) if fleet.experiment.strategy.synchronous else step_ns


def _step_s(fleet: Fleet, steps: int) -> float:
    """Return the processor's seconds for one step of one peer in virtual time, the mean over `steps` of each peer; processor
    time leaves out other programs."""
    from grapevine.experiments.results.recorder import Recorder
    from grapevine.experiments.worlds.collector import Collector
    from grapevine.experiments.worlds.virtual.world import VirtualWorld

    experiment = fleet.experiment
    stop = Stop(time=experiment.stop.time, steps=steps)
    tried = replace(fleet, experiment=experiment.replace(world=Virtual(), stop=stop, events=(), record=Record(report=False)))
    with tempfile.TemporaryDirectory() as folder, Recorder(Path(folder) / "run", "", {}) as recorder:
        world = VirtualWorld(tried, Collector(tried, recorder, lambda status: None), Interrupt())
        began_s = time.process_time()
        world.train(records=False)
        spent_s = time.process_time() - began_s
    return spent_s / max(1, sum(member.peer.step for member in world.members))


def _score_s(fleet: Fleet) -> float:
    """Return the processor's seconds for scoring one peer's model."""
    models = np.tile(fleet.problem.initial, (min(SCORED_AT_ONCE, fleet.experiment.peers), 1))
    with one_thread():  # as in a run
        began_s = time.process_time()
        for data in get_args(HeldOut):
            fleet.problem.evaluate(models, data)
        return (time.process_time() - began_s) / len(models)


class _Builder:
    """Builds experiments, and keeps the problems that several of them share."""

    def __init__(self) -> None:
        self._built: set[str] = set()
        self._problems: dict[str, Problem] = {}

    def build(self, experiment: Experiment, fleets: list[Fleet]) -> None:
        """Build an experiment unless an equal one was built before; put its fleet into `fleets` if that is empty."""
        key = experiment.alike({*experiment.__struct_fields__} - {"name", "optimizer", "record"})
        if key in self._built:
            return
        fleet = build(experiment, make_problem=self.problem)
        self._built.add(key)
        if not fleets:
            fleets.append(fleet)

    def problem(self, experiment: Experiment) -> Problem:
        strategy = experiment.strategy
        needs = strategy.hubs, strategy.held_out_share, strategy.probe_samples, sorted(strategy.asked)
        key = f"{experiment.alike(('task', 'partition', 'peers', 'seed'))} {needs}"
        if key not in self._problems:
            if len(self._problems) >= 64:  # an old problem is unlikely to be needed again
                del self._problems[next(iter(self._problems))]
            self._problems[key] = problem_of(experiment)
        return self._problems[key]


def _experiments(cell: Cell) -> list[Experiment]:
    """Return all experiments that a cell may run: its trials, and its measured runs with every candidate."""
    measured = [experiment for choices in cell.candidates for experiment in choices] or [p.experiment for p in cell.points]
    trials: tuple[Point, ...] = cell.trials
    return [*measured, *(trial.experiment for trial in trials)]
