"""The menu of wrappers: faults in the messages that a peer sends, which are lost, late or scaled."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import Annotated

import msgspec
import numpy as np

from grapevine.netem.units import Duration, duration_ns
from grapevine.peer.payloads import Marks
from grapevine.peer.wrappers import Outgoing, Station, Wrapper


class Drop(Wrapper, frozen=True, tag="drop"):
    """A random share of the messages is never sent; strategies that wait for every neighbour then wait for ever."""

    share: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.1
    """The probability that a message is dropped; 0 to 1."""

    def sending(self, station: Station, message: Outgoing) -> Iterable[Outgoing]:
        return () if station.rng.random() < self.share else (message,)


class Delay(Wrapper, frozen=True, tag="delay"):
    """Messages leave later than the strategy sends them."""

    time: Duration = "100 ms"
    """Emulated time from sending to leaving, such as "100 ms"."""

    def sending(self, station: Station, message: Outgoing) -> Iterable[Outgoing]:
        return (message._replace(leaves_ns=message.leaves_ns + duration_ns(self.time)),)


class Scale(Wrapper, frozen=True, tag="scale"):
    """The values sent are multiplied by a factor, in spaces of float32: -1 changes their signs."""

    factor: Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)] = -1.0
    """The factor; -1,000,000 to 1,000,000."""

    def sending(self, station: Station, message: Outgoing) -> Iterable[Outgoing]:
        payload = message.payload
        if isinstance(payload, Marks) or payload.values.dtype.kind != "f":
            return (message,)
        scaled = copy(payload)
        scaled.values, scaled.known_finite = payload.values * np.float32(self.factor), None
        return (message._replace(payload=scaled),)


AnyWrapper = Drop | Delay | Scale
