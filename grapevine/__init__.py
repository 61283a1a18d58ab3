"""A laboratory for decentralized training over emulated wide-area networks.

Everything that a user needs is imported from here: `from grapevine import Experiment, run, Strategy, Dense`; the graphs, which
have short names such as Ring and Path, from `grapevine.topology`. The packages `grapevine.peer`, `grapevine.topology`,
`grapevine.netem` and `grapevine.experiments` hold the parts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grapevine import topology as topology
    from grapevine.experiments.config.errors import ConfigError as ConfigError
    from grapevine.experiments.config.events import CutEvent as CutEvent
    from grapevine.experiments.config.events import DelayEvent as DelayEvent
    from grapevine.experiments.config.events import Event as Event
    from grapevine.experiments.config.events import HealEvent as HealEvent
    from grapevine.experiments.config.events import JoinEvent as JoinEvent
    from grapevine.experiments.config.events import KillEvent as KillEvent
    from grapevine.experiments.config.events import LeaveEvent as LeaveEvent
    from grapevine.experiments.config.events import LossEvent as LossEvent
    from grapevine.experiments.config.events import PartitionEvent as PartitionEvent
    from grapevine.experiments.config.events import PauseEvent as PauseEvent
    from grapevine.experiments.config.events import RateEvent as RateEvent
    from grapevine.experiments.config.events import RestoreEvent as RestoreEvent
    from grapevine.experiments.config.events import SpeedEvent as SpeedEvent
    from grapevine.experiments.config.experiment import Experiment as Experiment
    from grapevine.experiments.config.membership import Always as Always
    from grapevine.experiments.config.membership import Arrivals as Arrivals
    from grapevine.experiments.config.membership import Availability as Availability
    from grapevine.experiments.config.membership import Membership as Membership
    from grapevine.experiments.config.membership import Open as Open
    from grapevine.experiments.config.sections import Processes as Processes
    from grapevine.experiments.config.sections import Record as Record
    from grapevine.experiments.config.sections import Stop as Stop
    from grapevine.experiments.config.sections import Virtual as Virtual
    from grapevine.experiments.config.sections import World as World
    from grapevine.experiments.config.wrappers import Delay as Delay
    from grapevine.experiments.config.wrappers import Drop as Drop
    from grapevine.experiments.config.wrappers import Scale as Scale
    from grapevine.experiments.results.result import Result as Result
    from grapevine.experiments.run import run as run
    from grapevine.experiments.study.from_python import SweepResult as SweepResult
    from grapevine.experiments.study.from_python import TuneResult as TuneResult
    from grapevine.experiments.study.from_python import sweep as sweep
    from grapevine.experiments.study.from_python import tune as tune
    from grapevine.experiments.tasks import Bootstrap as Bootstrap
    from grapevine.experiments.tasks import Digits as Digits
    from grapevine.experiments.tasks import Dirichlet as Dirichlet
    from grapevine.experiments.tasks import Iid as Iid
    from grapevine.experiments.tasks import Module as Module
    from grapevine.experiments.tasks import Partition as Partition
    from grapevine.experiments.tasks import Problem as Problem
    from grapevine.experiments.tasks import Quadratic as Quadratic
    from grapevine.experiments.tasks import Sampler as Sampler
    from grapevine.experiments.tasks import Shards as Shards
    from grapevine.experiments.tasks import Task as Task
    from grapevine.netem import Access as Access
    from grapevine.netem import Aws18 as Aws18
    from grapevine.netem import CellularNetwork as CellularNetwork
    from grapevine.netem import DataCentre as DataCentre
    from grapevine.netem import Device as Device
    from grapevine.netem import Devices as Devices
    from grapevine.netem import DiurnalNetwork as DiurnalNetwork
    from grapevine.netem import Dtfm10 as Dtfm10
    from grapevine.netem import Duration as Duration
    from grapevine.netem import Ec2 as Ec2
    from grapevine.netem import Edges as Edges
    from grapevine.netem import FiveG as FiveG
    from grapevine.netem import FourG as FourG
    from grapevine.netem import Home as Home
    from grapevine.netem import HostDevices as HostDevices
    from grapevine.netem import Lan as Lan
    from grapevine.netem import LinkSpec as LinkSpec
    from grapevine.netem import MixedDevices as MixedDevices
    from grapevine.netem import Network as Network
    from grapevine.netem import NetworkPlan as NetworkPlan
    from grapevine.netem import PausingDevices as PausingDevices
    from grapevine.netem import RandomWalk as RandomWalk
    from grapevine.netem import Rate as Rate
    from grapevine.netem import Regions as Regions
    from grapevine.netem import Satellite as Satellite
    from grapevine.netem import ScheduleNetwork as ScheduleNetwork
    from grapevine.netem import Speed as Speed
    from grapevine.netem import StragglingDevices as StragglingDevices
    from grapevine.netem import ThrottlingDevices as ThrottlingDevices
    from grapevine.netem import Trace as Trace
    from grapevine.netem import TraceDevices as TraceDevices
    from grapevine.netem import Uniform as Uniform
    from grapevine.netem import UniformDevices as UniformDevices
    from grapevine.netem import Unshaped as Unshaped
    from grapevine.netem import duration_ns as duration_ns
    from grapevine.netem import rate_bytes_per_s as rate_bytes_per_s
    from grapevine.netem import speed_samples_per_s as speed_samples_per_s
    from grapevine.netem.networks.bottlenecks import Bottleneck as Bottleneck
    from grapevine.netem.networks.dlion import Dlion as Dlion
    from grapevine.netem.networks.dlion import DlionDevices as DlionDevices
    from grapevine.netem.networks.dlion import MicroCloudNetwork as MicroCloudNetwork
    from grapevine.netem.networks.plan import plan_links as plan_links
    from grapevine.netem.networks.plan import read_link as read_link
    from grapevine.netem.networks.shaped import Shaped as Shaped
    from grapevine.peer.aggregators import Aggregator as Aggregator
    from grapevine.peer.aggregators import Mean as Mean
    from grapevine.peer.aggregators import Median as Median
    from grapevine.peer.aggregators import TrimmedMean as TrimmedMean
    from grapevine.peer.codecs import QSGD as QSGD
    from grapevine.peer.codecs import Codec as Codec
    from grapevine.peer.codecs import Float16 as Float16
    from grapevine.peer.codecs import Float32 as Float32
    from grapevine.peer.codecs import Int8 as Int8
    from grapevine.peer.expected import Expected as Expected
    from grapevine.peer.layout import Layout as Layout
    from grapevine.peer.layout import Tensor as Tensor
    from grapevine.peer.ledger import Above as Above
    from grapevine.peer.ledger import All as All
    from grapevine.peer.ledger import Chosen as Chosen
    from grapevine.peer.ledger import Largest as Largest
    from grapevine.peer.ledger import Ledger as Ledger
    from grapevine.peer.ledger import Next as Next
    from grapevine.peer.message import Message as Message
    from grapevine.peer.optimizers import Adam as Adam
    from grapevine.peer.optimizers import Optimizer as Optimizer
    from grapevine.peer.optimizers import Sgd as Sgd
    from grapevine.peer.optimizers import Stepper as Stepper
    from grapevine.peer.payloads import Dense as Dense
    from grapevine.peer.payloads import Marks as Marks
    from grapevine.peer.payloads import Payload as Payload
    from grapevine.peer.payloads import Sparse as Sparse
    from grapevine.peer.peer import Peer as Peer
    from grapevine.peer.spaces import Facts as Facts
    from grapevine.peer.spaces import Space as Space
    from grapevine.peer.strategies import ADPSGD as ADPSGD
    from grapevine.peer.strategies import DGC as DGC
    from grapevine.peer.strategies import DPSGD as DPSGD
    from grapevine.peer.strategies import Ako as Ako
    from grapevine.peer.strategies import AllReduce as AllReduce
    from grapevine.peer.strategies import DLion as DLion
    from grapevine.peer.strategies import FedAvg as FedAvg
    from grapevine.peer.strategies import Full as Full
    from grapevine.peer.strategies import Gaia as Gaia
    from grapevine.peer.strategies import ParameterServer as ParameterServer
    from grapevine.peer.strategies import Slices as Slices
    from grapevine.peer.strategies import Solo as Solo
    from grapevine.peer.strategies import Strategy as Strategy
    from grapevine.peer.strategies import TFAko as TFAko
    from grapevine.peer.wrappers import Outgoing as Outgoing
    from grapevine.peer.wrappers import Station as Station
    from grapevine.peer.wrappers import Wrapper as Wrapper
    from grapevine.topology import Schedule as Schedule
    from grapevine.topology import TimeVarying as TimeVarying
    from grapevine.topology import Topology as Topology

_NAMES = {
    "experiments.config.errors": "ConfigError",
    "experiments.config.events": (
        "CutEvent DelayEvent Event HealEvent JoinEvent KillEvent LeaveEvent LossEvent PartitionEvent PauseEvent RateEvent "
        "RestoreEvent SpeedEvent"
    ),
    "experiments.config.experiment": "Experiment",
    "experiments.config.membership": "Always Arrivals Availability Membership Open",
    "experiments.config.sections": "Processes Record Stop Virtual World",
    "experiments.config.wrappers": "Delay Drop Scale",
    "experiments.results.result": "Result",
    "experiments.run": "run",
    "experiments.study.from_python": "SweepResult TuneResult sweep tune",
    "experiments.tasks": "Bootstrap Digits Dirichlet Iid Module Partition Problem Quadratic Sampler Shards Task",
    "netem": (
        "Access Aws18 CellularNetwork DataCentre Device Devices DiurnalNetwork Dtfm10 Duration Ec2 Edges FiveG FourG "
        "Home HostDevices Lan LinkSpec MixedDevices Network NetworkPlan PausingDevices RandomWalk Rate Regions "
        "Satellite ScheduleNetwork Speed StragglingDevices ThrottlingDevices Trace TraceDevices Uniform UniformDevices "
        "Unshaped duration_ns rate_bytes_per_s speed_samples_per_s"
    ),
    "netem.networks.bottlenecks": "Bottleneck",
    "netem.networks.dlion": "Dlion DlionDevices MicroCloudNetwork",
    "netem.networks.plan": "plan_links read_link",
    "netem.networks.shaped": "Shaped",
    "peer.aggregators": "Aggregator Mean Median TrimmedMean",
    "peer.codecs": "Codec Float16 Float32 Int8 QSGD",
    "peer.expected": "Expected",
    "peer.layout": "Layout Tensor",
    "peer.ledger": "Above All Chosen Largest Ledger Next",
    "peer.message": "Message",
    "peer.optimizers": "Adam Optimizer Sgd Stepper",
    "peer.payloads": "Dense Marks Payload Sparse",
    "peer.peer": "Peer",
    "peer.spaces": "Facts Space",
    "peer.strategies": "ADPSGD Ako AllReduce DGC DLion DPSGD FedAvg Full Gaia ParameterServer Slices Solo Strategy TFAko",
    "peer.wrappers": "Outgoing Station Wrapper",
    "topology": "Schedule TimeVarying Topology",
}
"""Each module, and what is taken from it."""
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted([*_HOMES, "topology"])


def __getattr__(name: str) -> Any:
    """Import a name on its first use, so that a peer's process and `grapevine --help` load only what they need."""
    if name == "topology":
        return import_module(f"{__name__}.topology")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
