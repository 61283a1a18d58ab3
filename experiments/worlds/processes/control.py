"""What the launcher and its children say to each other, over pipes that only they hold."""

from __future__ import annotations

import msgspec

from grapevine.experiments.worlds.peer_report import Report
from grapevine.experiments.worlds.scoring import Evaluate, Score
from grapevine.netem.links.alterations import Change, Tempo


class _Message(msgspec.Struct, array_like=True, tag=True, frozen=True):
    pass


# ---- launcher to peer ---------------------------------------------------------------------------------------------


class Connect(_Message, frozen=True):
    """Where the neighbours listen."""

    addresses: dict[int, str]


class Start(_Message, frozen=True):
    """The start barrier: emulated time begins at this instant of CLOCK_MONOTONIC."""

    epoch_ns: int


class Lost(_Message, frozen=True):
    """A peer is gone."""

    peer: int


class Stop(_Message, frozen=True):
    """End the training."""


class Exit(_Message, frozen=True):
    """End the process."""


class LinkState(msgspec.Struct, array_like=True, frozen=True):
    """One link: what its line is by itself, and all that happens to it, since the start and, as far as it is known, to come."""

    rate_bytes_per_s: float
    delay_ns: int
    loss: float
    capped: bool
    """Whether delay and loss leave less of the rate (netem.networks.plan.capped_rate)."""
    changes: list[Change]


class Alter(_Message, frozen=True):
    """Something happens that this peer's links (by neighbour) and device did not know of."""

    links: dict[int, LinkState]
    tempos: list[Tempo] | None = None

    def followed_by(self, other: Alter) -> Alter:
        """What both say, one after the other."""
        return Alter({**self.links, **other.links}, self.tempos if other.tempos is None else other.tempos)


# ---- peer to launcher ---------------------------------------------------------------------------------------------


class Ready(_Message, frozen=True):
    """Where this peer listens."""

    address: str


class Connected(_Message, frozen=True):
    """Everything is set up; the peer waits for the start."""


class Failed(_Message, frozen=True):
    """The peer's strategy or set-up raised; its last words."""

    text: str


class Beat(_Message, frozen=True):
    """The peer lives."""


# ---- launcher to evaluator and back -------------------------------------------------------------------------------


class Unscored(_Message, frozen=True):
    """A snapshot was written over before it could be scored."""

    index: int


Down = Connect | Start | Lost | Alter | Stop | Exit | Evaluate
Up = Ready | Connected | Report | Failed | Beat | Score | Unscored

encode = msgspec.msgpack.Encoder().encode
decode_down = msgspec.msgpack.Decoder(Down).decode
decode_up = msgspec.msgpack.Decoder(Up).decode
