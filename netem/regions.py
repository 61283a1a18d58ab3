"""Peers placed on cloud regions, with the rates and round trips measured between these.

The tables lie in `netem/data/*.json`, each with its sources:

- `ec2`: the 11 EC2 regions of Gaia (Hsieh et al., NSDI 2017), rates read off a figure. The source lacks 13 round trips
  (all of Mumbai's, and Seoul's with Oregon, Ireland and Frankfurt): these are those of the same regions in `aws18`.
- `aws18`: 18 AWS regions of 2022 (Skyplane), the rate of 64 parallel connections, each direction as measured.
- `dtfm10`: 10 regions (DT-FM, Yuan et al., NeurIPS 2022), the rate of a single stream.

Two peers in one region are joined by a LAN whose rate and round trip are our choice (the table's `lan`, and why).
"""

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import msgspec

from netem.plan import LinkSpec, Network, NetworkPlan, lay, loss_share
from netem.units import UNLIMITED, Duration, Rate, duration_ns, rate_bytes_per_s, read

if TYPE_CHECKING:
    import networkx as nx

TableName = Literal["ec2", "aws18", "dtfm10"]


class Lan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What joins two peers of one region; our choice, see the table's `lan_source`."""

    rate_mbit_per_s: float
    rtt_ms: float


class RegionTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured between regions; matrices have a row for each source, and None on the diagonal."""

    title: str
    source: str
    measured: str
    """What the numbers are, in words."""
    regions: tuple[str, ...]
    rtt_ms: tuple[tuple[float | None, ...], ...]
    rate_mbit_per_s: tuple[tuple[float | None, ...], ...]
    lan: Lan
    lan_source: str
    filled_rtt: tuple[tuple[str, str], ...] = ()
    """Pairs whose round trip is not from the source."""
    filled_source: str = ""

    def between(self, source: str, target: str) -> tuple[float, float]:
        """(rate in Mbit/s, round trip in ms) from region `source` to region `target`."""
        row, column = self.regions.index(source), self.regions.index(target)
        rate, rtt = self.rate_mbit_per_s[row][column], self.rtt_ms[row][column]
        if rate is None or rtt is None:
            return self.lan.rate_mbit_per_s, self.lan.rtt_ms
        return rate, rtt


@functools.cache
def region_table(name: str) -> RegionTable:
    """The table of that name, with its sources."""
    text = (Path(__file__).parent / "data" / f"{name}.json").read_bytes()
    return msgspec.json.decode(text, type=RegionTable)


class Regions(Network, frozen=True, kw_only=True, tag="regions"):
    """Peers on cloud regions: rates and delays as measured between 11 (ec2), 18 (aws18) or 10 (dtfm10) of them."""

    table: TableName = "ec2"
    """Which measurements: "ec2" (Gaia, NSDI 2017), "aws18" (Skyplane, 2022) or "dtfm10" (DT-FM, 2022)."""
    places: tuple[str, ...] = ()
    """Regions of the peers, such as ["Virginia", "Tokyo"], cycled over them; empty = all of the table's."""
    rate_factor: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """Multiplies the rates between and within regions, so that a small model meets the ratio
    bytes / (rate x step time) of a large one; delays, loss, uplink and downlink stay as they are; more than 0."""
    jitter: Duration = "0 s"
    """A message is early or late by up to this, evenly spread, and never overtakes; such as "2 ms". On a link whose delay
    is shorter (within a region) by up to that delay."""
    loss: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Share of packets lost, 0 to below 1: slows a link by Mathis' formula, loses no message."""
    uplink: Rate = UNLIMITED
    """What all links of a peer share when it sends, such as "50 Mbit/s"."""
    downlink: Rate = UNLIMITED
    """What all links of a peer share when it receives, such as "200 Mbit/s"."""

    def __post_init__(self) -> None:
        if self.table not in get_args(TableName):
            raise ValueError(f"table: {self.table!r} is no table of regions: expected {', '.join(get_args(TableName))}")
        known = region_table(self.table).regions
        for place in self.places:
            if place not in known:
                raise ValueError(f"places: {place!r} is no region of {self.table}: it has {', '.join(known)}")
        if not 0 < self.rate_factor < math.inf:
            raise ValueError(f"rate_factor: {self.rate_factor} is no factor: expected more than 0, such as 0.1")
        read("jitter", duration_ns, self.jitter)
        read("loss", loss_share, self.loss)
        read("uplink", rate_bytes_per_s, self.uplink)
        read("downlink", rate_bytes_per_s, self.downlink)

    def plan(self, graph: "nx.Graph", seed: int) -> NetworkPlan:
        cycle = self.places or region_table(self.table).regions
        places = [cycle[peer % len(cycle)] for peer in range(graph.number_of_nodes())]
        specs = {(a, b): self._spec(a, b) for a in set(places) for b in set(places)}
        uplink, downlink = rate_bytes_per_s(self.uplink), rate_bytes_per_s(self.downlink)
        return lay(
            graph,
            seed,
            lambda source, target: specs[places[source], places[target]],
            lambda peer: uplink,
            lambda peer: downlink,
            places,
        )

    def _spec(self, source: str, target: str) -> LinkSpec:
        """One direction between two regions; the delay is half the round trip."""
        rate_mbit_per_s, rtt_ms = region_table(self.table).between(source, target)
        delay_ns = round(rtt_ms * 1e6 / 2)
        jitter_ns = min(duration_ns(self.jitter), delay_ns)
        return LinkSpec(rate_mbit_per_s * 1e6 / 8 * self.rate_factor, delay_ns, jitter_ns, self.loss)
