"""Joining and leaving in virtual time, at the request of an event, the law of membership or a strategy.

A change holds for all peers at the same instant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from grapevine.experiments.config.events import Event, JoinEvent, LeaveEvent
from grapevine.experiments.fleet import Fleet
from grapevine.experiments.membership import MembershipPlan
from grapevine.experiments.worlds.collector import Collector
from grapevine.experiments.worlds.members import Members
from grapevine.experiments.worlds.peer_report import rounds_over
from grapevine.experiments.worlds.virtual.member import Member
from grapevine.experiments.worlds.virtual.transport import Transport
from grapevine.peer.effects import Effect, Leave
from grapevine.peer.membership import Away, Enter, Errand, Row, Rows, Welcome
from grapevine.peer.message import Message
from grapevine.peer.neighbourhood import Rounds


class World(Protocol):
    """The part of the world of virtual time that joining and leaving use."""

    fleet: Fleet
    collector: Collector
    members: list[Member]
    transport: Transport[Member]
    now_ns: int


class Turnover:
    """Carries out joins and leaves in a virtual world.

    `at(time_ns, action, *arguments)` plans an event, `resume(member, answer)` continues a strategy, `rouse(member)` wakes a
    strategy that waits for messages, so that it sees what has changed.
    """

    def __init__(
        self,
        world: World,
        plan: MembershipPlan,
        at: Callable[..., None],
        resume: Callable[[Member, Any], None],
        rouse: Callable[[Member], None],
    ) -> None:
        self.world = world
        self._at = at
        self._resume = resume
        self._rouse = rouse
        self.plan = plan
        self.members = Members(plan)
        self.strategy = world.fleet.experiment.strategy
        self.by_step = self.strategy.membership == "by-step"
        self._wanted = set(plan.first)  # peers that are members, or will be
        self._leaving: set[int] = set()
        self._waiting: set[int] = set()  # peers that are to join and have no neighbour that is a member
        world.collector.begin_members(plan.first)

    # ---- requests -------------------------------------------------------------------------------------------------

    def script(self, event: Event) -> None:
        """Carry out an event of the experiment or of the law of membership."""
        if isinstance(event, JoinEvent | LeaveEvent):
            joins = isinstance(event, JoinEvent)
            self.members.begin(event.peer, joins)
            (self.ask_in if joins else self.ask_out)(event.peer)

    def ask_in(self, peer: int) -> None:
        """Let a peer join: at once, or when it has left if it is still leaving."""
        member = self.world.members[peer]
        self._wanted.add(peer)
        if not member.alive or member.ended:
            self.members.done(peer)
        elif member.away:
            self._welcome(member)

    def ask_out(self, peer: int) -> None:
        """Let a peer leave: at once, or when it is a member if it is still joining."""
        member = self.world.members[peer]
        self._wanted.discard(peer)
        self._waiting.discard(peer)
        if not member.alive or member.ended or member.away:
            self.members.done(peer)
        elif member.peer.member and peer not in self._leaving:
            self._let_go(member)

    def carry_out(self, member: Member, effect: Effect) -> bool:
        """Carry out an effect of joining or leaving; return whether the strategy may go on at once."""
        if isinstance(effect, Away):
            self._gone(member)
            return False
        if isinstance(effect, Enter):
            self._enter(member, effect)
        elif isinstance(effect, Leave):
            if effect.duration_ns is not None:
                self._at(self.world.now_ns + max(1, effect.duration_ns), self.ask_in, member.peer.id)
            self.ask_out(member.peer.id)
        return True

    def errand(self, member: Member, message: Message, errand: Errand) -> bool:
        """Take in a message between a joining peer and a peer that gives it weights; return whether the peer waits for it."""
        answer = member.handover.take(message.source, errand)
        if answer is not None:
            self.world.transport.post(member, message.source, answer, self.world.now_ns)
        return answer is None

    def touching(self, peer: int) -> list[int]:
        """Return the living peers that may have a link to `peer`: its neighbours, and peers that join or leave beside it."""
        return sorted(other for other in self.plan.reach.neighbors(peer) if self.world.members[other].alive)

    def died(self, peer: int) -> None:
        """Remove a peer that has died with its links; the graph is not repaired."""
        self.members.exit(peer)
        self._leaving.discard(peer)
        self._waiting.discard(peer)
        self._begin_without_givers()
        self._ask_waiting()

    def ended(self) -> None:
        """Note that a peer has made its last step: a peer may wait to take its weights over."""
        self._ask_waiting()

    @property
    def empty(self) -> bool:
        """Whether there is no member and no peer that is joining."""
        return not self.members.present and all(member.away or not member.alive for member in self.world.members)

    # ---- leaving --------------------------------------------------------------------------------------------------

    def _let_go(self, member: Member) -> None:
        """Let a member's strategy end: from the next step that no member has begun, or at once."""
        peer = member.peer
        self._leaving.add(peer.id)
        if self.by_step:
            step = self._next_step()
            peer.leave_at(step)
            self.members.exit(peer.id)
            self._spread(step + self.strategy.steps_ahead)
        else:
            peer.leave_at(peer.step)

    def _gone(self, member: Member) -> None:
        """Note a peer that has ended its part, or is not a member yet."""
        peer = member.peer
        member.away = True
        self._leaving.discard(peer.id)
        if peer.member:
            peer.depart()
            self.world.collector.emulated_s = self.world.now_ns / 1e9
            self.world.collector.leave(peer.id)
            if not self.by_step:
                self.members.exit(peer.id)
                self._spread(None)
        if peer.id in self._wanted:
            self._welcome(member)
        self._ask_waiting()

    # ---- joining --------------------------------------------------------------------------------------------------

    def _welcome(self, member: Member) -> None:
        """Give a peer that is to join its neighbours and mixing weights.

        If all of these neighbours are still joining, the peer waits until one of them is a member.  If it needs the weights of
        the very step from which it is a member, and the others have begun their last step, it waits until they have ended.
        """
        peer, law = member.peer, self.world.fleet.experiment.membership
        if self.members.waits_for_others(peer.id, self._waiting):
            self._waiting.add(peer.id)
            return
        step = None
        if self.strategy.alike and any(not self.world.members[other].ended for other in self.members.present):
            step, last = self._next_step(), self.world.fleet.experiment.stop.steps
            if last is not None and step >= last:
                self._waiting.add(peer.id)
                return
        self._waiting.discard(peer.id)
        member.away = False
        if step is not None:
            self.members.enter(peer.id)
            self._spread(step, peer.id)
            self._begin(member, step)
            peer.member = False  # until it has weights
        mixing = self.members.mixing[peer.id] if step is not None else self.members.weights(peer.id)[peer.id]
        welcome = Welcome(mixing, law.weights, law.givers, step)
        member.handover.begin(welcome)
        self._at(self.world.now_ns, self._resume, member, welcome)

    def _enter(self, member: Member, effect: Enter) -> None:
        """Make a peer that has weights a member: from now on, or from the next step that no member has begun."""
        peer = member.peer
        if peer.id in self.members.present:
            peer.member = True
        elif self.by_step:
            step = self._next_step()
            self.members.enter(peer.id)
            self._spread(step + self.strategy.steps_ahead, peer.id)
            self._begin(member, step)
        else:
            self.members.enter(peer.id)
            self._spread(None, peer.id, effect.givers)
            self._begin(member, effect.step)
        self.world.collector.emulated_s = self.world.now_ns / 1e9
        self.world.collector.join(peer.id, effect.givers, peer.step)
        if peer.id not in self._wanted:
            self._let_go(member)

    def _begin(self, member: Member, step: int) -> None:
        """Make a peer a member from a step on."""
        peer = member.peer
        mixing = self.members.mixing[peer.id]
        peer.enter(step, mixing)
        peer.rounds = self._rounds()
        if self.by_step:
            peer.rounds = Rows(peer, peer.rounds or Row(mixing))

    # ---- all peers ------------------------------------------------------------------------------------------------

    def _next_step(self) -> int:
        """Return the first step that no member has begun."""
        return max((member.peer.step + (not member.ended) for member in self._stepping()), default=0)

    def _stepping(self) -> list[Member]:
        """Return the members that live, also those that are still leaving."""
        present = self.members.present
        return [member for member in self.world.members if member.alive and (member.peer.member or member.peer.id in present)]

    def _rounds(self) -> Rounds | None:
        return rounds_over(self.plan.schedule, self.world.fleet.experiment.seed, sorted(self.members.present))

    def _spread(self, step: int | None, joiner: int | None = None, givers: tuple[int, ...] = ()) -> None:
        """Give every member its new mixing weights, from a step on or (None) at once; the joiner has its own already."""
        ended = [member.peer.id for member in self.world.members if member.ended]
        handed = {giver: self.world.members[giver].peer.joiner_debts.handed.get(joiner or 0) for giver in givers}
        before, after = self.members.renew(ended)
        for identity in sorted(self.members.present):
            member, mixing = self.world.members[identity], after[identity]
            peer = member.peer
            if identity == joiner or (mixing == before.get(identity) and self.plan.schedule is None):
                continue
            rounds = self._rounds()
            if step is not None:
                assert isinstance(peer.rounds, Rows)
                for neighbour, weight in mixing.items():
                    if neighbour not in peer.mixing:
                        peer.admit(neighbour, weight)
                peer.rounds.plan(step, rounds or Row(mixing), list(mixing))
                continue
            peer.rounds = rounds
            for neighbour, weight in mixing.items():
                known = {giver: of.taken.get(identity, -1) for giver, of in handed.items() if of is not None}
                peer.admit(neighbour, weight, known if neighbour == joiner else None)
            gone = [neighbour for neighbour in peer.neighbours if neighbour not in mixing]
            for neighbour in gone:
                peer.lose(neighbour)
            if gone:
                self._rouse(member)
        self._part_with(set(before) - set(after))
        self._ask_waiting()

    def _ask_waiting(self) -> None:
        """Welcome the peers that wait for others, now that something has changed."""
        for peer in sorted(self._waiting):
            self._at(self.world.now_ns, self._welcome_waiting, peer)

    def _welcome_waiting(self, peer: int) -> None:
        if peer in self._waiting:
            self._welcome(self.world.members[peer])

    def _part_with(self, gone: set[int]) -> None:
        """Stop peers that take weights over from asking the peers `gone`, which are not members any more.

        A peer that is a member meanwhile goes on asking: those that leave wait for its first step, and give until then.
        """
        for member in self.world.members:
            if member.alive and member.handover.taking and member.peer.id not in self.members.present:
                for peer in sorted(gone & member.peer.mixing.keys()):
                    member.handover.refuse(peer)
                    self._rouse(member)

    def _begin_without_givers(self) -> None:
        """If all members still take weights over, let the first of them begin with its own, which the others can then take."""
        stepping = self._stepping()
        if stepping and all(member.handover.taking for member in stepping):
            first = min(stepping, key=lambda member: member.peer.step)
            for giver in first.peer.neighbours:
                first.handover.refuse(giver)
            self._rouse(first)
