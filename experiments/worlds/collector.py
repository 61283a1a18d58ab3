"""The collector of peers' reports and scores, which feeds the run folder, the live view and the outcome in every world."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from grapevine.experiments.fleet import Fleet
from grapevine.experiments.results.numbers import peers_text
from grapevine.experiments.results.outcome import Outcome
from grapevine.experiments.results.recorder import Recorder
from grapevine.experiments.results.warnings import CAUSES
from grapevine.experiments.worlds.link_rows import LinkRows
from grapevine.experiments.worlds.peer_report import FINAL, Report
from grapevine.experiments.worlds.score_history import ScoreHistory
from grapevine.experiments.worlds.scoring import Evaluate, Score
from grapevine.peer.expected import NOT_FINITE
from grapevine.peer.inbox import LATE
from grapevine.peer.joiner_debts import FORGOTTEN
from grapevine.peer.peer import SENT_EMPTY

LATENESS_KEPT = 200_000
"""At most about this many lateness values are kept for the outcome."""


class Collector:
    """Collects reports and scores, and keeps the run folder up to date; `refresh` calls `show` with the live status."""

    def __init__(self, fleet: Fleet, recorder: Recorder, show: Callable[[dict[str, Any]], None]) -> None:
        peers = fleet.experiment.peers
        self.fleet = fleet
        self.recorder = recorder
        self.show = show
        self.steps = [0] * peers
        self.train_loss = [math.nan] * peers
        self.scores = ScoreHistory(peers, recorder)
        self.links = LinkRows(fleet.plan, recorder)
        self.bytes_sent = 0
        self.bytes_by_peer = [0] * peers
        self.messages_sent = 0
        self.lateness_ms: list[float] = []
        self.staleness = [(0, 0)] * peers
        self.errors: dict[int, dict[str, int]] = {}
        self.altered: dict[int, dict[str, int]] = {}  # by peers' wrappers
        self.lost: list[int] = []
        self._lost_by: dict[str, tuple[int, list[int]]] = {}  # cause -> place of its warning, peers
        self.lost_unasked: list[int] = []  # the lost peers that no event of the experiment killed
        self.finished: set[int] = set()
        self.absent: set[int] = set()  # peers that are not members now, but may join
        self.members_over_time: list[tuple[float, int]] = []  # emulated seconds, members from then on
        self.first_steps = [0] * peers
        self.warnings: list[str] = []
        self.emulated_s = 0.0
        self.phase = "starting"
        self.started_s = time.monotonic()
        self.clock_s: Callable[[], float] = lambda: 0.0
        self.records = 0
        self._stepped = False
        self._records_behind = 0  # records without scores for lack of time and room
        self._sent_at: dict[int, int] = {}  # record index -> bytes sent by all peers up to it
        self._steps_at: dict[int, dict[int, int]] = {}  # record index -> each peer's step
        self._open: dict[int, dict[int, Report]] = {}
        self._closed: set[int] = set()

    # ---- reports --------------------------------------------------------------------------------------------

    def report(self, report: Report) -> Evaluate | None:
        """Take one peer's report of a record; return the snapshot to score if this report completes the record."""
        peer, time_s = report.peer, report.time_ns / 1e9
        self.steps[peer] = report.step
        self.first_steps[peer] = report.first_step
        if not self._stepped and all(step or self._gone(other) for other, step in enumerate(self.steps)):
            self._stepped = True
            self.event("first_step", text="by now every peer has made its first step")
        if not math.isnan(report.train_loss):
            self.train_loss[peer] = report.train_loss
        self.staleness[peer] = report.staleness_sum, report.staleness_count
        self.errors[peer] = report.errors
        if report.altered:
            self.altered[peer] = report.altered
        self.emulated_s = max(self.emulated_s, time_s)
        if len(self.lateness_ms) < LATENESS_KEPT:
            self.lateness_ms.extend(report.lateness_ms)
        sent = sum(link.bytes for link in report.outgoing)
        self.bytes_sent += sent
        self.bytes_by_peer[peer] += sent
        self.messages_sent += sum(link.messages for link in report.outgoing)
        stale = [link.staleness_steps for link in report.incoming if not math.isnan(link.staleness_steps)]
        rows = {
            "train_loss": report.train_loss,
            "step_ms": report.step_ns / 1e6,
            "bytes_sent": float(sent),
            "staleness_steps": sum(stale) / len(stale) if stale else math.nan,
            "lateness_ms": float(np.quantile(report.lateness_ms, 0.99)) if report.lateness_ms else math.nan,
            **{f"notes.{name}": value for name, value in report.notes.items()},
        }
        for name, value in rows.items():
            if not math.isnan(value):
                self.recorder.metric(time_s, peer, report.step, name, value)
        if report.index == FINAL:
            self.finished.add(peer)
        self._sent_at[report.index] = self._sent_at.get(report.index, 0) + self.bytes_by_peer[peer]
        self._open.setdefault(report.index, {})[peer] = report
        return self.complete(report.index)

    def complete(self, index: int) -> Evaluate | None:
        """Write the links of a record if all living peers have reported it, and return the snapshot to score; else None.

        The weights of peers that have ended are scored at the final index only.
        """
        reports = self._open.get(index)
        ended = {*self.lost, *(self.finished if index != FINAL else ())}
        if reports is None or index in self._closed or len(reports) + len(ended) < self.fleet.experiment.peers:
            return None  # too few reports; cheap to see in fleets of thousands
        if not set(range(self.fleet.experiment.peers)) - ended <= reports.keys():
            return None
        self._closed.add(index)
        self.records += 1
        self._steps_at[index] = {peer: report.step for peer, report in reports.items()}
        gone = [peer for peer in ended if peer not in reports]  # their traffic still counts
        self._sent_at[index] = self._sent_at.get(index, 0) + sum(self.bytes_by_peer[peer] for peer in gone)
        del self._open[index]
        self.links.write(reports)
        self.recorder.flush()
        peers = sorted(peer for peer, report in reports.items() if report.member and peer not in self.lost)
        time_ns = max(report.time_ns for report in reports.values())
        return Evaluate(index, time_ns, peers) if peers else None

    def scored(self, score: Score) -> None:
        """Take the scores of a snapshot; they are written with its own time and steps, also when they come late."""
        steps = self._steps_at.pop(score.index, {})
        self.scores.take(score, steps, self._sent_at.pop(score.index, self.bytes_sent))

    def unscored(self, task: Evaluate, behind: bool = True) -> None:
        """Note a record without scores; `behind`: its weights could not be kept until there was time to score them."""
        self.scores.skip(task)
        self._records_behind += behind
        self._steps_at.pop(task.index, None)
        self._sent_at.pop(task.index, None)

    def target_reached(self, accuracy: float, time_ns: int) -> str:
        """Return the reason of a run that has reached its target: the mean validation accuracy at which it stops."""
        return f"validation accuracy {accuracy:g} reached at {time_ns / 1e9:g} s ({self.scores.validation_accuracy_mean:.1%})"

    def lose(self, peer: int, why: str, asked: bool = False, **fields: Any) -> list[Evaluate]:
        """Note a lost peer (`asked`: an event killed it); return the snapshots to score of records that it held up."""
        self.lost.append(peer)
        if not asked:
            self.lost_unasked.append(peer)
        self.event("lost", peer=peer, text=why, **fields)
        self._warn_of_loss(peer, why)
        if self.members_over_time:
            self._note_members()
        tasks = [self.complete(index) for index in sorted(self._open)]
        return [task for task in tasks if task is not None]

    def _warn_of_loss(self, peer: int, why: str) -> None:
        """Warn about a lost peer; peers that are lost for the same cause share one warning."""
        place, peers = self._lost_by.setdefault(why, (len(self.warnings), []))
        peers.append(peer)
        were, rest = ("was", "its neighbours went on without it") if len(peers) == 1 else ("were", "the others went on")
        rest = f"; {rest}" if len(self.lost) < self.fleet.experiment.peers else ""
        text = f"{peers_text(sorted(peers))} {were} lost: {why}{rest}"
        if len(peers) == 1:
            self.warn(text)
        else:
            self.warnings[place] = text

    def begin_members(self, first: Collection[int]) -> None:
        """Note the members at the start, in a fleet whose members change."""
        self.absent = set(range(self.fleet.experiment.peers)) - set(first)
        self.members_over_time = [(0.0, len(first))]

    def join(self, peer: int, givers: Sequence[int], step: int) -> None:
        """Note that a peer is a member from now on, with the weights of the peers `givers`."""
        self.absent.discard(peer)
        whose = f"the weights of {peers_text(sorted(givers))}" if givers else "its own weights"
        self._note_members()
        self.event("join", peer=peer, text=f"peer {peer} is a member from step {step} on, with {whose}", step=step)

    def leave(self, peer: int) -> None:
        """Note that a peer has left; it does not count as lost."""
        self.absent.add(peer)
        self._note_members()
        self.event("leave", peer=peer, text=f"peer {peer} has left")

    def _note_members(self) -> None:
        count = self.fleet.experiment.peers - len(self.absent | set(self.lost))
        self.members_over_time.append((max(self.emulated_s, self.clock_s()), count))

    def _gone(self, peer: int) -> bool:
        return peer in self.lost or peer in self.absent

    def event(self, kind: str, **fields: Any) -> None:
        """Write an event with the present emulated time."""
        self.recorder.event(max(self.emulated_s, self.clock_s()), kind, **fields)

    def warn(self, text: str) -> None:
        """Add a warning to the outcome and to the events, unless it is there already."""
        if text in self.warnings:
            return
        self.warnings.append(text)
        self.event("warning", text=text)

    def refresh(self, now_s: float, events: int | None = None) -> None:
        """Show the live status; `events` is the number of events that a virtual world has carried out."""
        wall_s = time.monotonic() - self.started_s
        self.show(
            {
                "emulated_s": max(0.0, now_s),
                "wall_s": wall_s,
                "bytes_sent": self.bytes_sent,
                "bytes_by_peer": self.bytes_by_peer,
                "steps": self.steps,
                "train_loss": self.train_loss,
                "validation_accuracy": self.scores.latest["validation_accuracy"],
                "validation_accuracy_mean": self.scores.validation_accuracy_mean,
                "lost": self.lost,
                "phase": self.phase,
                "events": events,
                "left_s": self._left_s(now_s, wall_s),
            }
        )

    def _left_s(self, now_s: float, wall_s: float) -> float | None:
        """Return the real time until the run's time or steps are over, at the pace so far; an accuracy may end it sooner."""
        stop_ns, steps = self.fleet.stop_ns, self.fleet.experiment.stop.steps
        done = max(now_s * 1e9 / stop_ns if stop_ns else 0.0, float(np.mean(self.steps)) / steps if steps else 0.0)
        return wall_s * (1 - done) / done if 0.02 < done < 1 else None

    # ---- the outcome ----------------------------------------------------------------------------------------------

    def outcome(self, completed: bool, reason: str, wall_s: float, weights: np.ndarray) -> Outcome:
        """Return the outcome of the run; `wall_s` is the real time since the start barrier, `weights` float32 [peers, size]."""
        for index in sorted(self._open):  # incomplete records have true link figures too
            self.links.write(self._open[index])
        self._warn_about_refusals()
        if self._records_behind:
            self.warn(
                f"{self._records_behind} of {self.records} records have no scores: this machine had neither the time to score "
                "them nor the room to keep their weights until the end, so times to accuracy may be missing; record less often "
                "or use fewer peers"
            )
        used = sum(count for _, count in self.staleness)
        return Outcome(
            completed=completed,
            reason=reason,
            emulated_s=self.emulated_s,
            wall_s=wall_s,
            steps=[step - first for step, first in zip(self.steps, self.first_steps, strict=True)],
            bytes_sent=self.bytes_sent,
            messages_sent=self.messages_sent,
            weights=weights,
            **self.scores.for_outcome(),
            staleness_steps_mean=sum(steps for steps, _ in self.staleness) / used if used else math.nan,
            lateness_ms=self.lateness_ms,
            peers_lost=sorted(self.lost),
            peers_lost_unasked=sorted(self.lost_unasked),
            peers_absent=sorted(self.absent - set(self.lost)),
            members=self.members_over_time,
            links=self.links.figures(),
            uplinks=self.fleet.plan.uplinks,
            downlinks=self.fleet.plan.downlinks,
            cables=self.fleet.plan.cables,
            wrapped=self.fleet.wrapped,
            altered=dict(sorted(sum(map(Counter, self.altered.values()), Counter()).items())),
            warnings=self.warnings,
        )

    def end_reached(self) -> str:
        """Return why the strategies that have ended did so, in words: the steps or the time of the run, or by themselves."""
        stop, members = self.fleet.experiment.stop, [peer for peer in range(len(self.steps)) if not self._gone(peer)]
        if stop.steps is not None and all(self.steps[peer] >= stop.steps for peer in members):
            return f"{stop.steps} steps done"
        if self.fleet.stop_ns is not None and self.emulated_s * 1e9 >= self.fleet.stop_ns:
            return f"{stop.time} of emulated time over"
        return "every strategy returned"

    def _warn_about_refusals(self) -> None:
        """Add warnings about refused frames and messages, and about peers whose own values were not finite."""
        refused = sum((Counter(errors) for errors in self.errors.values()), Counter())
        late = refused.pop(LATE, 0)
        deaf = [peer for peer, errors in sorted(self.errors.items()) if errors.get(LATE) and not self.staleness[peer][1]]
        if deaf and not self.absent:
            self.warn(
                f"{late} messages came after peer.gather had asked for a later step, and were dropped: {peers_text(deaf)} used "
                "no message at all; give peer.gather the value that peer.step had when the messages were sent"
            )
        empty = refused.pop(SENT_EMPTY, 0)
        if empty:
            names = peers_text([peer for peer, errors in sorted(self.errors.items()) if errors.get(SENT_EMPTY)])
            self.warn(
                f"training diverged: {empty} messages went without elements because the sender's own values ({names}) were not "
                f"finite; {CAUSES}"
            )
        if refused.pop(FORGOTTEN, 0):
            self.warn(
                "a joining peer's weights lack updates: they travelled for longer than its neighbours remember their payments; "
                'use faster links, or weights = "nearest" in [membership]'
            )
        if refused:
            self.warn(
                f"{sum(refused.values())} frames or messages were refused: "
                + ", ".join(f"{word} {count}" for word, count in sorted(refused.items()))
                + ("; a sender outside this run, or a fault, sent values that are not finite" if refused[NOT_FINITE] else "")
            )
