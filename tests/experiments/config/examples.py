"""An experiment file that sets most keys, and a strategy of a user's own."""

from __future__ import annotations

from typing import Annotated

import msgspec

from grapevine.peer.peer import Peer
from grapevine.peer.strategies import Strategy

FULL = """
name = "slices-on-four-regions"
seed = 7
peers = 8

[world]
name = "processes"
dilation = 2
[topology]
name = "random-regular"
degree = 4
[network]
name = "uniform"
rate = "20 Mbit/s"
delay = "40 ms"
[devices]
name = "mixed"
speeds = ["2000 samples/s", "500 samples/s"]
[task]
name = "digits"
batch_size = 16
[partition]
name = "dirichlet"
alpha = 0.3
[strategy]
name = "slices"
fill = 0.5
[codec]
name = "int8"
[aggregator]
name = "mean"
[optimizer]
name = "sgd"
momentum = 0.9
[stop]
time = "60 s"
accuracy = 0.9
[record]
every = "500 ms"
"""


class Mine(Strategy, frozen=True):
    """A user's own strategy."""

    pace: Annotated[float, msgspec.Meta(le=1.0)] = 0.5
    inner: msgspec.Struct | None = None

    async def run(self, peer: Peer) -> None:
        while peer.running:
            peer.apply(await peer.gradient())
