"""The menu of devices: a step takes a fixed overhead and a time for each sample."""

from typing import Annotated

import msgspec

from grapevine.netem.devices.device import Device, Devices
from grapevine.netem.devices.varying import PausingDevices, StragglingDevices, ThrottlingDevices, TraceDevices
from grapevine.netem.networks.dlion import DlionDevices
from grapevine.netem.units import Duration, Speed, duration_ns, read, speed_samples_per_s


class HostDevices(Devices, frozen=True, kw_only=True, tag="host"):
    """Every peer as fast as this machine: no emulation."""

    def plan(self, peers: int, seed: int = 0) -> list[Device]:
        return [Device()] * peers


class UniformDevices(Devices, frozen=True, kw_only=True, tag="uniform"):
    """Every peer at the same speed."""

    speed: Speed
    """Samples a second, such as "2000 samples/s", or the time of one, such as "0.5 ms/sample"; more than 0."""
    overhead: Duration = "0 s"
    """Fixed cost of a step, such as "2 ms"; 0 or more."""

    def __post_init__(self) -> None:
        self.plan(1)

    def plan(self, peers: int, seed: int = 0) -> list[Device]:
        device = Device(read("speed", speed_samples_per_s, self.speed), read("overhead", duration_ns, self.overhead))
        return [device] * peers


class MixedDevices(Devices, frozen=True, kw_only=True, tag="mixed"):
    """Peers at unequal speeds: a list, cycled over the peers."""

    speeds: Annotated[tuple[Speed, ...], msgspec.Meta(min_length=1)]
    """Samples a second, such as ["2000 samples/s", "500 samples/s"]; each more than 0; cycled over the peers."""
    overhead: Duration = "0 s"
    """Fixed cost of a step, such as "2 ms"; 0 or more; the same for every peer."""

    def __post_init__(self) -> None:
        if not self.speeds:
            raise ValueError('speeds: the list is empty: expected one or more, for example ["2000 samples/s", "500 samples/s"]')
        self.plan(len(self.speeds))

    def plan(self, peers: int, seed: int = 0) -> list[Device]:
        overhead_ns = read("overhead", duration_ns, self.overhead)
        kinds = [Device(read("speeds", speed_samples_per_s, speed), overhead_ns) for speed in self.speeds]
        return [kinds[peer % len(kinds)] for peer in range(peers)]


AnyDevices = (
    HostDevices
    | UniformDevices
    | MixedDevices
    | TraceDevices
    | StragglingDevices
    | PausingDevices
    | ThrottlingDevices
    | DlionDevices
)
