"""The world of virtual time: all peers in one process, on a clock that jumps from event to event.

Strategies, peers, endpoints, links, meters and wire sizes are those of the world of processes. Time is integer nanoseconds, and
events are a heap of (time, order): the same seed gives the same bytes. Gradients are computed late (`gradients.py`), all other
work when it is due.
"""

from __future__ import annotations

import gc
import heapq
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from grapevine.experiments.config.events import Event, JoinEvent, KillEvent, LeaveEvent
from grapevine.experiments.faults import fault_of
from grapevine.experiments.fleet import Fleet
from grapevine.experiments.results.numbers import peers_text
from grapevine.experiments.results.outcome import Outcome
from grapevine.experiments.tasks.share import Costs
from grapevine.experiments.worlds.boards import boards, put_up
from grapevine.experiments.worlds.collector import Collector
from grapevine.experiments.worlds.interrupt import Interrupt
from grapevine.experiments.worlds.peer_report import FINAL, Reporter, make_peer
from grapevine.experiments.worlds.scoring import score
from grapevine.experiments.worlds.threads import one_thread
from grapevine.experiments.worlds.unawaited import unawaited
from grapevine.experiments.worlds.virtual.gradients import Gradients
from grapevine.experiments.worlds.virtual.member import Member
from grapevine.experiments.worlds.virtual.transport import Transport
from grapevine.experiments.worlds.virtual.turnover import Turnover
from grapevine.experiments.worlds.virtual.waits import wait_text
from grapevine.netem.links.alterations import FAR_NS, cut_for_good_ns
from grapevine.peer.effects import Leave, Receive, Send, SendAt, Sleep, Work
from grapevine.peer.membership import Away, Enter, Errand
from grapevine.peer.message import Message
from grapevine.peer.payloads import Parcel

NEVER_NS = 2**62
REFRESH_S = 0.25
_COMPUTING = ("scipy.linalg.blas",)  # peer.aggregators loads it at its first use, too late to set its threads
_EVENTS_BETWEEN_LOOKS = 2_000  # between two checks of the wall clock and of interrupts


class VirtualWorld:
    """Runs one fleet to its end.  `losses` are (emulated ns, peer): peers that die then, like a killed process."""

    def __init__(
        self, fleet: Fleet, collector: Collector, interrupt: Interrupt, losses: Sequence[tuple[int, int]] = ()
    ) -> None:
        peers = fleet.experiment.peers
        self.fleet = fleet
        self.collector = collector
        self.interrupt = interrupt
        self.weights = np.tile(np.asarray(fleet.problem.initial, np.float32), (peers, 1))
        costs = Costs(fleet.problem)
        self.members: list[Member] = []
        try:
            for peer in range(peers):
                self.members.append(Member(fleet, make_peer(fleet, peer, self.weights[peer]), costs))
        except BaseException:
            for member in self.members:
                member.strategy.close()  # else Python warns about strategies that were never awaited
            raise
        self.transport = Transport(fleet, self.members, self._at, lambda: self.now_ns, self._deliver)
        wrappers = enumerate(fleet.experiment.wrappers)
        found = boards(wrappers, peers, fleet.all_spaces, lambda place, size_bytes: np.zeros(size_bytes, np.uint8))
        for member in self.members:
            put_up(member.peer, found)
            member.reporter = Reporter(
                member.peer, self.transport.sent[member.peer.id], self.transport.received[member.peer.id]
            )
        self._stop_ns = fleet.stop_ns
        self._every_ns = fleet.every_ns
        self._next_record_ns = 0
        self.now_ns = 0
        self.events = 0
        self.reason = ""
        self.failure = ""
        self.completed = True
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._records = 0
        self._gradients = Gradients(fleet.problem, lambda: self.weights)
        self._losses = losses
        self._script = deque(fleet.script)  # the events that have not happened yet
        self.turnover: Turnover | None = None
        if fleet.membership is not None:
            self.turnover = Turnover(self, fleet.membership, self._at, self._resume, self._rouse)
        self._next_instant_ns = 0  # of the next record, or of the next event of the script
        self._refreshed_s = 0.0

    def run(self) -> Outcome:
        """Run all strategies until they end, the time is over, or the end is requested; return the outcome."""
        started_s = time.monotonic()
        self.collector.clock_s = lambda: self.now_ns / 1e9
        self.collector.phase = "training"
        self.collector.event("start", peers=len(self.members))
        try:
            with (
                unawaited(self.collector.warn),
                self.interrupt.breaking_off(),
                one_thread((*_COMPUTING, *self.fleet.problem.preload)),
            ):
                self.train()
        except KeyboardInterrupt as broken_off:
            self._break_off(broken_off)
        wall_s = time.monotonic() - started_s
        with suppress(KeyboardInterrupt), self.interrupt.breaking_off(), one_thread():
            self._report(FINAL)
        self.reason = "; ".join(filter(None, (self.reason or self._natural_end(), self.failure)))
        return self.collector.outcome(self.completed, self.reason, wall_s, self.weights.copy())

    def train(self, records: bool = True) -> None:
        """Carry out all events until the end; without `records` nothing is recorded or scored meanwhile."""
        if not records:
            self._next_record_ns = NEVER_NS
        for time_ns, peer in self._losses:
            self._at(time_ns, self._die, peer, "its process ended")
        for member in self.members:
            self._at(0, self._resume, member, None)
        if any(cut_for_good_ns(spec.changes) is not None for spec in self.fleet.plan.links.values()):
            self._at(FAR_NS, self._never)  # a peer that waits behind such a cut waits until the time is over
        thresholds = gc.get_threshold()
        gc.set_threshold(100_000, 20, 100)  # thousands of peers are live objects: collect garbage less often
        try:
            self._loop()
        finally:
            gc.set_threshold(*thresholds)

    def _loop(self) -> None:
        self._plan_instant()
        self._carry_out_events()
        while not self.reason and self._may_continue():
            self._instant()
            self._carry_out_events()

    def _carry_out_events(self) -> None:
        heap, stop_ns, pop = self._heap, self._stop_ns, heapq.heappop
        until_look = _EVENTS_BETWEEN_LOOKS
        while heap and not self.reason:
            event = pop(heap)
            time_ns, _, action, arguments = event
            if time_ns >= self._next_instant_ns != NEVER_NS:
                heapq.heappush(heap, event)  # the instant may add an earlier event
                if time_ns >= FAR_NS and stop_ns is None:
                    return  # the rest never happens
                self._instant()
                continue
            if stop_ns is not None and time_ns >= stop_ns:
                self.now_ns = stop_ns
                self.reason = f"{self.fleet.experiment.stop.time} of emulated time over"
                return
            self.now_ns = time_ns
            action(*arguments)
            until_look -= 1
            if not until_look:
                until_look = _EVENTS_BETWEEN_LOOKS
                self.events += _EVENTS_BETWEEN_LOOKS
                self._look_up()

    def _never(self) -> None:
        """Do nothing: an event at the end of time, with which waiting behind a permanent cut does not count as a deadlock."""

    def _look_up(self) -> None:
        """Look at interrupts, and refresh the live view."""
        if self.interrupt.requested:
            self.completed = False
            self.reason = "interrupted"
        if time.monotonic() - self._refreshed_s > REFRESH_S:
            self._refreshed_s = time.monotonic()
            self.collector.steps = [member.peer.step for member in self.members]
            self.collector.refresh(self.now_ns / 1e9, self.events)

    def _break_off(self, interrupt: KeyboardInterrupt) -> None:
        """End the run after an interrupt that had to break off running code."""
        text = "".join(traceback.format_exception(interrupt))
        place = fault_of(text, self.fleet.experiment, self.fleet.problem).at("").strip()
        self.completed = False
        self.reason = "interrupted"
        for member in self.members:
            with suppress(Exception):
                member.strategy.close()
        self.collector.event("fault", text=text)
        self.collector.warn(f"the interrupt broke off code that did not end by itself: {place}")

    def _at(self, time_ns: int, action: Callable[..., None], *arguments: Any) -> None:
        self._order += 1
        heapq.heappush(self._heap, (time_ns, self._order, action, arguments))

    # ---- the strategies -------------------------------------------------------------------------------------------

    def _resume(self, member: Member, answer: Any, raised: BaseException | None = None) -> None:
        """Continue a strategy, with an answer or with an exception of its task, until it awaits something that takes time."""
        peer, strategy = member.peer, member.strategy
        peer.now_ns = self.now_ns
        while member.alive and not member.ended:
            try:
                effect = strategy.send(answer) if raised is None else strategy.throw(raised)
            except StopIteration:
                self._end(member)
                return
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - a strategy may raise anything, SystemExit included
                self._fail(member, error)
                return
            answer = raised = None
            kind = type(effect)
            if kind is Send:
                self.transport.send(member, effect, self.now_ns)
            elif kind is Work:
                raised = self._begin(member, effect)
                if raised is None:
                    return
            elif kind is Receive:
                member.receives += 1
                member.waiting = member.receives
                member.missing = effect.least
                if effect.deadline_ns is not None:
                    self._at(max(effect.deadline_ns, self.now_ns), self._wake, member, member.waiting)
                return
            elif kind is Sleep:
                self._at(max(effect.until_ns, self.now_ns), self._resume, member, None)
                return
            elif kind is SendAt:
                self._hold_back(member, effect)
            elif self.turnover is not None and kind in (Away, Enter, Leave):
                if not self.turnover.carry_out(member, effect):
                    return
            else:
                self._fail(member, TypeError(f"a strategy awaited {effect!r}; it may await the verbs of its peer only"))
                return

    def _end(self, member: Member) -> None:
        """Note that a strategy has returned."""
        member.ended = True
        if self.turnover is not None:
            self.turnover.ended()

    def _hold_back(self, member: Member, effect: SendAt) -> None:
        """Plan a message that leaves later; a target that is a neighbour now may be gone then, and still wait for it."""
        for target in effect.send.targets:
            if target in member.peer.mixing:
                self._at(max(effect.leaves_ns, self.now_ns), self._send_late, member, target, effect.send.parcel)

    def _send_late(self, member: Member, target: int, parcel: Parcel) -> None:
        """Send a message that was held back, unless its sender has died meanwhile."""
        if member.alive:
            self.transport.post(member, target, parcel, self.now_ns)

    def _rouse(self, member: Member) -> None:
        """Wake a strategy that waits for messages, so that it sees what has changed."""
        if member.waiting:
            self._at(self.now_ns, self._wake, member, member.waiting)

    def _wake(self, member: Member, number: int) -> None:
        """End the wait `number` for messages, unless it has ended already."""
        if member.waiting == number:
            member.waiting = 0
            self._resume(member, None)

    def _begin(self, member: Member, work: Work) -> BaseException | None:
        """Plan the end of work by the speed of the peer's device; return the exception of a task that cannot state its cost."""
        peer = member.peer
        awaited = self._gradients.awaited.get(work.name)
        try:
            samples = member.share.take_on(work)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - the task's own code: it may raise anything
            return error
        if awaited is not None:
            awaited[work] = peer.id
        step_ns = member.device.step_ns(samples, self.now_ns, peer.speed.steps)
        self._at(self.now_ns + step_ns, self._gradient_due if awaited is not None else self._work_due, member, work)
        return None

    def _gradient_due(self, member: Member, work: Work) -> None:
        """Give the strategy its gradient, or the exception of the task."""
        answer = self._gradients.computed.pop(work, None)
        if answer is None:
            try:
                answer = self._gradients.answer(work)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - the task's own code: it may raise anything
                self._resume(member, None, error)
                return
        self._resume(member, answer)

    def _work_due(self, member: Member, work: Work) -> None:
        """Do the work, and give the strategy the answer, or the exception of the task."""
        try:
            answer = member.share.do(work, member.peer.weights)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - likewise
            self._resume(member, None, error)
        else:
            self._resume(member, answer)

    def _deliver(self, member: Member, message: Any) -> None:
        """Deliver a message; a strategy that waits for several messages is woken by the last one."""
        if self.turnover is None:
            member.peer.deliver(message)
        elif isinstance(message, Message) and isinstance(message.payload, Errand):
            if not self.turnover.errand(member, message, message.payload):
                return
        elif not member.away:
            member.peer.deliver(message)
        if member.waiting:
            member.missing -= 1
            if member.missing <= 0:
                self._wake(member, member.waiting)

    # ---- losses and records ---------------------------------------------------------------------------------------

    def _fail(self, member: Member, error: BaseException) -> None:
        """Lose the peer of a strategy that raised; the others go on."""
        identity = member.peer.id
        text = "".join(traceback.format_exception(error))
        self.collector.emulated_s = self.now_ns / 1e9
        self.collector.event("fault", peer=identity, text=text)
        why = fault_of(text, self.fleet.experiment, self.fleet.problem).sentence
        self.completed = False
        self.failure = self.failure or f"peer {identity} failed: {why}; events.jsonl has the whole traceback"
        self._die(identity, why)

    def _die(self, identity: int, why: str, asked: bool = False) -> None:
        """Lose a peer; its neighbours learn it at once."""
        dead = self.members[identity]
        if not dead.alive:
            return
        dead.alive = False
        dead.strategy.close()
        self.collector.emulated_s = self.now_ns / 1e9
        self.collector.lose(identity, why, asked)
        if self.turnover is not None:
            self.turnover.died(identity)
        for neighbour in list(dead.peer.mixing) if self.turnover is None else self.turnover.touching(identity):
            member = self.members[neighbour]
            self.transport.drop(neighbour, identity)
            if member.peer.lose(identity) and member.waiting:
                self._wake(member, member.waiting)

    def _plan_instant(self) -> None:
        """Plan the next instant that is not in the heap: a record, or an event of the script."""
        scripted_ns = self._script[0].at_ns if self._script else NEVER_NS
        next_ns = min(self._next_record_ns, scripted_ns)
        self._next_instant_ns = next_ns if self._stop_ns is None or next_ns < self._stop_ns else NEVER_NS

    def _instant(self) -> None:
        """Take a record, before anything else happens at its instant, or carry out the next event of the script."""
        self.now_ns = self._next_instant_ns
        if self._next_record_ns == self.now_ns:
            self._record()
        else:
            self._carry_out(self._script.popleft())
        self._plan_instant()

    def _record(self) -> None:
        self._report(self._records)
        self._records += 1
        self._next_record_ns = self._records * self._every_ns
        target = self.fleet.experiment.stop.accuracy
        if target is not None and self.collector.scores.validation_accuracy_mean >= target:
            self.reason = self.collector.target_reached(target, self.now_ns)

    def _carry_out(self, event: Event) -> None:
        """Carry out an event; links and devices have the events about them already (scenario.planned)."""
        self.collector.event("script", text=event.describe())
        if isinstance(event, KillEvent):
            self._die(event.peer, "killed by the script", asked=True)
        elif self.turnover is not None:
            self.turnover.script(event)

    def _may_continue(self) -> bool:
        """Whether an event of the script may continue a run without other events: it changes the peers for which others wait,
        or lets a peer join after all have left."""
        if self._next_instant_ns == NEVER_NS:
            return False
        if self.turnover is not None and self.turnover.empty:
            return any(isinstance(event, JoinEvent) for event in self._script)
        waiting = any(member.alive and not member.ended and not member.away for member in self.members)
        return waiting and any(isinstance(event, JoinEvent | KillEvent | LeaveEvent) for event in self._script)

    def _report(self, index: int) -> None:
        self.transport.catch_up(self.now_ns)
        task = None
        for member in self.members:
            if member.alive:
                assert member.reporter is not None
                task = self.collector.report(member.reporter.report(index, self.now_ns, [], member.endpoint.errors)) or task
        if task is not None:
            self.collector.scored(score(self.fleet.problem, self.weights[task.peers], task))

    def _natural_end(self) -> str:
        waiting = [member.peer.id for member in self.members if member.alive and not member.ended and not member.away]
        if waiting:
            self.completed = False
            first = next(member for member in self.members if member.peer.id == waiting[0])
            return (
                f"deadlock: {peers_text(waiting)} wait for messages that no peer sends{wait_text(first.peer, first.strategy)}"
            )
        if not any(member.alive for member in self.members):
            self.completed = False
            return "every peer was lost"
        if self.turnover is not None and self.turnover.empty:
            return "every peer has left"
        return self.collector.end_reached()
