"""Solo: no exchange at all."""

from __future__ import annotations

from typing import ClassVar, Literal

from grapevine.peer.expected import Expected
from grapevine.peer.peer import Peer
from grapevine.peer.strategies.base import Strategy


class Solo(Strategy, frozen=True, tag="solo"):
    """Every peer trains alone on its own data and sends nothing: the floor of every comparison.

    Plain local SGD; there is no paper, and nothing to depart from.
    """

    shares: ClassVar[Literal["nothing", "parameters", "gradients"]] = "nothing"
    membership: ClassVar[Literal["fixed", "at-once", "by-step"]] = "at-once"

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        return ()

    async def run(self, peer: Peer) -> None:
        while peer.running:
            peer.apply(await peer.gradient())
