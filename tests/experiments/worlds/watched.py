"""Virtual worlds that are watched: what their links carried, and laws that hold for every run."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine import Experiment
from grapevine.experiments.fleet import build
from grapevine.experiments.results.outcome import Outcome
from grapevine.experiments.results.recorder import Recorder
from grapevine.experiments.worlds.collector import Collector
from grapevine.experiments.worlds.interrupt import Interrupt
from grapevine.experiments.worlds.virtual.shared_link import Segments, SharedLink
from grapevine.experiments.worlds.virtual.world import VirtualWorld
from grapevine.netem import Link, NetworkPlan, Transit
from grapevine.netem.links.link import ChangingLink, TcpLink
from grapevine.netem.shaping.sender import Sender

NOTHING_LOST = 0.6  # share of scenarios in which nobody dies
Carried = dict[int, list[tuple[int, Transit]]]  # what each link (by identity) was given, and what it answered
Forgiven = dict[int, int]  # acknowledgements that each link has carried while nothing else was under way, bytes


def watch(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[tuple[int, int], Link], Carried, Forgiven]:
    """Note every link that a plan makes and everything that it carries."""
    links: dict[tuple[int, int], Link] = {}
    carried: Carried = defaultdict(list)
    forgiven: Forgiven = defaultdict(int)
    made = NetworkPlan.link

    def link(plan: NetworkPlan, source: int, target: int) -> Link:
        return links.setdefault((source, target), made(plan, source, target))

    def watched(send: Any) -> Any:
        def noting(self: Link, now_ns: int, size_bytes: int, *rest: Any, **options: Any) -> Transit:
            transit = send(self, now_ns, size_bytes, *rest, **options)
            carried[id(self)].append((size_bytes, transit))
            return transit

        return noting

    leave, settle, slip, take_debt = SharedLink._left, Segments._settle, Sender.slip, Sender._take_debt

    def leaving(self: SharedLink) -> None:
        size_bytes, link = self._first_bytes + self._rest_bytes, self.sender.link
        before = carried[id(link)][-1][1].finish_ns if carried[id(link)] else 0
        leave(self)
        carried[id(link)].append((size_bytes, Transit(before, link.free_ns, link._due_ns)))

    def settling(self: Segments) -> None:
        settle(self)
        shares = self.fluid.shares
        for segment, limit in enumerate(shares.limits):  # type: ignore[arg-type]
            load = sum(rate for rate, route in zip(shares.rates, shares.routes, strict=True) if segment in route)
            assert load <= limit * (1 + 1e-9), "a segment that several links share carries more than it can"

    def slipping(self: Sender, now_ns: int, size_bytes: int) -> int:
        debt_bytes, before_bytes = self.debt_bytes, forgiven[id(self.link)]
        due_ns = slip(self, now_ns, size_bytes)
        forgiven[id(self.link)] = before_bytes + debt_bytes + size_bytes - self.debt_bytes
        return due_ns

    def taking(self: Sender, now_ns: int) -> int:
        debt_bytes = self.debt_bytes
        left_bytes = take_debt(self, now_ns)
        forgiven[id(self.link)] += debt_bytes - left_bytes
        return left_bytes

    monkeypatch.setattr(SharedLink, "_left", leaving)
    monkeypatch.setattr(Segments, "_settle", settling)
    monkeypatch.setattr(Sender, "slip", slipping)
    monkeypatch.setattr(Sender, "_take_debt", taking)
    monkeypatch.setattr(NetworkPlan, "link", link)
    for kind in (Link, ChangingLink, TcpLink):
        monkeypatch.setattr(kind, "send", watched(kind.send))
    return links, carried, forgiven


class WatchedWorld(VirtualWorld):
    """A world whose time may only go forward."""

    def _at(self, time_ns: int, action: Any, *arguments: Any) -> None:
        assert time_ns >= self.now_ns, f"an event at {time_ns} planned at {self.now_ns}"
        super()._at(time_ns, action, *arguments)


def carried_out(experiment: Experiment, losses: list[tuple[int, int]], folder: Path) -> tuple[WatchedWorld, Outcome, Recorder]:
    fleet = build(experiment)
    with Recorder(folder, "", {}) as recorder:
        world = WatchedWorld(fleet, Collector(fleet, recorder, lambda status: None), Interrupt(), losses)
        return world, world.run(), recorder


def links_keep_their_rate_and_order(links: dict[tuple[int, int], Link], carried: Carried) -> None:
    """Links are first in, first out, and never faster than their rate, over any stretch of their use."""
    for link in links.values():
        for (_, one), (size_bytes, two) in pairwise(carried[id(link)]):
            assert two.finish_ns >= one.finish_ns
            assert two.due_ns >= one.due_ns
            assert two.due_ns >= two.finish_ns >= two.start_ns
            if type(link) is Link and isfinite(link.rate_bytes_per_s):
                took_ns = two.finish_ns - max(one.finish_ns, two.start_ns)
                assert took_ns >= size_bytes / link.rate_bytes_per_s * 1e9 - 2


def every_byte_is_accounted_for(
    world: WatchedWorld, outcome: Outcome, links: dict[tuple[int, int], Link], carried: Carried, forgiven: Forgiven
) -> None:
    """What was counted as sent is what the links carried, less acknowledgements that idle links carried or that still wait."""
    counted = defaultdict(int, {(link.source, link.target): link.bytes for link in outcome.links})
    assert sum(counted.values()) == outcome.bytes_sent
    for pair, link in links.items():
        given = sum(size for size, _ in carried[id(link)])
        laid = world.transport.links[pair]
        waiting = laid.sender.debt_bytes + forgiven[id(link)]
        if isinstance(laid, SharedLink) and laid.sender.leaving:  # what the message that is leaving makes up for
            waiting += laid._first_bytes + laid._rest_bytes - laid.sender.leaving[0].size_bytes
        assert given + waiting == counted[pair] or pair[0] in outcome.peers_lost or pair[1] in outcome.peers_lost


def conserved(world: WatchedWorld) -> None:
    """What a peer made = what it paid + what it owes."""
    for member in world.members:
        ledger = member.peer.ledger
        if ledger is not None:
            for neighbour, paid in ledger.paid.items():
                np.testing.assert_allclose(paid + ledger.owed(neighbour), ledger.total, atol=1e-9)
