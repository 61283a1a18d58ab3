"""Networks by name: measured or commonly used numbers, ready to use.

Each docstring gives the source and date of the numbers, and which of them are our choice. The tables of regions are in
`regions.py`.
"""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from grapevine.netem.networks.changing import CellularNetwork
from grapevine.netem.networks.plan import LinkSpec, NetworkPlan, loss_share, plan_links
from grapevine.netem.networks.regions import Regions
from grapevine.netem.networks.shaped import Shaped
from grapevine.netem.networks.uniform import Uniform
from grapevine.netem.units import Duration, Rate, duration_ns, read

if TYPE_CHECKING:
    import networkx as nx


class Lan(Uniform, frozen=True, kw_only=True, tag="lan"):
    """An office: every peer on Gigabit Ethernet, 0.1 ms one way; our choice, not measured.

    A peer's links share its port: uplink and downlink of 1 Gbit/s.
    """

    rate: Rate = "1 Gbit/s"
    """Rate of each link and direction, such as "1 Gbit/s"."""
    delay: Duration = "0.1 ms"
    """One-way delay, such as "0.1 ms"; 0 or more."""
    uplink: Rate = "1 Gbit/s"
    """The rate that all links of a peer share when it sends, such as "1 Gbit/s"."""
    downlink: Rate = "1 Gbit/s"
    """The rate that all links of a peer share when it receives, such as "1 Gbit/s"."""


class DataCentre(Uniform, frozen=True, kw_only=True, tag="data-centre"):
    """A data centre: 25 Gbit/s a machine, 25 us one way; our choice, not measured."""

    rate: Rate = "25 Gbit/s"
    """Rate of each link and direction, such as "25 Gbit/s"."""
    delay: Duration = "25 us"
    """One-way delay, such as "25 us"; 0 or more."""
    uplink: Rate = "25 Gbit/s"
    """The rate that all links of a peer share when it sends, such as "25 Gbit/s"."""
    downlink: Rate = "25 Gbit/s"
    """The rate that all links of a peer share when it receives, such as "25 Gbit/s"."""


class Ec2(Regions, frozen=True, kw_only=True, tag="ec2"):
    """11 Amazon EC2 regions (Gaia, NSDI 2017; rates read off a figure): `regions` with this table."""

    table: Literal["ec2"] = "ec2"
    """Always "ec2"."""


class Aws18(Regions, frozen=True, kw_only=True, tag="aws18"):
    """18 AWS regions (Skyplane, 2022; rates of 64 parallel connections): `regions` with this table."""

    table: Literal["aws18"] = "aws18"
    """Always "aws18"."""


class Dtfm10(Regions, frozen=True, kw_only=True, tag="dtfm10"):
    """10 cloud regions (DT-FM, NeurIPS 2022; rates of a single stream): `regions` with this table."""

    table: Literal["dtfm10"] = "dtfm10"
    """Always "dtfm10"."""


LineName = Literal["cable", "dsl", "fibre", "3g", "3g-fast", "4g", "lte"]


class AccessLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The access line of one home."""

    rtt_ms: float
    down_kbit_per_s: float
    up_kbit_per_s: float


class _AccessTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    title: str
    source: str
    date: str
    measured: str
    lines: dict[str, AccessLine]


@functools.cache
def access_lines() -> dict[str, AccessLine]:
    """Return the access lines by name; their source is in netem/networks/data/access.json."""
    text = (Path(__file__).parent / "data" / "access.json").read_bytes()
    return msgspec.json.decode(text, type=_AccessTable).lines


class Home(Shaped, frozen=True, kw_only=True, tag="home"):
    """Peers at home, each behind an access line of WebPageTest's profiles (cable, DSL, ...), slower up than down.

    Source: connectivity.ini.sample@a7cf6a77, which does not date its profiles; today's lines are faster.

    Down / up Mbit/s and round trip: cable 5 / 1, 28 ms; dsl 1.5 / 0.384, 50 ms; fibre 20 / 5, 4 ms; 3g 1.6 / 0.768, 300
    ms; 3g-fast 1.6 / 0.768, 150 ms; 4g 9 / 9, 170 ms; lte 12 / 12, 70 ms. The one-way delay from peer to peer is half of
    both lines' round trips plus `distance`. A peer's links share its line.
    """

    lines: Annotated[tuple[LineName, ...], msgspec.Meta(min_length=1)] = ("cable",)
    """Access lines of the peers, such as ["cable", "dsl", "fibre"], cycled over the peers."""
    distance: Duration = "10 ms"
    """One-way delay between the lines' far ends, such as "10 ms"; 0 or more; our choice."""
    jitter: Duration = "0 s"
    """A message is early or late by up to this, and never overtakes; such as "4 ms"."""
    loss: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Share of packets lost, 0 to below 1 (the FCC's classes: below 0.004, to 0.01, above): slows a link, loses no message."""

    def __post_init__(self) -> None:
        for line in self.lines:
            if line not in access_lines():
                raise ValueError(f"lines: {line!r} is unknown: expected {', '.join(access_lines())}")
        if not self.lines:
            raise ValueError('lines: the list is empty: expected one or more, such as ["cable"]')
        read("distance", duration_ns, self.distance)
        read("jitter", duration_ns, self.jitter)
        read("loss", loss_share, self.loss)
        self.check_links()

    def plan(self, graph: "nx.Graph", seed: int) -> NetworkPlan:
        lines = [access_lines()[self.lines[peer % len(self.lines)]] for peer in range(graph.number_of_nodes())]
        up, down = ([rate * 125 for rate in rates] for rates in zip(*map(_rates, lines), strict=True))

        def spec(source: int, target: int) -> LinkSpec:
            rtt_ms = lines[source].rtt_ms + lines[target].rtt_ms
            delay_ns = round(rtt_ms * 1e6 / 2) + duration_ns(self.distance)
            rate = min(up[source], down[target])
            return self.finish_spec(LinkSpec(rate, delay_ns, duration_ns(self.jitter), self.loss))

        places: list[str] = [self.lines[peer % len(self.lines)] for peer in range(len(lines))]
        return self.finish_plan(plan_links(graph, seed, spec, up.__getitem__, down.__getitem__, places))


def _rates(line: AccessLine) -> tuple[float, float]:
    return line.up_kbit_per_s, line.down_kbit_per_s


class FourG(CellularNetwork, frozen=True, kw_only=True, tag="4g"):
    """Phones on LTE, synthetic: mean, spread and correlation of a recorded uplink (statistics of mahimahi's Verizon LTE).

    The sender's uplink limits a link between two phones: mean 5.95 Mbit/s, variation 0.52, correlation at 1 s 0.74.
    One-way delay: half of WebPageTest's round trip of 70 ms, for each of two phones. Outages: the record's longest is 1.7 s.
    Our choice: one outage a minute, 0.5 s long; the links of a phone vary independently while all share the mean rate.
    """

    rate: Rate = "5.95 Mbit/s"
    variation: Annotated[float, msgspec.Meta(gt=0)] = 0.52
    correlation: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.74
    delay: Duration = "70 ms"
    uplink: Rate = "5.95 Mbit/s"
    outage_every: Duration = "1 min"
    outage_length: Duration = "0.5 s"


class FiveG(CellularNetwork, frozen=True, kw_only=True, tag="5g"):
    """Phones on 5G, synthetic: mean 21 Mbit/s up, 166 down (global medians of speed tests), varying as LTE does.

    The medians' source gives no date. One way 30 ms, variation, correlation and outages are our choice.
    """

    rate: Rate = "21 Mbit/s"
    variation: Annotated[float, msgspec.Meta(gt=0)] = 0.52
    correlation: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.74
    delay: Duration = "30 ms"
    uplink: Rate = "21 Mbit/s"
    downlink: Rate = "166 Mbit/s"
    outage_every: Duration = "1 min"
    outage_length: Duration = "0.5 s"


class Satellite(CellularNetwork, frozen=True, kw_only=True, tag="satellite"):
    """Peers on low satellites, synthetic: a new path each 15 s, round trips of about 50 ms to the ground (20 to 60).

    The round trip and the 15 s are measurements of Starlink; the one-way delay is half of 50 ms, for each of two dishes. Our
    choice: the mean of 10 Mbit/s up, its variation (0.3), paths independent of each other, jitter, and an outage of 0.1 s at
    about every change of path.
    """

    rate: Rate = "10 Mbit/s"
    variation: Annotated[float, msgspec.Meta(gt=0)] = 0.3
    correlation: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    every: Duration = "15 s"
    delay: Duration = "50 ms"
    jitter: Duration = "5 ms"
    uplink: Rate = "10 Mbit/s"
    outage_every: Duration = "15 s"
    outage_length: Duration = "0.1 s"
