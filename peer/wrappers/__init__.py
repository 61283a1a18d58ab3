"""The base of wrappers, which stand between a strategy and its world; `experiments.config.wrappers` has the built-in ones."""

from grapevine.peer.wrappers.base import Outgoing, Station, Wrapper

__all__ = ["Outgoing", "Station", "Wrapper"]
