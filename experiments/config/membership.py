"""The menu of memberships: the laws by which peers join and leave during a run.

A law draws all joining and leaving before the run, as events like those of a file. Each peer draws from its own generator, so
that neither the number of peers nor another peer's events change its numbers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

from grapevine.experiments.config.events import Event, JoinEvent, LeaveEvent
from grapevine.netem.units import Duration, duration_ns

_STREAM = 0x3E

Span = tuple[int, int]
"""The time for which a peer is a member, from and until, emulated ns; it may end after the run."""


class Membership(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """The times at which peers are members, and the neighbours that give a joining peer its weights."""

    weights: Literal["nearest", "best", "mean"] = "nearest"
    """A joining peer takes over the weights of the neighbour that answers first ("nearest"), of the one with the lowest
    training loss ("best"), or the mean of several ("mean")."""
    givers: Annotated[int, msgspec.Meta(ge=1)] = 3
    """With weights = "mean": the number of neighbours, the nearest ones; >= 1."""

    draws: ClassVar[bool] = True
    """Whether the law itself draws joining and leaving: then a run needs stop.time, and its file has no such events."""
    changes: ClassVar[bool] = True
    """Whether members may change without an event of the file."""

    @abstractmethod
    def events(self, peers: int, seed: int, stop_ns: int) -> tuple[list[int], list[Event]]:
        """Return the peers that are members at the start, and all later joining and leaving, in order of time."""
        raise NotImplementedError


class _Steady(Membership, frozen=True):
    """A membership that draws no joining and leaving."""

    draws: ClassVar[bool] = False

    def events(self, peers: int, seed: int, stop_ns: int) -> tuple[list[int], list[Event]]:
        return list(range(peers)), []


class Always(_Steady, frozen=True, tag="always"):
    """All peers are members from start to end, except for the events "join" and "leave" of the file."""

    changes: ClassVar[bool] = False


class Open(_Steady, frozen=True, tag="open"):
    """Like "always", and pokes may also let peers join and leave."""


class _Law(Membership, frozen=True):
    """A law that draws joining and leaving; at least `least` peers are members at any time."""

    least: Annotated[int, msgspec.Meta(ge=1)] = 2
    """The least number of members; a peer whose leaving would make them fewer stays until its next leaving; >= 1."""

    def events(self, peers: int, seed: int, stop_ns: int) -> tuple[list[int], list[Event]]:
        spans = self._spans(peers, seed, stop_ns)
        at_first = sorted(peer for peer, times in spans.items() if times and times[0][0] == 0)
        for peer in range(peers):
            if len(at_first) >= self.least:
                break
            if peer not in at_first:
                at_first.append(peer)
        moments = sorted(
            (at_ns, peer, joins)
            for peer, times in spans.items()
            for since_ns, until_ns in times
            for at_ns, joins in ((since_ns, True), (until_ns, False))
            if 0 < at_ns < stop_ns
        )
        members = set(at_first)
        events: list[Event] = []
        for at_ns, peer, joins in moments:
            if joins == (peer in members) or (not joins and len(members) <= self.least):
                continue
            members ^= {peer}
            kind = JoinEvent if joins else LeaveEvent
            events.append(kind(at=f"{at_ns} ns", peer=peer))
        return sorted(at_first), events

    @abstractmethod
    def _spans(self, peers: int, seed: int, stop_ns: int) -> dict[int, list[Span]]:
        """Return the times for which each peer is a member, in order of time."""
        raise NotImplementedError


class Arrivals(_Law, frozen=True, tag="arrivals"):
    """Peers arrive one after the other by a Poisson process, and each stays for an exponential time."""

    first: Annotated[int, msgspec.Meta(ge=0)] = 2
    """Peers 0 to first - 1 are members from the start; >= 0."""
    every: Duration = "10 s"
    """Mean time between two arrivals, in the order of the peers' numbers; more than 0."""
    lifetime: Duration = "60 s"
    """Mean time that a peer stays; more than 0."""

    def __post_init__(self) -> None:
        _positive("every", self.every)
        _positive("lifetime", self.lifetime)

    def _spans(self, peers: int, seed: int, stop_ns: int) -> dict[int, list[Span]]:
        spans, at_ns = {}, 0
        for peer in range(peers):
            rng = np.random.default_rng([seed, _STREAM, peer])
            gap_ns = _exponential(rng, self.every)
            at_ns += gap_ns if peer >= self.first else 0
            spans[peer] = [(at_ns, at_ns + _exponential(rng, self.lifetime))]
        return spans


class Availability(_Law, frozen=True, tag="availability"):
    """Every peer is present and absent in turn, for exponential times (a Markov chain of two states)."""

    present: Duration = "60 s"
    """Mean time that a peer is a member; more than 0."""
    absent: Duration = "20 s"
    """Mean time from a peer's leaving to its return; more than 0."""

    def __post_init__(self) -> None:
        _positive("present", self.present)
        _positive("absent", self.absent)

    def _spans(self, peers: int, seed: int, stop_ns: int) -> dict[int, list[Span]]:
        return {peer: list(self._walk(np.random.default_rng([seed, _STREAM, peer]), stop_ns)) for peer in range(peers)}

    def _walk(self, rng: np.random.Generator, stop_ns: int) -> Iterator[Span]:
        """Yield the times of one peer; it is present at the start with probability present / (present + absent)."""
        present_ns, absent_ns = duration_ns(self.present), duration_ns(self.absent)
        at_ns = 0
        if rng.random() >= present_ns / (present_ns + absent_ns):
            at_ns = _exponential(rng, self.absent)
        while at_ns < stop_ns:
            until_ns = at_ns + _exponential(rng, self.present)
            yield at_ns, until_ns
            at_ns = until_ns + _exponential(rng, self.absent)


AnyMembership = Always | Open | Arrivals | Availability


def _exponential(rng: np.random.Generator, mean: str) -> int:
    """Return an exponential time with this mean, ns; at least 1."""
    return max(1, int(rng.exponential(duration_ns(mean))))


def _positive(field: str, duration: str) -> None:
    if duration_ns(duration) == 0:
        raise ValueError(f'{field}: {duration!r} is too short; write for example "10 s"')
