"""The neighbours of a peer: which they are at a step, how much each counts, and what the link to each can take."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Protocol

from grapevine.peer.calls import Calls
from grapevine.peer.codecs import Codec
from grapevine.peer.message import Message
from grapevine.peer.meter import MEASURING_BYTES, LinkMeter, SpeedMeter
from grapevine.peer.spaces import MODEL, Spaces
from grapevine.peer.wire import HEADER_BYTES

OVERHEAD_BYTES = HEADER_BYTES + 64
"""Bytes of a message besides its numbers: the header of one chunk, and the head."""
MEASURED_BODY_BYTES = 512
"""The least bytes of numbers that make a message worth sending: a strategy may cut it into parts that still measure a rate."""
LEAST_HORIZON_NS = 20_000_000
"""The shortest time for which messages are sent ahead: a step may take no time at all."""


class Rounds(Protocol):
    """The exchanges of each round, for graphs that change or have one-way links; a round is a peer's step."""

    def targets(self, t: int, peer: int) -> list[int]:
        """Return the peers that a peer sends to in round t, ascending."""

    def weights(self, t: int, peer: int) -> dict[int, float]:
        """Return W_ij of round t for each peer j that a peer i receives from, by j, ascending."""


class Neighbourhood(Calls):
    """The part of a `Peer` that knows its neighbours and its links to them; rates and delays are measured, never configured."""

    id: int
    neighbours: list[int]
    mixing: dict[int, float]
    rounds: Rounds | None
    spaces: Spaces
    speed: SpeedMeter
    step: int
    meters: Mapping[int, LinkMeter]

    @property
    def horizon_ns(self) -> float:
        """The time that one exchange should fill: a step as measured, at least 20 ms."""
        return max(self.speed.step_ns, LEAST_HORIZON_NS)

    @property
    def targets(self) -> list[int]:
        """The neighbours that this peer sends to at its present step: all of them, unless `rounds` are given."""
        if self.rounds is None:
            return self.neighbours
        return [target for target in self.rounds.targets(self.step, self.id) if target in self.mixing]

    def sources(self, step: int) -> list[int]:
        """Return the neighbours that this peer receives from at a step: all of them, unless `rounds` are given."""
        if self.rounds is None:
            return self.neighbours
        return [source for source in self.rounds.weights(step, self.id) if source in self.mixing]

    def weight(self, message: Message) -> float:
        """Return W_ij for the sender j of a message at the step at which it was sent; 0 if the graph has no such link then."""
        if self.rounds is None:
            return self.mixing.get(message.source, 0.0)
        return self.rounds.weights(message.step, self.id).get(message.source, 0.0)

    def room(self, neighbour: int, fill: float = 1.0, index_bytes: int = 0, least: int = 1, space: str = MODEL) -> int:
        """Return the number of elements that the link to a neighbour can take now, used at the share `fill` of its rate.

        At most the whole vector of the space.  `index_bytes` is the cost of each element's index: 4 for chosen elements, 0
        for a range.  The answer is 0 if fewer than `least` elements fit, or so few bytes that the message would measure no
        rate (else a link once measured too slow would never be measured again); the link then saves its room up until they
        fit.  It is 0 for a neighbour that is lost, too.
        """
        self._count()
        if neighbour not in self.mixing:
            return 0
        _, (_, size, _), codec = self.spaces.find(space)
        meter = self.meters[neighbour]
        whole_bytes = codec.body_bytes(size) + index_bytes * size
        enough_bytes = min(whole_bytes, max(MEASURED_BODY_BYTES, codec.body_bytes(least) + index_bytes * least))
        meter.least_bytes = max(MEASURING_BYTES, 2 * OVERHEAD_BYTES + enough_bytes)
        room_bytes = meter.room_bytes(self.instant_ns, self.horizon_ns, fill) - OVERHEAD_BYTES
        if room_bytes < enough_bytes:
            return 0
        count = min(size, _fitting(codec, room_bytes, index_bytes))
        return count if count >= least else 0

    def rate_bytes_per_s(self, neighbour: int) -> float | None:
        """Return the measured rate of the link to a neighbour; None before a measurement, inf where nothing limits it."""
        self._count()
        if neighbour not in self.mixing:
            return None
        meter = self.meters[neighbour]
        meter.look(self.instant_ns)
        return meter.rate_bytes_per_s

    def idle(self, neighbour: int) -> bool:
        """Whether all messages to a neighbour have been acknowledged."""
        self._count()
        return neighbour in self.mixing and not self.meters[neighbour].in_flight_bytes

    def free(self, neighbour: int) -> bool:
        """Whether all messages to a neighbour have left, by the link's measured rate; they may not have arrived yet."""
        self._count()
        return neighbour in self.mixing and self.meters[neighbour].busy_ns(self.instant_ns) == 0.0

    def save_up(self, neighbour: int, steps: float) -> None:
        """Let the link to a neighbour save room up over a number of steps (at least 1), so that one larger message can go."""
        if neighbour in self.mixing:
            self.meters[neighbour].patience = max(1.0, steps)


def _fitting(codec: Codec, room_bytes: float, index_bytes: int) -> int:
    """Return the largest number of elements that fit into a number of bytes, each with its index."""
    if not index_bytes or room_bytes <= 0 or room_bytes == inf:
        return codec.elements(room_bytes)
    count = codec.elements(room_bytes / (1 + index_bytes / (codec.body_bytes(4096) / 4096)))
    while count and index_bytes * count + codec.body_bytes(count) > room_bytes:
        count -= 1  # a codec's size is linear except for its blocks: a few at most
    return count
