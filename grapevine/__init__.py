"""A laboratory for decentralized training over emulated wide-area networks.

Everything that a user needs is imported from here: `from grapevine import Experiment, run, Strategy, Dense`. The packages
`grapevine.peer`, `grapevine.topology`, `grapevine.netem` and `grapevine.experiments` hold the parts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grapevine.experiments.config.errors import ConfigError as ConfigError
    from grapevine.experiments.config.experiment import Experiment as Experiment
    from grapevine.experiments.config.experiment import Processes as Processes
    from grapevine.experiments.config.experiment import Record as Record
    from grapevine.experiments.config.experiment import Stop as Stop
    from grapevine.experiments.config.experiment import Virtual as Virtual
    from grapevine.experiments.results.result import Result as Result
    from grapevine.experiments.run import run as run
    from grapevine.experiments.tasks import Bootstrap as Bootstrap
    from grapevine.experiments.tasks import Digits as Digits
    from grapevine.experiments.tasks import Dirichlet as Dirichlet
    from grapevine.experiments.tasks import Iid as Iid
    from grapevine.experiments.tasks import Module as Module
    from grapevine.experiments.tasks import Problem as Problem
    from grapevine.experiments.tasks import Quadratic as Quadratic
    from grapevine.experiments.tasks import Shards as Shards
    from grapevine.netem import Edges as Edges
    from grapevine.netem import HostDevices as HostDevices
    from grapevine.netem import MixedDevices as MixedDevices
    from grapevine.netem import Regions as Regions
    from grapevine.netem import Uniform as Uniform
    from grapevine.netem import UniformDevices as UniformDevices
    from grapevine.netem import Unshaped as Unshaped
    from grapevine.peer.expected import Expected as Expected
    from grapevine.peer.ledger import Above as Above
    from grapevine.peer.ledger import All as All
    from grapevine.peer.ledger import Largest as Largest
    from grapevine.peer.ledger import Next as Next
    from grapevine.peer.payloads import Dense as Dense
    from grapevine.peer.payloads import Marks as Marks
    from grapevine.peer.payloads import Payload as Payload
    from grapevine.peer.payloads import Sparse as Sparse
    from grapevine.peer.peer import Peer as Peer
    from grapevine.peer.spaces import Facts as Facts
    from grapevine.peer.spaces import Space as Space
    from grapevine.peer.strategies import Strategy as Strategy
    from grapevine.peer.wrappers import Outgoing as Outgoing
    from grapevine.peer.wrappers import Station as Station
    from grapevine.peer.wrappers import Wrapper as Wrapper

_NAMES = {
    "experiments.config.errors": "ConfigError",
    "experiments.config.experiment": "Experiment Processes Record Stop Virtual",
    "experiments.results.result": "Result",
    "experiments.run": "run",
    "experiments.tasks": "Bootstrap Digits Dirichlet Iid Module Problem Quadratic Shards",
    "netem": "Edges HostDevices MixedDevices Regions Uniform UniformDevices Unshaped",
    "peer.expected": "Expected",
    "peer.ledger": "Above All Largest Next",
    "peer.payloads": "Dense Marks Payload Sparse",
    "peer.peer": "Peer",
    "peer.spaces": "Facts Space",
    "peer.strategies": "Strategy",
    "peer.wrappers": "Outgoing Station Wrapper",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a name on its first use, so that a peer's process and `grapevine --help` load only what they need."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
