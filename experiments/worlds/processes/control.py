"""What the launcher and its children say to each other, over pipes that only they hold."""

from __future__ import annotations

import msgspec

from grapevine.netem.links.alterations import Change, Tempo

FINAL = -1
"""The index of the report that a peer makes when it has ended."""


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


class Outgoing(_Message, frozen=True):
    """One directed link as its sender saw it since the last report; rate nan = not measured."""

    target: int
    bytes: int
    messages: int
    rate_bytes_per_s: float


class Incoming(_Message, frozen=True):
    """One directed link as its receiver saw it since the last report, on the real clock; nan = nothing came.

    `delay_s` (the median) and the others are quantiles over chunks; `rate_bytes_per_s` is the rate within messages.
    """

    source: int
    delay_s: float
    delay_p99_s: float
    rate_bytes_per_s: float
    staleness_steps: float
    delay_p05_s: float = float("nan")
    delay_p95_s: float = float("nan")


class Report(_Message, frozen=True):
    """One peer at one record instant; its weights lie in the snapshots under the same index."""

    peer: int
    index: int
    time_ns: int
    step: int
    train_loss: float
    step_ns: float
    outgoing: list[Outgoing]
    incoming: list[Incoming]
    lateness_ms: list[float]
    staleness_sum: int
    staleness_count: int
    errors: dict[str, int]


class Failed(_Message, frozen=True):
    """The peer's strategy or set-up raised; its last words."""

    text: str


class Beat(_Message, frozen=True):
    """The peer lives."""


# ---- launcher to evaluator and back -------------------------------------------------------------------------------


class Evaluate(_Message, frozen=True):
    """Score the snapshot with this index."""

    index: int
    time_ns: int
    peers: list[int]


class Score(_Message, frozen=True):
    """The scores of one snapshot on the test set and on the validation set; lists go with `peers`."""

    index: int
    time_ns: int
    peers: list[int]
    losses: list[float]
    accuracies: list[float]
    accuracy_of_mean: float
    validation_losses: list[float]
    validation_accuracies: list[float]
    validation_accuracy_of_mean: float
    consensus_distance: float


class Unscored(_Message, frozen=True):
    """A snapshot was written over before it could be scored."""

    index: int


Down = Connect | Start | Lost | Alter | Stop | Exit | Evaluate
Up = Ready | Connected | Report | Failed | Beat | Score | Unscored

encode = msgspec.msgpack.Encoder().encode
decode_down = msgspec.msgpack.Decoder(Down).decode
decode_up = msgspec.msgpack.Decoder(Up).decode
