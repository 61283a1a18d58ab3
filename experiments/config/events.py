"""The menu of events that change a fleet while it trains, and the effect of each on links and devices.

An event sets the state of a link or a device from then on. Factors refer to the values in the experiment's own tables, not to
the previous event: after two events `factor = 0.1` the rate is a tenth.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from grapevine.netem.links.alterations import PLAIN, Condition
from grapevine.netem.units import Duration, Rate, duration_ns, rate_bytes_per_s

Pair = tuple[int, int]
"""Source and target of one direction of a link."""

PeerNumber = Annotated[int, msgspec.Meta(ge=0)]
Factor = Annotated[float, msgspec.Meta(gt=0.0)]


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="do", forbid_unknown_fields=True):
    """A change of the fleet at an emulated time."""

    at: Duration
    """Emulated time since the start, such as "30 s"; before stop.time."""

    @property
    def at_ns(self) -> int:
        return duration_ns(self.at)

    @property
    def kind(self) -> str:
        """The event's name in the menu."""
        return str(self.__struct_config__.tag)

    @property
    def ends_ns(self) -> int:
        """The end of a pause, ns; of an event that lasts until the next one about the same thing, its own time."""
        return self.at_ns

    @property
    @abstractmethod
    def about(self) -> tuple[object, ...]:
        """The thing that the event changes, and in which respect: a later event about the same replaces it."""
        raise NotImplementedError

    @abstractmethod
    def describe(self) -> str:
        """Return the event in words, such as "link 0-1 is cut"."""
        raise NotImplementedError


class LinkEvent(Event, frozen=True, kw_only=True):
    """A change of links."""

    link: tuple[PeerNumber, PeerNumber] | None = None
    """The two peers of the link, such as [0, 1]; link and peer both left out = all links."""
    peer: PeerNumber | None = None
    """All links of this peer, in place of link."""
    way: Literal["both", "out", "in"] = "both"
    """"both" directions, only "out" (from the first to the second peer of link, or from peer), or only "in" (the reverse)."""

    def __post_init__(self) -> None:
        if self.link is not None and self.peer is not None:
            raise ValueError("peer: cannot be combined with link; give one of them, or none for all links")
        if self.link is not None and self.link[0] == self.link[1]:
            raise ValueError(f"link: joins peer {self.link[0]} with itself; give two peers, such as [0, 1]")
        if self.way != "both" and self.link is None and self.peer is None:
            raise ValueError(f'way: "{self.way}" has no meaning for all links; give link or peer, or leave way out')
        self.condition(PLAIN)

    @property
    def about(self) -> tuple[object, ...]:
        return self.kind, self.link, self.peer, self.way

    def affected(self, pairs: Iterable[Pair]) -> list[Pair]:
        """Return the directed links, among `pairs`, that the event changes."""
        return [pair for pair in pairs if self._affects(*pair)]

    @abstractmethod
    def condition(self, before: Condition) -> Condition:
        """Return the condition of a link after the event; `before` is its condition before."""
        raise NotImplementedError

    def _affects(self, source: int, target: int) -> bool:
        if self.link is not None:
            ends = {"both": (self.link, self.link[::-1]), "out": (self.link,), "in": (self.link[::-1],)}
            return (source, target) in ends[self.way]
        if self.peer is not None:
            return (self.way != "in" and source == self.peer) or (self.way != "out" and target == self.peer)
        return True

    def where(self) -> str:
        """Return the links in words."""
        if self.link is not None:
            first, second = self.link if self.way != "in" else self.link[::-1]
            return f"link {first}-{second}" if self.way == "both" else f"link {first} -> {second}"
        if self.peer is not None:
            return {"both": "all links of", "out": "all links from", "in": "all links towards"}[self.way] + f" peer {self.peer}"
        return "all links"


class RateEvent(LinkEvent, frozen=True, kw_only=True, tag="rate"):
    """Links get another rate: a multiple of their own, or one in bits a second."""

    factor: Factor | None = None
    """Multiplies the network's own rate: 0.1 = a tenth, 1 = the network's own; above 0."""
    to: Rate | None = None
    """In place of factor: the rate from then on, such as "2 Mbit/s"."""

    def condition(self, before: Condition) -> Condition:
        if (self.factor is None) == (self.to is None):
            raise ValueError('factor: give either factor or to; write for example factor = 0.1, or to = "2 Mbit/s"')
        rate = None if self.to is None else rate_bytes_per_s(self.to)
        return before._replace(rate_factor=self.factor or 1.0, rate_bytes_per_s=rate)

    def describe(self) -> str:
        return f"{self.where()}: rate {f'x {self.factor:g}' if self.factor is not None else self.to}"


class DelayEvent(LinkEvent, frozen=True, kw_only=True, tag="delay"):
    """Links get another delay: a multiple of their own, and a time in addition."""

    factor: Annotated[float, msgspec.Meta(ge=0.0)] = 1.0
    """Multiplies the network's own one-way delay: 2 = twice, 1 = the network's own; 0 or more."""
    add: Duration = "0 s"
    """Added to the one-way delay, such as "100 ms"."""

    def condition(self, before: Condition) -> Condition:
        return before._replace(delay_factor=self.factor, delay_more_ns=duration_ns(self.add))

    def describe(self) -> str:
        parts = [f"x {self.factor:g}" if self.factor != 1 else "", f"+ {self.add}" if duration_ns(self.add) else ""]
        return f"{self.where()}: delay {' '.join(part for part in parts if part) or 'back to normal'}"


class LossEvent(LinkEvent, frozen=True, kw_only=True, tag="loss"):
    """Links lose another share of their packets, which slows them."""

    to: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]
    """Share of packets lost from then on, 0 to below 1; for links with tcp, or whose rate does not change by itself."""

    def condition(self, before: Condition) -> Condition:
        return before._replace(loss=self.to)

    def describe(self) -> str:
        return f"{self.where()}: loss {self.to:g}"


class CutEvent(LinkEvent, frozen=True, kw_only=True, tag="cut"):
    """Links carry no bytes until they are healed; messages wait, none is lost, and no peer counts as lost."""

    def condition(self, before: Condition) -> Condition:
        return before._replace(up=False)

    def describe(self) -> str:
        return f"{self.where()} {_are(self)} cut"


class HealEvent(LinkEvent, frozen=True, kw_only=True, tag="heal"):
    """Links that were cut carry bytes again; the messages that waited go first."""

    def condition(self, before: Condition) -> Condition:
        return before._replace(up=True)

    def describe(self) -> str:
        return f"{self.where()} {_are(self)} healed"


class RestoreEvent(LinkEvent, frozen=True, kw_only=True, tag="restore"):
    """Links go back to normal: healed, with the network's own rate, delay and loss."""

    def condition(self, before: Condition) -> Condition:
        return PLAIN

    def describe(self) -> str:
        return f"{self.where()}: back to normal"


class PartitionEvent(Event, frozen=True, kw_only=True, tag="partition"):
    """The links between groups of peers are cut; those within a group stay as they are."""

    groups: Annotated[tuple[Annotated[tuple[PeerNumber, ...], msgspec.Meta(min_length=1)], ...], msgspec.Meta(min_length=1)]
    """Lists of peers, such as [[0, 1, 2], [3, 4]]; all other peers form one more group."""

    def __post_init__(self) -> None:
        named = [peer for group in self.groups for peer in group]
        twice = sorted({peer for peer in named if named.count(peer) > 1})
        if twice:
            raise ValueError(f"groups: peer {twice[0]} appears twice; put each peer into one group")

    @property
    def about(self) -> tuple[object, ...]:
        return self.kind, self.groups

    def affected(self, pairs: Iterable[Pair]) -> list[Pair]:
        """Return the directed links, among `pairs`, that go from one group to another."""
        group = {peer: place for place, peers in enumerate(self.groups) for peer in peers}
        return [pair for pair in pairs if group.get(pair[0]) != group.get(pair[1])]

    def condition(self, before: Condition) -> Condition:
        """Return the condition of a link between groups after the event; `before` is its condition before."""
        return before._replace(up=False)

    def describe(self) -> str:
        return "partition into " + " | ".join(_shortened(group) for group in self.groups) + " | all others"


class SpeedEvent(Event, frozen=True, kw_only=True, tag="speed"):
    """A device computes slower or faster."""

    peer: PeerNumber
    """The peer with this device."""
    factor: Factor
    """Multiplies the device's own speed: 0.25 = a quarter, 1 = its own; above 0."""

    @property
    def about(self) -> tuple[object, ...]:
        return self.kind, self.peer

    def describe(self) -> str:
        return f"peer {self.peer}: speed x {self.factor:g}"


class PauseEvent(Event, frozen=True, kw_only=True, tag="pause"):
    """A device computes nothing for a while; its links continue."""

    peer: PeerNumber
    """The peer with this device."""
    length: Duration
    """Length of the pause, such as "5 s"; more than 0."""

    def __post_init__(self) -> None:
        if duration_ns(self.length) == 0:
            raise ValueError(f'length: {self.length!r} is too short; write for example "5 s"')

    @property
    def ends_ns(self) -> int:
        return self.at_ns + duration_ns(self.length)

    @property
    def about(self) -> tuple[object, ...]:
        return self.kind, self.peer

    def describe(self) -> str:
        return f"peer {self.peer} pauses for {self.length}"


class KillEvent(Event, frozen=True, kw_only=True, tag="kill"):
    """A peer ends like a killed process: its neighbours learn of its end and continue without it."""

    peer: PeerNumber
    """The peer."""

    @property
    def about(self) -> tuple[object, ...]:
        return self.kind, self.peer

    def describe(self) -> str:
        return f"peer {self.peer} is killed"


class JoinEvent(Event, frozen=True, kw_only=True, tag="join"):
    """A peer becomes a member: it gets neighbours by the topology's rule and takes over weights from one of them."""

    peer: PeerNumber
    """The peer; it is absent before, from the start if this is its first event."""

    @property
    def about(self) -> tuple[object, ...]:
        return "membership", self.peer

    def describe(self) -> str:
        return f"peer {self.peer} joins"


class LeaveEvent(Event, frozen=True, kw_only=True, tag="leave"):
    """A peer leaves politely: it finishes its step, sends what it owes and a goodbye, and may join again."""

    peer: PeerNumber
    """The peer."""

    @property
    def about(self) -> tuple[object, ...]:
        return "membership", self.peer

    def describe(self) -> str:
        return f"peer {self.peer} leaves"


def without_stale(events: Iterable[Event], now_ns: int) -> list[Event]:
    """Return the events in order of time, without those before `now_ns` that a later one has replaced by then."""
    kept: list[Event] = []
    latest: dict[tuple[object, ...], Event] = {}
    for event in reversed(list(events)):
        if event.at_ns <= now_ns:
            if event.about in latest and latest[event.about].ends_ns >= event.ends_ns:
                continue
            latest[event.about] = event
        kept.append(event)
    return kept[::-1]


AnyEvent = (
    RateEvent
    | DelayEvent
    | LossEvent
    | CutEvent
    | HealEvent
    | RestoreEvent
    | PartitionEvent
    | SpeedEvent
    | PauseEvent
    | KillEvent
    | JoinEvent
    | LeaveEvent
)


def _are(event: LinkEvent) -> str:
    return "is" if event.link is not None else "are"


def _shortened(peers: tuple[int, ...], most: int = 8) -> str:
    return " ".join(map(str, peers[:most])) + (f" ... ({len(peers)} peers)" if len(peers) > most else "")
