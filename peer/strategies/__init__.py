"""The menu of strategies: one file a paper."""

from peer.strategies.adpsgd import ADPSGD
from peer.strategies.ako import Ako
from peer.strategies.all_reduce import AllReduce
from peer.strategies.base import Strategy
from peer.strategies.dgc import DGC
from peer.strategies.dlion import DLion
from peer.strategies.dpsgd import DPSGD
from peer.strategies.fedavg import FedAvg
from peer.strategies.full import Full
from peer.strategies.gaia import Gaia
from peer.strategies.parameter_server import ParameterServer
from peer.strategies.slices import Slices
from peer.strategies.solo import Solo
from peer.strategies.tfako import TFAko

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
