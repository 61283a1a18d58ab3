"""Emulated links and devices: how long bytes travel and steps take, asked of pure objects that are told the time."""

from netem.access import Access
from netem.bottlenecks import Bottleneck
from netem.changing import CellularNetwork, DiurnalNetwork, RandomWalk, Schedule, Trace
from netem.courses import Motion
from netem.devices import AnyDevices, Device, Devices, HostDevices, MixedDevices, UniformDevices
from netem.flow_table import FlowTable
from netem.lines import Course, Steady, Step
from netem.link import ChangingLink, Link, TcpLink, Transit
from netem.losses import Losses
from netem.network import AnyNetwork, Edges, Uniform, Unshaped
from netem.plan import Cable, LinkSpec, Network, NetworkPlan, Shared
from netem.presets import Aws18, DataCentre, Dtfm10, Ec2, FiveG, FourG, Home, Lan, Satellite
from netem.regions import Regions, RegionTable, region_table
from netem.shaper import Shaper
from netem.sharing import MaxMin, max_min
from netem.sharing_shaper import SharingShaper
from netem.tcp import Tcp
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
from netem.varying_devices import PausingDevices, StragglingDevices, ThrottlingDevices, TraceDevices

__all__ = [
    "Access",
    "AnyDevices",
    "AnyNetwork",
    "Aws18",
    "Bottleneck",
    "Cable",
    "CellularNetwork",
    "ChangingLink",
    "Course",
    "DataCentre",
    "Device",
    "Devices",
    "DiurnalNetwork",
    "Dtfm10",
    "Duration",
    "Ec2",
    "Edges",
    "FiveG",
    "FlowTable",
    "FourG",
    "Home",
    "HostDevices",
    "Lan",
    "Link",
    "LinkSpec",
    "Losses",
    "MaxMin",
    "MixedDevices",
    "Motion",
    "Network",
    "NetworkPlan",
    "PausingDevices",
    "RandomWalk",
    "Rate",
    "RegionTable",
    "Regions",
    "Satellite",
    "Schedule",
    "Shaper",
    "Shared",
    "SharingShaper",
    "Speed",
    "Steady",
    "Step",
    "StragglingDevices",
    "Tcp",
    "TcpLink",
    "ThrottlingDevices",
    "Trace",
    "TraceDevices",
    "Transit",
    "Uniform",
    "UniformDevices",
    "Unshaped",
    "duration_ns",
    "max_min",
    "rate_bytes_per_s",
    "region_table",
    "show_bytes",
    "show_duration",
    "show_rate",
    "speed_samples_per_s",
]
