"""The world of virtual time: all peers in one process, on a clock that jumps from event to event.

The same strategies, peers, endpoints, links, meters and wire sizes as in the world of processes, with integer nanoseconds and
a heap of (time, order): the same seed gives the same bytes.  Gradients are lazy: a peer that awaits one cannot change its
weights, so when the first one falls due, all that are awaited are computed in one batched call.
"""

from __future__ import annotations

import heapq
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.build import Fleet
from experiments.interrupt import Interrupt
from experiments.summary import Outcome
from experiments.worlds import messages
from experiments.worlds.child import score
from experiments.worlds.reports import Reporter, batch_generator, make_peer
from experiments.worlds.tally import Tally
from netem import Downlink, Shaper
from peer.carrier import LinkCount
from peer.effects import Gradient, Receive, Send, Sleep
from peer.endpoint import Endpoint
from peer.peer import Peer, message_limit_bytes
from peer.wire import HEADER_BYTES, Acknowledgement, Chunk, Frame

REFRESH_S = 0.25
_EVENTS_BETWEEN_LOOKS = 2_000  # at the wall clock and at interrupts


class _VirtualPeer:
    """One peer with its coroutine and its end of the emulated network."""

    def __init__(self, fleet: Fleet, peer: Peer) -> None:
        identity = peer.id
        self.peer = peer
        self.endpoint = Endpoint(identity, peer.mixing, message_limit_bytes(peer.size))
        peer.meters = self.endpoint.meters
        self.shaper = Shaper(
            {neighbour: fleet.plan.link(identity, neighbour) for neighbour in peer.neighbours}, fleet.plan.uplinks[identity], 0
        )
        self.downlink = Downlink(fleet.plan.downlinks[identity])
        self.sampler = fleet.problem.sampler(identity, batch_generator(fleet.experiment.seed, identity))
        self.device = fleet.devices[identity]
        self.sent = {neighbour: LinkCount() for neighbour in peer.neighbours}
        self.received = {neighbour: LinkCount() for neighbour in peer.neighbours}
        self.reporter = Reporter(peer, self.sent, self.received)
        self.strategy = fleet.experiment.strategy.run(peer)
        self.waiting = 0  # the number of the Receive that waits; 0 = none
        self.receives = 0
        self.release_at_ns: int | None = None
        self.alive = True
        self.ended = False


class VirtualWorld:
    """Runs one fleet to its end.  `losses` are (emulated ns, peer): peers that die then, as a killed process would."""

    def __init__(self, fleet: Fleet, tally: Tally, interrupt: Interrupt, losses: Sequence[tuple[int, int]] = ()) -> None:
        peers = fleet.experiment.peers
        self.fleet = fleet
        self.tally = tally
        self.interrupt = interrupt
        self.weights = np.tile(np.asarray(fleet.problem.initial, np.float32), (peers, 1))
        self.members = [_VirtualPeer(fleet, make_peer(fleet, peer, self.weights[peer])) for peer in range(peers)]
        self.now_ns = 0
        self.events = 0
        self.reason = ""
        self.failure = ""
        self.completed = True
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._records = 0
        self._awaited: dict[int, Any] = {}  # peer -> its minibatch: gradients asked for and not yet computed
        self._computed: dict[int, tuple[float, np.ndarray]] = {}
        self._losses = losses
        self._refreshed_s = 0.0

    def run(self) -> Outcome:
        """Carry all strategies out until they end, the time is over, or somebody asks for the end."""
        started_s = time.monotonic()
        self.tally.phase = "training"
        self.tally.event("start", peers=len(self.members))
        for time_ns, peer in self._losses:
            self._at(time_ns, self._die, peer)
        for member in self.members:
            self._at(0, self._resume, member, None)
        self._loop()
        wall_s = time.monotonic() - started_s
        self._report(messages.FINAL)
        self.reason = self.failure or self.reason or self._natural_end()
        return self.tally.outcome(self.completed, self.reason, wall_s, self.weights.copy())

    def _loop(self) -> None:
        heap, stop_ns = self._heap, self.fleet.stop_ns
        while heap and not self.reason:
            time_ns, _, action, arguments = heapq.heappop(heap)
            end_ns = time_ns if stop_ns is None else min(time_ns, stop_ns)
            self._record_until(end_ns)
            if stop_ns is not None and time_ns >= stop_ns:
                self.now_ns = stop_ns
                self.reason = f"{self.fleet.experiment.stop.time} of emulated time over"
                return
            self.now_ns = time_ns
            action(*arguments)
            self.events += 1
            if self.events % _EVENTS_BETWEEN_LOOKS == 0:
                self._look_up()

    def _look_up(self) -> None:
        """Glance at the real world now and then."""
        if self.interrupt.requested:
            self.completed = False
            self.reason = "interrupted"
        if time.monotonic() - self._refreshed_s > REFRESH_S:
            self._refreshed_s = time.monotonic()
            self.tally.steps = [member.peer.step for member in self.members]
            self.tally.refresh(self.now_ns / 1e9)

    def _at(self, time_ns: int, action: Callable[..., None], *arguments: Any) -> None:
        self._order += 1
        heapq.heappush(self._heap, (time_ns, self._order, action, arguments))

    # ---- the strategies -------------------------------------------------------------------------------------------

    def _resume(self, member: _VirtualPeer, answer: Any) -> None:
        """Let a strategy run on until it awaits something that takes time."""
        peer = member.peer
        while member.alive and not member.ended:
            peer.now_ns = self.now_ns
            try:
                effect = member.strategy.send(answer)
            except StopIteration:
                member.ended = True
                return
            except Exception as error:
                self._fail(member, error)
                return
            answer = None
            if isinstance(effect, Send):
                self._send(member, effect)
            elif isinstance(effect, Gradient):
                self._awaited[peer.id] = member.sampler.draw(effect.batch_size)
                self._at(self.now_ns + member.device.step_ns(effect.batch_size), self._gradient_due, member)
                return
            elif isinstance(effect, Receive):
                member.receives += 1
                member.waiting = member.receives
                if effect.deadline_ns is not None:
                    self._at(max(effect.deadline_ns, self.now_ns), self._wake, member, member.waiting)
                return
            elif isinstance(effect, Sleep):
                self._at(max(effect.until_ns, self.now_ns), self._resume, member, None)
                return
            else:
                self._fail(member, TypeError(f"a strategy awaited {effect!r}; it may await the verbs of its peer only"))
                return

    def _wake(self, member: _VirtualPeer, number: int) -> None:
        """End a wait for messages, unless it has ended already."""
        if member.waiting == number:
            member.waiting = 0
            self._resume(member, None)

    def _gradient_due(self, member: _VirtualPeer) -> None:
        identity = member.peer.id
        if identity not in self._computed:
            self._compute()
        answer = self._computed.pop(identity)
        self._resume(member, answer)

    def _compute(self) -> None:
        """All gradients that are awaited, in one call: none of those peers can change its weights meanwhile."""
        peers = list(self._awaited)
        losses, gradients = self.fleet.problem.gradients(self.weights[peers], list(self._awaited.values()))
        self._awaited.clear()
        for place, peer in enumerate(peers):
            self._computed[peer] = float(losses[place]), gradients[place]

    # ---- the network ----------------------------------------------------------------------------------------------

    def _send(self, member: _VirtualPeer, effect: Send) -> None:
        peer = member.peer
        for target in effect.targets:
            if target in peer.mixing:
                for chunk in member.endpoint.send(target, effect.parcel, self.now_ns, peer.horizon_ns):
                    member.shaper.offer(target, chunk, chunk.size_bytes, self.now_ns, chunk.number == 0)
        self._release(member)

    def _release(self, member: _VirtualPeer) -> None:
        """Put on the links what begins now, and come back when the next chunk does."""
        if not member.alive:
            return
        for target, frame, transit in member.shaper.release(self.now_ns):
            count = member.sent[target]
            count.bytes += frame.size_bytes
            if isinstance(frame, Chunk):
                frame = frame._replace(due_ns=transit.due_ns, finish_ns=transit.finish_ns)
                if frame.offset + len(frame.piece) == frame.total_bytes:
                    count.messages += 1
                    member.endpoint.released(target, frame.message, transit.finish_ns)
            self._at(transit.due_ns, self._arrive, self.members[target], frame)
        next_ns = member.shaper.next_ns()
        if next_ns is not None and (member.release_at_ns is None or next_ns < member.release_at_ns):
            member.release_at_ns = next_ns
            self._at(max(next_ns, self.now_ns), self._release_again, member, next_ns)

    def _release_again(self, member: _VirtualPeer, planned_ns: int) -> None:
        if member.release_at_ns == planned_ns:
            member.release_at_ns = None
            self._release(member)

    def _arrive(self, member: _VirtualPeer, frame: Frame) -> None:
        """A frame has come to the end of its link; the downlink may hold it up."""
        if not (member.alive and self.members[frame.source].alive):
            return
        in_ns = member.downlink.receive(self.now_ns, frame.size_bytes)
        if in_ns > self.now_ns:
            self._at(in_ns, self._deliver, member, frame)
        else:
            self._deliver(member, frame)

    def _deliver(self, member: _VirtualPeer, frame: Frame) -> None:
        if not (member.alive and frame.source in member.endpoint.meters):
            return
        if isinstance(frame, Acknowledgement):
            member.endpoint.acknowledged(frame, self.now_ns)
            return
        member.received[frame.source].delivered(frame, self.now_ns)
        complete = member.endpoint.receive(frame, self.now_ns)
        if complete is None:
            return
        arrival, answer = complete
        member.shaper.offer(arrival.source, answer, HEADER_BYTES, self.now_ns, True, True)
        self._release(member)
        member.peer.deliver(arrival)
        if member.waiting:
            self._wake(member, member.waiting)

    # ---- losses and records ---------------------------------------------------------------------------------------

    def _fail(self, member: _VirtualPeer, error: Exception) -> None:
        """A strategy raised: its peer is lost, the others go on."""
        identity = member.peer.id
        text = "".join(traceback.format_exception(error))
        self.tally.emulated_s = self.now_ns / 1e9
        self.tally.event("fault", peer=identity, text=text)
        last_line = text.strip().splitlines()[-1]
        self.completed = False
        self.failure = self.failure or f"peer {identity} failed: {last_line}"
        self._die(identity, f"its strategy raised {last_line}")

    def _die(self, identity: int, why: str = "killed by the experiment") -> None:
        """A peer dies; its neighbours hear of it at once."""
        dead = self.members[identity]
        if not dead.alive:
            return
        dead.alive = False
        dead.strategy.close()
        self.tally.emulated_s = self.now_ns / 1e9
        self.tally.lose(identity, why)
        self.tally.warn(f"peer {identity} was lost: {why}; its neighbours went on without it")
        for neighbour in list(dead.peer.mixing):
            member = self.members[neighbour]
            member.shaper.drop(identity)
            member.endpoint.lose(identity)
            if member.peer.lose(identity) and member.waiting:
                self._wake(member, member.waiting)

    def _record_until(self, time_ns: int) -> None:
        """Snapshots of every record instant up to a time, taken before anything happens at it."""
        stop_ns = self.fleet.stop_ns
        while not self.reason and (instant_ns := self._records * self.fleet.every_ns) <= time_ns:
            if stop_ns is not None and instant_ns >= stop_ns:
                return
            self.now_ns = instant_ns
            self._report(self._records)
            self._records += 1
            target = self.fleet.experiment.stop.accuracy
            if target is not None and self.tally.accuracy_mean >= target:
                self.reason = f"accuracy {target:g} reached"

    def _report(self, index: int) -> None:
        task = None
        for member in self.members:
            if member.alive:
                task = self.tally.report(member.reporter.report(index, self.now_ns, [], member.endpoint.errors)) or task
        if task is not None:
            self.tally.scored(score(self.fleet.problem, self.weights[task.peers], task))

    def _natural_end(self) -> str:
        waiting = [member.peer.id for member in self.members if member.alive and not member.ended]
        if waiting:
            self.completed = False
            return f"deadlock: peers {waiting[:10]} wait for messages that nobody sends"
        if not any(member.alive for member in self.members):
            self.completed = False
            return "every peer was lost"
        return f"{self.fleet.experiment.stop.steps} steps done"
