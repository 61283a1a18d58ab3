"""DLion: decentralized learning in micro-clouds (Hong and Chandra, HotCloud 2019 and HPDC 2021)."""

from __future__ import annotations

from math import ceil
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

from grapevine.peer.expected import COUNT, Bounds, Expected
from grapevine.peer.ledger import All, Chosen, Pick
from grapevine.peer.message import Message
from grapevine.peer.payloads import Dense
from grapevine.peer.peer import Peer
from grapevine.peer.strategies.base import Strategy
from grapevine.peer.strategies.max_n import MaxN
from grapevine.peer.strategies.takeover import Books

_GRADIENT, _REQUEST, _WEIGHTS, _GAVE, _TOOK = 0.0, 1.0, 2.0, 3.0, 4.0
_NOTHING = np.zeros(0, np.float32)
_SLICES = 8  # the largest number of slices of the weights: third peers get a message about each
_HELD_OUT = 0.1
_LOSS_MOST = 1e30
_Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Profile(msgspec.Struct, frozen=True, array_like=True):
    """The scalars of every message: about its sender, and (from `other` on) about weights that the sender gave or took."""

    kind: float
    """0 gradients, 1 a request for weights, 2 weights, 3 a report of weights given, 4 a report of weights taken."""
    batch: float
    """Samples of a gradient, >= 1."""
    overhead_ns: float
    """Measured fixed time of a step, >= 0."""
    sample_ns: float
    """Measured time of one more sample, >= 0."""
    data_samples: float
    """Training samples, >= 0."""
    loss: float
    """Loss on the samples kept apart, -1e30 to 1e30 (1e30 if it is not a number); 0 before the first measurement."""
    taken: float
    """Step of the receiver's newest gradients or weights that the sender has used, -1 = none yet."""
    other: float
    """Kind 3: the number of the taker; kind 4: that of the giver."""
    given: float
    """Kinds 3 and 4: the giver's step, >= 0."""
    start: float
    """Kinds 3 and 4: the first element of the slice, 0 to the size."""
    stop: float
    """Kinds 3 and 4: the place after the slice's last element, 0 to the size."""


class DLion(Strategy, frozen=True, tag="dlion"):
    """Dynamic batches, weighted updates, the largest gradients for each link, and transfer of weights (Hong and Chandra 2021).

    Source: R. Hong and A. Chandra, "DLion: Decentralized Distributed Deep Learning in Micro-Clouds", HPDC 2021 (and HotCloud
    2019).

    When: every step, asynchronously.  Sends: the largest gradients that fit the link.  To: all other peers.  How, by techniques
    of which each can be switched off:

      (a) weighted dynamic batching: a global batch that grows, divided so that the steps of all peers take equally long;
      (b) weighted update: a gradient counts in proportion to its batch, relative to the receiver's batch;
      (c) per-link prioritized exchange ("Max N"): for each link and tensor the entries within N percent of the largest, by the
          largest N that the link's room holds, and at least N_min if there is any room; the rest is kept for later, or dropped;
      (d) direct knowledge transfer: from time to time the peer with the lowest loss sends its weights to the others.

    The techniques are the papers'.  Their formulas and constants are not verified against the papers' text, so these are ours:

      global batch   every `adjust_every` steps G += G_0 up to `warm_share` of the data, then G *= `growth` up to `full_share`
      local batch    LBS_i = (t - a_i) / b_i with one t for all such that the sum is G, from each peer's measured line a + b LBS
      update         x_k <- x_k - eta / n sum_j (LBS_j / LBS_k) g_j, or LBS_j / mean LBS ("normalised"); n living peers
      N_min          0.85;  transfer every 100 steps;  x <- x - lambda (x - x_best), lambda 0.75

    Departures: only the batches change, not the learning rate.  The best model is the one with the lowest loss on a tenth of
    its own peer's samples, which the peer keeps apart from training, measured at every transfer (the paper: the average of
    recent training losses, which do not measure how good a model is).  A peer requests weights once all peers have reported
    their losses of the same round, or of a later one.  Weights are sent in slices as the link has room, at least an eighth of
    them at a time, and meanwhile no gradients go there.  The gradients that are still owed are settled (`takeover.py`), else
    they would count twice; gradients that were dropped (`keep = false`) are not owed.  With (c) off, a link gets the whole
    accumulated gradient whenever the last one has arrived.
    """

    shares: ClassVar[Literal["nothing", "parameters", "gradients"]] = "gradients"
    membership: ClassVar[Literal["fixed", "at-once", "by-step"]] = "at-once"

    batching: bool = True
    """(a) Whether batches follow the measured speeds and grow."""
    adjust_every: Annotated[int, msgspec.Meta(ge=1)] = 20
    """(a) Steps between two adjustments of the batches, >= 1."""
    warm_share: _Share = 0.01
    """(a) Share of the training set up to which the global batch grows by addition, 0 to 1."""
    full_share: _Share = 0.1
    """(a) Share of the training set up to which it then grows by multiplication, 0 to 1."""
    growth: Annotated[float, msgspec.Meta(ge=1.0)] = 1.5
    """(a) Factor of that growth, >= 1."""
    weighting: Literal["relative", "normalised", "none"] = "relative"
    """(b) Weight of a gradient: its batch divided by the receiver's, by the mean batch, or 1 for all."""
    prioritized: bool = True
    """(c) Whether each link gets the largest gradients that fit; false: whole gradients, one at a time."""
    n_least: Annotated[float, msgspec.Meta(ge=0.0, le=100.0)] = 0.85
    """(c) N_min, in percent of the largest entry: entries at most this far below it are sent if any byte can be (0 to 100)."""
    keep: bool = True
    """(c) Whether gradients that were not sent are kept; false: every step drops them, also during a transfer of weights."""
    fill: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.9
    """Share of a link's measured room that may be used, 0 < fill <= 1."""
    transfer_every: Annotated[int, msgspec.Meta(ge=0)] = 100
    """(d) Steps between two knowledge transfers; 0 = none."""
    transfer_rate: _Share = 0.75
    """(d) Share of the way that a peer moves towards the best one's weights, 0 to 1."""
    transfer_to: Literal["all", "worst"] = "all"
    """(d) Peers that request the best one's weights: all others, or the one with the highest loss."""

    @property
    def link_share(self) -> float:
        return self.fill

    @property
    def needs_order(self) -> bool:  # type: ignore[override]  # it depends on fields
        """Whether ledgers are settled: `Books` assumes that a neighbour has used all messages before its newest one."""
        return self.keep and self.transfer_every > 0

    @property
    def held_out_share(self) -> float:
        """A tenth, on which models are compared, if knowledge is transferred; else 0."""
        return _HELD_OUT if self.transfer_every else 0.0

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        of_sender: tuple[Bounds, ...] = ((1.0, COUNT[1]), COUNT, COUNT, COUNT, (-_LOSS_MOST, _LOSS_MOST), (-1.0, COUNT[1]))
        of_others: tuple[Bounds, ...] = ((0.0, peer.peers - 1.0), COUNT, (0.0, peer.size), (0.0, peer.size))
        gradient, request, weights, gave, took = (
            ((kind, kind), *of_sender, *of_others) for kind in (_GRADIENT, _REQUEST, _WEIGHTS, _GAVE, _TOOK)
        )
        empty = (Expected("none", scalars) for scalars in (request, gave, took))
        return Expected("chosen", gradient), Expected("whole", gradient), Expected("part", weights), *empty

    async def run(self, peer: Peer) -> None:
        state = _State(peer, self.transfer_rate)
        while peer.running:
            if self.batching:
                peer.batch_size = self._local_batch(peer, state)
            gradient = await peer.gradient()
            state.measure(peer)
            state.ledger.add(gradient)
            update = gradient * self._weight(peer, state, peer.id)
            for message in peer.arrived():
                await self._take_in(peer, state, message, update)
            peer.apply(update)
            if self.transfer_every and peer.step % self.transfer_every == 0:
                state.loss = _bounded((await peer.evaluate()).loss)
            for neighbour in list(peer.neighbours):
                if neighbour in state.transfers:
                    await self._hand_over(peer, state, neighbour)
                else:
                    await self._share(peer, state, neighbour)
                if not self.keep:
                    state.ledger.settle(neighbour)
            if self.transfer_every:
                await self._request_weights(peer, state)
        for neighbour in list(peer.neighbours) if peer.leaving and self.keep else []:
            await peer.pay(neighbour, All(), state.profile(peer, _GRADIENT, neighbour))

    # ---- (a) weighted dynamic batching ----------------------------------------------------------------------------

    def _local_batch(self, peer: Peer, state: _State) -> int:
        """Return this peer's share of the global batch, such that the steps of all peers take equally long."""
        if peer.step == 1:
            return max(1, state.first_batch // 2)  # a second batch size separates a step's overhead from its time per sample
        known = [state.profiles[member] for member in (peer.id, *peer.neighbours) if member in state.profiles]
        if len(known) <= len(peer.neighbours) or not all(profile.sample_ns > 0 for profile in known) or peer.step < 2:
            return state.first_batch
        if state.balanced and peer.step % self.adjust_every:
            return peer.batch_size
        state.balanced = True
        whole = self.global_batch(state.first_batch * len(known), peer.step, sum(profile.data_samples for profile in known))
        speeds = [1 / profile.sample_ns for profile in known]
        free = sum(profile.overhead_ns / profile.sample_ns for profile in known)
        step_ns = (whole + free) / sum(speeds)
        mine = known[0]
        return max(1, round((step_ns - mine.overhead_ns) / mine.sample_ns))

    def global_batch(self, first: float, step: int, data_samples: float) -> float:
        """Return G at a step: it grows from `first` in two phases up to `full_share` of the data, at least `first`."""
        batch, most = first, max(first, self.full_share * data_samples)
        for _ in range(step // self.adjust_every):
            if batch >= most:
                break
            grown = batch + first if batch < self.warm_share * data_samples else batch * self.growth
            batch = min(grown, most)
        return batch

    # ---- (b) weighted update --------------------------------------------------------------------------------------

    def _weight(self, peer: Peer, state: _State, source: int) -> np.float32:
        """Return the weight of a peer's gradient here, divided by the number of living peers."""
        living = (peer.id, *peer.neighbours)
        batches = {member: state.profiles[member].batch for member in living if member in state.profiles}
        weight = 1.0
        if source in batches and self.weighting == "relative":
            weight = batches[source] / peer.batch_size
        elif source in batches and self.weighting == "normalised":
            weight = batches[source] * len(batches) / sum(batches.values())
        return np.float32(weight / len(living))

    async def _take_in(self, peer: Peer, state: _State, message: Message, update: np.ndarray) -> None:
        """Use a message; its gradients are added to `update`, which this step will apply."""
        if message.source not in peer.mixing:  # lost while messages about weights were sent
            return
        profile, source = state.read(message), message.source
        part = slice(int(profile.start), int(profile.stop))
        if profile.kind == _GRADIENT:
            state.books.take_in(source, message.step)
            update[message.payload.where()] += self._weight(peer, state, source) * message.payload.values
        elif profile.kind == _WEIGHTS and isinstance(message.payload, Dense):
            await self._take_over(peer, state, message, update)
        elif profile.kind == _REQUEST:
            state.transfers[source] = 0
        elif profile.kind == _GAVE:
            state.books.gave(source, int(profile.other), message.step, part)
        elif profile.kind == _TOOK:
            state.books.took(int(profile.other), source, int(profile.given), part)

    # ---- (c) per-link prioritized exchange ------------------------------------------------------------------------

    async def _share(self, peer: Peer, state: _State, neighbour: int) -> None:
        """Pay a neighbour as much of its debt as its link takes."""
        if neighbour not in peer.mixing:
            return
        pick: Pick | None = None
        if not self.prioritized:
            pick = All() if peer.idle(neighbour) else None
        elif peer.room(neighbour, self.fill) >= peer.size:
            pick = All()
        elif room := peer.room(neighbour, self.fill, index_bytes=4):
            pick = Chosen(state.max_n.choose(state.ledger.owed(neighbour), room, self.n_least))
        if pick is not None:
            payload = await peer.pay(neighbour, pick, state.profile(peer, _GRADIENT, neighbour))
            state.books.pay(neighbour, peer.step, payload)

    # ---- (d) direct knowledge transfer ----------------------------------------------------------------------------

    async def _request_weights(self, peer: Peer, state: _State) -> None:
        """Request weights once in a round of transfers, when all peers have reported losses of that round or a later one."""
        reported = min([peer.step, *(state.steps.get(neighbour, 0) for neighbour in peer.neighbours)]) // self.transfer_every
        if reported <= state.chosen:
            return
        state.chosen = reported
        losses = {peer.id: state.loss} | {neighbour: state.profiles[neighbour].loss for neighbour in peer.neighbours}
        best = min(losses, key=lambda member: losses[member])
        worst = max(losses, key=lambda member: losses[member])
        if best != peer.id and (self.transfer_to == "all" or worst == peer.id):
            await peer.send(best, Dense(_NOTHING), state.profile(peer, _REQUEST, best))

    async def _hand_over(self, peer: Peer, state: _State, neighbour: int) -> None:
        """Send the next slice of the weights to a neighbour that has requested them, if there is room for it."""
        start = state.transfers[neighbour]
        room = peer.room(neighbour, self.fill, least=min(ceil(peer.size / _SLICES), peer.size - start))
        if not room:
            return
        part = slice(start, min(start + room, peer.size))
        state.transfers[neighbour] = part.stop
        if part.stop == peer.size:
            del state.transfers[neighbour]
        await peer.send(neighbour, Dense(peer.weights[part], start), state.profile(peer, _WEIGHTS, neighbour))
        if self.keep:
            state.books.give(neighbour, peer.step, part)
            await state.report_to_others(peer, _GAVE, neighbour, peer.step, part)

    async def _take_over(self, peer: Peer, state: _State, message: Message, update: np.ndarray) -> None:
        """Move towards a slice of a giver's weights; scale `update` too, because it belongs to the weights that move."""
        giver, part = message.source, message.payload.where()
        assert isinstance(part, slice)
        state.books.take_in(giver, message.step)
        peer.blend(message, self.transfer_rate)
        update[part] *= np.float32(1.0 - self.transfer_rate)
        if self.keep:
            update[part] += self._weight(peer, state, peer.id) * state.books.lost(giver, part)
            await state.report_to_others(peer, _TOOK, giver, message.step, part)


class _State:
    """The state of a peer: profiles and steps by peer (its own included), accounts, and transfers under way.

    `transfers` maps each neighbour that gets this peer's weights to the next element to send.
    """

    def __init__(self, peer: Peer, rate: float) -> None:
        self.first_batch = peer.batch_size
        self.balanced = False
        self.loss = 0.0
        self.chosen = 0  # the last round of transfers in which this peer chose a giver
        self.profiles: dict[int, Profile] = {}
        self.steps: dict[int, int] = {}
        self.transfers: dict[int, int] = {}
        self.ledger = peer.new_ledger()
        self.books = Books(self.ledger, rate)
        self.max_n = MaxN(peer.layout)

    def measure(self, peer: Peer) -> None:
        """Update this peer's own profile after a gradient."""
        self.profiles[peer.id] = Profile(*self.profile(peer, _GRADIENT, peer.id))

    def profile(
        self, peer: Peer, kind: float, target: int, about: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    ) -> tuple[float, ...]:
        """Return the scalars of a message to a neighbour: about this peer, and about weights given or taken."""
        speed, taken = peer.speed, float(self.books.taken(target))
        of_me = (float(peer.batch_size), speed.overhead_ns, speed.sample_ns, float(peer.data_samples), self.loss)
        return (kind, *of_me, taken, *about)

    def read(self, message: Message) -> Profile:
        """Read and remember the profile in a neighbour's message."""
        profile = Profile(*message.scalars)
        self.profiles[message.source] = profile
        self.steps[message.source] = max(message.step, self.steps.get(message.source, 0))
        self.books.confirmed(message.source, int(profile.taken))
        return profile

    async def report_to_others(self, peer: Peer, kind: float, other: int, given: int, part: slice) -> None:
        """Report to third peers that a slice of weights was given to, or taken from, another peer."""
        about = (float(other), float(given), float(part.start), float(part.stop))
        for third in list(peer.neighbours):
            if third != other:
                await peer.send(third, Dense(_NOTHING), self.profile(peer, kind, third, about))


def _bounded(loss: float) -> float:
    return float(np.clip(np.nan_to_num(loss, nan=_LOSS_MOST), -_LOSS_MOST, _LOSS_MOST))
