"""Cables that several links share: between two groups of peers, or within one group."""

from typing import Annotated

import msgspec

from grapevine.netem.networks.plan import Cable, NetworkPlan
from grapevine.netem.units import Rate, rate_bytes_per_s, read

Group = tuple[int | str, ...]


class Bottleneck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cable that all links between two groups of peers share; each direction has the whole rate."""

    rate: Rate
    """The rate that the links of one direction share, such as "10 Mbit/s"."""
    here: Annotated[Group, msgspec.Meta(min_length=1)]
    """The peers at one end: their numbers, or the names of their places (regions; lines of `home`), such as ["Oregon"]."""
    there: Group = ()
    """The peers at the other end; empty = all others. The same as here = the links within the group share one cable."""

    def __post_init__(self) -> None:
        read("rate", rate_bytes_per_s, self.rate)
        if not self.here:
            raise ValueError("here: the list is empty: expected peers or places, such as [0, 1]")

    def cables(self, plan: NetworkPlan) -> list[Cable]:
        """Return the cable's directions; raises ValueError if no link crosses it."""
        here = _members("here", self.here, plan)
        peers = set(range(len(plan.uplinks)))
        there = _members("there", self.there, plan) if self.there else peers - here
        rate = rate_bytes_per_s(self.rate)
        ways = [(here, there), (there, here)] if here != there else [(here, here)]
        crossing = [tuple(pair for pair in plan.links if pair[0] in a and pair[1] in b) for a, b in ways]
        if not any(crossing):
            raise ValueError(f"here: no link of the graph joins {_show(self.here)} and {_show(self.there)}")
        return [Cable(rate, links) for links in crossing if links]


def with_bottlenecks(plan: NetworkPlan, bottlenecks: tuple[Bottleneck, ...]) -> NetworkPlan:
    """Return the plan with these cables added; raises ValueError that names the bottleneck that does not fit."""
    cables: list[Cable] = list(plan.cables)
    for place, bottleneck in enumerate(bottlenecks):
        try:
            cables += bottleneck.cables(plan)
        except ValueError as error:
            raise ValueError(f"bottlenecks[{place}].{error}") from None
    return msgspec.structs.replace(plan, cables=tuple(cables))


def _members(field: str, group: Group, plan: NetworkPlan) -> set[int]:
    found: set[int] = set()
    places = plan.places or []
    for name in group:
        if isinstance(name, int):
            if not 0 <= name < len(plan.uplinks):
                raise ValueError(f"{field}: there is no peer {name}: expected 0 to {len(plan.uplinks) - 1}")
            found.add(name)
        elif name in places:
            found.update(peer for peer, place in enumerate(places) if place == name)
        else:
            known = ", ".join(dict.fromkeys(places)) or "none, give the numbers of peers"
            raise ValueError(f"{field}: no peer is at a place {name!r}: known places are {known}")
    return found


def _show(group: Group) -> str:
    return ", ".join(map(str, group)) if group else "the others"
