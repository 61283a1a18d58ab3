"""DLion's six workers: access lines and cores, unequal and changing; and its micro-clouds.

Hong & Chandra, HPDC 2021. Each environment is taken from secondary sources, not verified against the paper's text
(Mbit/s of a worker: 50, 35, 20; cores: 24, 12, 6 or 4); delays, the length of a phase of "dynamic" and a core's speed are our
choice.
"""

import math
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import msgspec
import numpy as np

from grapevine.netem.devices.device import Device, Devices
from grapevine.netem.devices.varying import VaryingDevice
from grapevine.netem.links.profile import Profile, Step
from grapevine.netem.networks.access import Access
from grapevine.netem.networks.plan import Cable, LinkSpec, NetworkPlan, loss_share, plan_links
from grapevine.netem.networks.shaped import Shaped
from grapevine.netem.units import Duration, Rate, Speed, duration_ns, rate_bytes_per_s, read, speed_samples_per_s

if TYPE_CHECKING:
    import networkx as nx

Lines = Literal["homogeneous", "heterogeneous", "reversed", "dynamic"]
Cores = Literal["homogeneous", "heterogeneous", "weak", "dynamic"]

LINES = {
    "homogeneous": (50.0,) * 6,
    "heterogeneous": (50.0, 50.0, 35.0, 35.0, 20.0, 20.0),
    "reversed": (20.0, 20.0, 35.0, 35.0, 50.0, 50.0),
}
"""Rates of the six workers' lines, Mbit/s."""
CORES = {
    "homogeneous": (24,) * 6,
    "heterogeneous": (24, 24, 12, 12, 6, 6),
    "weak": (24, 24, 12, 12, 4, 4),
}
"""Cores of the six workers."""
_LINE_PHASES = ("homogeneous", "heterogeneous", "reversed")
_CORE_PHASES = ("homogeneous", "heterogeneous", "heterogeneous")


class Dlion(Shaped, frozen=True, kw_only=True, tag="dlion"):
    """DLion's workers behind lines of 50, 35 and 20 Mbit/s (HPDC 2021, not verified): equal, unequal or changing.

    "homogeneous" is the paper's Homo B (50 each), "heterogeneous" Hetero NET A and SYS A (50, 50, 35, 35, 20, 20), "reversed"
    SYS B (20 to 50), "dynamic" cycles through these three. With more than six peers the list repeats. The source dates
    from 2021; our choice: each direction of a line has the whole rate, delays, and phases.
    """

    environment: Lines = "homogeneous"
    """"homogeneous", "heterogeneous" (the first peers have the fast lines), "reversed" (the last) or "dynamic"."""
    phase: Duration = "100 s"
    """Length of each phase of "dynamic", such as "100 s"."""
    rate_factor: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """Multiplies all rates, so that a small model has the ratio bytes / (rate x step time) of a large one; more than 0."""
    delay: Duration = "1 ms"
    """One-way delay from peer to peer, such as "1 ms"; 0 or more."""
    jitter: Duration = "0 s"
    """A message is early or late by up to this, uniformly distributed, and never overtakes; such as "4 ms"."""
    loss: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Share of packets lost, 0 to below 1: slows a link (without tcp by Mathis' formula, not at a delay of 0)."""

    def __post_init__(self) -> None:
        if self.environment not in get_args(Lines):
            raise ValueError(f"environment: {self.environment!r} is unknown: expected {', '.join(get_args(Lines))}")
        if not read("phase", duration_ns, self.phase):
            raise ValueError("phase: is 0 s: expected more, such as 100 s")
        self._access(0)

    def plan(self, graph: "nx.Graph", seed: int) -> NetworkPlan:
        if self.environment != "dynamic":
            return self._access(_LINE_PHASES.index(self.environment)).plan(graph, seed)
        phases = [self._access(place).plan(graph, seed) for place in range(len(_LINE_PHASES))]
        lasts_ns = duration_ns(self.phase)
        profiles = {
            peer: Profile([Step(lasts_ns, plan.uplinks[peer]) for plan in phases], looped=True) for peer in range(len(graph))
        }
        means = [profiles[peer].mean_rate_bytes_per_s for peer in range(len(graph))]
        most = {
            pair: msgspec.structs.replace(
                spec, rate_bytes_per_s=max(plan.links[pair].rate_bytes_per_s for plan in phases), swings=True
            )
            for pair, spec in phases[0].links.items()
        }
        return msgspec.structs.replace(
            phases[0], links=most, uplinks=means, downlinks=means, up_profiles=profiles, down_profiles=profiles
        )

    def _access(self, place: int) -> Access:
        lines = tuple(f"{rate:g} Mbit/s" for rate in LINES[_LINE_PHASES[place]])
        fields = (field for field in Access.__struct_fields__ if field in self.__struct_fields__)
        return Access(**{"lines": lines, **{field: getattr(self, field) for field in fields}})


class MicroCloudNetwork(Shaped, frozen=True, kw_only=True, tag="micro-clouds"):
    """Sites with a fast network inside and one slow line each to all others (DLion's micro-clouds); rates are our choice.

    Peers 0 to size - 1 are the first site, and so on, as in the topology of that name; sizes of sites differ by 1 at most.
    """

    size: Annotated[int, msgspec.Meta(ge=1)] = 4
    """The largest number of peers at a site, 1 or more."""
    rate: Rate = "50 Mbit/s"
    """The rate that all links from a site to others share, and again all links to it, such as "50 Mbit/s"."""
    delay: Duration = "20 ms"
    """One-way delay between sites, such as "20 ms"; 0 or more."""
    inside_rate: Rate = "1 Gbit/s"
    """Rate of each link within a site, such as "1 Gbit/s"."""
    inside_delay: Duration = "0.1 ms"
    """One-way delay within a site, such as "0.1 ms"; 0 or more."""
    jitter: Duration = "0 s"
    """Between sites a message is early or late by up to this, and never overtakes; such as "4 ms"."""
    loss: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Share of packets lost between sites, 0 to below 1: slows a link (without tcp by Mathis' formula)."""

    def __post_init__(self) -> None:
        for field in ("rate", "inside_rate"):
            read(field, rate_bytes_per_s, getattr(self, field))
        for field in ("delay", "inside_delay", "jitter"):
            read(field, duration_ns, getattr(self, field))
        read("loss", loss_share, self.loss)
        if self.size < 1:
            raise ValueError(f"size: a site of {self.size} peers is too small: expected 1 or more")
        self.check_links()
        self._specs()

    def plan(self, graph: "nx.Graph", seed: int) -> NetworkPlan:
        count = len(graph)
        sites = np.array_split(np.arange(count), -(-count // self.size))
        site = {int(peer): place for place, peers in enumerate(sites) for peer in peers}
        within, between = self._specs()
        plan = plan_links(
            graph,
            seed,
            lambda source, target: within if site[source] == site[target] else between,
            lambda peer: math.inf,
            lambda peer: math.inf,
            [f"site {site[peer]}" for peer in range(count)],
        )
        crossing = [pair for pair in plan.links if site[pair[0]] != site[pair[1]]]
        ways = [[pair for pair in crossing if site[pair[end]] == place] for place in range(len(sites)) for end in (0, 1)]
        cables = tuple(Cable(rate_bytes_per_s(self.rate), tuple(pairs)) for pairs in ways if pairs)
        return self.finish_plan(msgspec.structs.replace(plan, cables=cables))

    def _specs(self) -> tuple[LinkSpec, LinkSpec]:
        inside = LinkSpec(rate_bytes_per_s(self.inside_rate), duration_ns(self.inside_delay))
        between = LinkSpec(rate_bytes_per_s(self.rate), duration_ns(self.delay), duration_ns(self.jitter), self.loss)
        return self.finish_spec(inside, "inside: "), self.finish_spec(between)


class DlionDevices(Devices, frozen=True, kw_only=True, tag="dlion"):
    """DLion's workers with 24, 12 and 6 cores (HPDC 2021, not verified): equal, unequal or changing.

    "homogeneous" has 24 cores each, "heterogeneous" 24, 24, 12, 12, 6, 6 (SYS A and B), "weak" 24, 24, 12, 12, 4, 4 (Hetero CPU
    A); "dynamic" follows the phases of the network "dlion": homogeneous, heterogeneous, heterogeneous. With more than six peers
    the list begins anew. The speed of a core is our choice.
    """

    environment: Cores = "homogeneous"
    """"homogeneous", "heterogeneous", "weak" or "dynamic"."""
    core: Speed = "10 samples/s"
    """Speed of one core, such as "10 samples/s"; a worker with 24 cores is 24 times as fast."""
    phase: Duration = "100 s"
    """Length of each phase of "dynamic", such as "100 s"."""
    overhead: Duration = "0 s"
    """Fixed cost of a step, such as "2 ms"; 0 or more."""

    def __post_init__(self) -> None:
        if self.environment not in get_args(Cores):
            raise ValueError(f"environment: {self.environment!r} is unknown: expected {', '.join(get_args(Cores))}")
        if not read("phase", duration_ns, self.phase):
            raise ValueError("phase: is 0 s: expected more, such as 100 s")
        self.plan(1)

    def plan(self, peers: int, seed: int = 0) -> list[Device]:
        core = read("core", speed_samples_per_s, self.core)
        overhead_ns, lasts_ns = read("overhead", duration_ns, self.overhead), duration_ns(self.phase)
        if self.environment != "dynamic":
            cores = CORES[self.environment]
            return [Device(core * cores[peer % 6], overhead_ns) for peer in range(peers)]
        phases = [CORES[name] for name in _CORE_PHASES]
        profiles = [Profile([Step(lasts_ns, core * cores[place]) for cores in phases], looped=True) for place in range(6)]
        return [
            VaryingDevice(profiles[peer % 6].mean_rate_bytes_per_s, overhead_ns, profiles[peer % 6]) for peer in range(peers)
        ]
