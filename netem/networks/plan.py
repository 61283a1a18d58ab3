"""A network made concrete for one graph: the specification of every link, and the Link made from it."""

import math
from abc import abstractmethod
from collections.abc import Callable
from numbers import Integral, Real
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
    """The specification of one direction of an edge."""

    rate_bytes_per_s: float = math.inf
    """Bytes a second; infinite = unlimited. Of a changing link: the mean."""
    delay_ns: int = 0
    """One way, ns. Of a changing link: the first delay."""
    jitter_ns: int = 0
    """Half width of the uniform law around the delay, ns; of the other laws the standard deviation."""
    loss: float = 0.0
    """Share of packets lost, in [0, 1)."""
    tcp: Control = "none"
    """The congestion control of a round-based TCP connection; "none" = rate and delay, loss by Mathis' formula."""
    queue_ns: int | None = None
    """The time that the link takes to send a full queue, ns; None = max(round trip, 50 ms)."""
    jitter_law: Law = "uniform"
    jitter_correlation: float = 0.0
    """Correlation of a message's jitter with the previous message's, in [0, 1)."""
    loss_burst: float = 1.0
    """Mean length of a burst of lost packets; 1 = packets are lost independently."""
    profile_law: ProfileLaw | None = None
    """The law of the link's own profile; None = the link does not change, or has a shared `profile`."""
    profile: Profile | None = None
    """A profile that several links share."""
    scattered: bool = False
    """Whether each link begins at its own place in a shared profile."""
    duplicate: float = 0.0
    """Share of packets that are sent twice, in [0, 1)."""
    reorders: bool = False
    """Whether messages overtake each other, if their jitters make it so."""
    swings: bool = False
    """Whether a segment that the link crosses changes over time."""
    changes: tuple[Change, ...] = ()
    """Alterations of the link during the run, in order of time."""
    kernel: bool = False
    """Whether the kernel carries the link (netem/kernel/plan.py): then its Link neither delays nor limits."""

    def __post_init__(self) -> None:
        rate = self.rate_bytes_per_s
        if not isinstance(rate, Real) or not rate > 0:
            cure = 'expected bytes a second above 0, or math.inf; rate_bytes_per_s("20 Mbit/s") gives them'
            raise ValueError(f"a link's rate_bytes_per_s is {rate!r}: {cure}")
        for name in ("delay_ns", "jitter_ns"):
            if not isinstance(given := getattr(self, name), Integral) or given < 0:
                cure = 'expected whole ns, 0 or more; duration_ns("80 ms") gives them'
                raise ValueError(f"a link's {name} is {given!r}: {cure}")
        if not isinstance(self.loss, Real) or not 0 <= self.loss < 1:
            raise ValueError(f"a link's loss is {self.loss!r}: expected a share of packets from 0 to below 1")

    @property
    def effective_rate_bytes_per_s(self) -> float:
        """The mean rate of a long transfer over this link: the rate, or less where loss binds.

        Mathis, Semke, Mahdavi & Ott, CCR 1997: 1.22 MSS / (RTT sqrt(loss)), MSS 1448 bytes, RTT = twice the one-way
        delay. So loss slows a link and no message is lost; with a delay of 0 the RTT is 0 and loss has no effect.
        Above a loss of about 2 % TCP's timeouts, which the formula leaves out, would make the link slower still. With `tcp` it
        is an estimate: payload's share of the rate, for "cubic" with Mathis' cap, for "bbr" less the loss. With `kernel` it
        is payload's share of the rate, because this machine's own TCP determines the effect of loss. Duplicates take their
        share.
        """
        return self._own_bytes_per_s / (1 + self.duplicate)

    @property
    def _own_bytes_per_s(self) -> float:
        if self.kernel:
            return self.rate_bytes_per_s * MSS_BYTES / PACKET_BYTES
        if self.tcp == "none":
            return capped_rate(self.rate_bytes_per_s, self.delay_ns, self.loss)
        payload = self.rate_bytes_per_s * MSS_BYTES / PACKET_BYTES
        if self.tcp == "bbr":
            return payload * (1 - self.loss)
        return capped_rate(payload, self.delay_ns, self.loss)

    def make(self, rng: Generator) -> Link:
        """Return a new idle Link of this specification, which draws its random numbers from `rng`."""
        link = self._without_duplicates(rng)
        if self.duplicate and not self.kernel:
            link.double(Doubles(self.duplicate, rng.spawn(1)[0]))
        link.reorders = self.reorders
        return link

    def _without_duplicates(self, rng: Generator) -> Link:
        if self.kernel:
            return Link()
        own = self.profile if self.profile is not None or self.profile_law is None else self.profile_law.profile(rng)
        ahead_ns = int(rng.random() * sum(step.lasts_ns for step in own.known)) if own and self.scattered else 0
        jitter = self.jitter_ns, rng, self.jitter_law, self.jitter_correlation
        profile: Steady | Profile | Altered = own or Steady(self.rate_bytes_per_s, self.delay_ns, self.loss)
        if self.changes:
            profile = Altered(profile, self.changes, ahead_ns, self.cap)
        if self.tcp == "none":
            if isinstance(profile, Steady):
                return Link(self._own_bytes_per_s, self.delay_ns, *jitter)
            return ChangingLink(profile, *jitter, ahead_ns=ahead_ns)
        lossy = self.loss > 0 or not isinstance(profile, Steady)
        losses = Losses(self.loss, rng, self.loss_burst) if lossy else None
        tcp = Tcp(self.tcp, 2 * self.delay_ns, losses, self.queue_ns)
        return TcpLink(profile, tcp, *jitter, ahead_ns=ahead_ns)

    @property
    def most_bytes_per_s(self) -> float:
        """A rate that the link never exceeds; infinite = unknown beforehand."""
        steady = self.profile_law is None and self.profile is None and not self.changes
        return self._own_bytes_per_s if steady and self.tcp == "none" else math.inf

    @property
    def cap(self) -> Callable[[float, int, float], float] | None:
        """The function that caps rates by delay and loss; None where TCP or a profile applies them already."""
        return capped_rate if self.tcp == "none" and self.profile_law is None and self.profile is None else None

    @property
    def varies(self) -> bool:
        """Whether the link's rate may differ from the planned one at an instant: a changing link, or TCP's windows."""
        return (
            self.tcp != "none" or self.profile_law is not None or self.profile is not None or bool(self.changes) or self.swings
        )

    @property
    def draws(self) -> bool:
        """Whether the Link draws random numbers."""
        drawn = (self.jitter_ns and not self.kernel) or self.profile_law is not None or self.scattered
        return bool(drawn or self.duplicate or (self.tcp != "none" and self.loss))


def capped_rate(rate_bytes_per_s: float, delay_ns: int, loss: float) -> float:
    """Return the lower of the rate and Mathis' formula (LinkSpec.effective_rate_bytes_per_s)."""
    if loss == 0 or delay_ns == 0:
        return rate_bytes_per_s
    return min(rate_bytes_per_s, 1.22 * MSS_BYTES / (2e-9 * delay_ns * math.sqrt(loss)))


class Cable(msgspec.Struct, frozen=True):
    """One direction of a cable that several links share."""

    rate_bytes_per_s: float
    links: tuple[tuple[int, int], ...]
    """(source, target) of each link."""


class Shared(NamedTuple):
    """The segments that several links share, and the links that cross them (netem.shaping.max_min)."""

    limits: list[float]
    """Rate of each segment, bytes/s."""
    routes: dict[tuple[int, int], tuple[int, ...]]
    """(source, target) -> the segments that the link crosses, by place in `limits`; only links that cross a segment."""
    profiles: dict[int, Profile]
    """Place in `limits` -> profile, of segments that change over time."""


class NetworkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Every link, uplink and downlink of a fleet on one graph."""

    links: dict[tuple[int, int], LinkSpec]
    """(source, target) -> specification; both directions of every edge and arc, because acknowledgements travel back."""
    uplinks: list[float]
    """The rate that each peer's links share when it sends, bytes/s; infinite = no limit."""
    downlinks: list[float]
    """The rate that each peer's links share when it receives, bytes/s; infinite = no limit."""
    places: list[str] | None = None
    """The region of each peer; None where the network has no places."""
    seed: int = 0
    """The seed of the links' random numbers."""
    kernel: bool = False
    """Whether the kernel carries every link, in namespaces (netem/kernel/namespaces.py)."""
    cables: tuple[Cable, ...] = ()
    """Further segments that some links share."""
    up_profiles: dict[int, Profile] = {}
    """Profiles of uplinks that change over time, by peer; `uplinks` holds their mean."""
    down_profiles: dict[int, Profile] = {}
    """Profiles of downlinks that change over time, by peer; `downlinks` holds their mean."""

    def shared(self) -> Shared:
        """Return the shared segments and the links that cross them, without segments that are at least as fast as all of
        their links together."""
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
        """Return a new idle Link from `source` to `target`, with its own generator: the same numbers at every call."""
        spec = self.links[source, target]
        if spec.kernel:
            return Link()
        if not (spec.draws or spec.changes) and spec.tcp == "none" and spec.profile is None:
            return Link(spec.effective_rate_bytes_per_s, spec.delay_ns)
        return spec.make(np.random.default_rng([self.seed, _STREAM, source, target]))


class Network(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """The links between the peers."""

    @abstractmethod
    def plan(self, graph: "nx.Graph", seed: int) -> NetworkPlan:
        """Return the links, uplinks and downlinks of peers 0 to n-1 of `graph`; links draw numbers from `seed`, 0 or more."""
        raise NotImplementedError


def plan_links(
    graph: "nx.Graph",
    seed: int,
    spec: Callable[[int, int], LinkSpec],
    uplink: Callable[[int], float] = lambda peer: math.inf,
    downlink: Callable[[int], float] = lambda peer: math.inf,
    places: list[str] | None = None,
) -> NetworkPlan:
    """Return a plan from `spec(source, target)` for both directions of every edge, and `uplink(peer)` and `downlink(peer)`.

    Raises ValueError if the graph's nodes are not 0 to n-1; loops are left out.
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
    """Return a LinkSpec from text with units; raises ValueError that names the field, after `where`."""
    return LinkSpec(
        read(where + "rate", rate_bytes_per_s, rate),
        read(where + "delay", duration_ns, delay),
        read(where + "jitter", duration_ns, jitter),
        read(where + "loss", loss_share, loss),
    )


def loss_share(value: Any) -> float:
    """Return a share of packets in [0, 1) from a number, or from a number as text, as some graph files hold it."""
    try:
        share = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        share = math.nan
    if not 0 <= share < 1:
        raise ValueError(f"{value!r} is not a share of lost packets: expected a number from 0 to below 1, such as 0.001")
    return share
