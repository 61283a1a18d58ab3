"""A peer's report at a record instant (its step, its losses, and the figures of its links), and how a peer is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from grapevine.experiments.graph import mixing_rule
from grapevine.peer.counts import LinkCount
from grapevine.peer.membership import Row, Rows
from grapevine.peer.message import Staleness
from grapevine.peer.peer import CODEC_STREAM, Peer
from grapevine.peer.wrappers.wrapped import WrappedPeer
from grapevine.topology import TimeVarying
from grapevine.topology.schedules.living import OverLiving

if TYPE_CHECKING:
    from grapevine.experiments.fleet import Fleet

FINAL = -1
"""The index of the report that a peer makes when it has ended."""
NOTHING = (0, 0)
LATENESS_SAMPLES = 256  # at most, in one report: enough for a 99th percentile, small enough for a pipe


class Outgoing(msgspec.Struct, array_like=True, tag=True, frozen=True):
    """The sender's figures of one directed link since the last report; rate nan = not measured."""

    target: int
    bytes: int
    messages: int
    rate_bytes_per_s: float


class Incoming(msgspec.Struct, array_like=True, tag=True, frozen=True):
    """The receiver's figures of one directed link since the last report; nan = nothing arrived.

    `delay_s` (the median) and the other delays are quantiles over chunks; `rate_bytes_per_s` is the rate within messages.
    """

    source: int
    delay_s: float
    delay_p99_s: float
    rate_bytes_per_s: float
    staleness_steps: float
    delay_p05_s: float = float("nan")
    delay_p95_s: float = float("nan")


class Report(msgspec.Struct, array_like=True, tag=True, frozen=True):
    """One peer's figures at one record instant; the snapshots hold its weights under the same index."""

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
    notes: dict[str, float] = {}
    """The strategy's latest notes, by name."""
    altered: dict[str, int] = {}
    """Counts of the changes by the peer's wrappers since the start."""
    member: bool = True
    """Whether the peer is a member at that instant; the weights of other peers are not scored."""
    first_step: int = 0
    """Number of steps in `step` that the peer did not make itself: those before it joined, or while it was absent."""
    mass: float | None = None
    """The peer's push-sum mass; None without push-sum."""


class Reporter:
    """Makes one peer's reports; `sent` and `received` are the counts of its links, by neighbour.

    Another thread may increase the counts meanwhile, so they are never reset: the counts at the last report are subtracted.
    """

    def __init__(self, peer: Peer, sent: dict[int, LinkCount], received: dict[int, LinkCount]) -> None:
        self.peer = peer
        self.sent = sent
        self.received = received
        self._staleness: dict[int, tuple[int, int]] = {}  # by neighbour, at the last report: steps, messages
        self._sent: dict[int, tuple[int, int]] = {}  # bytes, messages
        self._spread: dict[int, tuple[int, int]] = {}  # bytes, ns

    def report(self, index: int, now_ns: int, lateness_ns: list[int], errors: Counter[str]) -> Report:
        """Return the report of everything since the last one."""
        peer = self.peer
        stale = peer.staleness.values()
        return Report(
            peer.id,
            index,
            now_ns,
            peer.step,
            peer.take_loss(),
            peer.speed.step_ns,
            [self._outgoing(neighbour) for neighbour in self.sent if self._has_news(neighbour)],
            [self._incoming(neighbour) for neighbour in self.received if self._has_news(neighbour)],
            [value / 1e6 for value in lateness_ns],
            sum(each.steps for each in stale),
            sum(each.messages for each in stale),
            dict(errors.copy() + peer.errors),
            dict(peer.notes),
            dict(peer.altered) if isinstance(peer, WrappedPeer) else {},
            peer.member,
            peer.first_step,
            peer.mass,
        )

    def _has_news(self, neighbour: int) -> bool:
        """Whether to report a link: always, but if rounds or members change, only a link that has carried something, because
        there may be thousands."""
        if self.peer.rounds is None and not self.peer.members_change:
            return True
        return self.sent[neighbour].bytes > self._sent.get(neighbour, NOTHING)[0] or bool(self.received[neighbour].delays_ns)

    def _outgoing(self, neighbour: int) -> Outgoing:
        count = self.sent[neighbour]
        now, before = (count.bytes, count.messages), self._sent.get(neighbour, NOTHING)
        bytes_sent, sent = now[0] - before[0], now[1] - before[1]
        self._sent[neighbour] = now
        meter = self.peer.meters.get(neighbour)
        rate = meter.rate_bytes_per_s if meter is not None else None
        return Outgoing(neighbour, bytes_sent, sent, float("nan") if rate is None else rate)

    def _incoming(self, neighbour: int) -> Incoming:
        count, staleness = self.received[neighbour], self.peer.staleness[neighbour]
        delays_ns, count.delays_ns = sorted(count.delays_ns), []
        spread, before = (count.spread_bytes, count.spread_ns), self._spread.get(neighbour, NOTHING)
        spread_bytes, spread_ns = spread[0] - before[0], spread[1] - before[1]
        self._spread[neighbour] = spread
        rate = spread_bytes / spread_ns * 1e9 if spread_ns else float("nan")
        steps, used = self._staleness.get(neighbour, NOTHING)
        self._staleness[neighbour] = staleness.steps, staleness.messages
        used = staleness.messages - used
        stale = (staleness.steps - steps) / used if used else float("nan")
        low, middle, high, highest = (_quantile_s(delays_ns, share) for share in (0.05, 0.5, 0.95, 0.99))
        return Incoming(neighbour, middle, highest, rate, stale, low, high)


def _quantile_s(sorted_ns: list[int], share: float) -> float:
    return sorted_ns[int(share * (len(sorted_ns) - 1))] / 1e9 if sorted_ns else float("nan")


def thinned(values: list[int]) -> list[int]:
    """Return at most LATENESS_SAMPLES of the values, at equal distances."""
    return values[:: len(values) // LATENESS_SAMPLES + 1]


def batch_generator(seed: int, peer: int) -> np.random.Generator:
    """Return the generator that draws a peer's minibatches, the same in every world."""
    return np.random.default_rng([seed, 0x5A, peer])


def make_peer(fleet: Fleet, identity: int, weights: np.ndarray) -> Peer:
    """Return one peer of a fleet, the same in every world; it keeps its model in `weights` (float32 [size])."""
    experiment = fleet.experiment
    wrappers = [(place, each) for place, each in enumerate(experiment.wrappers) if each.stands_at(identity)]
    peer = (WrappedPeer if wrappers else Peer)(
        identity,
        experiment.peers,
        fleet.mixing_of(identity),
        weights,
        experiment.task.batch_size,
        experiment.codec,
        experiment.aggregator,
        experiment.optimizer,
        experiment.stop.steps,
        np.random.default_rng([experiment.seed, 0x9E, identity]),
        int(fleet.problem.samples[identity]),
        fleet.rounds,
        mixing_rule(experiment) == "push-sum",
        fleet.problem.layout,
        fleet.problem.held_out[identity],
        fleet.spaces,
        np.random.default_rng([experiment.seed, CODEC_STREAM, identity]),
    )
    if isinstance(peer, WrappedPeer):
        peer.wear(wrappers, experiment.seed)
    if fleet.membership is not None:
        peer.members_change = True
        for neighbour in fleet.graph.neighbors(identity):
            peer.staleness.setdefault(neighbour, Staleness())
        peer.member = identity in fleet.membership.first
        peer.rounds = rounds_over(fleet.membership.schedule, experiment.seed, fleet.membership.first)
        if experiment.strategy.membership == "by-step":
            peer.rounds = Rows(peer, peer.rounds or Row(peer.mixing.copy()))
    peer.asks = experiment.strategy.asked
    peer.outputs, peer.probe_samples = fleet.problem.outputs, fleet.problem.probe
    peer.expected = experiment.strategy.expects(peer)
    return peer


def rounds_over(schedule: TimeVarying | None, seed: int, living: Sequence[int]) -> OverLiving | None:
    """Return the rounds of a schedule over the members `living`, empty if they are too few; None if there is no schedule."""
    if schedule is None:
        return None
    return OverLiving(schedule.plan(len(living), seed) if len(living) >= schedule.smallest else None, living)
