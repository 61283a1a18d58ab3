"""How a run ended, as plain values: steps, bytes, last weights, scores and links."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from grapevine.experiments.results.result import LinkFigures
from grapevine.netem import Cable


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
    wrapped: Sequence[int] = ()
    """The peers that wrappers stood at."""
    altered: Mapping[str, int] = field(default_factory=dict)
    """How often wrappers changed what: "drop: sends dropped" and the like, of all peers together."""
    warnings: Sequence[str] = ()


def consensus_distance(weights: np.ndarray) -> float:
    """(1/n) sum_i |x_i - mean x|^2 of the rows of `weights` [n, size]: 0 when all agree; nan when there are no rows."""
    if weights.size == 0:
        return math.nan
    mean = weights.mean(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.mean([np.sum(np.square(row - mean)) for row in weights]))
