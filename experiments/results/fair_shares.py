"""Between which rates a link may rightly be measured where it shares an uplink, a downlink or a cable with others."""

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
    """Rates of one directed link, bytes/s; nan = nothing was asked of it, inf = unshaped."""

    fair_bytes_per_s: float
    """The rate asked, or less: an equal part, among the links that carried messages, of the tightest line that it crosses.
    Max-min fair sharing never gives a busy link less, whoever else sends."""
    alone_bytes_per_s: float
    """What it gets while nobody else sends: the rate asked, or that of the slowest line that it crosses."""


class SharedLines(msgspec.Struct, frozen=True):
    """What the links of a fleet share, bytes/s; None = no limit."""

    uplinks: Sequence[float | None] = ()
    """Of each peer when it sends; empty = nobody shares."""
    downlinks: Sequence[float | None] = ()
    """Of each peer when it receives."""
    cables: Sequence[Cable] = ()
    """Further lines that some links share."""

    @classmethod
    def of(cls, plan: NetworkPlan) -> SharedLines:
        """Those of a network."""
        return cls(_or_none(plan.uplinks), _or_none(plan.downlinks), plan.cables)

    @classmethod
    def read(cls, manifest: Mapping[str, Any]) -> SharedLines:
        """Those of a run's manifest; none where it is older than them.  Raises ValueError where they are damaged."""
        try:
            return msgspec.convert(manifest.get("shared_lines") or {}, cls)
        except msgspec.ValidationError as error:
            raise ValueError(f"manifest.json: shared_lines are damaged ({error}); copy it anew, or run it again") from None

    def shares(self, links: Sequence[LinkFigures]) -> dict[Pair, Share]:
        """The rates that each link may rightly have had in a run that carried these figures."""
        busy = [link for link in links if link.messages]
        out, into = Counter(link.source for link in busy), Counter(link.target for link in busy)
        carried = {link[:2] for link in busy}
        lines: dict[Pair, list[tuple[float, int]]] = {}
        for cable in self.cables:
            among = len(carried.intersection(cable.links))
            for pair in cable.links:
                lines.setdefault(pair, []).append((cable.rate_bytes_per_s, among))
        found = {}
        for link in links:
            ends = (_at(self.uplinks, link.source), out[link.source]), (_at(self.downlinks, link.target), into[link.target])
            crossed, asked = [*ends, *lines.get(link[:2], ())], link.rate_asked_bytes_per_s
            found[link[:2]] = Share(
                min([asked, *(rate / max(among, 1) for rate, among in crossed)]), min([asked, *(rate for rate, _ in crossed)])
            )
        return found


def _or_none(rates: Sequence[float]) -> list[float | None]:
    """Without infinities, which JSON cannot hold; empty where there is nothing else."""
    return [rate if math.isfinite(rate) else None for rate in rates] if any(map(math.isfinite, rates)) else []


def _at(rates: Sequence[float | None], peer: int) -> float:
    rate = rates[peer] if peer < len(rates) else None
    return math.inf if rate is None else rate
