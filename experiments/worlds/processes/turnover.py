"""Joining and leaving in a fleet of processes: the launcher's part.

Strategies that wait for the messages of each step change from one step on that no member has begun.  To find it, the launcher
asks all members for their steps; each answers, and begins no step after its next one before it receives the changes.  So the
step after the furthest member's is the last one with the old weights, and every message that a member waits for is sent.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable

from grapevine.experiments.config.events import Event, JoinEvent, LeaveEvent
from grapevine.experiments.fleet import Fleet
from grapevine.experiments.worlds.collector import Collector
from grapevine.experiments.worlds.members import Members
from grapevine.experiments.worlds.processes import control

AHEAD = 2  # from the furthest member's step to the first that no member has begun


class Turnover:
    """Carries out joins and leaves in a running fleet.

    `say(peer, message)` sends a message, `running()` are the peers that train or wait until they may join.
    """

    def __init__(
        self,
        fleet: Fleet,
        collector: Collector,
        now_ns: Callable[[], int],
        say: Callable[[int, control.Down], None],
        running: Callable[[], Iterable[int]],
    ) -> None:
        assert fleet.membership is not None
        self.fleet = fleet
        self.strategy = fleet.experiment.strategy
        self.by_step = self.strategy.membership == "by-step"
        self.members = Members(fleet.membership)
        self.collector = collector
        self._now_ns = now_ns
        self._say = say
        self._running = running
        self._wanted = set(self.members.present)  # peers that are members, or will be
        self._away: set[int] = set()
        self._taking: dict[int, bool] = {}  # peer that takes weights over -> whether it is a member meanwhile
        self._given: dict[tuple[int, int], dict[int, int]] = {}  # (joiner, giver) -> peer -> step of its newest message used
        self._leaving: set[int] = set()
        self._waiting: set[int] = set()  # peers that are to join and have no neighbour that is a member
        self._returns: list[tuple[int, int]] = []  # (emulated ns, peer) of peers that left for a duration
        self._ahead = [event for event in fleet.script if isinstance(event, JoinEvent)]
        self._jobs: deque[Callable[[int], None]] = deque()  # changes from a step on that no member has begun
        self._asked: set[int] = set()  # peers that have not reported their step yet
        self._prepared: set[int] = set()
        self._step = 0  # from which the latest change holds
        collector.begin_members(self.members.present)

    # ---- requests -------------------------------------------------------------------------------------------------

    def script(self, event: Event) -> None:
        """Carry out an event of the experiment or of the law of membership."""
        if isinstance(event, JoinEvent | LeaveEvent):
            joins = isinstance(event, JoinEvent)
            if isinstance(event, JoinEvent):
                self._ahead.remove(event)
            self.members.begin(event.peer, joins)
            (self.ask_in if joins else self.ask_out)(event.peer)

    def ask_in(self, peer: int) -> None:
        """Let a peer join: at once, or when it has left if it is still leaving."""
        self._wanted.add(peer)
        if peer not in self._running():
            self.members.done(peer)
        elif peer in self._away:
            self._invite(peer)

    def ask_out(self, peer: int) -> None:
        """Let a peer leave: at once, or when it is a member if it is still joining."""
        self._wanted.discard(peer)
        self._waiting.discard(peer)
        if peer not in self._running() or peer in self._away:
            self.members.done(peer)
        elif peer not in self._taking and peer not in self._leaving:
            self._let_go(peer)

    def refusal(self, event: JoinEvent | LeaveEvent) -> str:
        """Return why a poke cannot be carried out; "" if it can."""
        member = event.peer in self._wanted
        if isinstance(event, JoinEvent) and member:
            return f"peer {event.peer} is a member, or is joining"
        if isinstance(event, LeaveEvent) and not member:
            return f"peer {event.peer} is not a member"
        if isinstance(event, LeaveEvent) and len(self._wanted) == 1:
            return f"peer {event.peer} is the last member"
        return ""

    def look(self) -> None:
        """Let peers join again whose absence is over."""
        while self._returns and self._returns[0][0] <= self._now_ns():
            self.ask_in(heapq.heappop(self._returns)[1])

    @property
    def over(self) -> bool:
        """Whether no peer trains now or will train."""
        running = set(self._running())
        if not running or not running <= self._away or self._jobs:
            return False
        return bool(self.members.present) or not (self._ahead or self._returns)

    # ---- messages of peers ----------------------------------------------------------------------------------------

    def heard(self, message: control.Held | control.Gone | control.Fetched | control.Gave | control.Wish) -> None:
        """Carry out a peer's message about members."""
        if isinstance(message, control.Held):
            self._note_step(message.peer, message.step)
        elif isinstance(message, control.Gone):
            self._gone(message.peer)
        elif isinstance(message, control.Fetched):
            self._fetched(message)
        elif isinstance(message, control.Gave):
            self._given[message.joiner, message.peer] = message.taken
        else:
            if message.duration_ns is not None:
                heapq.heappush(self._returns, (self._now_ns() + message.duration_ns, message.peer))
            self.ask_out(message.peer)

    def ended(self, peer: int, died: bool) -> None:
        """Note a peer that answers no more: it has died, or has made its last step."""
        self._leaving.discard(peer)
        if died:
            self.members.exit(peer)
            self._taking.pop(peer, None)
            self._waiting.discard(peer)
            self._begin_without_givers()
        else:
            self._step = max(self._step, self.collector.steps[peer])
        if peer in self._asked:
            self._asked.discard(peer)
            self._go_on()
        self._invite_waiting()

    # ---- leaving --------------------------------------------------------------------------------------------------

    def _let_go(self, peer: int) -> None:
        self._leaving.add(peer)
        if not self.by_step:
            self._say(peer, control.Depart(None))
            return

        def from_step(step: int) -> None:
            self._say(peer, control.Depart(step))
            self.members.exit(peer)
            self._spread(step + self.strategy.steps_ahead)

        self._at_a_step(from_step)

    def _gone(self, peer: int) -> None:
        """Note a peer that has ended its part, or is not a member yet."""
        self._away.add(peer)
        if peer in self._leaving or peer in self.members.present:
            self._leaving.discard(peer)
            self.collector.leave(peer)
            if not self.by_step:
                self.members.exit(peer)
                self._spread(None)
        if peer in self._wanted:
            self._invite(peer)
        self._invite_waiting()

    # ---- joining --------------------------------------------------------------------------------------------------

    def _invite(self, peer: int) -> None:
        if self.members.waits_for_others(peer, self._waiting):
            self._waiting.add(peer)
            return
        self._waiting.discard(peer)
        self._away.discard(peer)
        alike = self.strategy.alike and bool(self._stepping())
        self._taking[peer] = alike
        if not alike:
            self._say(peer, control.Invite(self.members.weights(peer)[peer], self._living()))
            return

        def from_step(step: int) -> None:
            last = self.fleet.experiment.stop.steps
            if peer in self._taking and last is not None and step >= last:  # it waits until the others have ended
                self._taking.pop(peer)
                self._away.add(peer)
                self._waiting.add(peer)
            elif peer in self._taking:
                self.members.enter(peer)
                self._spread(step, peer)
                self._say(peer, control.Invite(self.members.mixing[peer], self._living(), step))

        self._at_a_step(from_step)

    def _fetched(self, message: control.Fetched) -> None:
        """Make a peer that has taken weights over a member."""
        peer, givers = message.peer, message.givers
        if self._taking.get(peer):
            self._taking.pop(peer)
            self.collector.join(peer, givers, message.step)
            if peer not in self._wanted:
                self._let_go(peer)
        elif self.by_step:
            self._at_a_step(lambda step: self._enter(peer, step, givers))
        else:
            self._enter(peer, message.step, givers)

    def _enter(self, peer: int, step: int, givers: list[int]) -> None:
        if self._taking.pop(peer, None) is None:
            return
        self.members.enter(peer)
        self._spread(step + self.strategy.steps_ahead if self.by_step else None, peer, givers)
        leaves = not self.by_step and peer not in self._wanted
        self._say(peer, control.Entered(step, self.members.mixing[peer], self._living(), leaves))
        self.collector.join(peer, givers, step)
        if leaves:
            self._leaving.add(peer)
        elif peer not in self._wanted:
            self._let_go(peer)

    # ---- all peers ------------------------------------------------------------------------------------------------

    def _living(self) -> list[int]:
        return sorted(self.members.present)

    def _stepping(self) -> set[int]:
        """Return the peers that make steps now: members, and peers that are still leaving."""
        return (self.members.present | self._leaving) & set(self._running())

    def _spread(self, step: int | None, joiner: int | None = None, givers: list[int] | None = None) -> None:
        """Send every member its new mixing weights; the joiner gets its own in another message."""
        before, after = self.members.renew(self.collector.finished)
        for peer in sorted(self.members.present):
            if peer != joiner and (after[peer] != before.get(peer) or self.members.plan.schedule is not None):
                of = {giver: self._given.get((joiner or 0, giver), {}).get(peer, -1) for giver in givers or []}
                self._say(peer, control.Row(step, after[peer], self._living(), joiner, of))
        self._part_with(set(before) - set(after))
        self._invite_waiting()

    def _part_with(self, gone: set[int]) -> None:
        """Stop peers that take weights over from asking the peers `gone`, which are not members any more.

        A peer that is a member meanwhile goes on asking: those that leave wait for its first step, and give until then.
        """
        for peer in sorted(self._taking.keys() - self.members.present):
            for other in sorted(gone - {peer}):
                self._say(peer, control.Parted(other))

    def _begin_without_givers(self) -> None:
        """If all members still take weights over, let the first of them begin with its own, which the others can then take."""
        stepping = self._stepping()
        if stepping and stepping <= self._taking.keys():
            first = next(peer for peer in self._taking if peer in stepping)  # they came in in this order
            for other in sorted(stepping - {first}):
                self._say(first, control.Parted(other))

    def _invite_waiting(self) -> None:
        for peer in sorted(self._waiting & self._wanted & self._away):
            self._invite(peer)

    # ---- from a step on -------------------------------------------------------------------------------------------

    def _at_a_step(self, job: Callable[[int], None]) -> None:
        """Plan a change; `job(step)` is called when the first step that no member has begun is known."""
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self._prepare()

    def _prepare(self) -> None:
        self._asked = self._stepping()
        self._prepared = set(self._asked)
        for peer in sorted(self._asked):
            self._say(peer, control.Prepare())
        self._go_on()

    def _note_step(self, peer: int, step: int) -> None:
        self._step = max(self._step, step + AHEAD)
        self._asked.discard(peer)
        self._go_on()

    def _go_on(self) -> None:
        """Once all peers have answered, carry out the change and let them go on."""
        if self._asked or not self._jobs:
            return
        self._jobs[0](self._step)
        for peer in sorted(self._prepared):
            self._say(peer, control.Go())
        self._prepared = set()
        self._jobs.popleft()
        if self._jobs:
            self._prepare()
