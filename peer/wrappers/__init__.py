"""What may stand between a strategy and its effects; the menu of those that come with the program is `experiments.wrappers`."""

from grapevine.peer.wrappers.base import Outgoing, Station, Wrapper

__all__ = ["Outgoing", "Station", "Wrapper"]
