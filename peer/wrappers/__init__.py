"""What may stand between a strategy and its effects; `experiments.config.wrappers` is the menu of those that are built in."""

from grapevine.peer.wrappers.base import Outgoing, Station, Wrapper

__all__ = ["Outgoing", "Station", "Wrapper"]
