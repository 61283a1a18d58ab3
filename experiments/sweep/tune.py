"""Tuning before measuring: the candidates of a `[tune]` table, and the best trial of each cell."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from grapevine.experiments.config.errors import ConfigError, show_value, unknown_key
from grapevine.experiments.config.experiment import Experiment
from grapevine.experiments.results.curves import first_reached, over_time
from grapevine.experiments.results.result import Result
from grapevine.experiments.sweep.axes import MOST_RUNS, SEED, flat, read_list, too_many

TARGET = "target"
MOST_WIDENED = 3
"""The largest number of values by which a list is widened at each of its ends."""
VALIDATION = "validation_accuracy_mean"
"""The figure by which trials are compared: in a summary and, record by record, in `metrics.parquet`."""
DEFAULT_TARGET = 0.9
DEFAULT_SEED = 1000


@dataclass(frozen=True)
class Tune:
    """The candidates that are tried for every cell before it is measured: all combinations of the lists, on their own seed."""

    candidates: tuple[dict[str, Any], ...]
    """"table.key" -> value for each candidate; every cell tries all candidates."""
    seed: int
    target: float | None
    """The mean accuracy that trials should reach soonest, 0 to 1; None = that of `[stop]`, or else 0.9."""

    def in_words(self, chosen: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> str:
        """Return the choice as text: "learning rate 0.2, best of 5", or "learning rate 0.8, widened to 0.8, best of 6"."""
        words = ", ".join(f"{key.rpartition('.')[2].replace('_', ' ')} {plain(value)}" for key, value in chosen.items())
        added = [candidate[key] for candidate in tried for key in self.widened(candidate)]
        widened = f", widened to {' and '.join(map(plain, added))}" if added else ""
        return f"{words}{widened}, best of {len(tried)}"

    def widened(self, candidate: Mapping[str, Any]) -> list[str]:
        """Return the keys of a candidate whose value is in no list of the file."""
        return [key for key, value in candidate.items() if value not in self._values(key)]

    def at_an_end(self, chosen: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the tuned keys whose choice is the lowest or highest number tried: a wider list may give a better one."""
        return [key for key in chosen if self._end(key, chosen, tried)]

    def wider(self, chosen: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the candidates to try next if a choice is at an end of the tried values: the choice with the next value there.

        The list continues with its own ratio at that end (0.2, 0.4 -> 0.8; whole numbers stay whole), by at most `MOST_WIDENED`
        values. Empty if the choice is not at an end, if the values are not positive numbers, or if the list was widened that
        often already. The rule is the same for every cell.
        """
        found = []
        for key, value in chosen.items():
            end = self._end(key, chosen, tried)
            listed = self._values(key)
            beyond = {each[key] for each in tried if each[key] < min(listed)} if end < 0 else set()
            beyond |= {each[key] for each in tried if each[key] > max(listed)} if end > 0 else set()
            if not end or len(beyond) >= MOST_WIDENED or min(listed) <= 0:
                continue
            ratio = listed[1] / listed[0] if end < 0 else listed[-1] / listed[-2]
            following = float(f"{value * ratio**end:.6g}")  # 0.2, not 0.20000000000000001
            if all(isinstance(each, int) for each in listed):
                following = round(following)
            if following > 0 and following != value:
                found.append({**chosen, key: following})
        return found

    def _end(self, key: str, chosen: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> int:
        """Return -1 if the choice is the lowest number tried, 1 if it is the highest, else 0."""
        if len(self._values(key)) < 2:
            return 0
        values = [each[key] for each in tried]
        return -1 if chosen[key] == min(values) else 1 if chosen[key] == max(values) else 0

    def _values(self, key: str) -> list[Any]:
        """Return the numbers of a key's list in the file, in order; empty if the list holds anything else."""
        listed = {candidate[key] for candidate in self.candidates if _is_number(candidate[key])}
        return sorted(listed) if all(_is_number(candidate[key]) for candidate in self.candidates) else []


class Score(NamedTuple):
    """The figures by which trials are compared; None = the run has no such figure."""

    reached_s: float | None
    """Emulated seconds until the first record with a mean validation accuracy of the peers at or above the target."""
    accuracy: float | None
    """Mean validation accuracy over the peers at the end."""
    loss: float | None
    """Mean loss over the peers at the end, for a task without accuracy; None for any other task."""


def read_tune(table: Any, swept: set[str], source: str) -> Tune | None:
    """Return the Tune of a `[tune]` table; None if there is none. Raises ConfigError, with the cure, for a wrong table."""
    if table is None:
        return None
    if not isinstance(table, Mapping):
        cure = 'write [tune], and below it lists, such as "optimizer.learning_rate" = [0.05, 0.1, 0.2]'
        raise ConfigError(source, "tune", table, "is not a table", cure)
    given = dict(flat(table))
    seed, target = given.pop(SEED, DEFAULT_SEED), given.pop(TARGET, None)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(source, "tune.seed", seed, f"{show_value(seed)} is not a seed", "give one whole number of 0 or more")
    if target is not None and (isinstance(target, bool) or not isinstance(target, int | float) or not 0 < target <= 1):
        problem = f"{show_value(target)} is not a share of samples"
        raise ConfigError(source, "tune.target", target, problem, "give a mean accuracy above 0, to 1, such as 0.9")
    for key in given:
        if "." not in key and key not in Experiment.__struct_fields__:  # neither a key of an experiment nor of [tune]
            error = unknown_key(f"tune.{key}", "[tune]", (SEED, TARGET), "")
            cure = f'{error.cure}; candidates are lists by dotted key, such as "optimizer.learning_rate" = [0.05, 0.1, 0.2]'
            raise ConfigError(source, f"tune.{key}", given[key], "no such field", cure)
    lists = {key: read_list(f"tune.{key}", values, source) for key, values in given.items()}
    if not lists:
        cure = 'add lists, such as "optimizer.learning_rate" = [0.05, 0.1, 0.2], or leave [tune] out'
        raise ConfigError(source, "tune", problem="has no list of candidates", cure=cure)
    for key, values in lists.items():
        if key in swept:
            raise ConfigError(source, f"tune.{key}", problem="is in [sweep] too", cure="remove it from [sweep] or from [tune]")
        if any(value in values[:place] for place, value in enumerate(values)):
            raise ConfigError(source, f"tune.{key}", values, "has a value twice", "write each value once")
    if (count := math.prod(map(len, lists.values()))) > MOST_RUNS:
        raise too_many(count, source, "tune")
    candidates = tuple(dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values()))
    return Tune(candidates, seed, None if target is None else float(target))


def score_of(result: Result, target: float) -> Score:
    """Return the score of a trial on the validation samples; never on the test set, which the measured figures use.

    Raises ValueError if its summary has no such figures.
    """
    summary = result.summary
    if VALIDATION not in summary:
        path = result.folder / "summary.json"
        raise ValueError(
            f"{path}: {VALIDATION} is missing, which tuning needs; an older version wrote this run; delete it and run it again"
        )
    accuracy = summary[VALIDATION]
    reached = first_reached(over_time(result, VALIDATION), target)
    return Score(reached.value if reached else None, accuracy, summary.get("loss_mean") if accuracy is None else None)


def best(scores: Sequence[Score | None]) -> int | None:
    """Return the place of the best trial: the first to reach the target; if none does, the one with the highest accuracy at
    the end, and for a task without accuracy the one with the lowest loss.

    Between equal trials the higher accuracy at the end decides, then the lower loss, then the order of the list. A score of
    None is a trial that was not completed; the result is None if all are.
    """
    known = [(_rank(score), place) for place, score in enumerate(scores) if score is not None]
    return min(known)[1] if known else None


def plain(value: Any) -> str:
    """Return a value as tables show it: text without quotation marks."""
    return value if isinstance(value, str) else show_value(value)


def _rank(score: Score) -> tuple[float, ...]:
    accuracy, loss = (math.nan if value is None else value for value in score[1:])
    return (_or_last(score.reached_s), _or_last(-accuracy), _or_last(loss))


def _or_last(value: float | None) -> float:
    return math.inf if value is None or math.isnan(value) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def candidate_words(candidates: Iterable[Mapping[str, Any]]) -> str:
    """Return the candidates as text: "0.05, 0.1, 0.2"; with several keys each value after its key."""
    listed = [dict(candidate) for candidate in candidates]
    if len(listed[0]) == 1:
        return ", ".join(plain(next(iter(candidate.values()))) for candidate in listed)
    return "; ".join(", ".join(f"{key} {plain(value)}" for key, value in candidate.items()) for candidate in listed)
