"""A network made concrete for one graph: what every link was asked to be, and the Link that does it."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from netem.link import Link
from netem.units import duration_ns, rate_bytes_per_s, read

if TYPE_CHECKING:
    import networkx as nx

MSS_BYTES = 1448
"""Payload of a TCP segment on Ethernet with timestamps."""

_STREAM = 0x11  # keeps the links' random numbers apart from those that other parts draw from the same seed


class LinkSpec(msgspec.Struct, frozen=True):
    """What one direction of an edge was asked to be."""

    rate_bytes_per_s: float = math.inf
    """Bytes a second; infinite = unlimited."""
    delay_ns: int = 0
    """One way, ns."""
    jitter_ns: int = 0
    """Half width of the uniform law around the delay, ns."""
    loss: float = 0.0
    """Share of packets lost, in [0, 1)."""

    @property
    def effective_rate_bytes_per_s(self) -> float:
        """What a TCP connection reaches on this link: the rate, or less where loss binds.

        Mathis, Semke, Mahdavi & Ott, CCR 1997: 1.22 MSS / (RTT sqrt(loss)), MSS 1448 bytes, RTT = twice the one-way
        delay. So loss slows a link and nothing is ever lost; with a delay of 0 the RTT is 0 and loss has no effect.
        Above a loss of about 2 % TCP's timeouts, which the formula leaves out, would make it slower still.
        """
        if self.loss == 0 or self.delay_ns == 0:
            return self.rate_bytes_per_s
        mathis_bytes_per_s = 1.22 * MSS_BYTES / (2e-9 * self.delay_ns * math.sqrt(self.loss))
        return min(self.rate_bytes_per_s, mathis_bytes_per_s)


class NetworkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Every link and access line of a fleet on one graph."""

    links: dict[tuple[int, int], LinkSpec]
    """(source, target) -> as asked; both directions of every edge, of arcs too: acknowledgements travel back."""
    uplinks: list[float]
    """What each peer's links share when it sends, bytes/s; infinite = no limit."""
    downlinks: list[float]
    """What each peer's links share when it receives, bytes/s; infinite = no limit."""
    places: list[str] | None = None
    """The region of each peer; None where the network has no places."""
    seed: int = 0
    """Of the links' jitter."""

    def link(self, source: int, target: int) -> Link:
        """A new Link from `source` to `target`, idle, with its own generator: the same numbers at every call."""
        spec = self.links[source, target]
        rng = np.random.default_rng([self.seed, _STREAM, source, target]) if spec.jitter_ns else None
        return Link(spec.effective_rate_bytes_per_s, spec.delay_ns, spec.jitter_ns, rng)


class Network(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """What joins the peers."""

    def plan(self, graph: "nx.Graph", seed: int) -> NetworkPlan:
        """What every link and access line is for the peers 0 to n-1 of `graph`; `seed` (0 or more) is for jitter."""
        raise NotImplementedError


def lay(
    graph: "nx.Graph",
    seed: int,
    spec: Callable[[int, int], LinkSpec],
    uplink: Callable[[int], float],
    downlink: Callable[[int], float],
    places: list[str] | None = None,
) -> NetworkPlan:
    """Ask `spec(source, target)` for both directions of every edge, `uplink(peer)` and `downlink(peer)` for every peer.

    Raises ValueError where the graph's nodes are not 0 to n-1; loops are left out.
    """
    peers = range(graph.number_of_nodes())
    if set(graph) != set(peers):
        raise ValueError(
            f"the graph's nodes are not 0 to {len(peers) - 1}: number them so, "
            "for example with networkx.convert_node_labels_to_integers"
        )
    pairs = {pair for u, v in graph.edges() if u != v for pair in ((u, v), (v, u))}
    return NetworkPlan(
        links={(source, target): spec(source, target) for source, target in sorted(pairs)},
        uplinks=[uplink(peer) for peer in peers],
        downlinks=[downlink(peer) for peer in peers],
        places=places,
        seed=seed,
    )


def read_link(rate: Any, delay: Any, jitter: Any, loss: Any, where: str = "") -> LinkSpec:
    """A LinkSpec from text with units; ValueError names the field, after `where`."""
    return LinkSpec(
        read(where + "rate", rate_bytes_per_s, rate),
        read(where + "delay", duration_ns, delay),
        read(where + "jitter", duration_ns, jitter),
        read(where + "loss", loss_share, loss),
    )


def loss_share(value: Any) -> float:
    """A share of packets in [0, 1) from a number, or from a number as text, as some graph files keep it."""
    try:
        share = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        share = math.nan
    if not 0 <= share < 1:
        raise ValueError(f"{value!r} is no share of lost packets: expected a number from 0 to below 1, such as 0.001")
    return share
