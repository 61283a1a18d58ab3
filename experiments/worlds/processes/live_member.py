"""A live peer of a fleet whose members change: it joins, gives weights, leaves, and waits for changes from a step on.

The process of a peer starts with the fleet and sleeps while the peer is absent.  The I/O thread receives the launcher's
messages about members, and the main thread carries them out between a strategy's effects, or while one waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from grapevine.experiments.worlds.processes import control
from grapevine.peer.effects import Effect, Leave, Send, SendAt, Work
from grapevine.peer.endpoint import Arrival
from grapevine.peer.live import LivePeer
from grapevine.peer.membership import Away, Enter, Handover, Row, Rows, Welcome, is_errand, read_errand
from grapevine.peer.neighbourhood import Rounds
from grapevine.peer.wire import WireError

GIVING_S = 0.5  # the longest wait (real time) of a peer that only gives weights, so that few messages to it pile up


class LiveMember(LivePeer):
    """Runs one peer from the start to the end of the run, also while it is absent."""

    def begin(
        self,
        say: Callable[[control.Up], None],
        by_step: bool,
        rounds_over: Callable[[list[int]], Rounds | None],
        choice: Any,
        givers: int,
    ) -> None:
        """Set the peer up; call it before `run`.

        `say` sends a message to the launcher, `rounds_over(living)` returns the rounds of the schedule over these members (None
        = one graph for all rounds), `choice` and `givers` are the law's choice of weights and the number of their givers.
        """
        self.handover = Handover(self.peer)
        self.handover.on_give = self._report_given
        self._say = say
        self._by_step = by_step
        self._rounds_over = rounds_over
        self._choice, self._givers = choice, givers
        self._held: int | None = None  # the step after which this peer waits for the launcher
        self._away = False
        self._steady = False  # whether weights and ledgers are consistent, as while a strategy waits
        self._errands: deque[Arrival] = deque()
        self._welcome: Welcome | None = None
        self._is_in = False  # whether this peer is a member for the others, or will be at a step
        self._giving = False  # whether its strategy has ended and it only gives weights

    def _carry_out(self, effect: object) -> Any:
        if self._held is not None and self.peer.step > self._held:
            self._until(lambda: self._held is None)
        self._steady = not isinstance(effect, Send | SendAt)
        try:
            if self._steady:
                self._serve()
            if isinstance(effect, Away | Enter | Leave):
                return self._turn(effect)
            return super()._carry_out(effect)
        finally:
            self._steady = False

    def _work(self, work: Work) -> tuple[Any, Exception | None]:
        if self._held is not None and self.peer.step > self._held:
            self._until(lambda: self._held is None)
        self._steady = True
        try:
            self._serve()
            return super()._work(work)
        finally:
            self._steady = False

    def _turn(self, effect: Effect) -> Welcome | None:
        if isinstance(effect, Away):
            return self._be_away()
        if isinstance(effect, Enter):
            self._enter(effect)
        elif isinstance(effect, Leave):
            self._say(control.Wish(self.peer.id, effect.duration_ns))
            if not self._by_step:
                self.peer.leave_at(self.peer.step)
        return None

    def _end(self) -> None:
        """Go on reading news: `give` does so until the run is over."""

    def give(self) -> None:
        """Give weights to peers that join until the run is over; call it when `run` has returned."""
        self._giving = self._steady = True
        self._pending.clear()
        self._read_news()
        while not self.peer.stopped:
            self._waiter.wait(GIVING_S)
            self.doorbell.clear()
            self._read_news()
        super()._end()

    # ---- absent, joining ------------------------------------------------------------------------------------------

    def _be_away(self) -> Welcome | None:
        """Sleep until the launcher invites this peer, or the run is over."""
        peer = self.peer
        if peer.member:
            peer.depart()
        self._away = True
        self._pending.clear()
        self._errands.clear()
        self._held = None
        self._say(control.Gone(peer.id))
        self._until(lambda: self._welcome is not None)
        self._advance(self.clock.now_ns())
        welcome, self._welcome = self._welcome, None
        self._away = False
        return welcome

    def _enter(self, effect: Enter) -> None:
        """Report to the launcher that this peer has weights, and wait until it is a member for all others."""
        self._say(control.Fetched(self.peer.id, list(effect.givers), effect.step))
        if self._is_in:
            self.peer.member = True
            return
        self._until(lambda: self._is_in)
        self._advance(self.clock.now_ns())

    def _invited(self, invite: control.Invite) -> None:
        """Begin to take weights over at once: the next message may change the neighbours."""
        self._is_in = invite.step is not None
        if invite.step is not None:
            self._begin(invite.step, invite.weights, invite.living)
            self.peer.member = False  # until it has weights
        self._welcome = Welcome(invite.weights, self._choice, self._givers, invite.step)
        self.handover.begin(self._welcome)

    def _entered(self, entered: control.Entered) -> None:
        """Become a member at once: the next message may change the neighbours, or let this peer leave."""
        self._is_in = True
        self._begin(entered.step, entered.weights, entered.living)
        if entered.leaves:
            self.peer.leave_at(entered.step)

    def _begin(self, step: int, weights: dict[int, float], living: list[int]) -> None:
        peer = self.peer
        rounds = self._rounds_over(living)
        peer.enter(step, weights)
        peer.rounds = Rows(peer, rounds or Row(weights)) if self._by_step else rounds

    def _until(self, holds: Callable[[], bool]) -> None:
        """Sleep until `holds()`, or until the run is over; carry out messages of the launcher and serve errands meanwhile."""
        self._read_news()
        while not holds() and not self.peer.stopped:
            now_ns = self.clock.now_ns()
            if self.stop_ns is not None and now_ns >= self.stop_ns:
                self.peer.stopped = True
                return
            self._record(now_ns)
            self._sleep(min(self._next_record_ns(), 2**62 if self.stop_ns is None else self.stop_ns))
            self._read_news()

    # ---- messages of the launcher ---------------------------------------------------------------------------------

    def _changed(self, message: Any) -> None:
        """Carry out a message of the launcher about members."""
        peer = self.peer
        if isinstance(message, control.Prepare):
            self._held = peer.step
            self._say(control.Held(peer.id, peer.step))
        elif isinstance(message, control.Go):
            self._held = None
        elif isinstance(message, control.Invite):
            self._invited(message)
        elif isinstance(message, control.Entered):
            self._entered(message)
        elif isinstance(message, control.Depart):
            peer.leave_at(peer.step if message.step is None else message.step)
        elif isinstance(message, control.Parted):
            self.handover.refuse(message.peer)
        elif isinstance(message, control.Row):
            self._average_with(message)

    def _average_with(self, row: control.Row) -> None:
        """Average with other neighbours and mixing weights: from a step on, or at once."""
        peer, weights = self.peer, row.weights
        rounds = self._rounds_over(row.living)
        if row.step is not None:
            assert isinstance(peer.rounds, Rows)
            for neighbour, weight in weights.items():
                if neighbour not in peer.mixing:
                    peer.admit(neighbour, weight)
            peer.rounds.plan(row.step, rounds or Row(weights), list(weights))
            return
        peer.rounds = rounds
        for neighbour, weight in weights.items():
            peer.admit(neighbour, weight, row.givers if neighbour == row.joiner else None)
        for neighbour in [neighbour for neighbour in peer.neighbours if neighbour not in weights]:
            peer.lose(neighbour)

    def _report_given(self, joiner: int) -> None:
        if self.peer.joiner_debts.handed[joiner].made is not None:
            self._say(control.Gave(self.peer.id, joiner, self.peer.joiner_debts.handed[joiner].taken))

    # ---- errands --------------------------------------------------------------------------------------------------

    def _arrived(self, arrival: Arrival) -> None:
        if is_errand(arrival.head):
            self._errands.append(arrival)
        elif not self._giving and (self._by_step or not self._away):  # others may know before this peer that it is a member
            super()._arrived(arrival)

    def _called(self) -> bool:
        return bool(self.handover.came)

    def _read_news(self) -> None:
        super()._read_news()
        if self._steady:
            self._serve()

    def _serve(self) -> None:
        """Answer peers that join, and take in the answers of givers."""
        sent = False
        while self._errands:
            arrival = self._errands.popleft()
            try:
                errand = read_errand(arrival.head, arrival.body, self.peer.size)
            except WireError as error:
                self.peer.errors[error.kind] += 1
                continue
            answer = self.handover.take(arrival.source, errand)
            if answer is not None:
                self._post(arrival.source, answer, max(self.peer.now_ns, arrival.arrived_ns))
                sent = True
        if sent:
            self.ring_carrier()
