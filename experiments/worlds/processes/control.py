"""The messages between the launcher and its children, over pipes that only they hold."""

from __future__ import annotations

import msgspec

from grapevine.experiments.worlds.peer_report import Report
from grapevine.experiments.worlds.scoring import Evaluate, Score
from grapevine.netem.links.alterations import Change, Tempo


class _Message(msgspec.Struct, array_like=True, tag=True, frozen=True):
    pass


# ---- launcher to peer ---------------------------------------------------------------------------------------------


class Connect(_Message, frozen=True):
    """The addresses on which the neighbours listen."""

    addresses: dict[int, str]


class Start(_Message, frozen=True):
    """The start barrier: emulated time begins at this instant of CLOCK_MONOTONIC."""

    epoch_ns: int


class Lost(_Message, frozen=True):
    """A peer is lost."""

    peer: int


class Stop(_Message, frozen=True):
    """End the training."""


class Exit(_Message, frozen=True):
    """End the process."""


class Where(_Message, frozen=True):
    """Answer with the place of the code that runs now."""


class LinkState(msgspec.Struct, array_like=True, frozen=True):
    """One link without alterations, and all its alterations since the start: those that have happened and those planned."""

    rate_bytes_per_s: float
    delay_ns: int
    loss: float
    capped: bool
    """Whether delay and loss reduce the rate (netem.networks.plan.capped_rate)."""
    changes: list[Change]


class Alter(_Message, frozen=True):
    """New alterations of this peer's links (by neighbour) and device, such as those of a poke."""

    links: dict[int, LinkState]
    tempos: list[Tempo] | None = None

    def followed_by(self, other: Alter) -> Alter:
        """Return one message with the effect of this one and then the other."""
        return Alter({**self.links, **other.links}, self.tempos if other.tempos is None else other.tempos)


class Prepare(_Message, frozen=True):
    """Members will change from one step on: the peer answers with its step, and begins no step after its next one before Go."""


class Go(_Message, frozen=True):
    """The changes are complete: the peer goes on."""


class Row(_Message, frozen=True):
    """The neighbours with their mixing weights, from a step on or (None) at once; `living` are all members, `joiner` is a new
    neighbour, which has taken over the weights of `givers`."""

    step: int | None
    weights: dict[int, float]
    living: list[int]
    joiner: int | None = None
    givers: dict[int, int] = {}
    """Giver -> step of the newest message of this peer that the giver had taken in by then."""


class Invite(_Message, frozen=True):
    """To an absent peer: take weights over from one of these neighbours; with a step the peer is a member from it on."""

    weights: dict[int, float]
    living: list[int]
    step: int | None = None


class Entered(_Message, frozen=True):
    """To a peer that has taken weights over: it is a member from this step on; `leaves`: and leaves again at once."""

    step: int
    weights: dict[int, float]
    living: list[int]
    leaves: bool = False


class Depart(_Message, frozen=True):
    """Leave, at a step or (None) at once."""

    step: int | None


class Parted(_Message, frozen=True):
    """To a peer that takes weights over: the peer `peer` gives it none."""

    peer: int


# ---- peer to launcher ---------------------------------------------------------------------------------------------


class Ready(_Message, frozen=True):
    """The address on which this peer listens."""

    address: str


class Connected(_Message, frozen=True):
    """Everything is set up; the peer waits for the start."""


class Held(_Message, frozen=True):
    """The answer to Prepare."""

    peer: int
    step: int


class Gone(_Message, frozen=True):
    """This peer is absent: it has left and all its messages have arrived, or it has not joined yet."""

    peer: int


class Fetched(_Message, frozen=True):
    """This peer has taken over the weights of these peers, at this step, and may become a member."""

    peer: int
    givers: list[int]
    step: int


class Gave(_Message, frozen=True):
    """This peer begins to give its weights to `joiner`; they include its neighbours' messages up to the steps `taken`."""

    peer: int
    joiner: int
    taken: dict[int, int]


class Wish(_Message, frozen=True):
    """This peer's strategy asks to leave, for a duration or (None) for ever."""

    peer: int
    duration_ns: int | None


class Failed(_Message, frozen=True):
    """The peer's strategy or set-up raised; `text` is the traceback."""

    text: str


class Here(_Message, frozen=True):
    """The answer to Where: the stack of the peer's main thread as text, in the form of a traceback."""

    text: str


class Remark(_Message, frozen=True):
    """A warning for the run."""

    text: str


class Beat(_Message, frozen=True):
    """A sign of life."""


# ---- launcher to evaluator and back -------------------------------------------------------------------------------


class Unscored(_Message, frozen=True):
    """A snapshot was overwritten before it could be scored."""

    index: int


Turnover = Prepare | Go | Row | Invite | Entered | Depart | Parted
"""The launcher's messages about members."""
Down = Connect | Start | Lost | Alter | Turnover | Stop | Exit | Where | Evaluate
Up = Ready | Connected | Report | Held | Gone | Fetched | Gave | Wish | Failed | Here | Remark | Beat | Score | Unscored

encode = msgspec.msgpack.Encoder().encode
decode_down = msgspec.msgpack.Decoder(Down).decode
decode_up = msgspec.msgpack.Decoder(Up).decode
