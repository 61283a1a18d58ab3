"""The summary of a run, one flat dictionary: its end, its accuracy, its traffic, and the emulation's errors."""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from grapevine.experiments.results.machine import describe_machine
from grapevine.experiments.results.numbers import peers_text
from grapevine.experiments.results.outcome import Outcome, consensus_distance
from grapevine.experiments.results.warnings import fidelity, warnings_about
from grapevine.netem.units import duration_ns

if TYPE_CHECKING:
    from grapevine.experiments.config.experiment import Experiment

KEYS = (
    "name", "world", "topology", "strategy", "peers", "seed", "completed", "reason", "emulated_s", "wall_s",
    "steps_total", "steps_per_wall_s", "bytes_sent", "messages_sent", "accuracy_mean", "accuracy_min", "accuracy_max",
    "accuracy_of_mean", "loss_mean", "consensus_distance", "staleness_steps_mean", "spectral_gap", "peers_lost",
    "lateness_p99_ms", "digest", "time_to_accuracy_s", "validation_accuracy_mean", "validation_accuracy_of_mean",
    "validation_loss_mean", "time_to_validation_accuracy_s", "record_every_s",
)  # fmt: skip
"""The keys that every summary has, after any end of the run; None = unknown."""

LEVELS = ("0.5", "0.6", "0.7", "0.8", "0.9", "0.95")
"""The mean accuracies for which the summary holds the first time."""

LEAST_LOSS, EXCESS_LOSS = "loss_of_optimum", "excess_loss"
"""Keys of runs of a task that knows its optimum: the test loss there, and how much the mean test loss of the peers is above."""


def summarise(outcome: Outcome, experiment: Experiment, spectral_gap: float, least_loss: float | None = None) -> dict[str, Any]:
    """Return the summary of a run as a dictionary that JSON can hold (nan and infinity become None).

    Accuracy, loss and consensus distance are those of the peers that are members at the end. `members` holds the number of
    members, each with the emulated second from which it holds; `peers_absent` the peers that are not members at the end and
    were not lost. `digest` is given in the virtual world alone: runs in the world of processes are never exactly equal.
    `least_loss` is the test loss at the optimum, if the task knows it.
    """
    peers, world = experiment.peers, _name(experiment.world)
    kernel = getattr(experiment.network, "backend", "userspace") == "kernel"
    kept = [peer for peer in range(peers) if peer not in {*outcome.peers_lost, *outcome.peers_absent}]
    accuracy = _of(outcome.accuracy, kept)
    weights = outcome.weights[[peer for peer in kept if peer < len(outcome.weights)]]
    diverged = [peer for peer, row in zip(kept, weights, strict=False) if not np.isfinite(row).all()]
    steps_total = int(sum(outcome.steps))
    summary = {
        "name": experiment.name, "world": world, "topology": _name(experiment.topology),
        "strategy": _name(experiment.strategy), "peers": peers, "seed": experiment.seed,
        "completed": outcome.completed, "reason": outcome.reason,
        "emulated_s": outcome.emulated_s, "wall_s": outcome.wall_s,
        "dilation": getattr(experiment.world, "dilation", 1.0),
        "steps_total": steps_total, "steps_min": min(outcome.steps, default=0), "steps_max": max(outcome.steps, default=0),
        "steps_per_wall_s": steps_total / outcome.wall_s if outcome.wall_s > 0 else None,
        "bytes_sent": int(outcome.bytes_sent), "messages_sent": int(outcome.messages_sent),
        "accuracy_mean": _or_nan(np.mean, accuracy), "accuracy_min": _or_nan(np.min, accuracy),
        "accuracy_max": _or_nan(np.max, accuracy), "accuracy_of_mean": outcome.accuracy_of_mean,
        "loss_mean": math.nan if diverged else _or_nan(np.mean, _of(outcome.loss, kept)),
        "validation_accuracy_mean": _or_nan(np.mean, _of(outcome.validation_accuracy, kept)),
        "validation_accuracy_of_mean": outcome.validation_accuracy_of_mean,
        "validation_loss_mean": math.nan if diverged else _or_nan(np.mean, _of(outcome.validation_loss, kept)),
        "consensus_distance": consensus_distance(weights),
        "staleness_steps_mean": outcome.staleness_steps_mean, "spectral_gap": spectral_gap,
        "peers_lost": sorted(int(peer) for peer in outcome.peers_lost),
        "peers_lost_unasked": sorted(int(peer) for peer in outcome.peers_lost_unasked),
        "peers_absent": sorted(int(peer) for peer in outcome.peers_absent),
        "members": [list(entry) for entry in outcome.members] or [[0.0, peers]],
        "records_unscored": outcome.records_unscored, "wrapped": list(outcome.wrapped), "altered": dict(outcome.altered),
        "lateness_p99_ms": _lateness_p99_ms(world, outcome.lateness_ms),
        **fidelity(outcome), "network_backend": "kernel" if kernel else "userspace",
        "record_every_s": duration_ns(experiment.record.every) / 1e9,
        "time_to_accuracy_s": time_to_accuracy_s(outcome.accuracy_history),
        "time_to_validation_accuracy_s": time_to_accuracy_s(outcome.validation_accuracy_history),
        "digest": digest(outcome) if world == "virtual" else None,
    }  # fmt: skip
    if kernel:
        summary["delay_error_median_ms"] = math.nan  # delays include the kernel's queues
    summary["warnings"] = [*outcome.warnings, *warnings_about(summary, outcome, peers_text(diverged) if diverged else "")]
    if least_loss is not None:
        summary |= {LEAST_LOSS: least_loss, EXCESS_LOSS: summary["loss_mean"] - least_loss}
    summary["machine"] = describe_machine()
    return dict(clean(summary))


def unfinished(experiment_toml: str, reason: str) -> dict[str, Any]:
    """Return the summary of a run that has not finished: every key, with the values that the experiment's file gives."""
    try:
        experiment = tomllib.loads(experiment_toml)
    except tomllib.TOMLDecodeError:
        experiment = {}
    known = {key: experiment.get(key) for key in ("name", "seed", "peers")}
    for table in ("world", "topology", "strategy"):
        part = experiment.get(table)
        known[table] = part.get("name") if isinstance(part, dict) else part
    return {**dict.fromkeys(KEYS), **clean(known), "completed": False, "reason": reason, "peers_lost": [],
            "peers_lost_unasked": [], "peers_absent": [], "members": [], "time_to_accuracy_s": dict.fromkeys(LEVELS),
            "time_to_validation_accuracy_s": dict.fromkeys(LEVELS), "warnings": []}  # fmt: skip


def time_to_accuracy_s(history: Iterable[tuple[float, float]]) -> dict[str, float | None]:
    """Return for each of `LEVELS` the time of the first record at which the fleet's mean accuracy was at least that level.

    `history` is (seconds, mean accuracy) in order of time. The time is None if no record reached the level, or if an earlier
    record has no score (nan), because it may have reached the level already.
    """
    first: dict[str, float | None] = dict.fromkeys(LEVELS)
    for time_s, accuracy in history:
        if math.isnan(accuracy):
            break
        for level in LEVELS:
            if first[level] is None and accuracy >= float(level):
                first[level] = float(time_s)
    return first


def digest(outcome: Outcome) -> str:
    """Return the sha256 (hexadecimal) of all that an equal seed must reproduce: weights, and figures without real time."""
    sha = hashlib.sha256(np.ascontiguousarray(outcome.weights, dtype="<f4").data)
    figures = [outcome.emulated_s, outcome.steps, outcome.bytes_sent, outcome.messages_sent, outcome.accuracy, outcome.loss,
            outcome.accuracy_of_mean, outcome.accuracy_history, outcome.validation_accuracy, outcome.validation_loss,
            outcome.validation_accuracy_of_mean, outcome.validation_accuracy_history, outcome.staleness_steps_mean,
            outcome.peers_lost, outcome.links]  # fmt: skip
    if outcome.members:
        figures += [outcome.members, outcome.peers_absent]
    sha.update(msgspec.json.encode(clean(figures)))
    return sha.hexdigest()


def clean(value: Any) -> Any:
    """Return `value` as JSON can hold it: numpy arrays and tuples as lists, nan and infinity as None, other objects as text."""
    if isinstance(value, Mapping):
        return {str(key): clean(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return clean(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(part) for part in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int) else _as_text(str(value))


def _as_text(text: str) -> str:
    """Return `text` with its undecoded bytes, such as those of a path, decoded as UTF-8; other bytes become "?"."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _name(part: Any) -> str:
    """Return the name of a part in its menu; "given" for a graph or a schedule from Python."""
    config = getattr(type(part), "__struct_config__", None)
    return "given" if config is None else str(config.tag)


def _lateness_p99_ms(world: str, lateness_ms: Sequence[float]) -> float | None:
    known = np.asarray(lateness_ms, dtype=np.float64)
    known = known[np.isfinite(known)]
    if len(known) == 0:
        return 0.0 if world == "virtual" else None
    return float(np.percentile(known, 99))


def _of(values: Sequence[float], peers: Sequence[int]) -> np.ndarray:
    chosen = np.array([values[peer] for peer in peers if peer < len(values)], dtype=np.float64)
    return chosen[~np.isnan(chosen)]


def _or_nan(reduce: Any, values: np.ndarray) -> float:
    return float(reduce(values)) if len(values) else math.nan
