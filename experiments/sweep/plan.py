"""The plan of a sweep: all runs of an experiment file with a `[sweep]` table."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from grapevine.experiments.config import toml
from grapevine.experiments.config.errors import ConfigError
from grapevine.experiments.config.experiment import Experiment
from grapevine.experiments.config.overrides import SOURCE, anchor_settings, concerns
from grapevine.experiments.sweep.axes import MOST_RUNS, SEED, Axis, Choice, Options, read_blocks, too_many
from grapevine.experiments.sweep.tune import DEFAULT_TARGET, Tune, read_tune

LONGEST_NAME = 100


@dataclass(frozen=True)
class Point:
    """One run of a sweep."""

    name: str
    """The name of its folder; equal values give equal names."""
    values: dict[str, Any]
    """Axis -> chosen value; for a named choice its label."""
    experiment: Experiment = field(repr=False)
    tuned: dict[str, Any] = field(default_factory=dict)
    """The tuned values, or those that this trial tries: "table.key" -> value."""

    @property
    def cell(self) -> tuple[tuple[str, str], ...]:
        """The values without the seed: equal for all runs of a cell."""
        return tuple((key, toml.dump_value(value)) for key, value in self.values.items() if key != SEED)


@dataclass(frozen=True)
class Cell:
    """All runs that differ in the seed alone."""

    values: dict[str, Any]
    """Axis -> chosen value, without the seed."""
    points: tuple[Point, ...]
    """The measured runs, one for each seed."""
    candidates: tuple[tuple[Experiment, ...], ...] = ()
    """For each measured run, its experiment with each candidate of `[tune]`."""
    trials: tuple[Point, ...] = ()
    """One run for each candidate, on the tuning seed."""

    def widened(self, candidate: Mapping[str, Any]) -> Cell:
        """Return the cell with one more candidate and its trial; raise ConfigError if a field does not allow the value."""
        experiments = tuple(_set(choices[0], candidate) for choices in self.candidates)
        values = {**self.values, **candidate}
        trial = experiments[0].replace(seed=self.trials[0].experiment.seed)
        point = Point(_with_digest(_plain_name(values), toml.dump_value(values)), values, trial, dict(candidate))
        both = zip(self.candidates, experiments, strict=True)
        return replace(self, candidates=tuple((*choices, one) for choices, one in both), trials=(*self.trials, point))

    def settled(self, candidate: int) -> tuple[Point, ...]:
        """Return the measured runs with the candidate that tuning chose."""
        tuned = self.trials[candidate].tuned
        pairs = zip(self.points, self.candidates, strict=True)
        return tuple(Point(point.name, point.values, choices[candidate], tuned) for point, choices in pairs)


@dataclass(frozen=True)
class Sweep:
    """The runs of a file with a `[sweep]` table."""

    cells: tuple[Cell, ...]
    axes: tuple[str, ...]
    """The names of the axes without the seed, in the order of the file."""
    tune: Tune | None
    target: float
    """The mean accuracy for the times to accuracy."""
    options: Options = field(default_factory=Options)
    left_out: tuple[str, ...] = ()
    """The combinations left out by `skip_invalid`, each with the reason, in words."""

    @property
    def points(self) -> list[Point]:
        """All measured runs; in a sweep with `[tune]` with its first candidate."""
        return [point for cell in self.cells for point in cell.points]

    @property
    def trials(self) -> list[Point]:
        """All trials of the tuning."""
        return [trial for cell in self.cells for trial in cell.trials]


def read_sweep(path: Path, settings: Mapping[str, Any] | None = None) -> Sweep:
    """Return all runs of a file: each combination of the lists of its `[sweep]` table; the last list varies fastest.

    `settings` ("table.key" -> value) replace keys of the file, the swept values replace these, tuned values replace all. Raises
    ConfigError if one of the runs is not valid, before anything starts.
    """
    return plan_sweep(toml.read_document(path, str(path)), str(path), path.parent, settings or {})


def plan_sweep(given: Mapping[str, Any], source: str, folder: Path, settings: Mapping[str, Any]) -> Sweep:
    """Return the same for a document; `source` names it in errors, its paths are relative to `folder`, and its parts and lists
    may hold values from Python."""
    document = dict(given)
    blocks, options = read_blocks(document.pop("sweep", None), source)
    _refuse_too_many(blocks, 0, source)
    tune = read_tune(document.pop("tune", None), {key for axes in blocks for key in _keys(axes)}, source)
    _refuse_too_many(blocks, len(tune.candidates) if tune else 0, source)
    combinations = [combination for axes in blocks for combination in _combinations(axes)]
    reader = _Reader(document, source, folder, settings)
    points: dict[tuple[tuple[str, str], ...], list[tuple[Point, dict[str, Any]]]] = {}
    names = _names([_shown(combination) for combination in combinations], source)
    for name, combination in zip(names, combinations, strict=True):
        laid = {key: value for choice in combination.values() for key, value in choice.settings.items()}
        point = Point(name, _shown(combination), reader.read(laid, tune.candidates[0] if tune else {}))
        points.setdefault(point.cell, []).append((point, laid))
    cells = [_cell(group, tune, reader) for group in points.values()]
    target = tune.target if tune and tune.target else cells[0].points[0].experiment.stop.accuracy or DEFAULT_TARGET
    axes = tuple(axis.name for axis in blocks[0] if axis.name != SEED)
    sweep = Sweep(tuple(_named_trials(cells, source)), axes, tune, target, options)
    if tune and tune.seed in (seeds := {point.experiment.seed for point in sweep.points}):
        problem = f"{tune.seed} is one of the measured seeds ({', '.join(map(str, sorted(seeds)[:8]))})"
        cure = f"tune on another seed: set tune.seed = {max(seeds) + 1}"
        raise ConfigError(source, "tune.seed", problem=problem, cure=cure)
    return sweep


class _Reader:
    """Makes experiments from one document and settings."""

    def __init__(self, document: Mapping[str, Any], source: str, folder: Path, settings: Mapping[str, Any]) -> None:
        self.document = document
        self.source = source
        self.folder = folder
        self.settings = anchor_settings(settings, Path())

    def read(self, laid: Mapping[str, Any], tried: Mapping[str, Any]) -> Experiment:
        """Return the experiment with swept and tuned values in the document; an error names the table that is at fault."""
        chosen = anchor_settings({**laid, **tried}, self.folder)
        try:
            return Experiment.from_document(self.document, self.source, self.folder, {**self.settings, **chosen})
        except ConfigError as error:
            if error.source == SOURCE and concerns(chosen, error.key):
                error.source = f"{self.source}: [{'tune' if concerns(tried, error.key) else 'sweep'}]"
            raise


def _cell(group: Sequence[tuple[Point, dict[str, Any]]], tune: Tune | None, reader: _Reader) -> Cell:
    """Return a cell; the experiments of all candidates are made now, so that a wrong one is refused before anything starts."""
    points = tuple(point for point, _ in group)
    values = {key: value for key, value in points[0].values.items() if key != SEED}
    if tune is None:
        return Cell(values, points)
    experiments = tuple(tuple(reader.read(laid, candidate) for candidate in tune.candidates) for _, laid in group)
    trials = tuple(
        Point("", values | candidate, experiment.replace(seed=tune.seed), candidate)
        for candidate, experiment in zip(tune.candidates, experiments[0], strict=True)
    )
    return Cell(values, points, experiments, trials)


def _named_trials(cells: Sequence[Cell], source: str) -> list[Cell]:
    names = iter(_names([trial.values for cell in cells for trial in cell.trials], source))
    return [
        Cell(cell.values, cell.points, cell.candidates,
             tuple(Point(next(names), trial.values, trial.experiment, trial.tuned) for trial in cell.trials))
        for cell in cells
    ]  # fmt: skip


def _combinations(axes: Sequence[Axis]) -> list[dict[str, Choice]]:
    products = itertools.product(*(axis.choices for axis in axes))
    return [dict(zip((axis.name for axis in axes), choices, strict=True)) for choices in products]


def _shown(combination: Mapping[str, Choice]) -> dict[str, Any]:
    return {name: choice.shown for name, choice in combination.items()}


def _keys(axes: Sequence[Axis]) -> set[str]:
    return {key for axis in axes for choice in axis.choices for key in choice.settings}


def _refuse_too_many(blocks: Sequence[Sequence[Axis]], tries: int, source: str) -> None:
    runs = sum(math.prod(len(axis.choices) for axis in axes) for axes in blocks)
    trials = tries * sum(math.prod(len(axis.choices) for axis in axes if axis.name != SEED) for axes in blocks)
    if runs + trials > MOST_RUNS:
        raise too_many(runs + trials, source, "sweep")


def _names(combinations: list[dict[str, Any]], source: str) -> list[str]:
    """Return a folder name for each combination; names that would be too long, or equal, end in a digest."""
    exact = [toml.dump_value(values) for values in combinations]
    twice = [text for text, count in Counter(exact).items() if count > 1]
    if twice:
        raise ConfigError(source, "sweep", problem=f"the same run comes twice: {twice[0]}", cure="write each value once")
    plain = [_plain_name(values) for values in combinations]
    counts = Counter(name.lower() for name in plain)
    names = []
    for name, text in zip(plain, exact, strict=True):
        if len(name) > LONGEST_NAME or counts[name.lower()] > 1:
            name = _with_digest(name, text)
        names.append(name)
    return names


def _plain_name(values: Mapping[str, Any]) -> str:
    return ",".join(f"{key}={_slug(value)}" for key, value in values.items())


def _with_digest(name: str, text: str) -> str:
    return f"{name[:LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _set(experiment: Experiment, values: Mapping[str, Any]) -> Experiment:
    for key, value in values.items():
        experiment = experiment.set(key, toml.dump_value(value))
    return experiment


def _slug(value: Any) -> str:
    """Return a value as part of a folder's name: "20 Mbit/s" becomes "20Mbit-s"."""
    if isinstance(value, Mapping):
        return "_".join(_slug(part) for part in value.values()) or "default"
    if isinstance(value, list):
        return "_".join(_slug(part) for part in value) or "none"
    text = str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "")
    return re.sub(r"[^\w.+-]+", "-", text, flags=re.ASCII).strip(".") or "empty"
