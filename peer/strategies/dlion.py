"""DLion: decentralized learning in micro-clouds (Hong and Chandra, HotCloud 2019 and HPDC 2021).

When: every step, asynchronously.  What: the largest gradients that fit the link.  Whom: everybody.  How, each to be switched
off:
(a) weighted dynamic batching: a global batch that grows, dealt out so that all steps take equally long;
(b) weighted update: a gradient counts by the batch it was made of, relative to the receiver's;
(c) per-link prioritized exchange ("Max N"): per link as many of the largest entries as its room holds, and at least all within
    N_min percent of the largest where there is any room; the rest is kept for later, or dropped;
(d) direct knowledge transfer: now and then the peer with the lowest recent loss hands its weights to the others.

The three techniques are the papers'.  Their formulas and constants are not verified against the papers' text, so these are
ours:
    global batch   every `adjust_every` steps G += G_0 up to `warm_share` of the data, then G *= `growth` up to `full_share`
    local batch    LBS_i = (t - a_i) / b_i with one t for all such that the sum is G, from each peer's measured line a + b LBS
    update         x_k <- x_k - eta / n sum_j (LBS_j / LBS_k) g_j, or LBS_j / mean LBS ("normalised")
    N_min          0.85;  transfer every 100 steps;  x <- x - lambda (x - x_best), lambda 0.75

Departures: entries are ranked over the whole vector, not a tensor at a time.  Batches change only, the learning rate does
not. Weights are handed over in slices as the link has room, before gradients.  With (c) off, a link gets the whole
accumulated gradient whenever the last one has arrived.
"""

from __future__ import annotations

from math import inf
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

from peer.expected import COUNT, Expected
from peer.ledger import All, Largest, Ledger
from peer.payloads import Dense
from peer.peer import Message, Peer
from peer.strategies.base import Strategy

_GRADIENT, _ASK, _WEIGHTS = 0.0, 1.0, 2.0
_NOTHING = np.zeros(0, np.float32)
_LOSS_MEMORY = 0.9
_PROFILE = ((1.0, COUNT[1]), COUNT, COUNT, COUNT, (-inf, inf))  # after the kind, in the order of Profile
_Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Profile(msgspec.Struct, frozen=True, array_like=True):
    """What a peer tells of itself in every message."""

    kind: float
    batch: float
    overhead_ns: float
    sample_ns: float
    data_samples: float
    loss: float


class DLion(Strategy, frozen=True, tag="dlion"):
    """Dynamic batches, weighted updates, the largest gradients per link, knowledge transfer (HPDC 2021)."""

    shares: ClassVar[Literal["nothing", "parameters", "gradients"]] = "gradients"

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
    """(b) What a gradient counts: its batch over the receiver's, over the mean batch, or all alike."""
    prioritized: bool = True
    """(c) Whether each link gets the largest gradients that fit; false: whole gradients, one at a time."""
    n_least: Annotated[float, msgspec.Meta(ge=0.0, le=100.0)] = 0.85
    """(c) N_min: entries within so many percent of the largest always go where there is room at all, 0 to 100."""
    keep: bool = True
    """(c) Whether what was not sent is kept for later; false: it is dropped."""
    fill: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.9
    """Share of a link's measured room that may be used, 0 < fill <= 1."""
    transfer_every: Annotated[int, msgspec.Meta(ge=0)] = 100
    """(d) Steps between two knowledge transfers; 0 = none."""
    transfer_rate: _Share = 0.75
    """(d) How far a peer moves towards the best one's weights, 0 to 1."""
    transfer_to: Literal["all", "worst"] = "all"
    """(d) Who asks the best peer for its weights: all others, or the one with the highest loss."""

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        gradient, ask, weights = (((kind, kind), *_PROFILE) for kind in (_GRADIENT, _ASK, _WEIGHTS))
        return Expected("chosen", gradient), Expected("whole", gradient), Expected("none", ask), Expected("part", weights)

    async def run(self, peer: Peer) -> None:
        ledger = peer.new_ledger()
        state = _State(peer)
        while peer.running:
            if self.batching:
                peer.batch_size = self._local_batch(peer, state)
            gradient = await peer.gradient()
            state.measure(peer)
            ledger.add(gradient)
            update = gradient * np.float32(self._weight(peer, state, peer.id) / peer.peers)
            for message in peer.arrived():
                self._take_in(peer, state, message, update)
            peer.apply(update)
            for neighbour in list(peer.neighbours):
                await self._hand_over(peer, state, neighbour)
                await self._share(peer, ledger, neighbour, state)
            if self.transfer_every and peer.step % self.transfer_every == 0:
                await self._ask_the_best(peer, state)

    # ---- (a) weighted dynamic batching ----------------------------------------------------------------------------

    def _local_batch(self, peer: Peer, state: _State) -> int:
        """This peer's share of the global batch, such that all steps take equally long."""
        if peer.step == 1:
            return max(1, state.first_batch // 2)  # a second size: what a step costs besides its samples shows
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
        """G at a step: two phases of growth from `first` on, never above `full_share` of the training set."""
        batch = first
        for _ in range(step // self.adjust_every):
            if batch < self.warm_share * data_samples:
                batch += first
            elif batch < self.full_share * data_samples:
                batch = min(batch * self.growth, self.full_share * data_samples)
            else:
                break
        return batch

    # ---- (b) weighted update --------------------------------------------------------------------------------------

    def _weight(self, peer: Peer, state: _State, source: int) -> float:
        """What a gradient of a peer counts here."""
        batches = {member: profile.batch for member, profile in state.profiles.items()}
        if self.weighting == "none" or source not in batches:
            return 1.0
        if self.weighting == "relative":
            return batches[source] / peer.batch_size
        return batches[source] * len(batches) / sum(batches.values())

    def _take_in(self, peer: Peer, state: _State, message: Message, update: np.ndarray) -> None:
        profile = state.told(message)
        if profile.kind == _WEIGHTS:
            peer.blend(message, self.transfer_rate)
        elif profile.kind == _ASK:
            state.transfers[message.source] = 0
        else:
            weight = np.float32(self._weight(peer, state, message.source) / peer.peers)
            update[message.payload.where()] += weight * message.payload.values

    # ---- (c) per-link prioritized exchange ------------------------------------------------------------------------

    async def _share(self, peer: Peer, ledger: Ledger, neighbour: int, state: _State) -> None:
        if neighbour not in peer.mixing:
            return
        about = state.profile(peer, _GRADIENT)
        if not self.prioritized:
            if peer.idle(neighbour):
                await peer.pay(neighbour, All(), about)
        elif peer.room(neighbour, self.fill) >= peer.size:
            await peer.pay(neighbour, All(), about)
        elif room := peer.room(neighbour, self.fill, index_bytes=4):
            owed = np.abs(ledger.owed(neighbour))
            floor = int(np.count_nonzero(owed >= (1 - self.n_least / 100) * owed.max()))
            await peer.pay(neighbour, Largest(max(room, floor)), about)
        if not self.keep:
            ledger.settle(neighbour)

    # ---- (d) direct knowledge transfer ----------------------------------------------------------------------------

    async def _ask_the_best(self, peer: Peer, state: _State) -> None:
        losses = {member: state.profiles[member].loss for member in (peer.id, *peer.neighbours) if member in state.profiles}
        best = min(losses, key=lambda member: losses[member])
        worst = max(losses, key=lambda member: losses[member])
        if best != peer.id and (self.transfer_to == "all" or worst == peer.id):
            await peer.send(best, Dense(_NOTHING), state.profile(peer, _ASK))

    async def _hand_over(self, peer: Peer, state: _State, neighbour: int) -> None:
        """The next slice of the weights for a neighbour that has asked, as large as there is room."""
        start = state.transfers.get(neighbour)
        if start is None or not (room := peer.room(neighbour, self.fill)):
            return
        stop = min(start + room, peer.size)
        if stop < peer.size:
            state.transfers[neighbour] = stop
        else:
            del state.transfers[neighbour]
        await peer.send(neighbour, Dense(peer.weights[start:stop], start), state.profile(peer, _WEIGHTS))


class _State:
    """What a peer remembers: profiles by peer (its own included), and whom it hands its weights to, from which element on."""

    def __init__(self, peer: Peer) -> None:
        self.first_batch = peer.batch_size
        self.balanced = False
        self.loss = inf
        self.profiles: dict[int, Profile] = {}
        self.transfers: dict[int, int] = {}

    def measure(self, peer: Peer) -> None:
        """A gradient was computed: renew this peer's own profile."""
        self.loss = peer.loss if self.loss == inf else _LOSS_MEMORY * self.loss + (1 - _LOSS_MEMORY) * peer.loss
        self.profiles[peer.id] = Profile(*self.profile(peer, _GRADIENT))

    def profile(self, peer: Peer, kind: float) -> tuple[float, ...]:
        """What a message tells of this peer."""
        speed = peer.speed
        return (kind, float(peer.batch_size), speed.overhead_ns, speed.sample_ns, float(peer.data_samples), self.loss)

    def told(self, message: Message) -> Profile:
        """What a neighbour's message tells of it."""
        profile = Profile(*message.scalars)
        self.profiles[message.source] = profile
        return profile
