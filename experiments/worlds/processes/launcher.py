"""The world of processes: one operating system process for each peer, in real time, forked from a fork server.

The launcher starts the peers, gives the start signal, reads their reports, and ends every process that does not go on. It
reports a process that dies or is silent, also to its neighbours; an interrupt, an error or the launcher's own death ends all.
"""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Sequence
from math import inf
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np

from grapevine.experiments.config.experiment import Processes
from grapevine.experiments.faults import Fault, fault_of
from grapevine.experiments.fleet import Fleet
from grapevine.experiments.results.numbers import peers_text
from grapevine.experiments.results.outcome import Outcome
from grapevine.experiments.worlds.boards import boards
from grapevine.experiments.worlds.collector import Collector
from grapevine.experiments.worlds.interrupt import Interrupt
from grapevine.experiments.worlds.peer_report import FINAL, Report
from grapevine.experiments.worlds.processes import control
from grapevine.experiments.worlds.processes.attention import Attention
from grapevine.experiments.worlds.processes.board_file import lay_board
from grapevine.experiments.worlds.processes.evaluation import Scoring
from grapevine.experiments.worlds.processes.flow_file import open_table
from grapevine.experiments.worlds.processes.folders import remove_folder
from grapevine.experiments.worlds.processes.forkserver import Child, WorldError, end_all
from grapevine.experiments.worlds.processes.pokes import BY_SCRIPT, Pokes
from grapevine.experiments.worlds.processes.realtime import needs_realtime, why_not_realtime
from grapevine.experiments.worlds.processes.snapshots import Snapshots, make_room, spool
from grapevine.experiments.worlds.processes.startup import SETUP_S, Startup
from grapevine.experiments.worlds.processes.turnover import Turnover
from grapevine.experiments.worlds.scoring import Evaluate, Score, score
from grapevine.netem.kernel.namespaces import NamespaceError, Namespaces

SILENCE_S = 10.0  # a process counts as lost after this time without a sign of life while the launcher listens
STOP_GRACE_S = 3.0  # from a stop to the last peer's final report
INTERRUPT_GRACE_S = 0.7
ASK_S = 0.4  # before a process that does not stop is ended: the time in which it can answer where its code is
REFRESH_S = 0.25


class ProcessesWorld:
    """Runs one fleet to its end, or until `interrupt` requests the end."""

    def __init__(self, fleet: Fleet, collector: Collector, interrupt: Interrupt) -> None:
        world = fleet.experiment.world
        assert isinstance(world, Processes)
        self.world = world
        self.fleet = fleet
        self.collector = collector
        self.interrupt = interrupt
        self.peers: dict[int, Child] = {}
        self.evaluator: Child | None = None
        self.epoch_ns = 0
        self.shared = fleet.plan.shared()
        self.network = Namespaces(fleet.plan, self.world.dilation) if fleet.plan.kernel else None
        self.reason = ""
        self.failure = ""
        self.completed = True
        self.attention = Attention()
        now_ns = lambda: int(self._emulated_s() * 1e9)  # noqa: E731
        self.turnover = None if fleet.membership is None else Turnover(fleet, collector, now_ns, self._say, self._waiting_for)
        self.pokes = Pokes(fleet, collector, now_ns, self._say, self._kill, self._waiting_for, self.turnover)
        self._over = False
        self._stop_deadline_s: float | None = None
        self._step_s = 0.0  # the longest step, in real time: peers cannot stop within a step
        self.scoring = Scoring(SILENCE_S, SETUP_S)
        self._refreshed_s = 0.0
        self._room: Path | None = None  # the folder of shared files; None once all processes have mapped them

    def run(self) -> Outcome:
        """Run the fleet and return the outcome; no process survives this call.  Raises WorldError if the fleet cannot start."""
        self.interrupt.heed()
        peers, problem = self.fleet.experiment.peers, self.fleet.problem
        arrays_bytes = sum(array.nbytes + 4096 for array in problem.arrays.values())
        try:
            room = make_room(arrays_bytes + Snapshots.needed_bytes(peers, problem.size), self._lay_files)
        except OSError as error:
            raise WorldError(str(error)) from None
        try:
            self._room = room
            try:
                self._start(room)
            except WorldError:
                self.interrupt.heed()  # an interrupt breaks the start off with a WorldError
                raise
            started_s = time.monotonic()
            self._train()
            wall_s = time.monotonic() - started_s
            self._score_the_end()
            return self.collector.outcome(self.completed, self.reason, wall_s, self.weights)
        finally:
            remove_folder(room)
            end_all([*self.peers.values(), *([] if self.evaluator is None else [self.evaluator])])
            self._take_network_down()

    def _lay_files(self, room: Path) -> None:
        """Write the files that the processes share into a folder.  Raises OSError if there is no room."""
        self.scoring.snapshots = Snapshots(room, self.fleet.experiment.peers, self.fleet.problem.size, create=True)
        spool(room, self.fleet.problem.arrays)
        if self.shared.routes:
            open_table(room, self.shared, create=True)
        experiment = self.fleet.experiment
        boards(enumerate(experiment.wrappers), experiment.peers, self.fleet.all_spaces, functools.partial(lay_board, room))

    @property
    def weights(self) -> np.ndarray:
        """Every peer's last known weights, float32 [peers, size]; the initial ones if the fleet has not begun."""
        problem, snapshots = self.fleet.problem, self.scoring.snapshots
        return np.tile(problem.initial, (len(self.fleet.devices), 1)) if snapshots is None else snapshots.last(problem.initial)

    # ---- the start ------------------------------------------------------------------------------------------------

    def _start(self, room: Path) -> None:
        """Start all processes, and give the start signal."""
        experiment, timed = self.fleet.experiment, needs_realtime(self.fleet.plan)
        missing = why_not_realtime(self.world) if timed else ""
        startup = Startup(self.fleet, self.network, self.interrupt, self.attention)
        try:
            startup.run(room, realtime=timed and not missing)
        finally:
            self.peers, self.evaluator = startup.peers, startup.evaluator
        if missing:
            self.collector.event("note", text=f"no real-time priority, since {missing}: releases may be late beside busy cores")
        self.epoch_ns = time.monotonic_ns() + 20_000_000 + 1_000_000 * experiment.peers
        for child in self.peers.values():
            child.say(control.Start(self.epoch_ns))
            child.heard_s = self.attention.s  # it was silent while it waited for the others
        self.collector.clock_s = self._emulated_s
        self.collector.phase = "training"
        assert self.evaluator is not None
        pids = [child.process.pid for child in self.peers.values()]
        self.collector.event("start", peers=experiment.peers, pids=pids, evaluator=self.evaluator.process.pid)

    def _take_network_down(self) -> None:
        if self.network is not None:
            try:
                self.network.undo()
            except NamespaceError as error:
                self.collector.warn(f"{error}; try `grapevine cleanup`")

    # ---- training -------------------------------------------------------------------------------------------------

    def _train(self) -> None:
        """Read messages until every living peer has made its final report."""
        self.pokes.open()
        try:
            while self._waiting_for():
                self._listen(self.pokes.pause_s(0.1, self.world.dilation), self.pokes.fds)
                self._watch_time()
                self._watch_evaluator()
                self._refresh()
        finally:
            self.pokes.close()
        self._note_losses()
        reason = self._reason_with_losses()
        self.reason = f"{reason}; {self.failure}" if self.failure else reason
        self.collector.phase = "evaluating"
        for child in self.peers.values():
            child.say(control.Exit())

    def _waiting_for(self) -> list[int]:
        return [peer for peer, child in self.peers.items() if child.alive and peer not in self.collector.finished]

    def _say(self, peer: int, message: control.Down) -> None:
        if self.peers[peer].alive:
            self.peers[peer].say(message)

    def _kill(self, peer: int, why: str) -> None:
        if peer not in self.collector.lost and peer not in self.collector.finished:
            self.peers[peer].why = why  # it may be gone by now: a peer kills itself at the time of its event
            self.peers[peer].kill()

    def _listen(self, timeout_s: float, also: Sequence[int] = ()) -> None:
        children = [child for child in (*self.peers.values(), self.evaluator) if child is not None and child.alive]
        wait([*(child.connection for child in children), *also], timeout_s)
        for child in children:
            child.go_on()
            for message in child.read():
                child.heard_s = self.attention.s
                self._take(child, message)
        self.attention.look()
        if self.turnover is not None:
            self._watch_turnover(self.turnover)
        self.pokes.look()  # first, because it notes why a peer is gone
        self._note_losses()

    def _watch_turnover(self, turnover: Turnover) -> None:
        """Let absent peers return in time; stop the peers that wait if no peer trains or will train."""
        turnover.look()
        if turnover.over and not self._over:
            self._over = True
            for peer in self._waiting_for():
                self._say(peer, control.Stop())

    def _note_losses(self) -> None:
        """Note the loss of each process that has ended, once."""
        for peer, child in self.peers.items():
            if not child.alive and peer not in self.collector.finished and peer not in self.collector.lost:
                self._lose(peer, child)
        if self.evaluator is not None and not self.evaluator.alive:
            self._lose_evaluator(self.evaluator)

    def _take(self, child: Child, message: control.Up) -> None:
        if isinstance(message, Report):
            self._step_s = max(self._step_s, message.step_ns / 1e9 * self.world.dilation)
            self._evaluate(self.collector.report(message))
            if message.index == FINAL and self.turnover is not None:
                self.turnover.ended(message.peer, died=False)
        elif isinstance(message, Score):
            self.scoring.answered(message.index, scored=True)
            self.collector.scored(message)
            target = self.fleet.experiment.stop.accuracy
            if target is not None and self.collector.scores.validation_accuracy_mean >= target and not self.reason:
                self._stop(self.collector.target_reached(target, message.time_ns))
        elif isinstance(message, control.Here):
            child.doing = message.text
        elif isinstance(message, control.Remark):
            self.collector.warn(message.text)
        elif isinstance(message, control.Unscored):
            self.scoring.answered(message.index, scored=False)
        elif (
            isinstance(message, control.Held | control.Gone | control.Fetched | control.Gave | control.Wish)
            and self.turnover is not None
        ):
            self.turnover.heard(message)
        elif isinstance(message, control.Connected) and self._room is not None:
            remove_folder(self._room)  # the evaluator is the last to map the files: none is left after any end
            self._room = None

    def _evaluate(self, task: Evaluate | None) -> None:
        """Let a snapshot be scored, now or after the training."""
        if task is not None:
            self.scoring.take(task, self.evaluator)

    def _lose(self, peer: int, child: Child) -> None:
        """Lose a peer whose process has ended: report the cause, and send its loss to the others."""
        if child.last_words:
            self.collector.event("fault", peer=peer, text=child.last_words)
            self.completed = False
            why = self._fault(child.last_words).sentence
            self.failure = self.failure or f"peer {peer} failed: {why}; events.jsonl has the whole traceback"
        elif child.why:
            why = child.why
        else:
            why = child.ending()
        for task in self.collector.lose(peer, why, asked=child.why == BY_SCRIPT, pid=child.process.pid):
            self._evaluate(task)
        for other in self.peers.values():
            if other.alive:
                other.say(control.Lost(peer))
        if self.turnover is not None:
            self.turnover.ended(peer, died=True)

    def _lose_evaluator(self, child: Child) -> None:
        """Go on without the evaluator, with a warning; the launcher scores the rest at the end."""
        self.evaluator = None
        words = child.last_words.strip()
        why = f"scoring raised {self._fault(words).text}" if words else child.why or child.ending()
        self.collector.event("fault", text=words or why)
        target = self.fleet.experiment.stop.accuracy
        missed = "" if target is None or self.reason else f"; the run could not stop at accuracy {target:g} any more"
        self.collector.warn(f"the evaluator was lost: {why}; the remaining records were scored at the end{missed}")
        self.scoring.take_back()

    def _fault(self, error: BaseException | str) -> Fault:
        return fault_of(error, self.fleet.experiment, self.fleet.problem)

    def _watch_evaluator(self) -> None:
        """End an evaluator that gives no sign of life; the launcher can do its work."""
        child = self.evaluator
        if child is not None and child.alive and self.scoring.is_silent(child, self.attention.s):
            child.why = f"it gave no sign of life for {SILENCE_S:.0f} s, and was ended"
            child.end()

    def _watch_time(self) -> None:
        """Stop the fleet after an interrupt; end processes that are silent, or have not stopped in time."""
        now_s = self.attention.s
        if self.interrupt.requested and self.reason != "interrupted":
            self.completed = False
            self._stop("interrupted", INTERRUPT_GRACE_S)
        stop_ns = self.fleet.stop_ns
        if stop_ns is not None and self._stop_deadline_s is None and self._emulated_s() > stop_ns / 1e9:
            self._stop_deadline_s = now_s + 2 * (STOP_GRACE_S + self._step_s)
        for peer in self._waiting_for():
            child = self.peers[peer]
            if now_s - child.heard_s > SILENCE_S:
                child.why = f"it gave no sign of life for {now_s - child.heard_s:.0f} s, and was ended"
                child.end()
            elif self._stop_deadline_s is not None and now_s > self._stop_deadline_s:
                place = self._fault(child.doing).place if child.doing else None
                running = "" if place is None else f" while it ran code that does not end by itself ({place})"
                child.why = f"it had not stopped in time when the run ended, and was ended{running}"
                child.end()
            elif self._stop_deadline_s is not None and now_s > self._stop_deadline_s - ASK_S and child.doing is None:
                child.doing = ""
                child.say(control.Where())

    def _stop(self, reason: str, grace_s: float = STOP_GRACE_S) -> None:
        self.reason = reason
        self._stop_deadline_s = self.attention.s + grace_s
        if reason != "interrupted":
            self._stop_deadline_s += 2 * self._step_s
        for child in self.peers.values():
            child.say(control.Stop())

    def _reason_with_losses(self) -> str:
        """Return why the run ended, with the peers that were lost without an event; not after an interrupt, which ends
        some peers itself."""
        if self.reason == "interrupted":
            return self.reason
        if not self.collector.finished:
            self.completed = False
            return f"{self.reason}; every peer was lost" if self.reason else "every peer was lost"
        reason, unasked = self.reason or self._natural_end(), self.collector.lost_unasked
        return f"{reason}; lost on the way: {peers_text(sorted(unasked))}" if unasked and not self.failure else reason

    def _natural_end(self) -> str:
        members = self.collector.finished - self.collector.absent
        if not members and self.turnover is not None:
            return "every peer has left"
        return self.collector.end_reached()

    # ---- the end --------------------------------------------------------------------------------------------------

    def _score_the_end(self) -> None:
        """Wait for the evaluator's last scores, and score the rest here; after an interrupt, wait half a second at most."""
        self._evaluate(self.collector.complete(FINAL))
        deadline_s = inf
        while self.scoring.given and time.monotonic() < deadline_s:
            self._listen(0.05)
            self._watch_evaluator()
            self._refresh()
            if self.interrupt.requested:
                deadline_s = min(deadline_s, time.monotonic() + 0.5)
        able = True  # False once scoring has failed or the end was requested
        for task, weights in self.scoring.left():
            able = able and not self.interrupt.requested
            if weights is None or not able:
                self.collector.unscored(task, behind=able)
            else:
                able = self._score_here(task, weights)
            self._refresh()

    def _score_here(self, task: Evaluate, weights: np.ndarray) -> bool:
        """Score one record in this process; return False, with the cause as the run's reason, if the task raises."""
        try:
            self.collector.scored(score(self.fleet.problem, weights, task))
        except Exception as error:  # noqa: BLE001 - a task from Python may raise anything
            why = f"scoring raised {self._fault(error).text}"
            self.collector.event("fault", text=traceback.format_exc())
            self.collector.warn(f"{why}; the remaining records have no scores")
            self.collector.unscored(task, behind=False)
            self.completed, self.reason = False, why
            return False
        return True

    def _refresh(self) -> None:
        if time.monotonic() - self._refreshed_s > REFRESH_S:
            self._refreshed_s = time.monotonic()
            self.collector.refresh(self._emulated_s())

    def _emulated_s(self) -> float:
        emulated_s = (time.monotonic_ns() - self.epoch_ns) / self.world.dilation / 1e9
        stop_ns = self.fleet.stop_ns
        return emulated_s if stop_ns is None else min(emulated_s, stop_ns / 1e9 + 1e-6)
