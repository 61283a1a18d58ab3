"""The menu of networks, which join the peers.

`network.plan(graph, seed)` returns the rate, delay, jitter and loss of every link, and the rates of uplinks and downlinks.
Delays are one way.
"""

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from grapevine.netem.networks.access import Access
from grapevine.netem.networks.changing import CellularNetwork, DiurnalNetwork, RandomWalk, ScheduleNetwork, Trace
from grapevine.netem.networks.dlion import Dlion, MicroCloudNetwork
from grapevine.netem.networks.plan import LinkSpec, NetworkPlan, plan_links, read_link
from grapevine.netem.networks.presets import Aws18, DataCentre, Dtfm10, Ec2, FiveG, FourG, Home, Lan, Satellite
from grapevine.netem.networks.regions import Regions
from grapevine.netem.networks.shaped import Shaped
from grapevine.netem.networks.uniform import Uniform, Unshaped
from grapevine.netem.units import UNLIMITED, Duration, Rate, rate_bytes_per_s, read

if TYPE_CHECKING:
    import networkx as nx

_LINK_FIELDS = ("rate", "delay", "jitter", "loss")
_PEER_FIELDS = ("uplink", "downlink")


class Edges(Shaped, frozen=True, kw_only=True, tag="edges"):
    """Links from the graph's attributes: rate, delay, jitter and loss at the edges, uplink and downlink at the nodes.

    Attributes are text with units, like the options here, which hold where an edge or node lacks one; other attributes
    are ignored. An undirected edge applies to both directions; so does an arc without an arc the other way.
    """

    rate: Rate = UNLIMITED
    """Rate of edges without one, such as "20 Mbit/s"."""
    delay: Duration = "0 s"
    """One-way delay of edges without one, such as "40 ms"; 0 or more."""
    jitter: Duration = "0 s"
    """Jitter of edges without one, such as "4 ms": a message is early or late by up to this, and never overtakes."""
    loss: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Loss of edges without one, 0 to below 1: slows a link (without tcp by Mathis' formula, not where the delay is 0)."""
    uplink: Rate = UNLIMITED
    """Uplink of peers without one: the rate that all links of a peer share when it sends, such as "50 Mbit/s"."""
    downlink: Rate = UNLIMITED
    """Downlink of peers without one: the rate that all links of a peer share when it receives, such as "200 Mbit/s"."""

    def __post_init__(self) -> None:
        read_link(self.rate, self.delay, self.jitter, self.loss)
        for field in _PEER_FIELDS:
            read(field, rate_bytes_per_s, getattr(self, field))
        self.check_links()

    def plan(self, graph: "nx.Graph", seed: int) -> NetworkPlan:
        """Raises ValueError that names the edge or node with a wrong attribute, or if no attribute and no option is set."""
        self._refuse_bare_graph(graph)
        plan = plan_links(
            graph,
            seed,
            lambda source, target: self._spec(graph, source, target),
            lambda peer: self._access(graph, peer, "uplink"),
            lambda peer: self._access(graph, peer, "downlink"),
        )
        return self.finish_plan(plan)

    def _spec(self, graph: "nx.Graph", source: int, target: int) -> LinkSpec:
        edge = (source, target) if graph.has_edge(source, target) else (target, source)
        if not graph.is_directed():
            edge = min(edge), max(edge)
        rate, delay, jitter, loss = (graph.edges[edge].get(field, getattr(self, field)) for field in _LINK_FIELDS)
        where = f"edge {edge[0]}-{edge[1]}: "
        return self.finish_spec(read_link(rate, delay, jitter, loss, where), where)

    def _access(self, graph: "nx.Graph", peer: int, field: str) -> float:
        value = graph.nodes[peer].get(field, getattr(self, field))
        return read(f"node {peer}: {field}", rate_bytes_per_s, value)

    def _refuse_bare_graph(self, graph: "nx.Graph") -> None:
        """Raise ValueError for a graph without attributes if no option is set either: it is more likely a mistake."""
        attributes: Any = [data for *_, data in graph.edges(data=True)] + [data for _, data in graph.nodes(data=True)]
        fields = {*_LINK_FIELDS, *_PEER_FIELDS}
        if self == Edges() and not any(fields & data.keys() for data in attributes):
            raise ValueError(
                "no edge of the graph has a rate, delay, jitter or loss and no node an uplink or downlink: set these "
                'attributes (text with units, such as rate = "20 Mbit/s"), or options that hold for all, or choose the '
                'network "unshaped"'
            )


AnyNetwork = (
    Unshaped
    | Uniform
    | Access
    | Edges
    | Regions
    | Trace
    | ScheduleNetwork
    | DiurnalNetwork
    | RandomWalk
    | CellularNetwork
    | Lan
    | DataCentre
    | Ec2
    | Aws18
    | Dtfm10
    | Home
    | FourG
    | FiveG
    | Satellite
    | Dlion
    | MicroCloudNetwork
)
