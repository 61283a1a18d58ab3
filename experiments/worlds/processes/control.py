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


class Prepare(_Message, frozen=True):
    """Members will change from one step on: say at which step you are, and begin none after the next before Go."""


class Go(_Message, frozen=True):
    """Go on: all that changes is said."""


class Row(_Message, frozen=True):
    """With whom to average and by how much, from a step on or (None) at once; `living` are all members, `joiner` is a new one
    among the neighbours, which has taken the weights of `givers`."""

    step: int | None
    weights: dict[int, float]
    living: list[int]
    joiner: int | None = None
    givers: dict[int, int] = {}
    """And the step of the newest message of this peer that each of them had taken in by then."""


class Invite(_Message, frozen=True):
    """To an absent peer: take weights over from one of these; with a step the peer is a member from it on."""

    weights: dict[int, float]
    living: list[int]
    step: int | None = None


class Entered(_Message, frozen=True):
    """To a peer that has weights: it is a member from this step on; `leaves`: and is to leave again."""

    step: int
    weights: dict[int, float]
    living: list[int]
    leaves: bool = False


class Depart(_Message, frozen=True):
    """Leave, at a step or (None) at once."""

    step: int | None


class Parted(_Message, frozen=True):
    """To a peer that takes weights over: another gives none any more."""

    peer: int


# ---- peer to launcher ---------------------------------------------------------------------------------------------


class Ready(_Message, frozen=True):
    """Where this peer listens."""

    address: str


class Connected(_Message, frozen=True):
    """Everything is set up; the peer waits for the start."""


class Held(_Message, frozen=True):
    """The answer to Prepare."""

    peer: int
    step: int


class Gone(_Message, frozen=True):
    """This peer is absent: it has left, and all that it sent has arrived, or it has not joined yet."""

    peer: int


class Fetched(_Message, frozen=True):
    """This peer has taken weights over, of these peers and of that step, and may be a member."""

    peer: int
    givers: list[int]
    step: int


class Gave(_Message, frozen=True):
    """This peer begins to give its weights to another; they hold its neighbours' messages until these steps."""

    peer: int
    joiner: int
    taken: dict[int, int]


class Wish(_Message, frozen=True):
    """This peer's strategy wants to leave, for a duration or for good."""

    peer: int
    duration_ns: int | None


class Failed(_Message, frozen=True):
    """The peer's strategy or set-up raised; its last words."""

    text: str


class Beat(_Message, frozen=True):
    """The peer lives."""


# ---- launcher to evaluator and back -------------------------------------------------------------------------------


class Unscored(_Message, frozen=True):
    """A snapshot was written over before it could be scored."""

    index: int


Turnover = Prepare | Go | Row | Invite | Entered | Depart | Parted
"""What the launcher says of members."""
Down = Connect | Start | Lost | Alter | Turnover | Stop | Exit | Evaluate
Up = Ready | Connected | Report | Held | Gone | Fetched | Gave | Wish | Failed | Beat | Score | Unscored

encode = msgspec.msgpack.Encoder().encode
decode_down = msgspec.msgpack.Decoder(Down).decode
decode_up = msgspec.msgpack.Decoder(Up).decode
