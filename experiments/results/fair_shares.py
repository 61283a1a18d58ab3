"""The range of correct measured rates of a link that shares an uplink, a downlink or a cable with other links."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from grapevine.experiments.results.result import LinkFigures
from grapevine.netem import Cable, NetworkPlan

Pair = tuple[int, int]


class Share(NamedTuple):
    """The range of rates of one link, bytes/s; nan = no configured rate, inf = unshaped."""

    fair_bytes_per_s: float
    """The lower of the configured rate and the least equal part, among the links that carried messages, of a segment that
    the link crosses. Max-min fair sharing never gives a busy link less, whichever links are busy."""
    alone_bytes_per_s: float
    """The link's rate while no other link is busy: the lower of its configured rate and the slowest segment that it crosses."""


class SharedSegments(msgspec.Struct, frozen=True):
    """The segments that the links of a fleet share, bytes/s; None = no limit."""

    uplinks: Sequence[float | None] = ()
    """Rate of each peer's uplink; empty = no limits."""
    downlinks: Sequence[float | None] = ()
    """Rate of each peer's downlink; empty = no limits."""
    cables: Sequence[Cable] = ()
    """Further segments that some links share."""

    @classmethod
    def of(cls, plan: NetworkPlan) -> SharedSegments:
        """Return the shared segments of a network."""
        return cls(_or_none(plan.uplinks), _or_none(plan.downlinks), plan.cables)

    @classmethod
    def read(cls, manifest: Mapping[str, Any]) -> SharedSegments:
        """Return the shared segments in a run's manifest; none if the manifest lacks them.  Raises ValueError if damaged."""
        try:
            return msgspec.convert(manifest.get("shared_segments") or {}, cls)
        except msgspec.ValidationError as error:
            raise ValueError(f"manifest.json: shared_segments are damaged ({error}); copy it again, or run it again") from None

    def shares(self, links: Sequence[LinkFigures]) -> dict[Pair, Share]:
        """Return the range of correct rates of each link, in a run with these figures."""
        busy = [link for link in links if link.messages]
        out, into = Counter(link.source for link in busy), Counter(link.target for link in busy)
        carried = {link[:2] for link in busy}
        segments: dict[Pair, list[tuple[float, int]]] = {}
        for cable in self.cables:
            among = len(carried.intersection(cable.links))
            for pair in cable.links:
                segments.setdefault(pair, []).append((cable.rate_bytes_per_s, among))
        found = {}
        for link in links:
            ends = (_at(self.uplinks, link.source), out[link.source]), (_at(self.downlinks, link.target), into[link.target])
            crossed, asked = [*ends, *segments.get(link[:2], ())], link.rate_asked_bytes_per_s
            found[link[:2]] = Share(
                min([asked, *(rate / max(among, 1) for rate, among in crossed)]), min([asked, *(rate for rate, _ in crossed)])
            )
        return found


def _or_none(rates: Sequence[float]) -> list[float | None]:
    """Replace infinities, which JSON cannot hold, by None; return an empty list if all are infinite."""
    return [rate if math.isfinite(rate) else None for rate in rates] if any(map(math.isfinite, rates)) else []


def _at(rates: Sequence[float | None], peer: int) -> float:
    rate = rates[peer] if peer < len(rates) else None
    return math.inf if rate is None else rate
