"""The built-in strategies: one file for each paper."""

from grapevine.peer.strategies.adpsgd import ADPSGD
from grapevine.peer.strategies.ako import Ako
from grapevine.peer.strategies.all_reduce import AllReduce
from grapevine.peer.strategies.base import Strategy
from grapevine.peer.strategies.dgc import DGC
from grapevine.peer.strategies.dlion import DLion
from grapevine.peer.strategies.dpsgd import DPSGD
from grapevine.peer.strategies.fedavg import FedAvg
from grapevine.peer.strategies.full import Full
from grapevine.peer.strategies.gaia import Gaia
from grapevine.peer.strategies.parameter_server import ParameterServer
from grapevine.peer.strategies.slices import Slices
from grapevine.peer.strategies.solo import Solo
from grapevine.peer.strategies.tfako import TFAko

AnyStrategy = (
    Solo | DPSGD | Full | AllReduce | ParameterServer | FedAvg | ADPSGD | Ako | TFAko | DLion | Gaia | DGC | Slices
)  # fmt: skip

__all__ = [
    "ADPSGD",
    "DGC",
    "DPSGD",
    "Ako",
    "AllReduce",
    "AnyStrategy",
    "DLion",
    "FedAvg",
    "Full",
    "Gaia",
    "ParameterServer",
    "Slices",
    "Solo",
    "Strategy",
    "TFAko",
]
