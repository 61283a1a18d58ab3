"""No exchange at all: every peer trains alone on its own data.  The floor that every other strategy has to beat.

When: never.  What: nothing.  Whom: nobody.  How: plain local SGD.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from grapevine.peer.expected import Expected
from grapevine.peer.peer import Peer
from grapevine.peer.strategies.base import Strategy


class Solo(Strategy, frozen=True, tag="solo"):
    """No exchange: every peer trains alone (the floor)."""

    shares: ClassVar[Literal["nothing", "parameters", "gradients"]] = "nothing"
    membership: ClassVar[Literal["fixed", "at-once", "by-step"]] = "at-once"

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        return ()

    async def run(self, peer: Peer) -> None:
        while peer.running:
            peer.apply(await peer.gradient())
