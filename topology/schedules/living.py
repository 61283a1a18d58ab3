"""A schedule over those peers that live: the rounds of one for as many peers, by ascending number."""

from __future__ import annotations

from collections.abc import Sequence

from grapevine.topology.schedules.rounds import Schedule


class OverLiving:
    """Who sends to whom in round t among some peers; peers that are not among them send and hear nothing."""

    def __init__(self, schedule: Schedule, living: Sequence[int]) -> None:
        self.schedule = schedule
        self.living = sorted(living)
        self._places = {peer: place for place, peer in enumerate(self.living)}

    def targets(self, t: int, peer: int) -> list[int]:
        """Whom a peer sends to in round t, ascending."""
        place = self._places.get(peer)
        return [] if place is None else [self.living[target] for target in self.schedule.targets(t, place)]

    def weights(self, t: int, peer: int) -> dict[int, float]:
        """What a peer hears in round t: W_ij by sender, ascending."""
        place = self._places.get(peer)
        if place is None:
            return {}
        return {self.living[sender]: weight for sender, weight in self.schedule.weights(t, place).items()}
