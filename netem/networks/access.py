"""A network in which each peer has its own access line."""

from typing import TYPE_CHECKING, Annotated

import msgspec

from grapevine.netem.networks.plan import LinkSpec, NetworkPlan, loss_share, plan_links
from grapevine.netem.networks.shaped import Shaped
from grapevine.netem.units import Duration, Rate, duration_ns, rate_bytes_per_s, read

if TYPE_CHECKING:
    import networkx as nx

_Lines = tuple[Rate, ...]


class Access(Shaped, frozen=True, kw_only=True, tag="access"):
    """Each peer has its own access line, which all of its links share; links may have rates of their own as well.

    A link alone is as fast as the slowest of its own rate and its two peers' lines.
    """

    lines: Annotated[_Lines, msgspec.Meta(min_length=1)] = ("20 Mbit/s",)
    """Rates of the peers' lines, such as ["50 Mbit/s", "20 Mbit/s"], cycled over the peers; each direction has this rate."""
    up: _Lines = ()
    """Rates of the lines when peers send, in place of `lines`: one for each of `lines`, or empty."""
    links: _Lines = ()
    """Rates of the links, such as ["40 Mbit/s", "20 Mbit/s"], for each direction; cycled over the graph's edges in the order
    0-1, 0-2, ..., 1-2, ...; empty = unlimited. With `lines = ["unlimited"]` links share no line."""
    rate_factor: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """Multiplies all of these rates, so that a small model has the ratio bytes / (rate x step time) of a large one; more
    than 0."""
    delay: Duration = "0 s"
    """One-way delay from peer to peer, such as "40 ms"; 0 or more."""
    jitter: Duration = "0 s"
    """A message is early or late by up to this, uniformly distributed, and never overtakes; such as "4 ms"."""
    loss: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Share of packets lost, 0 to below 1: slows a link (without tcp by Mathis' formula, not at a delay of 0), loses no
    message."""

    def __post_init__(self) -> None:
        if not self.lines:
            raise ValueError('lines: the list is empty: expected one or more, such as ["50 Mbit/s", "20 Mbit/s"]')
        if self.up and len(self.up) != len(self.lines):
            raise ValueError(f"up: {len(self.up)} for {len(self.lines)} lines: expected one for each line, or an empty list")
        if not self.rate_factor > 0:
            raise ValueError(f"rate_factor: {self.rate_factor} is out of range: expected more than 0")
        for field in ("lines", "up", "links"):
            for rate in getattr(self, field):
                read(field, rate_bytes_per_s, rate)
        read("delay", duration_ns, self.delay)
        read("jitter", duration_ns, self.jitter)
        read("loss", loss_share, self.loss)
        self.check_links()
        for place in range(max(1, len(self.links))):
            self._spec(0, 0, place)

    def plan(self, graph: "nx.Graph", seed: int) -> NetworkPlan:
        edges = sorted({(min(u, v), max(u, v)) for u, v in graph.edges() if u != v})
        places = {edge: place for place, edge in enumerate(edges)}

        def spec(source: int, target: int) -> LinkSpec:
            return self._spec(source, target, places[min(source, target), max(source, target)])

        return self.finish_plan(plan_links(graph, seed, spec, lambda peer: self._rate(self.up or self.lines, peer), self._down))

    def _spec(self, source: int, target: int, place: int) -> LinkSpec:
        """Return one direction of the edge at `place` in the order of the edges."""
        rate = min(self._rate(self.up or self.lines, source), self._down(target))
        if self.links:
            rate = min(rate, self._rate(self.links, place))
        return self.finish_spec(LinkSpec(rate, duration_ns(self.delay), duration_ns(self.jitter), self.loss))

    def _down(self, peer: int) -> float:
        return self._rate(self.lines, peer)

    def _rate(self, rates: _Lines, place: int) -> float:
        return rate_bytes_per_s(rates[place % len(rates)]) * self.rate_factor
