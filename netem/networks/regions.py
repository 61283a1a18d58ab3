"""Peers placed on cloud regions, with the rates and round trips measured between these.

The tables are in `netem/networks/data/*.json`, each with its sources:

- `ec2`: the 11 EC2 regions of Gaia (Hsieh et al., NSDI 2017), rates read off a figure. The source lacks 13 round trips
  (all of Mumbai's, and Seoul's with Oregon, Ireland and Frankfurt), which are taken from the same regions in `aws18`.
- `aws18`: 18 AWS regions of 2022 (Skyplane), the rate of 64 parallel connections, each direction as measured.
- `dtfm10`: 10 regions (DT-FM, Yuan et al., NeurIPS 2022), the rate of a single stream.

Two peers in one region are joined by a LAN whose rate and round trip are our choice (the table's `lan` and `lan_source`).
"""

import math
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import msgspec

from grapevine.netem.networks.plan import LinkSpec, NetworkPlan, loss_share, plan_links
from grapevine.netem.networks.shaped import Shaped
from grapevine.netem.networks.tables import RegionTable, read_table, region_table
from grapevine.netem.units import UNLIMITED, Duration, Rate, duration_ns, rate_bytes_per_s, read

if TYPE_CHECKING:
    import networkx as nx

TableName = Literal["ec2", "aws18", "dtfm10"]


class Regions(Shaped, frozen=True, kw_only=True, tag="regions"):
    """Peers on cloud regions: rates and delays as measured between 11 (ec2), 18 (aws18) or 10 (dtfm10) of them."""

    table: TableName = "ec2"
    """The table of measurements: "ec2" (Gaia, NSDI 2017), "aws18" (Skyplane, 2022) or "dtfm10" (DT-FM, 2022)."""
    path: str = ""
    """A table of your own in place of these: a .toml file with the same keys, or a .csv file with the columns source, target,
    rate [Mbit/s] and rtt [ms] (see netem/networks/tables.py)."""
    places: tuple[str, ...] = ()
    """Regions of the peers, such as ["Virginia", "Tokyo"], cycled over the peers; empty = all regions of the table."""
    rate_factor: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """Multiplies the rates between and within regions, so that a small model has the ratio
    bytes / (rate x step time) of a large one; delays, loss, uplink and downlink are not multiplied; more than 0."""
    jitter: Duration = "0 s"
    """A message is early or late by up to this, uniformly distributed, and never overtakes; such as "2 ms". On a link whose
    delay is shorter (within a region): by up to that delay."""
    loss: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Share of packets lost, 0 to below 1: slows a link (without tcp by Mathis' formula), loses no message."""
    uplink: Rate = UNLIMITED
    """The rate that all links of a peer share when it sends, such as "50 Mbit/s"."""
    downlink: Rate = UNLIMITED
    """The rate that all links of a peer share when it receives, such as "200 Mbit/s"."""

    def __post_init__(self) -> None:
        if self.table not in get_args(TableName):
            raise ValueError(f"table: {self.table!r} is unknown: expected {', '.join(get_args(TableName))}")
        if not self.path:
            self._refuse_places(region_table(self.table))
        if not 0 < self.rate_factor < math.inf:
            raise ValueError(f"rate_factor: {self.rate_factor} is out of range: expected more than 0, such as 0.1")
        read("jitter", duration_ns, self.jitter)
        read("loss", loss_share, self.loss)
        read("uplink", rate_bytes_per_s, self.uplink)
        read("downlink", rate_bytes_per_s, self.downlink)
        self.check_links()

    def plan(self, graph: "nx.Graph", seed: int) -> NetworkPlan:
        """Raises ValueError if the file at `path` is not a table of regions, or lacks one of the places."""
        table = read("path", read_table, self.path) if self.path else region_table(self.table)
        self._refuse_places(table)
        cycle = self.places or table.regions
        places = [cycle[peer % len(cycle)] for peer in range(graph.number_of_nodes())]
        specs = {(a, b): self._spec(table, a, b) for a in set(places) for b in set(places)}
        uplink, downlink = rate_bytes_per_s(self.uplink), rate_bytes_per_s(self.downlink)
        plan = plan_links(
            graph,
            seed,
            lambda source, target: specs[places[source], places[target]],
            lambda peer: uplink,
            lambda peer: downlink,
            places,
        )
        return self.finish_plan(plan)

    def _refuse_places(self, table: RegionTable) -> None:
        for place in self.places:
            if place not in table.regions:
                name = self.path or self.table
                raise ValueError(f"places: {place!r} is not a region of {name}: expected {', '.join(table.regions)}")

    def _spec(self, table: RegionTable, source: str, target: str) -> LinkSpec:
        """Return one direction between two regions; the delay is half the round trip."""
        rate_mbit_per_s, rtt_ms = table.between(source, target)
        delay_ns = round(rtt_ms * 1e6 / 2)
        jitter_ns = min(duration_ns(self.jitter), delay_ns)
        return self.finish_spec(LinkSpec(rate_mbit_per_s * 1e6 / 8 * self.rate_factor, delay_ns, jitter_ns, self.loss))
