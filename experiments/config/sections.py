"""The tables [world], [stop] and [record] of an experiment file."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from grapevine.netem.units import Duration, duration_ns


class World(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """The world that carries out the peers' effects."""


class Processes(World, frozen=True, tag="processes"):
    """Real time: one operating-system process a peer, messages over sockets."""

    dilation: Annotated[float, msgspec.Meta(ge=0.01, le=1000)] = 1.0
    """Real seconds for each emulated second; 0.01 to 1000; raise it if this machine is too slow for real time."""
    transport: Literal["ipc", "tcp"] = "ipc"
    """Sockets between the peers: "ipc" (files, faster) or "tcp" (the loopback interface)."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """With "tcp": the port of peer 0, the next peers have the next ports; 0 = any free ports."""

    realtime: bool = True
    """Whether peers of a shaped network ask for real-time priority: their links stay exact while the cores are busy, and other
    programs have to wait; never done under `nice` (`nice grapevine run ...`)."""

    def __post_init__(self) -> None:
        if self.port and self.transport != "tcp":
            raise ValueError(f'port = {self.port}: "ipc" has no ports; leave port out, or set transport = "tcp"')


class Virtual(World, frozen=True, tag="virtual"):
    """Virtual time: all peers in one process; the same seed gives the same bytes."""


AnyWorld = Processes | Virtual


class Stop(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The end of a run: as soon as one of these is reached; `time` or `steps` is needed, so that every run ends."""

    time: Duration | None = None
    """Emulated time, such as "60 s"; more than 0, at most ten years."""
    steps: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] | None = None
    """Steps of each peer; 1 to 10^9."""
    accuracy: Annotated[float, msgspec.Meta(gt=0.0, le=1.0, extra={"hint": "a share: 0.9 is 90 %"})] | None = None
    """Mean validation accuracy of the peers at a record, a share: 0 < accuracy <= 1, such as 0.9 for 90 %."""

    def __post_init__(self) -> None:
        if self.time is None and self.steps is None:
            raise ValueError('needs time or steps, or the run would not end; write for example steps = 500 or time = "60 s"')
        if self.time is not None and duration_ns(self.time) == 0:
            raise ValueError(f"time: {self.time!r} is too short; write for example '60 s'")


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The records of a run: how often, and whether it gets a page."""

    every: Duration = "1 s"
    """Emulated time between two records, such as "1 s"; 1 ms or more, and at most a million records until stop.time."""
    report: bool = True
    """Whether the run writes its page `report.html` (5 MB); `grapevine report DIR` writes it later."""

    def __post_init__(self) -> None:
        if duration_ns(self.every) < 1_000_000:
            raise ValueError(f"every: {self.every!r} is too short: expected 1 ms or more, such as '1 s'")
