"""The peer as its strategy sees it: its weights, step, messages, ledgers and mixing; and what a world does to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from math import ceil, inf
from typing import Any, Protocol

import numpy as np

from grapevine.peer.aggregators import Aggregator, Mean
from grapevine.peer.blas import add_scaled
from grapevine.peer.calls import CALLS_OF_A_SEND
from grapevine.peer.codecs import Codec, Float32
from grapevine.peer.effects import Leave, Receive, Send, Sleep
from grapevine.peer.endpoint import Arrival
from grapevine.peer.expected import Expected
from grapevine.peer.inbox import Inbox
from grapevine.peer.joiner_debts import JoinerDebts
from grapevine.peer.layout import Layout, Tensor, lay
from grapevine.peer.ledger import Ledger, Pick
from grapevine.peer.message import Message, Staleness
from grapevine.peer.meter import LinkMeter, SpeedMeter
from grapevine.peer.neighbourhood import LEAST_HORIZON_NS, Neighbourhood, Rounds
from grapevine.peer.optimizers import Optimizer, Sgd
from grapevine.peer.payloads import Dense, Parcel, Payload, Sparse, encode
from grapevine.peer.spaces import MODEL, Space, Spaces
from grapevine.peer.work import Worker

SENT_EMPTY = "sent-empty"
"""The kind of error by which `errors` counts messages that left without values, because this peer made them not finite."""
LEAST_WAIT_NS = 100_000  # measured times are not more exact than this
CODEC_STREAM = 0xC0DEC  # keeps the codecs' random numbers apart from all others of a peer
MOST_NOTES, NOTE_CHARACTERS = 64, 64


class Runs(Protocol):
    """A strategy, as its peer needs it."""

    def run(self, peer: Any) -> Coroutine[Any, Any, None]:
        """Train until `peer.running` is false."""


class Peer(Worker, Neighbourhood):
    """One peer of the fleet, as its strategy sees it.

    The verbs about gradients and other work are those of `Worker`, those about neighbours and links of `Neighbourhood`.

    - `weights`: float32 [size].  They belong to the strategy, except while it awaits a gradient.
    - `layout`: the names, shapes and places of the tensors in `weights`, in order and without gaps; it never changes.
    - `mixing`: W_ij by neighbour j; the rest of the row is this peer's own weight.  If `rounds` are given, `neighbours` and
      `mixing` hold every peer with which this one ever has a link, with the weights of the first round; use `targets`,
      `sources` and `weight(message)` for the weights of a step.
    - `mass`: the peer's push-sum mass; None without push-sum, where W alone keeps the mean of the fleet.
    - `batch_size`: samples of a gradient; the strategy may change it.
    - `data_samples`: training samples of this peer (0 = not known); `held_out_samples`: samples that it keeps apart from them.
    - `spaces`: the vectors that may travel: the model, and those that the strategy declares.
    - `codec_rng`: the stream of random numbers of the codec alone; `rng`: that of the strategy.
    - `notes`: the strategy's last decisions by name (see `note`); each record holds them.
    - `errors`: messages that were dropped, by kind of error: they could not be read, or had none of the forms in `expected`.
    - `members_change`: whether peers may join and leave; `member`: whether this peer is a member now; `first_step`: the steps
      before this one that it did not make itself, because it joined with the weights of others.
    """

    def __init__(  # noqa: PLR0913 - the parts of a peer
        self,
        identity: int,
        peers: int,
        mixing: dict[int, float],
        weights: np.ndarray,
        batch_size: int = 32,
        codec: Codec | None = None,
        aggregator: Aggregator | None = None,
        optimizer: Optimizer | None = None,
        steps_limit: int | None = None,
        rng: np.random.Generator | None = None,
        data_samples: int = 0,
        rounds: Rounds | None = None,
        push_sum: bool = False,
        layout: Sequence[Tensor] | None = None,
        held_out_samples: int = 0,
        spaces: Sequence[Space] = (),
        codec_rng: np.random.Generator | None = None,
    ) -> None:
        self.id = identity
        self.peers = peers
        self.neighbours = sorted(mixing)
        self.mixing = dict(mixing)
        self._weights = weights
        self.size = len(weights)
        self.layout = Layout(layout or lay([("weights", (self.size,))]))
        self.batch_size = batch_size
        self.codec: Codec = codec or Float32()
        self.codec_rng = codec_rng or np.random.default_rng([0, CODEC_STREAM, identity])
        self.spaces = Spaces(self.size, self.codec, spaces)
        self.aggregator: Aggregator = aggregator or Mean()
        self.optimizer: Optimizer = optimizer or Sgd()
        self.stepper = self.optimizer.start(self.size)
        self.steps_limit = steps_limit
        self.rng = rng or np.random.default_rng([0, identity])
        self.data_samples = data_samples
        self.held_out_samples = held_out_samples
        self.rounds = rounds
        self.mass: float | None = 1.0 if push_sum else None
        self._unsent: np.ndarray | None = None  # with push-sum: what rounding kept back, times mass, float32 [size]
        self.notes: dict[str, float] = {}
        self._allow_calls(len(self.neighbours))
        self.step = 0
        self.samples = 0
        self.stopped = False
        self.loss = float("nan")  # of the last minibatch
        self.loss_sum = 0.0
        self.loss_count = 0
        self.speed = SpeedMeter()
        self.meters: Mapping[int, LinkMeter] = {}
        self.staleness: dict[int, Staleness] = {neighbour: Staleness() for neighbour in self.neighbours}
        self.errors: Counter[str] = Counter()
        self.ledgers: dict[str, Ledger] = {}  # by space
        self.members_change = False
        self.may_leave = False
        self.member = True
        self.first_step = 0
        self.departures = 0  # of neighbours, for good or for a time
        self.renew_expected: Callable[[], None] = _nothing
        """The world's function that asks the strategy again which forms of message it expects."""
        self.inbox = Inbox(self.spaces, self.errors)
        self.joiner_debts = JoinerDebts(self.errors)
        self._leaves_at: int | None = None

    # ---- what a strategy asks -------------------------------------------------------------------------------------

    @property
    def weights(self) -> np.ndarray:
        """float32 [size]; an assignment copies the new values into this array, and raises ValueError for another shape."""
        return self._weights

    @weights.setter
    def weights(self, weights: np.ndarray) -> None:
        if np.shape(weights) != self._weights.shape:
            raise ValueError(f"weights have the shape {list(np.shape(weights))}: [{self.size}] is needed, as peer.weights have")
        self._weights[:] = weights  # the array is the world's: it computes gradients and saves results from it

    @property
    def running(self) -> bool:
        """Whether to go on: false once the world stops the peer, and at the experiment's number of steps."""
        self._count()
        if self.stopped or (self._leaves_at is not None and self.step >= self._leaves_at):
            return False
        return self.steps_limit is None or self.step < self.steps_limit

    @property
    def leaving(self) -> bool:
        """Whether this peer is to leave at its present step: it sends what it still owes, and waits for no message any more."""
        return self._leaves_at is not None and self.step >= self._leaves_at

    def new_ledger(self, space: str = MODEL) -> Ledger:
        """Return a new ledger over all neighbours for one space; a lost neighbour's account is dropped without the strategy.

        Raises ValueError for a space of whole numbers: codecs round a debt, and these spaces travel exactly.
        """
        _, found, _ = self.spaces.find(space)
        if not found.floats:
            raise ValueError(f"space {space!r} holds {found.dtype}, and ledgers are for float32; send its values whole")
        self.ledgers[space] = Ledger(found.size, self.neighbours, space)
        return self.ledgers[space]

    @property
    def ledger(self) -> Ledger | None:
        """The model's ledger; None if the strategy has made none."""
        return self.ledgers.get(MODEL)

    @ledger.setter
    def ledger(self, ledger: Ledger) -> None:
        self.ledgers[MODEL] = ledger

    def note(self, name: str, value: float) -> None:
        """Keep a decision of the strategy, such as a threshold; each record holds it as the metric `notes.NAME`.

        Raises ValueError beyond 64 names, and for a name of more than 64 characters.
        """
        if len(name) > NOTE_CHARACTERS or (name not in self.notes and len(self.notes) >= MOST_NOTES):
            raise ValueError(
                f"note {name[:NOTE_CHARACTERS]!r} is one too many or its name is too long; a peer keeps at most {MOST_NOTES} "
                f"notes, with names of at most {NOTE_CHARACTERS} characters"
            )
        self.notes[name] = float(value)

    # ---- what a strategy awaits -----------------------------------------------------------------------------------

    async def send(self, neighbour: int, payload: Payload, scalars: tuple[float, ...] = ()) -> np.ndarray:
        """Queue a message to a neighbour; return its values as the neighbour will read them (float32, or the space's dtype).

        If a value is not finite, the message goes without elements, and the given values are returned.  A message to a lost
        neighbour goes nowhere.  Raises ValueError for a peer that never was a neighbour, for a space that was not declared, and
        for elements that are not in it or whose indices do not ascend.
        """
        self._count(CALLS_OF_A_SEND)
        if neighbour not in self.staleness:
            raise ValueError(f"peer {neighbour} is not a neighbour of peer {self.id}; its neighbours are {self.neighbours}")
        parcel, read = self._parcel(payload, scalars)
        await Send((neighbour,), parcel)
        return read

    async def broadcast(self, payload: Payload, scalars: tuple[float, ...] = ()) -> np.ndarray:
        """Queue one message to all of `targets`, encoded once; as `send`."""
        self._count(CALLS_OF_A_SEND)
        parcel, read = self._parcel(payload, scalars)
        targets = self.targets
        if targets:
            await Send(tuple(targets), parcel)
        return read

    async def broadcast_model(self) -> np.ndarray:
        """Queue the whole model to all of `targets` in the form that `mix` takes; return its values as they will be read.

        With push-sum each message carries an equal share of this peer's mass, and one share stays here (Kempe, Dobra and
        Gehrke 2003, FOCS, protocol 1).
        """
        if self.mass is None:
            return await self.broadcast(Dense(self._weights))
        targets = len(self.targets)
        share = self.mass / (1 + targets)
        own = await self.broadcast(Dense(self._weights), (share,))
        self.mass = share
        if not self.codec.lossless and targets:
            kept = np.float32(targets * share) * (self._weights - own)
            self._unsent = kept if self._unsent is None else self._unsent + kept
        return own

    async def pay(self, neighbour: int, pick: Pick, scalars: tuple[float, ...] = (), space: str = MODEL) -> Dense | Sparse:
        """Send a neighbour a part of its debt in the space's ledger; return the part as the neighbour will read it.

        What the codec's rounding loses stays owed.
        """
        ledger = self.ledgers.get(space)
        assert ledger is not None, "call new_ledger first"
        payload = ledger.take(neighbour, pick)
        read = await self.send(neighbour, payload, scalars)
        if not self.codec.lossless:
            ledger.refund(neighbour, payload, read)
            payload.values = read
        if self.members_change and space == MODEL:
            self.joiner_debts.paid(neighbour, self.step, payload, self.size)
        return payload

    async def sleep(self, duration_ns: int) -> None:
        """Let a duration (emulated ns) pass."""
        self._count()
        await Sleep(self.instant_ns + duration_ns)

    async def drain(self, neighbour: int) -> None:
        """Wait until all messages to a neighbour have left, by the link's measured rate, or until the peer is stopped."""
        while self.running and neighbour in self.mixing and not self.free(neighbour):
            busy_ns = self.meters[neighbour].busy_ns(self.instant_ns)
            await self.sleep(max(LEAST_WAIT_NS, ceil(busy_ns)) if busy_ns is not None else LEAST_HORIZON_NS)

    async def receive(self, deadline_ns: int | None = None) -> Message | None:
        """Wait for the next message in order of arrival; None if a neighbour is lost, or at the deadline (emulated ns)."""
        self._count()
        before = self.departures
        while True:
            if (message := self.inbox.take(self.mixing)) is not None:
                self._used(message)
                return message
            if self.departures > before or not self.neighbours:
                return None
            if deadline_ns is not None and self.instant_ns >= deadline_ns:
                return None
            await Receive(deadline_ns=deadline_ns)

    async def expect(self, source: int) -> Message | None:
        """Wait for the next message of one neighbour; others' messages stay.  None if any neighbour is lost meanwhile."""
        self._count()
        before = self.departures
        while source in self.mixing and self.departures == before:
            if (message := self.inbox.take_from(source)) is not None:
                self._used(message)
                return message
            await Receive()
        return None

    def arrived(self) -> list[Message]:
        """Return all messages that have arrived and were not taken yet, in order of arrival; do not wait."""
        self._count()
        messages = []
        while (message := self.inbox.take(self.mixing)) is not None:
            self._used(message)
            messages.append(message)
        return messages

    async def gather(self, step: int, space: str = MODEL) -> list[Message]:
        """Wait for one message of this step and space from each of the step's `sources` that lives; return them by neighbour.

        A message has the value of its sender's `step` at the time it was sent, and `apply` adds one to `step`: so give the
        value that this peer's own `step` had when it sent.

        Messages of earlier steps in this space are dropped as too late; those of later steps and of other spaces stay.  A
        message that is not as expected counts as missing: no other one is waited for, and its sender's weight stays with this
        peer for the step.
        """
        self._count()
        found: dict[int, Message | None] = {}
        sources = self.sources(step)
        while True:
            self.inbox.collect(step, space, found, self.mixing)
            missing = [source for source in sources if source not in found and source in self.mixing]
            if not missing:
                break
            await Receive(least=len(missing))
        messages = [message for source in sources if (message := found.get(source)) is not None]
        for message in messages:
            self._used(message)
        return messages

    async def leave(self, duration_ns: int | None = None) -> None:
        """Ask to leave the fleet politely; with a duration (emulated ns), come back after it and run the strategy anew.

        Returns at once.  `running` turns false at this step, or a few steps later for a strategy that waits for others at each
        step; the peer is gone once its strategy has returned and all its messages have arrived.  The strategy's class must
        declare `leaves = True`, else RuntimeError is raised.
        """
        self._count()
        if not self.may_leave:
            raise RuntimeError(
                "this strategy calls peer.leave() and does not declare it: set leaves = True and membership on its class"
            )
        await Leave(duration_ns)

    # ---- what a strategy does with weights ------------------------------------------------------------------------

    def apply(self, gradient: np.ndarray) -> None:
        """Let the optimizer move the weights along -gradient, float32 [size]; add one to `step`.

        Raises ValueError for anything else than a vector of that length.
        """
        if getattr(gradient, "shape", None) != self._weights.shape:
            raise ValueError(_not_a_gradient(gradient, self.size))
        self.stepper.step(self._weights, gradient if self.mass is None else gradient / np.float32(self.mass))
        self.step += 1

    def mix(self, models: Sequence[Message], own: np.ndarray) -> None:
        """Average with whole models: x_i <- x_i + (sum_j W_ij q_j) - q_i, where q_j is a model as its receivers read it.

        `own` is q_i: what `broadcast_model` returned, this peer's model as its neighbours read it.  The mean over the fleet is
        kept whatever the codec rounds and whatever has been added to x_i meanwhile, because W is symmetric.

        With push-sum each model counts by the mass that came with it, and this peer's own by the mass that stayed here:
        `weights` is the model x / w of Assran et al. 2019 (arXiv 1811.10792, algorithm 1), and the mass-weighted mean over the
        fleet and the messages on their way is kept.  The weight that rounding kept back is added here.
        """
        rows, weights, size, mass = [own], [0.0], self.size, self.mass
        mixing = self.mixing if self.rounds is None else None
        for message in models:
            payload = message.payload
            if not isinstance(payload, Dense) or payload.space != MODEL or len(payload.values) != size:
                self.errors["range"] += 1
                continue
            if mass is not None and not (len(message.scalars) == 1 and 0.0 < message.scalars[0] < inf):
                self.errors["mass"] += 1
                continue
            rows.append(payload.values)
            if mass is not None:
                weights.append(message.scalars[0])
            else:
                weights.append(self.weight(message) if mixing is None else mixing.get(message.source, 0.0))
        since = np.float32(1.0)  # the factor of what has been added to this model since it was sent
        if mass is None:
            weights[0] = 1.0 - sum(weights)
        else:
            weights[0] = mass
            self.mass = sum(weights)
            weights = [weight / self.mass for weight in weights]
            since = np.float32(weights[0])
        if self.codec.lossless and bool((own == self._weights).all()):
            self.aggregator.combine(rows, weights, self._weights)
            return
        mixed = np.empty_like(self._weights)
        self.aggregator.combine(rows, weights, mixed)
        self._weights[:] = mixed + since * (self._weights - own)
        if self._unsent is not None and self.mass is not None:
            self._weights += self._unsent / np.float32(self.mass)
            self._unsent = None

    def blend(self, message: Message, weight: float) -> None:
        """Move the weights towards a message's values q, on its elements alone: x <- x + weight (q - x).

        A message without elements moves nothing.
        Raises ValueError for a message in another space than the model.
        """
        payload = message.payload
        if payload.space != MODEL:
            raise ValueError(f"the weights cannot be moved towards a message of space {payload.space!r}; use its values")
        if not payload.count:
            return
        if isinstance(payload, Dense):
            part = self.weights[payload.start : payload.stop]
            part *= np.float32(1.0 - weight)
            add_scaled(part, payload.values, weight)
        else:
            where = payload.where()
            part = self.weights[where]
            self.weights[where] = part + np.float32(weight) * (payload.values - part)

    # ---- what a world does ----------------------------------------------------------------------------------------

    @property
    def expected(self) -> Sequence[Expected] | None:
        """The forms of message that the strategy declares; None = every message with an element, finite values and scalars."""
        return self.inbox.expected

    @expected.setter
    def expected(self, expected: Sequence[Expected] | None) -> None:
        self.inbox.expected = expected

    def begin(self, strategy: Runs) -> Coroutine[Any, Any, None]:
        """Return the coroutine whose effects a world carries out for this peer."""
        return strategy.run(self)

    def deliver(self, arrival: Arrival | Message) -> None:
        """Add a whole message to the inbox: in bytes as it came off the wire, or decoded if it never travelled as bytes."""
        self.inbox.put(arrival)
        self.calls = 0

    def lose(self, neighbour: int) -> bool:
        """Go on without a neighbour that is gone; False if it was not a neighbour (any more).

        Its mixing weight goes to this peer's own.  If W is symmetric, the survivors' W stays symmetric and doubly stochastic;
        else its columns do not sum to 1 any more.  With push-sum the lost neighbour's mass is lost.
        """
        if neighbour not in self.mixing:
            return False
        self.neighbours = [other for other in self.neighbours if other != neighbour]
        del self.mixing[neighbour]
        self.departures += 1
        for ledger in self.ledgers.values():
            ledger.forget(neighbour)
        self.joiner_debts.forget(neighbour)
        return True

    def admit(self, neighbour: int, weight: float, givers: Mapping[int, int] | None = None) -> None:
        """Make a peer a neighbour with W_ij = `weight`, or change this weight; messages to and from it are allowed from now on.

        `givers` maps each peer whose weights the neighbour has taken over (their mean) to the step of this peer's newest
        message that the giver had used by then (-1 = none): the model's ledger owes the neighbour what those weights lack.
        """
        if neighbour in self.mixing:
            self.mixing[neighbour] = weight
            return
        self.neighbours = sorted((*self.neighbours, neighbour))
        self.mixing[neighbour] = weight
        self.staleness.setdefault(neighbour, Staleness())
        self._allow_calls(len(self.neighbours))
        for space, ledger in self.ledgers.items():
            if self.id not in ledger.paid:  # else one account serves all neighbours
                ledger.open(
                    neighbour, self.joiner_debts.held(neighbour, self.id, givers or {}, ledger) if space == MODEL else None
                )
        self.joiner_debts.handed.pop(neighbour, None)
        self.renew_expected()

    def hand_over(self, joiner: int) -> None:
        """Set aside a copy of this peer's weights, and what they hold, for a peer that joins."""
        by_neighbour = self.ledger is not None and self.id not in self.ledger.paid
        made = self.ledger.total if self.ledger is not None and by_neighbour else None
        self.joiner_debts.hand_over(joiner, self.weights, self.step, made)

    def depart(self) -> None:
        """Stop being a member: drop all neighbours and all waiting messages."""
        self.member = False
        self.neighbours, self.mixing = [], {}
        self.inbox.clear()

    def waiting_steps(self) -> list[tuple[int, int]]:
        """Return the sender and the step of each message that waits, in order of arrival."""
        return self.inbox.steps(self.mixing)

    def leave_at(self, step: int | None) -> None:
        """Let `running` turn false and `leaving` true at a step; None cancels this."""
        self._leaves_at = step

    def enter(self, step: int, mixing: Mapping[int, float], rounds: Rounds | None = None) -> None:
        """Become a member at a step, with these neighbours, empty ledgers and a fresh optimizer."""
        self.first_step += step - self.step
        self.step = step
        self.neighbours = sorted(mixing)
        self.mixing = dict(mixing)
        for neighbour in self.neighbours:
            self.staleness.setdefault(neighbour, Staleness())
        self._allow_calls(len(self.neighbours))
        self.rounds = rounds
        self.stepper = self.optimizer.start(self.size)
        self.ledgers.clear()
        self.joiner_debts.clear()
        self._leaves_at = None
        self.member = True
        self.renew_expected()

    def take_loss(self) -> float:
        """Return the mean training loss since the last call; nan if no step was made."""
        mean = self.loss_sum / self.loss_count if self.loss_count else float("nan")
        self.loss_sum, self.loss_count = 0.0, 0
        return mean

    def _parcel(self, payload: Payload, scalars: tuple[float, ...]) -> tuple[Parcel, np.ndarray]:
        """Return a message in bytes, and its values as they will be read.

        If a value is not finite (training has diverged) the message goes without elements, so that no receiver waits for it.
        """
        try:
            number, space, codec = self.spaces.find(payload.space)
        except AttributeError:
            kind = type(payload).__name__
            raise TypeError(
                f"a {kind} is not a payload: send Dense(values), Sparse(indices, values) or Marks(indices)"
            ) from None
        if not payload.within(space.size):
            raise ValueError(
                f"the payload does not fit into space {space.name!r}, which has {space.size:,} elements: every element must be "
                "one of these; indices of Sparse and Marks are whole numbers that ascend without repeats, one for each value"
            )
        if payload.finite:
            return encode(payload, codec, self.step, scalars, number, self.codec_rng)
        self.errors[SENT_EMPTY] += 1
        empty = Dense(np.zeros(0, np.float32), space=space.name)
        return encode(empty, codec, self.step, scalars, number, self.codec_rng)[0], payload.values

    def _used(self, message: Message) -> None:
        if self.members_change:
            self.joiner_debts.used(message.source, message.step)
        staleness = self.staleness[message.source]
        if (late := self.step - message.step) > 0:
            staleness.steps += late
        staleness.messages += 1


def _not_a_gradient(gradient: object, size: int) -> str:
    """Return the message for a value that `apply` cannot take."""
    if isinstance(gradient, Coroutine):
        return "the gradient is a coroutine: write await before it, as in peer.apply(await peer.gradient())"
    kind = f"an array of shape {list(gradient.shape)}" if isinstance(gradient, np.ndarray) else f"a {type(gradient).__name__}"
    return f"the gradient is {kind}: an array of shape [{size}] is needed"


def _nothing() -> None:
    """Do nothing: while all members stay, the expected forms of message stay too."""
