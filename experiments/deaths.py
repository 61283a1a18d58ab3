"""The error that the death of a peer leaves in the mixing: a biased mean, or push-sum mass that is lost."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from grapevine.experiments.graph import mixing_rule
from grapevine.experiments.results.numbers import peers_text

if TYPE_CHECKING:
    from grapevine.experiments.fleet import Fleet

ROUND_OFF = 1e-9
CURE = "use a graph or a schedule whose links go both ways, where a death keeps the survivors' mean"


def effect_of_deaths(fleet: Fleet, dead: Collection[int], mass: float | None = None) -> str:
    """Return in words the error that the deaths of the peers `dead` leave in the mixing; "" if the survivors keep their mean.

    `mass` is the sum of the survivors' push-sum masses, if it is known.
    """
    peers = fleet.experiment.peers
    survivors = np.setdiff1d(np.arange(peers), list(dead))
    if len(survivors) in (0, 1, peers):
        return ""
    names = peers_text(sorted(dead))
    if mixing_rule(fleet.experiment) == "push-sum":
        effect = _of_mass(fleet, survivors, mass)
        return f"push-sum mass is lost with {names} and with the messages on their way there: {effect}; {CURE}"
    strategy = fleet.experiment.strategy
    if strategy.shares != "parameters" or strategy.pairwise or _symmetric(fleet):
        return ""
    return (
        f"the mixing weights W are not symmetric, so without {names} W is not doubly stochastic: the survivors do not keep "
        f"their mean, and minimise a mean of their objectives with unequal weights instead of equal ones; {CURE}"
    )


def loses_mass(fleet: Fleet, dead: Collection[int]) -> bool:
    """Whether push-sum mass is lost with the peers `dead`."""
    return bool(dead) and mixing_rule(fleet.experiment) == "push-sum"


def _of_mass(fleet: Fleet, survivors: np.ndarray, mass: float | None) -> str:
    """Return in words the effect of lost push-sum mass."""
    from scipy.sparse.csgraph import connected_components

    effect = "the survivors' steps are longer than the learning rate says, for the rest of the run"
    if mass:
        factor = f"{len(survivors) / mass:.2f}"
        left = f"the {len(survivors)} survivors hold a mass of {mass:.3g}"
        effect = f"{left}, so each step moves their mean {factor} times as far as the learning rate says"
    pieces, _ = connected_components(fleet.shares[survivors][:, survivors], connection="strong")
    if pieces > 1:
        effect += (
            "; the survivors' graph is not strongly connected either, so the masses of some fall towards 0 and their weights "
            "grow without limit"
        )
    return effect


def _symmetric(fleet: Fleet) -> bool:
    """Whether W is symmetric in every round."""
    if fleet.rounds is not None and fleet.rounds.directed:
        return False
    return float(abs(fleet.shares - fleet.shares.T).max()) < ROUND_OFF
