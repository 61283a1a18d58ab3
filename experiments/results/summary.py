"""What a run came to, in one flat dictionary: how it ended, how well it learnt, what it sent, how true the emulation was."""

from __future__ import annotations

import hashlib
import math
import shutil
import textwrap
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from grapevine.experiments.results.result import LinkFigures
from grapevine.experiments.results.warnings import fidelity, warnings_about
from grapevine.netem import Cable
from grapevine.netem.units import show_bytes

if TYPE_CHECKING:
    from rich.text import Text

KEYS = (
    "name", "world", "topology", "strategy", "peers", "seed", "completed", "reason", "emulated_s", "wall_s",
    "steps_total", "steps_per_wall_s", "bytes_sent", "messages_sent", "accuracy_mean", "accuracy_min", "accuracy_max",
    "accuracy_of_mean", "loss_mean", "consensus_distance", "staleness_steps_mean", "spectral_gap", "peers_lost",
    "lateness_p99_ms", "digest", "time_to_accuracy_s", "validation_accuracy_mean", "validation_accuracy_of_mean",
    "validation_loss_mean", "time_to_validation_accuracy_s", "record_every_s",
)  # fmt: skip
"""The keys that every summary has, whatever became of the run; what is not known is None."""

LEVELS = ("0.5", "0.6", "0.7", "0.8", "0.9", "0.95")
"""The mean accuracies whose first times are noted."""

MARGIN = 13
MOST_NAMED = 12
"""Peers whose numbers are told; of more there are only so many of them."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended, as plain values; what was never measured is left out (or nan) and becomes null in the summary."""

    completed: bool
    reason: str
    emulated_s: float
    wall_s: float
    steps: Sequence[int]
    """Steps that each peer made."""
    bytes_sent: int
    messages_sent: int
    weights: np.ndarray
    """The last weights known of each peer, float32 [peers, size]; of a lost peer those of its last record."""
    accuracy: Sequence[float] = ()
    """Test accuracy of each peer's last weights, 0 to 1; nan = not evaluated."""
    loss: Sequence[float] = ()
    """Test loss of each peer's last weights."""
    validation_accuracy: Sequence[float] = ()
    """The same on the validation set."""
    validation_loss: Sequence[float] = ()
    """The same on the validation set."""
    accuracy_of_mean: float = math.nan
    """Test accuracy of the mean of all peers' weights."""
    accuracy_history: Sequence[tuple[float, float]] = ()
    """(emulated seconds, mean test accuracy of the fleet), record by record in order of time; nan = could not be scored."""
    validation_accuracy_of_mean: float = math.nan
    """Validation accuracy of the mean of all peers' weights."""
    validation_accuracy_history: Sequence[tuple[float, float]] = ()
    """The same on the validation set."""
    staleness_steps_mean: float = math.nan
    lateness_ms: Sequence[float] = ()
    """How late things happened on the wall clock, in milliseconds: one value an occurrence, or a peer's 99th percentile."""
    peers_lost: Sequence[int] = ()
    peers_lost_unasked: Sequence[int] = ()
    """Those of them that the experiment's script did not end."""
    records_unscored: int = 0
    """Records that have no scores: their weights could not be kept until there was time to score them."""
    links: Sequence[LinkFigures] = ()
    uplinks: Sequence[float] = ()
    """What all links of each peer share when it sends, bytes/s (infinite = nothing); empty = nobody shares."""
    downlinks: Sequence[float] = ()
    """The same when it receives."""
    cables: Sequence[Cable] = ()
    """Further lines that some links share."""
    loss_initial: float | None = None
    """Mean test loss of the peers at the first record, before they trained; None = not scored, nan = no number even then."""
    warnings: Sequence[str] = ()


def summarise(
    outcome: Outcome,
    *,
    name: str,
    world: str,
    topology: str,
    strategy: str,
    peers: int,
    seed: int,
    spectral_gap: float = math.nan,
    dilation: float = 1.0,
    network_backend: str = "userspace",
    record_every_s: float = math.nan,
    machine: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything worth telling about a run in one dictionary that JSON can hold (nan and infinity become None).

    Accuracy, loss and consensus distance are those of the peers that were not lost. `digest` is given in the virtual
    world alone: nothing in the world of processes is the same twice.
    """
    kept = [peer for peer in range(peers) if peer not in set(outcome.peers_lost)]
    accuracy = _of(outcome.accuracy, kept)
    weights = outcome.weights[[peer for peer in kept if peer < len(outcome.weights)]]
    diverged = [peer for peer, row in zip(kept, weights, strict=False) if not np.isfinite(row).all()]
    steps_total = int(sum(outcome.steps))
    summary = {
        "name": name, "world": world, "topology": topology, "strategy": strategy, "peers": peers, "seed": seed,
        "completed": outcome.completed, "reason": outcome.reason,
        "emulated_s": outcome.emulated_s, "wall_s": outcome.wall_s, "dilation": dilation,
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
        "records_unscored": outcome.records_unscored,
        "lateness_p99_ms": _lateness_p99_ms(world, outcome.lateness_ms),
        **fidelity(outcome), "network_backend": network_backend,
        "record_every_s": record_every_s, "time_to_accuracy_s": time_to_accuracy_s(outcome.accuracy_history),
        "time_to_validation_accuracy_s": time_to_accuracy_s(outcome.validation_accuracy_history),
        "digest": digest(outcome) if world == "virtual" else None,
    }  # fmt: skip
    if network_backend == "kernel":
        summary["delay_error_median_ms"] = math.nan  # what waits in the kernel's queues cannot be told from what travels
    summary["warnings"] = [*outcome.warnings, *warnings_about(summary, outcome, peers_text(diverged) if diverged else "")]
    if machine is not None:
        summary["machine"] = dict(machine)
    return clean(summary)


def unfinished(experiment_toml: str, reason: str) -> dict[str, Any]:
    """The summary of a run that has none yet: every key is there, and what the experiment's own file tells is filled in."""
    try:
        experiment = tomllib.loads(experiment_toml)
    except tomllib.TOMLDecodeError:
        experiment = {}
    known = {key: experiment.get(key) for key in ("name", "seed", "peers")}
    for table in ("world", "topology", "strategy"):
        part = experiment.get(table)
        known[table] = part.get("name") if isinstance(part, dict) else part
    return {**dict.fromkeys(KEYS), **clean(known), "completed": False, "reason": reason, "peers_lost": [],
            "peers_lost_unasked": [], "time_to_accuracy_s": dict.fromkeys(LEVELS),
            "time_to_validation_accuracy_s": dict.fromkeys(LEVELS), "warnings": []}  # fmt: skip


def consensus_distance(weights: np.ndarray) -> float:
    """(1/n) sum_i |x_i - mean x|^2 of the rows of `weights` [n, size]: 0 when all agree; nan when there are no rows."""
    if weights.size == 0:
        return math.nan
    mean = weights.mean(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.mean([np.sum(np.square(row - mean)) for row in weights]))


def time_to_accuracy_s(history: Iterable[tuple[float, float]]) -> dict[str, float | None]:
    """For each of `LEVELS` the time of the first record at which the fleet's mean accuracy was that high or higher.

    `history` is (seconds, mean accuracy) in order of time. None where no record was, and where an earlier record has no score
    (nan): the level may have been reached there already.
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
    """sha256 (hexadecimal) of all that an equal seed must reproduce: the weights and every figure but the wall clock's."""
    sha = hashlib.sha256(np.ascontiguousarray(outcome.weights, dtype="<f4").data)
    told = [outcome.emulated_s, outcome.steps, outcome.bytes_sent, outcome.messages_sent, outcome.accuracy, outcome.loss,
            outcome.accuracy_of_mean, outcome.accuracy_history, outcome.validation_accuracy, outcome.validation_loss,
            outcome.validation_accuracy_of_mean, outcome.validation_accuracy_history, outcome.staleness_steps_mean,
            outcome.peers_lost, outcome.links]  # fmt: skip
    sha.update(msgspec.json.encode(clean(told)))
    return sha.hexdigest()


def describe(summary: Mapping[str, Any], report: Path | None = None) -> Text:
    """A few lines a person can read on what ran, why it ended, what came of it, and where the report lies."""
    from rich.text import Text

    text = Text()
    ending, style = ("done", "bold green") if summary["completed"] else ("ended early", "bold red")
    if summary["completed"] and summary.get("peers_lost_unasked"):
        ending, style = "done, but peers were lost", "bold yellow"
    text.append(f"{summary['name']}: ", style="bold")
    text.append(ending, style=style)
    text.append(f" ({summary['reason']})\n")
    for title, line in _lines(summary):
        text.append(f"  {title:<11}", style="bold yellow" if title == "warning" else "dim").append(f"{_hang(line)}\n")
    if report is not None:
        text.append("  report     ", style="dim").append(str(report), style="bold").append("\n")
    text.rstrip()
    return text


def percent(share: float | None) -> str:
    """0.912 -> '91.2 %'; unknown -> '-'."""
    return "-" if share is None else f"{100 * share:.1f} %"


def figure(value: float | None, unit: str = "") -> str:
    """A number in at most four figures, with thousands set apart; unknown -> '-'."""
    if value is None:
        return "-"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{text} {unit}".rstrip()


def peers_text(peers: Sequence[int]) -> str:
    """[3] -> 'peer 3'; [3, 5] -> 'peers 3 and 5'; none -> 'none'; very many are counted."""
    if len(peers) > MOST_NAMED:
        return f"{len(peers):,} peers ({', '.join(map(str, peers[:3]))}, ...)"
    names = [str(peer) for peer in peers]
    if len(names) < 2:
        return f"peer {names[0]}" if names else "none"
    return f"peers {', '.join(names[:-1])} and {names[-1]}"


def clean(value: Any) -> Any:
    """`value` as JSON can hold it: numpy and tuples made plain, nan and infinity None, what is foreign its text."""
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
    """Bytes that another locale could not read, such as those of a path, as the UTF-8 that they are; else as "?"."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _lines(summary: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    told = {key: figure(summary.get(key)) for key in summary if isinstance(summary.get(key), int | float | None)}
    topology, world, strategy = (summary[key] or "-" for key in ("topology", "world", "strategy"))
    yield "peers", f"{told['peers']} on {topology} ({world} world), strategy {strategy}"
    if summary["emulated_s"] is None:  # it never came to anything
        return
    yield "time", f"{told['emulated_s']} s emulated, {told['wall_s']} s on the wall clock"
    if summary["accuracy_mean"] is not None:
        mean, low, high, of_mean = (percent(summary[f"accuracy_{which}"]) for which in ("mean", "min", "max", "of_mean"))
        yield "accuracy", f"{mean} on average ({low} to {high}), of the mean model {of_mean}"
    if summary.get("validation_accuracy_mean") is not None:
        mean, of_mean = (percent(summary[f"validation_accuracy_{which}"]) for which in ("mean", "of_mean"))
        yield "validation", f"{mean} on average, of the mean model {of_mean}"
    reached = {level: time_s for level, time_s in summary["time_to_accuracy_s"].items() if time_s is not None}
    if reached:
        levels = ", ".join(f"{100 * float(level):.0f} % at {figure(time_s)} s" for level, time_s in reached.items())
        every = "" if summary.get("record_every_s") is None else f" (a record every {told['record_every_s']} s)"
        yield "reached", f"{levels}{every}"
    yield "loss", f"{told['loss_mean']}, consensus distance {told['consensus_distance']}"
    stale = "" if summary["staleness_steps_mean"] is None else f", staleness {told['staleness_steps_mean']} steps"
    yield "steps", f"{told['steps_total']} in all, {told['steps_per_wall_s']} per second{stale}"
    yield "sent", f"{show_bytes(summary['bytes_sent'] or 0)} in {told['messages_sent']} messages"
    unasked = summary.get("peers_lost_unasked")
    yield "lost", peers_text(summary["peers_lost"]) + (f"; the file did not ask for {peers_text(unasked)}" if unasked else "")
    if told["lateness_p99_ms"] != "-":
        yield "lateness", f"{told['lateness_p99_ms']} ms (99th percentile)"
    if summary.get("network_backend") == "kernel":
        yield "network", "carried by the kernel, each peer in a namespace of its own"
    known = (("rates", percent(summary.get("rate_error_median"))), ("delays", told.get("delay_error_median_ms", "-") + " ms"))
    off = [f"{what} off by {error}" for what, error in known if not error.startswith("-")]
    if off:
        yield "links", f"{', '.join(off)} (median)"
    yield from (("warning", warning) for warning in summary.get("warnings") or ())


def _hang(line: str) -> str:
    """Broken to the width of the terminal, further lines below the first."""
    width = max(40, shutil.get_terminal_size().columns - MARGIN - 1)
    return ("\n" + " " * MARGIN).join(textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False))


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
