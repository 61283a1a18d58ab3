"""A schedule for the living peers: the rounds of a schedule for their number, assigned by ascending peer number."""

from __future__ import annotations

from collections.abc import Sequence

from grapevine.topology.schedules.rounds import Schedule


class OverLiving:
    """The targets and weights of each round among the living peers; other peers send and receive nothing.

    Without a schedule, as when too few peers live for one, no peer sends or receives.
    """

    def __init__(self, schedule: Schedule | None, living: Sequence[int]) -> None:
        self.schedule = schedule
        self.living = sorted(living)
        self._places = {peer: place for place, peer in enumerate(self.living)}

    def targets(self, t: int, peer: int) -> list[int]:
        """Return the peers that a peer sends to in round t, ascending."""
        place = self._places.get(peer)
        if place is None or self.schedule is None:
            return []
        return [self.living[target] for target in self.schedule.targets(t, place)]

    def weights(self, t: int, peer: int) -> dict[int, float]:
        """Return the weights W_ij of the models that a peer receives in round t, by sender, ascending."""
        place = self._places.get(peer)
        if place is None or self.schedule is None:
            return {}
        return {self.living[sender]: weight for sender, weight in self.schedule.weights(t, place).items()}
