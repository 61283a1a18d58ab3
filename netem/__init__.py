"""Emulated links and devices: pure objects that compute how long bytes travel and steps take; time is an argument."""

from grapevine.netem.devices.device import Device, Devices
from grapevine.netem.devices.menu import AnyDevices, HostDevices, MixedDevices, UniformDevices
from grapevine.netem.devices.varying import PausingDevices, StragglingDevices, ThrottlingDevices, TraceDevices
from grapevine.netem.links.link import ChangingLink, Link, TcpLink, Transit
from grapevine.netem.links.losses import Losses
from grapevine.netem.links.profile import Profile, Steady, Step
from grapevine.netem.links.profile_laws import ProfileLaw
from grapevine.netem.links.tcp import Tcp
from grapevine.netem.networks.access import Access
from grapevine.netem.networks.bottlenecks import Bottleneck
from grapevine.netem.networks.changing import CellularNetwork, DiurnalNetwork, RandomWalk, ScheduleNetwork, Trace
from grapevine.netem.networks.menu import AnyNetwork, Edges
from grapevine.netem.networks.plan import Cable, LinkSpec, Network, NetworkPlan, Shared
from grapevine.netem.networks.presets import Aws18, DataCentre, Dtfm10, Ec2, FiveG, FourG, Home, Lan, Satellite
from grapevine.netem.networks.regions import Regions
from grapevine.netem.networks.tables import RegionTable, region_table
from grapevine.netem.networks.uniform import Uniform, Unshaped
from grapevine.netem.shaping.flow_table import FlowTable
from grapevine.netem.shaping.max_min import MaxMin, max_min
from grapevine.netem.shaping.shaper import Shaper
from grapevine.netem.shaping.sharing_shaper import SharingShaper
from grapevine.netem.units import (
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
    "Access",
    "AnyDevices",
    "AnyNetwork",
    "Aws18",
    "Bottleneck",
    "Cable",
    "CellularNetwork",
    "ChangingLink",
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
    "Network",
    "NetworkPlan",
    "PausingDevices",
    "Profile",
    "ProfileLaw",
    "RandomWalk",
    "Rate",
    "RegionTable",
    "Regions",
    "Satellite",
    "ScheduleNetwork",
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
