"""The peer: identity, weights, step, neighbours, links as measured, and the verbs that a strategy awaits."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from math import ceil, inf
from typing import Any, NamedTuple, Protocol

import numpy as np

from grapevine.peer.aggregators import Aggregator, Mean, add_scaled
from grapevine.peer.codecs import Codec, Float32
from grapevine.peer.effects import Leave, Receive, Send, Sleep
from grapevine.peer.endpoint import Arrival
from grapevine.peer.expected import Expected, misfit
from grapevine.peer.layout import Layout, Tensor, lay
from grapevine.peer.ledger import Ledger, Pick
from grapevine.peer.meter import MEASURING_BYTES, LinkMeter, SpeedMeter
from grapevine.peer.optimizers import Optimizer, Sgd
from grapevine.peer.payloads import Dense, Head, Parcel, Payload, Sparse, decode, decode_head, encode
from grapevine.peer.spaces import MODEL, Space, Spaces
from grapevine.peer.wire import HEADER_BYTES, WireError
from grapevine.peer.work import Worker

OVERHEAD_BYTES = HEADER_BYTES + 64  # what a message costs besides its numbers: one chunk's header and the head
LEAST_WAIT_NS = 100_000  # what is measured is not known more finely than that
MEASURED_BODY_BYTES = 512  # the least of numbers worth a message: a strategy may still cut it into parts that measure a rate
MOST_CALLS = 100_000
"""Times that a strategy may ask its peer at one instant before it is stopped, since in virtual time nothing changes until it
awaits a gradient, a message or the passing of time."""
CALLS_OF_A_SEND = 100
"""As how many of them a message counts: it takes memory until it has left."""
CALLS_OF_A_NEIGHBOUR = 1_000
"""How many more of them each neighbour gives."""
SENT_EMPTY = "sent-empty"  # under which `errors` counts messages whose values this peer itself made not finite
CODEC_STREAM = 0xC0DEC  # keeps what codecs draw apart from all other draws of a peer
MOST_NOTES, NOTE_CHARACTERS = 64, 64
MOST_UNREAD = 8  # models' worth of elements that are remembered of what a neighbour was paid last
LEAST_HORIZON_NS = 20_000_000  # the shortest time for which sending ahead makes sense: a step may take no time at all


class Message(NamedTuple):
    """What a neighbour sent: `step` is the sender's, times are emulated ns."""

    source: int
    step: int
    payload: Payload
    scalars: tuple[float, ...]
    arrived_ns: int


class Rounds(Protocol):
    """Who sends to whom in round t where that changes, or where links go one way; the peers' steps are the rounds."""

    def targets(self, t: int, peer: int) -> list[int]:
        """Whom a peer sends to, ascending."""

    def weights(self, t: int, peer: int) -> dict[int, float]:
        """Whom a peer hears, and how much each counts: W_ij of the round, by sender, ascending."""


class Runs(Protocol):
    """What a peer carries out: a strategy."""

    def run(self, peer: Any) -> Coroutine[Any, Any, None]:
        """Train until `peer.running` is false."""


class Staleness:
    """How many steps behind the receiver the messages of one neighbour were when they were used."""

    __slots__ = ("messages", "steps")

    def __init__(self) -> None:
        self.steps = 0
        self.messages = 0


class Handed(NamedTuple):
    """What this peer hands over to one that joins, all of one instant."""

    weights: np.ndarray
    """float32 [size]."""
    step: int
    made: np.ndarray | None
    """All that this peer has made until then, which the weights hold: float64 [size]; None where it keeps no ledger."""
    taken: dict[int, int]
    """The step of the newest message of each neighbour that the weights hold."""


class Peer(Worker):
    """One member of the fleet, as its strategy sees it; the verbs about gradients and other work are those of `Worker`.

    `weights` is float32 [size] and belongs to the strategy, except while a gradient is awaited.  `mixing` holds W_ij of each
    neighbour; the rest of the row is the peer's own weight.  Where `rounds` are given, `neighbours` and `mixing` are all whom
    the peer ever has a link with, `targets`, `sources` and `weight` tell whom it talks to at a step, and `mixing` has the
    weights of the first round alone: `weight(message)` is what a message counts by.  With `push_sum` W does not keep the mean
    by itself, and the peer carries its `mass`.  All that is known of links and speeds is measured.
    `batch_size` may be changed by the strategy; `data_samples` is how many training samples the peer owns (0 = not known),
    `held_out_samples` how many it keeps apart from them.  `layout` names the tensors that `weights` is made of, in order and
    without gaps; it never changes.  `spaces` are the vectors that may travel: the model, and what the strategy declares.
    `codec_rng` is what the codec alone draws from.  `notes` holds what a strategy has decided last, by name (see `note`): every
    record writes it down.  `expected` are the forms of message that the strategy declares (None = any with an element, finite
    values and finite scalars): what has none of them is dropped before the strategy sees it, and counted in `errors`.
    `members_change` says whether peers may join and leave, `member` whether this peer is one now, `first_step` how many of its
    steps others made, before it was one.
    """

    def __init__(  # noqa: PLR0913 - what a peer is made of
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
        self.weights = weights
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
        self._kept_mass = 1.0
        self.notes: dict[str, float] = {}
        self.instant_ns = 0  # now_ns, for a world, which may look as often as it likes
        self.calls = 0  # of the verbs below, since anything could have changed
        self._most_calls = MOST_CALLS + CALLS_OF_A_NEIGHBOUR * len(self.neighbours)
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
        self.expected: Sequence[Expected] | None = None
        self.ledgers: dict[str, Ledger] = {}  # by space
        self.members_change = False
        self.may_leave = False
        self.member = True
        self.first_step = 0
        self.departures = 0  # of neighbours, for good or not
        self.handed: dict[int, Handed] = {}  # by peer that takes weights over
        self._taken: dict[int, int] = {}
        self._unread: dict[int, int] = {}  # how many elements that is
        self._paid_last: dict[int, deque[tuple[int, Payload]]] = {}  # by neighbour: what it may not have taken in yet
        self.renew_expected: Callable[[], None] = _nothing
        self._leaves_at: int | None = None
        self._inbox: deque[Arrival | Message] = deque()

    # ---- what a strategy asks -------------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """The emulated time, ns."""
        self._count()
        return self.instant_ns

    @now_ns.setter
    def now_ns(self, now_ns: int) -> None:
        if now_ns != self.instant_ns:
            self.instant_ns = now_ns
            self.calls = 0

    @property
    def running(self) -> bool:
        """Whether to go on: neither stopped by the world nor at the experiment's number of steps."""
        self._count()
        if self.stopped or (self._leaves_at is not None and self.step >= self._leaves_at):
            return False
        return self.steps_limit is None or self.step < self.steps_limit

    @property
    def leaving(self) -> bool:
        """Whether this peer is to leave, at its present step: it finishes what it owes, and waits for nobody any more."""
        return self._leaves_at is not None and self.step >= self._leaves_at

    @property
    def horizon_ns(self) -> float:
        """The time that one exchange should fill: a step as measured, and never less than 20 ms."""
        return max(self.speed.step_ns, LEAST_HORIZON_NS)

    @property
    def targets(self) -> list[int]:
        """Whom this peer sends to at its present step: all of its neighbours, unless rounds are given."""
        if self.rounds is None:
            return self.neighbours
        return [target for target in self.rounds.targets(self.step, self.id) if target in self.mixing]

    def sources(self, step: int) -> list[int]:
        """Whom this peer hears at a step: all of its neighbours, unless rounds are given."""
        if self.rounds is None:
            return self.neighbours
        return [source for source in self.rounds.weights(step, self.id) if source in self.mixing]

    def weight(self, message: Message) -> float:
        """W_ij of the sender of a message, at the step at which it was sent; 0 for whom this peer does not hear then."""
        if self.rounds is None:
            return self.mixing.get(message.source, 0.0)
        return self.rounds.weights(message.step, self.id).get(message.source, 0.0)

    def room(self, neighbour: int, fill: float = 1.0, index_bytes: int = 0, least: int = 1, space: str = MODEL) -> int:
        """How many elements fit into what the link to a neighbour can take now, where it is kept at a share `fill` of its rate.

        At most the whole vector of the space.  `index_bytes` is what naming each element costs: 4 for chosen elements, 0 for a
        range.  Fewer than `least` elements are not worth a message, nor are so few bytes that the message would measure nothing
        (a link that was once measured too slow would never be measured again): then 0, and the link saves its room up until
        they fit.  0 for a neighbour that is lost.
        """
        self._count()
        if neighbour not in self.mixing:
            return 0
        count = self._room(neighbour, fill, index_bytes, least, *self.spaces.numbered(self.spaces.number(space)))
        return count if count >= least else 0

    def _room(self, neighbour: int, fill: float, index_bytes: int, least: int, space: Space, codec: Codec) -> int:
        meter = self.meters[neighbour]
        whole_bytes = codec.body_bytes(space.size) + index_bytes * space.size
        enough_bytes = min(whole_bytes, max(MEASURED_BODY_BYTES, codec.body_bytes(least) + index_bytes * least))
        meter.least_bytes = max(MEASURING_BYTES, 2 * OVERHEAD_BYTES + enough_bytes)
        room_bytes = meter.room_bytes(self.instant_ns, self.horizon_ns, fill) - OVERHEAD_BYTES
        if room_bytes < enough_bytes:
            return 0
        return min(space.size, _fitting(codec, room_bytes, index_bytes))

    def rate_bytes_per_s(self, neighbour: int) -> float | None:
        """The measured rate of the link to a neighbour; None before the first measurement, inf where nothing limits it."""
        self._count()
        if neighbour not in self.mixing:
            return None
        meter = self.meters[neighbour]
        meter.look(self.instant_ns)
        return meter.rate_bytes_per_s

    def idle(self, neighbour: int) -> bool:
        """Whether everything that was sent to a neighbour has arrived there, as far as this peer knows."""
        self._count()
        return neighbour in self.mixing and not self.meters[neighbour].in_flight_bytes

    def free(self, neighbour: int) -> bool:
        """Whether everything that was sent to a neighbour has left, by the link's measured rate; it may still be on its way."""
        self._count()
        return neighbour in self.mixing and self.meters[neighbour].busy_ns(self.instant_ns) == 0.0

    def save_up(self, neighbour: int, steps: float) -> None:
        """Let the link to a neighbour save up room over so many steps (>= 1), so that one larger message can go."""
        if neighbour in self.mixing:
            self.meters[neighbour].patience = max(1.0, steps)

    def new_ledger(self, space: str = MODEL) -> Ledger:
        """A ledger over all neighbours for one space; the world asks it to forget a neighbour that is lost.

        Raises ValueError for a space of whole numbers: a debt is a sum of updates, rounded by codecs, and those are exact.
        """
        found = self.spaces.find(space)
        if not found.floats:
            raise ValueError(f"space {space!r} holds {found.dtype}, and ledgers are for float32; send its values whole")
        self.ledgers[space] = Ledger(found.size, self.neighbours, space)
        return self.ledgers[space]

    @property
    def ledger(self) -> Ledger | None:
        """The model's ledger; None where there is none."""
        return self.ledgers.get(MODEL)

    @ledger.setter
    def ledger(self, ledger: Ledger) -> None:
        self.ledgers[MODEL] = ledger

    # ---- what a strategy awaits -----------------------------------------------------------------------------------

    def note(self, name: str, value: float) -> None:
        """Write down what the strategy has decided, such as a threshold; each record has it as the metric `notes.NAME`.

        At most 64 names of at most 64 characters; ValueError beyond that.
        """
        if len(name) > NOTE_CHARACTERS or (name not in self.notes and len(self.notes) >= MOST_NOTES):
            raise ValueError(
                f"note {name[:NOTE_CHARACTERS]!r} is one too many or its name is too long; a peer keeps at most {MOST_NOTES} "
                f"notes, with names of at most {NOTE_CHARACTERS} characters"
            )
        self.notes[name] = float(value)

    async def send(self, neighbour: int, payload: Payload, scalars: tuple[float, ...] = ()) -> np.ndarray:
        """Queue a message to a neighbour; returns its values as they will be read there (float32, or the dtype of its space).

        Values that are not finite never leave: the message goes without elements, and what was given is returned.  Raises
        ValueError for a space that was not declared, and for elements beyond its size.
        """
        self._count(CALLS_OF_A_SEND)
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
        """Queue the whole model to all of `targets`, as `mix` wants it; returns its values as they will be read there.

        With push-sum it takes along an equal share of this peer's mass (Kempe, Dobra and Gehrke 2003, FOCS, protocol 1).
        """
        if self.mass is None:
            return await self.broadcast(Dense(self.weights))
        self._kept_mass = self.mass / (1 + len(self.targets))
        return await self.broadcast(Dense(self.weights), (self._kept_mass,))

    async def pay(self, neighbour: int, pick: Pick, scalars: tuple[float, ...] = (), space: str = MODEL) -> Dense | Sparse:
        """Send a neighbour a part of what the space's ledger owes it, and return it as it will be read there; what the codec's
        rounding loses stays owed."""
        ledger = self.ledgers.get(space)
        assert ledger is not None, "call new_ledger first"
        payload = ledger.take(neighbour, pick)
        read = await self.send(neighbour, payload, scalars)
        if not self.codec.lossless:
            ledger.refund(neighbour, payload, read)
            payload.values = read
        if self.members_change and space == MODEL:
            self._note_paid(neighbour, payload)
        return payload

    async def sleep(self, duration_ns: int) -> None:
        """Let emulated time pass."""
        self._count()
        await Sleep(self.instant_ns + duration_ns)

    async def drain(self, neighbour: int) -> None:
        """Wait until everything that was sent to a neighbour has left, by the link's measured rate, or the peer is stopped."""
        while self.running and neighbour in self.mixing and not self.free(neighbour):
            busy_ns = self.meters[neighbour].busy_ns(self.instant_ns)
            await self.sleep(max(LEAST_WAIT_NS, ceil(busy_ns)) if busy_ns is not None else LEAST_HORIZON_NS)

    async def receive(self, deadline_ns: int | None = None) -> Message | None:
        """The next message in order of arrival, waiting for it; None when a neighbour was lost meanwhile, or when the
        deadline (emulated ns) has passed."""
        self._count()
        before = self.departures
        while True:
            while self._inbox:
                if (message := self._open(self._inbox.popleft())) is not None:
                    self._used(message)
                    return message
            if self.departures > before or not self.neighbours:
                return None
            if deadline_ns is not None and self.instant_ns >= deadline_ns:
                return None
            await Receive(deadline_ns=deadline_ns)

    async def expect(self, source: int) -> Message | None:
        """The next message of one neighbour, waiting for it; what others sent stays.  None where that neighbour is lost, or any
        other meanwhile."""
        self._count()
        before = self.departures
        while source in self.mixing and self.departures == before:
            place = next((place for place, parcel in enumerate(self._inbox) if parcel.source == source), None)
            if place is None:
                await Receive()
                continue
            parcel = self._inbox[place]
            del self._inbox[place]
            if (message := self._open(parcel)) is not None:
                self._used(message)
                return message
        return None

    def arrived(self) -> list[Message]:
        """All messages that have arrived and were not yet taken, in order of arrival; does not wait."""
        self._count()
        messages = []
        while self._inbox:
            message = self._open(self._inbox.popleft())
            if message is not None:
                self._used(message)
                messages.append(message)
        return messages

    async def gather(self, step: int, space: str = MODEL) -> list[Message]:
        """One message of this step and space from each of its `sources` that still lives, in order of neighbour, waiting for
        them.

        A message bears the value that its sender's `step` had when it was sent, and `apply` adds one: so gather with the value
        that this peer's own `step` had when it sent.

        Earlier ones of the space are dropped as too late; later ones, and those of other spaces, stay.  One that is not as
        expected counts as missing: nobody waits for another, and its sender's weight stays with this peer for the step.
        """
        self._count()
        found: dict[int, Message | None] = {}
        inbox = self._inbox
        sources = self.sources(step)
        while True:
            for _ in range(len(inbox)):
                item = inbox.popleft()
                message = item if isinstance(item, Message) else self._decoded(item)
                if message is None:
                    continue
                if message.payload.space != space:
                    inbox.append(message)
                elif message.step == step and message.source not in found:
                    found[message.source] = message if self._fits(message) else None
                elif message.step >= step:
                    inbox.append(message)
            missing = [source for source in sources if source not in found and source in self.mixing]
            if not missing:
                break
            await Receive(least=len(missing))
        messages = [message for source in sources if (message := found.get(source)) is not None]
        for message in messages:
            self._used(message)
        return messages

    async def leave(self, duration_ns: int | None = None) -> None:
        """Ask to leave the fleet politely, and with a duration (emulated ns) to come back after it.

        Answers at once: `running` turns false at this step, or a few steps later for a strategy that waits for others at each
        step, and the peer is gone once its strategy has returned and all that it has sent has arrived.  A strategy that calls
        this says so: `leaves = True` on its class.  Back, it runs anew.
        """
        self._count()
        if not self.may_leave:
            raise RuntimeError("this strategy leaves and does not say so: set leaves = True and membership on its class")
        await Leave(duration_ns)

    # ---- what a strategy does with weights ------------------------------------------------------------------------

    def apply(self, gradient: np.ndarray) -> None:
        """Let the optimizer move the weights along -gradient, and count the step."""
        self.stepper.step(self.weights, gradient if self.mass is None else gradient / np.float32(self.mass))
        self.step += 1

    def mix(self, models: Sequence[Message], own: np.ndarray) -> None:
        """Average with whole models: x_i <- x_i + (sum_j W_ij q_j) - q_i, where q are models as they were read on the wire.

        `own` is this peer's model as its neighbours read it.  With a lossless codec q_i = x_i: x_i <- sum_j W_ij x_j;
        with a rounding codec the mean over the fleet is still kept, because W is symmetric.  With push-sum the weights are
        shares of the mass that has come together here: `weights` then is the model x / w of Assran et al. 2019 (arXiv
        1811.10792, algorithm 1), and the mass-weighted mean over the fleet is kept.
        """
        rows, weights = [own], [0.0]
        for message in models:
            payload = message.payload
            if not isinstance(payload, Dense) or payload.space != MODEL or len(payload.values) != self.size:
                self.errors["range"] += 1
                continue
            if self.mass is not None and not (len(message.scalars) == 1 and 0.0 < message.scalars[0] < inf):
                self.errors["mass"] += 1
                continue
            rows.append(payload.values)
            weights.append(self.weight(message) if self.mass is None else message.scalars[0])
        weights[0] = 1.0 - sum(weights) if self.mass is None else self._kept_mass
        if self.mass is not None:
            self.mass = sum(weights)
            weights = [weight / self.mass for weight in weights]
        if self.codec.lossless:
            self.aggregator.combine(rows, weights, self.weights)
        else:
            mixed = np.empty_like(self.weights)
            self.aggregator.combine(rows, weights, mixed)
            self.weights += mixed - own

    def blend(self, message: Message, weight: float) -> None:
        """Move the elements that a message holds towards it: x <- x + weight (q - x) there, nothing elsewhere.

        Raises ValueError for a message of another space than the model's.
        """
        payload = message.payload
        if payload.space != MODEL:
            raise ValueError(f"the weights cannot be moved towards a message of space {payload.space!r}; use its values")
        if isinstance(payload, Dense):
            part = self.weights[payload.start : payload.stop]
            part *= np.float32(1.0 - weight)
            add_scaled(part, payload.values, weight)
        else:
            where = payload.where()
            part = self.weights[where]
            self.weights[where] = part + np.float32(weight) * (payload.values - part)

    # ---- what a world does ----------------------------------------------------------------------------------------

    def begin(self, strategy: Runs) -> Coroutine[Any, Any, None]:
        """The coroutine whose effects a world carries out for this peer."""
        return strategy.run(self)

    def deliver(self, arrival: Arrival | Message) -> None:
        """A world hands over a whole message: as it came off the wire, or decoded where nothing ever went over one."""
        self._inbox.append(arrival)
        self.calls = 0

    def lose(self, neighbour: int) -> bool:
        """A neighbour is gone: go on without it.  Its mixing weight returns to this peer's own, which keeps the matrix of
        the survivors symmetric and doubly stochastic.  False where it was no neighbour (any more)."""
        if neighbour not in self.mixing:
            return False
        self.neighbours = [other for other in self.neighbours if other != neighbour]
        del self.mixing[neighbour]
        self.departures += 1
        for ledger in self.ledgers.values():
            ledger.forget(neighbour)
        for known in (self.handed, self._taken, self._paid_last, self._unread):
            known.pop(neighbour, None)
        return True

    def admit(self, neighbour: int, weight: float, givers: Mapping[int, int] | None = None) -> None:
        """A peer becomes a neighbour that counts W_ij = `weight`: messages to and from it are allowed from now on.

        `givers` are the peers whose weights the neighbour has taken over, their mean, and the step of the newest message of
        this peer that each had taken in by then (-1 = none): a ledger owes the neighbour what these weights lack, and nothing
        that they hold.
        """
        if neighbour in self.mixing:
            self.mixing[neighbour] = weight
            return
        self.neighbours = sorted((*self.neighbours, neighbour))
        self.mixing[neighbour] = weight
        self.staleness.setdefault(neighbour, Staleness())
        self._most_calls += CALLS_OF_A_NEIGHBOUR
        for space, ledger in self.ledgers.items():
            if self.id not in ledger.paid:  # else one account stands for all
                ledger.open(neighbour, self._held(neighbour, givers or {}) if space == MODEL else None)
        self.handed.pop(neighbour, None)
        self.renew_expected()

    def hand_over(self, joiner: int) -> None:
        """Set aside what a peer that joins asks for: the weights as they are now, and what they hold of whom."""
        by_neighbour = self.ledger is not None and self.id not in self.ledger.paid
        made = self.ledger.total.copy() if self.ledger is not None and by_neighbour else None
        self.handed[joiner] = Handed(self.weights.copy(), self.step, made, dict(self._taken))

    def _held(self, neighbour: int, givers: Mapping[int, int]) -> np.ndarray | None:
        """What weights taken over from these peers hold of what this peer made: float64 [size]; None = all of it."""
        assert self.ledger is not None
        known = []
        for giver, taken in givers.items():
            if giver == self.id:
                made = self.handed[neighbour].made if neighbour in self.handed else None
                if made is not None:
                    known.append(made)
            elif giver in self.ledger.paid:
                paid = self.ledger.paid[giver].copy()
                for step, payload in self._paid_last.get(giver, ()):
                    if step > taken:
                        paid[payload.where()] -= payload.values
                known.append(paid)
        return np.asarray(np.mean(known, axis=0)) if known and len(known) == len(givers) else None

    def _note_paid(self, neighbour: int, payload: Payload) -> None:
        """Remember what was paid last, as much as MOST_UNREAD models."""
        paid = self._paid_last.setdefault(neighbour, deque())
        paid.append((self.step, payload))
        self._unread[neighbour] = self._unread.get(neighbour, 0) + payload.count
        while len(paid) > 1 and self._unread[neighbour] > MOST_UNREAD * self.size:
            self._unread[neighbour] -= paid.popleft()[1].count

    def depart(self) -> None:
        """Be a member no longer: without neighbours and without messages that wait."""
        self.member = False
        self.neighbours, self.mixing = [], {}
        self._inbox.clear()

    def waiting_steps(self) -> list[tuple[int, int]]:
        """Sender and step of the messages that wait to be taken, in order of arrival."""
        found = []
        for item in self._inbox:
            message = item if isinstance(item, Message) else self._decoded(item)
            if message is not None:
                found.append((message.source, message.step))
        return found

    def leave_at(self, step: int | None) -> None:
        """Let `running` end at a step, and `leaving` begin; None takes it back."""
        self._leaves_at = step

    def enter(self, step: int, mixing: Mapping[int, float], rounds: Rounds | None = None) -> None:
        """Begin as a member at a step, with these neighbours and nothing that was owed, seen or heard before."""
        self.first_step += step - self.step
        self.step = step
        self.neighbours = sorted(mixing)
        self.mixing = dict(mixing)
        for neighbour in self.neighbours:
            self.staleness.setdefault(neighbour, Staleness())
        self._most_calls = MOST_CALLS + CALLS_OF_A_NEIGHBOUR * len(self.neighbours)
        self.rounds = rounds
        self.stepper = self.optimizer.start(self.size)
        self.ledgers.clear()
        for known in (self.handed, self._taken, self._paid_last, self._unread):
            known.clear()
        self._leaves_at = None
        self.member = True
        self.renew_expected()

    def take_loss(self) -> float:
        """The mean training loss since the last call; nan where no step was made."""
        mean = self.loss_sum / self.loss_count if self.loss_count else float("nan")
        self.loss_sum, self.loss_count = 0.0, 0
        return mean

    def _count(self, calls: int = 1) -> None:
        """Stop a strategy that asks and asks at one instant, and so would never let it pass."""
        self.calls += calls
        if self.calls > self._most_calls:
            raise RuntimeError(
                f"the strategy came back {self.calls:,} times at {self.instant_ns / 1e9:g} s without awaiting anything that "
                "takes time; await peer.gradient(), peer.receive() or peer.sleep(...) in this loop"
            )

    def _parcel(self, payload: Payload, scalars: tuple[float, ...]) -> tuple[Parcel, np.ndarray]:
        """A message in bytes, and its values as they will be read.

        Where training has diverged nobody could use the values: the message says so by holding none, and those who wait for it
        need not wait on.
        """
        number = self.spaces.number(payload.space)
        space, codec = self.spaces.numbered(number)
        if not payload.within(space.size):
            raise ValueError(f"the payload has elements beyond those of space {space.name!r}, which has {space.size:,}")
        if payload.finite:
            return encode(payload, codec, self.step, scalars, number, self.codec_rng)
        self.errors[SENT_EMPTY] += 1
        empty = Dense(np.zeros(0, np.float32), space=space.name)
        return encode(empty, codec, self.step, scalars, number, self.codec_rng)[0], payload.values

    def _open(self, parcel: Arrival | Message) -> Message | None:
        """A message on its first use; what does not decode, is not as expected, or is from a lost neighbour is dropped."""
        message = parcel if isinstance(parcel, Message) else self._decoded(parcel)
        return message if message is not None and message.source in self.mixing and self._fits(message) else None

    def _decoded(self, parcel: Arrival) -> Message | None:
        """Read a message's bytes; what cannot be read is dropped and counted."""
        if parcel.source not in self.mixing:
            return None
        try:
            head: Head = decode_head(parcel.head)
            payload = decode(head, parcel.body, self.spaces)
        except WireError as error:
            self.errors[error.kind] += 1
            return None
        return Message(parcel.source, head.step, payload, head.scalars, parcel.arrived_ns)

    def _fits(self, message: Message) -> bool:
        """Whether a message is as the strategy expects; else it is counted."""
        payload = message.payload
        size = self.size if payload.space == MODEL else self.spaces.find(payload.space).size
        word = misfit(message.source, payload, message.scalars, size, self.expected)
        if word:
            self.errors[word] += 1
        return not word

    def _used(self, message: Message) -> None:
        if self.members_change:
            self._taken[message.source] = max(message.step, self._taken.get(message.source, -1))
        staleness = self.staleness[message.source]
        staleness.steps += max(0, self.step - message.step)
        staleness.messages += 1


def _nothing() -> None:
    """Where all members stay, what is expected of them does too."""


def _fitting(codec: Codec, room_bytes: float, index_bytes: int) -> int:
    """How many elements fit into so many bytes, each with its index."""
    if not index_bytes or room_bytes <= 0 or room_bytes == inf:
        return codec.elements(room_bytes)
    count = codec.elements(room_bytes / (1 + index_bytes / (codec.body_bytes(4096) / 4096)))
    while count and index_bytes * count + codec.body_bytes(count) > room_bytes:
        count -= 1  # a codec's size is linear but for its blocks: a few at most
    return count
