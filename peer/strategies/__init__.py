"""The menu of strategies: one file a paper."""

from peer.strategies.ako import Ako
from peer.strategies.base import Strategy
from peer.strategies.dpsgd import DPSGD
from peer.strategies.full import Full
from peer.strategies.slices import Slices
from peer.strategies.solo import Solo

AnyStrategy = Solo | DPSGD | Full | Ako | Slices

__all__ = ["DPSGD", "Ako", "AnyStrategy", "Full", "Slices", "Solo", "Strategy"]
