"""How a run ended, as plain values: steps, bytes, last weights, scores and links."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from grapevine.experiments.results.result import LinkFigures
from grapevine.netem import Cable

CAUSES = "the learning rate is too high (lower optimizer.learning_rate), or a peer sent values that spoil others"
"""Likely causes of a diverged training, with the cure."""
MASS_LOST = "push-sum mass was lost with a peer (see the warning about it), or the learning rate is too high"
"""Likely causes of a diverged training after a death under push-sum."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended, as plain values; figures without a measurement are empty or nan, and null in the summary."""

    completed: bool
    reason: str
    emulated_s: float
    wall_s: float
    steps: Sequence[int]
    """Number of steps of each peer."""
    bytes_sent: int
    messages_sent: int
    weights: np.ndarray
    """The last known weights of each peer, float32 [peers, size]; of a lost peer those of its last record."""
    accuracy: Sequence[float] = ()
    """Test accuracy of each peer's last weights, 0 to 1; nan = not evaluated."""
    loss: Sequence[float] = ()
    """Test loss of each peer's last weights."""
    validation_accuracy: Sequence[float] = ()
    """Validation accuracy of each peer's last weights, 0 to 1; nan = not evaluated."""
    validation_loss: Sequence[float] = ()
    """Validation loss of each peer's last weights."""
    accuracy_of_mean: float = math.nan
    """Test accuracy of the mean of all peers' weights."""
    accuracy_history: Sequence[tuple[float, float]] = ()
    """(emulated seconds, mean test accuracy of the fleet), record by record in order of time; nan = not scored."""
    validation_accuracy_of_mean: float = math.nan
    """Validation accuracy of the mean of all peers' weights."""
    validation_accuracy_history: Sequence[tuple[float, float]] = ()
    """(emulated seconds, mean validation accuracy of the fleet), likewise."""
    staleness_steps_mean: float = math.nan
    lateness_ms: Sequence[float] = ()
    """How far the real clock was behind the emulated one, in real ms: one value an occurrence, or a peer's 99th percentile."""
    peers_lost: Sequence[int] = ()
    peers_lost_unasked: Sequence[int] = ()
    """The lost peers that no event of the experiment killed."""
    peers_absent: Sequence[int] = ()
    """The peers that were not members at the end and were not lost: they had left, or never joined."""
    members: Sequence[tuple[float, int]] = ()
    """(emulated seconds, number of members from then on); empty = all peers, all the time."""
    records_unscored: int = 0
    """Number of records without scores: their weights could not be kept until there was time to score them."""
    links: Sequence[LinkFigures] = ()
    uplinks: Sequence[float] = ()
    """Rate of each peer's uplink, bytes/s (infinite = no limit); empty = no limits."""
    downlinks: Sequence[float] = ()
    """Rate of each peer's downlink, likewise."""
    cables: Sequence[Cable] = ()
    """Further segments that some links share."""
    loss_initial: float | None = None
    """Mean test loss of the peers at the first record, before they trained; None = not scored, nan = the loss was nan."""
    wrapped: Sequence[int] = ()
    """The peers with a wrapper."""
    altered: Mapping[str, int] = field(default_factory=dict)
    """Counts of the wrappers' changes over all peers, such as "drop: sends dropped" -> 12."""
    warnings: Sequence[str] = ()
    causes: str = CAUSES
    """Likely causes of a diverged training, in words."""


def consensus_distance(weights: np.ndarray) -> float:
    """Return (1/n) sum_i |x_i - mean x|^2 of the rows of `weights` [n, size]: 0 if all are equal; nan without rows."""
    if weights.size == 0:
        return math.nan
    mean = weights.mean(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.mean([np.sum(np.square(row - mean)) for row in weights]))
