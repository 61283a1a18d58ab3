"""Emulated links and devices: how long bytes travel and steps take, asked of pure objects that are told the time."""

from netem.devices import AnyDevices, Device, Devices, HostDevices, MixedDevices, UniformDevices
from netem.link import Link, Transit
from netem.network import AnyNetwork, Edges, Uniform, Unshaped
from netem.plan import LinkSpec, Network, NetworkPlan
from netem.regions import Regions, RegionTable, region_table
from netem.shaper import Downlink, Shaper
from netem.units import (
    Duration,
    Rate,
    Speed,
    duration_ns,
    rate_bytes_per_s,
    show_bytes,
    show_duration,
    show_rate,
    speed_samples_per_s,
)

__all__ = [
    "AnyDevices",
    "AnyNetwork",
    "Device",
    "Devices",
    "Downlink",
    "Duration",
    "Edges",
    "HostDevices",
    "Link",
    "LinkSpec",
    "MixedDevices",
    "Network",
    "NetworkPlan",
    "Rate",
    "RegionTable",
    "Regions",
    "Shaper",
    "Speed",
    "Transit",
    "Uniform",
    "UniformDevices",
    "Unshaped",
    "duration_ns",
    "rate_bytes_per_s",
    "region_table",
    "show_bytes",
    "show_duration",
    "show_rate",
    "speed_samples_per_s",
]
