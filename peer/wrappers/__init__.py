"""The menu of wrappers: what may stand between a strategy and its effects."""

from grapevine.peer.wrappers.base import Outgoing, Station, Wrapper
from grapevine.peer.wrappers.faults import Delay, Drop, Scale

AnyWrapper = Drop | Delay | Scale

__all__ = ["AnyWrapper", "Delay", "Drop", "Outgoing", "Scale", "Station", "Wrapper"]
