"""The simplest networks: no emulation, and equal links."""

from typing import TYPE_CHECKING, Annotated

import msgspec

from grapevine.netem.networks.plan import LinkSpec, Network, NetworkPlan, plan_links, read_link
from grapevine.netem.networks.shaped import Shaped
from grapevine.netem.units import UNLIMITED, Duration, Rate, rate_bytes_per_s, read

if TYPE_CHECKING:
    import networkx as nx


class Unshaped(Network, frozen=True, kw_only=True, tag="unshaped"):
    """Links as fast as this machine carries bytes: no emulation."""

    def plan(self, graph: "nx.Graph", seed: int) -> NetworkPlan:
        spec = LinkSpec()
        return plan_links(graph, seed, lambda source, target: spec)


class Uniform(Shaped, frozen=True, kw_only=True, tag="uniform"):
    """Equal links, and equal uplinks and downlinks of the peers."""

    rate: Rate = UNLIMITED
    """Rate of each link and direction, such as "20 Mbit/s"."""
    delay: Duration = "0 s"
    """One-way delay, such as "40 ms"; 0 or more."""
    jitter: Duration = "0 s"
    """A message is early or late by up to this, uniformly distributed, and never overtakes; such as "4 ms"."""
    loss: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Share of packets lost, 0 to below 1: slows a link (without tcp by Mathis' formula, not at a delay of 0), loses no
    message."""
    uplink: Rate = UNLIMITED
    """The rate that all links of a peer share when it sends, such as "50 Mbit/s"."""
    downlink: Rate = UNLIMITED
    """The rate that all links of a peer share when it receives, such as "200 Mbit/s"."""

    def __post_init__(self) -> None:
        self._parsed()

    def plan(self, graph: "nx.Graph", seed: int) -> NetworkPlan:
        spec, uplink, downlink = self._parsed()
        return self.finish_plan(
            plan_links(graph, seed, lambda source, target: spec, lambda peer: uplink, lambda peer: downlink)
        )

    def _parsed(self) -> tuple[LinkSpec, float, float]:
        uplink = read("uplink", rate_bytes_per_s, self.uplink)
        downlink = read("downlink", rate_bytes_per_s, self.downlink)
        self.check_links()
        return self.finish_spec(read_link(self.rate, self.delay, self.jitter, self.loss)), uplink, downlink
