"""A network made concrete for one graph: what every link was asked to be, and the Link that does it."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.random import Generator

from grapevine.netem.links.alterations import Altered, Change
from grapevine.netem.links.jitter import Law
from grapevine.netem.links.link import ChangingLink, Link, TcpLink
from grapevine.netem.links.losses import Doubles, Losses
from grapevine.netem.links.profile import Profile, Steady
from grapevine.netem.links.profile_laws import ProfileLaw
from grapevine.netem.links.tcp import MSS_BYTES, PACKET_BYTES, Tcp
from grapevine.netem.units import duration_ns, rate_bytes_per_s, read

if TYPE_CHECKING:
    import networkx as nx

Control = Literal["none", "cubic", "bbr"]
Backend = Literal["userspace", "kernel"]

_STREAM = 0x11  # keeps the links' random numbers apart from those that other parts draw from the same seed


class LinkSpec(msgspec.Struct, frozen=True):
    """What one direction of an edge was asked to be."""

    rate_bytes_per_s: float = math.inf
    """Bytes a second; infinite = unlimited. Of a line that changes: the mean."""
    delay_ns: int = 0
    """One way, ns. Of a line that changes: at first."""
    jitter_ns: int = 0
    """Half width of the uniform law around the delay, ns; of the other laws the standard deviation."""
    loss: float = 0.0
    """Share of packets lost, in [0, 1)."""
    tcp: Control = "none"
    """What fills the line: a round-based TCP connection, or "none" = rate and delay, loss by Mathis' formula."""
    queue_ns: int | None = None
    """How much the queue before the line holds, in the time that the line takes for it; None = max(round trip, 50 ms)."""
    jitter_law: Law = "uniform"
    jitter_correlation: float = 0.0
    """Of a message's jitter with that of the one before, in [0, 1)."""
    loss_burst: float = 1.0
    """Mean length of a burst of lost packets; 1 = each is lost by itself."""
    profile_law: ProfileLaw | None = None
    """How the line changes over time; None = not at all."""
    profile: Profile | None = None
    """The same, for lines that share one profile."""
    scattered: bool = False
    """Whether each link begins at a place of its own in a shared profile."""
    duplicate: float = 0.0
    """Share of packets that go twice, in [0, 1)."""
    reorders: bool = False
    """Whether messages overtake each other, where their jitters say so."""
    swings: bool = False
    """Whether a line that it shares changes over time."""
    changes: tuple[Change, ...] = ()
    """What is done to the line while it is used, in order of time."""
    kernel: bool = False
    """Whether the kernel carries it (netem/kernel/plan.py): then its Link does nothing."""

    @property
    def effective_rate_bytes_per_s(self) -> float:
        """What a long transfer over this link reaches, on average: the rate, or less where loss binds.

        Mathis, Semke, Mahdavi & Ott, CCR 1997: 1.22 MSS / (RTT sqrt(loss)), MSS 1448 bytes, RTT = twice the one-way
        delay. So loss slows a link and nothing is ever lost; with a delay of 0 the RTT is 0 and loss has no effect.
        Above a loss of about 2 % TCP's timeouts, which the formula leaves out, would make it slower still. With `tcp` it
        is an estimate: payload's share of the rate, for "cubic" with Mathis' cap, for "bbr" less the loss. With `kernel` it
        is payload's share of the rate: what loss does there is up to this machine's own TCP. Packets that go twice take
        their share.
        """
        return self._line_bytes_per_s / (1 + self.duplicate)

    @property
    def _line_bytes_per_s(self) -> float:
        if self.kernel:
            return self.rate_bytes_per_s * MSS_BYTES / PACKET_BYTES
        if self.tcp == "none":
            return capped_rate(self.rate_bytes_per_s, self.delay_ns, self.loss)
        payload = self.rate_bytes_per_s * MSS_BYTES / PACKET_BYTES
        if self.tcp == "bbr":
            return payload * (1 - self.loss)
        return capped_rate(payload, self.delay_ns, self.loss)

    def make(self, rng: Generator) -> Link:
        """A new Link like this, idle; what it draws comes from `rng`."""
        link = self._line(rng)
        if self.duplicate and not self.kernel:
            link.double(Doubles(self.duplicate, rng.spawn(1)[0]))
        link.reorders = self.reorders
        return link

    def _line(self, rng: Generator) -> Link:
        if self.kernel:
            return Link()
        profile = self.profile if self.profile is not None or self.profile_law is None else self.profile_law.profile(rng)
        ahead_ns = int(rng.random() * sum(step.lasts_ns for step in profile.known)) if profile and self.scattered else 0
        jitter = self.jitter_ns, rng, self.jitter_law, self.jitter_correlation
        line: Steady | Profile | Altered = profile or Steady(self.rate_bytes_per_s, self.delay_ns, self.loss)
        if self.changes:
            line = Altered(line, self.changes, ahead_ns, self.cap)
        if self.tcp == "none":
            if isinstance(line, Steady):
                return Link(self._line_bytes_per_s, self.delay_ns, *jitter)
            return ChangingLink(line, *jitter, ahead_ns=ahead_ns)
        lossy = self.loss > 0 or not isinstance(line, Steady)
        losses = Losses(self.loss, rng, self.loss_burst) if lossy else None
        tcp = Tcp(self.tcp, 2 * self.delay_ns, losses, self.queue_ns)
        return TcpLink(line, tcp, *jitter, ahead_ns=ahead_ns)

    @property
    def most_bytes_per_s(self) -> float:
        """What it never exceeds, as far as is known beforehand; infinite = not known."""
        steady = self.profile_law is None and self.profile is None and not self.changes
        return self._line_bytes_per_s if steady and self.tcp == "none" else math.inf

    @property
    def cap(self) -> Callable[[float, int, float], float] | None:
        """What delay and loss leave of a rate, where the line itself does not say: neither TCP nor a profile does it."""
        return capped_rate if self.tcp == "none" and self.profile_law is None and self.profile is None else None

    @property
    def varies(self) -> bool:
        """Whether what it carries may rightly differ from the asked rate at a time: a changing line, or TCP's windows."""
        return (
            self.tcp != "none" or self.profile_law is not None or self.profile is not None or bool(self.changes) or self.swings
        )

    @property
    def draws(self) -> bool:
        """Whether its Link draws random numbers."""
        drawn = (self.jitter_ns and not self.kernel) or self.profile_law is not None or self.scattered
        return bool(drawn or self.duplicate or (self.tcp != "none" and self.loss))


def capped_rate(rate_bytes_per_s: float, delay_ns: int, loss: float) -> float:
    """A rate, or what Mathis' formula leaves of it (LinkSpec.effective_rate_bytes_per_s)."""
    if loss == 0 or delay_ns == 0:
        return rate_bytes_per_s
    return min(rate_bytes_per_s, 1.22 * MSS_BYTES / (2e-9 * delay_ns * math.sqrt(loss)))


class Cable(msgspec.Struct, frozen=True):
    """One line that several links share on their way, in one direction."""

    rate_bytes_per_s: float
    links: tuple[tuple[int, int], ...]
    """(source, target) of each."""


class Shared(NamedTuple):
    """The segments that several links share, and the links that cross them (netem.shaping.max_min)."""

    limits: list[float]
    """What each segment carries, bytes/s."""
    routes: dict[tuple[int, int], tuple[int, ...]]
    """The segments of each link that crosses any, by place in `limits`."""
    profiles: dict[int, Profile]
    """Segments that change over time."""


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
    """Of all that the links draw."""
    kernel: bool = False
    """Whether the kernel carries every link, in namespaces (netem/kernel/namespaces.py)."""
    cables: tuple[Cable, ...] = ()
    """Further lines that some links share."""
    up_profiles: dict[int, Profile] = {}
    """Uplinks that change over time, by peer; `uplinks` has their mean."""
    down_profiles: dict[int, Profile] = {}
    """Downlinks that change over time."""

    def shared(self) -> Shared:
        """Which segments are shared, and by whom; without those that never hold anybody up, because all of their links together
        are no faster."""
        if self.kernel:
            return Shared([], {}, {})
        segments: list[tuple[float, list[tuple[int, int]], Profile | None]] = [
            (cable.rate_bytes_per_s, list(cable.links), None) for cable in self.cables
        ]
        for ends, side, swings in ((self.uplinks, 0, self.up_profiles), (self.downlinks, 1, self.down_profiles)):
            crossing: dict[int, list[tuple[int, int]]] = {}
            for pair in self.links:
                crossing.setdefault(pair[side], []).append(pair)
            segments += [(ends[peer], pairs, swings.get(peer)) for peer, pairs in crossing.items()]
        limits: list[float] = []
        routes: dict[tuple[int, int], tuple[int, ...]] = {}
        profiles: dict[int, Profile] = {}
        for limit, pairs, profile in segments:
            if profile is not None:
                profiles[len(limits)] = profile
            elif limit >= sum(self.links[pair].most_bytes_per_s for pair in pairs):
                continue
            for pair in pairs:
                routes[pair] = (*routes.get(pair, ()), len(limits))
            limits.append(limit)
        return Shared(limits, routes, profiles)

    def link(self, source: int, target: int) -> Link:
        """A new Link from `source` to `target`, idle, with its own generator: the same numbers at every call."""
        spec = self.links[source, target]
        if spec.kernel:
            return Link()
        if not (spec.draws or spec.changes) and spec.tcp == "none" and spec.profile is None:
            return Link(spec.effective_rate_bytes_per_s, spec.delay_ns)
        return spec.make(np.random.default_rng([self.seed, _STREAM, source, target]))


class Network(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """What joins the peers."""

    def plan(self, graph: "nx.Graph", seed: int) -> NetworkPlan:
        """What every link and access line is for the peers 0 to n-1 of `graph`; `seed` (0 or more) is for what links draw."""
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
