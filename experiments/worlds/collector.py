"""What a world learns about its fleet, on its way to run folder, live view and outcome; the same in every world."""

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
from grapevine.peer.peer import SENT_EMPTY

LATENESS_KEPT = 200_000


class Collector:
    """Takes reports and scores in, keeps the run folder up to date.  `show` is given the live status now and then."""

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
        self.lost_unasked: list[int] = []  # those of them that the experiment's script did not end
        self.finished: set[int] = set()
        self.absent: set[int] = set()  # peers that are no members now, but may be again
        self.members_over_time: list[tuple[float, int]] = []  # emulated seconds, members from then on
        self.first_steps = [0] * peers
        self.warnings: list[str] = []
        self.emulated_s = 0.0
        self.phase = "starting"
        self.started_s = time.monotonic()
        self.clock_s: Callable[[], float] = lambda: 0.0
        self.records = 0
        self._stepped = False
        self._sent_at: dict[int, int] = {}  # record index -> bytes sent by all peers up to it
        self._steps_at: dict[int, dict[int, int]] = {}  # record index -> each peer's step
        self._open: dict[int, dict[int, Report]] = {}
        self._closed: set[int] = set()

    # ---- what comes in --------------------------------------------------------------------------------------------

    def report(self, report: Report) -> Evaluate | None:
        """One peer at one record instant; once all living peers have reported it: the snapshot to score."""
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
        """Whether all living peers have reported an index: then write its links, and say what to score.

        Peers that have ended count with their last weights at the final index only.
        """
        reports = self._open.get(index)
        ended = {*self.lost, *(self.finished if index != FINAL else ())}
        if reports is None or index in self._closed or len(reports) + len(ended) < self.fleet.experiment.peers:
            return None  # too few, whoever they are: said without looking at each, for fleets of thousands
        if not set(range(self.fleet.experiment.peers)) - ended <= reports.keys():
            return None
        self._closed.add(index)
        self.records += 1
        self._steps_at[index] = {peer: report.step for peer, report in reports.items()}
        gone = [peer for peer in ended if peer not in reports]  # what they sent is sent all the same
        self._sent_at[index] = self._sent_at.get(index, 0) + sum(self.bytes_by_peer[peer] for peer in gone)
        del self._open[index]
        self.links.write(reports)
        self.recorder.flush()
        peers = sorted(peer for peer, report in reports.items() if report.member and peer not in self.lost)
        time_ns = max(report.time_ns for report in reports.values())
        return Evaluate(index, time_ns, peers) if peers else None

    def scored(self, score: Score) -> None:
        """The scores of one snapshot, in any order; they belong to its own time and steps, whatever has happened since."""
        steps = self._steps_at.pop(score.index, {})
        self.scores.take(score, steps, self._sent_at.pop(score.index, self.bytes_sent))

    def unscored(self, task: Evaluate) -> None:
        """A record whose weights could not be kept until there was time to score them: nobody knows how good they were."""
        self.scores.skip(task)
        self._steps_at.pop(task.index, None)
        self._sent_at.pop(task.index, None)

    def target_reached(self, accuracy: float, time_ns: int) -> str:
        """The reason to give when the fleet's mean validation accuracy has come to where the run was to stop."""
        return f"validation accuracy {accuracy:g} reached at {time_ns / 1e9:g} s ({self.scores.validation_accuracy_mean:.1%})"

    def lose(self, peer: int, why: str, asked: bool = False, **fields: Any) -> list[Evaluate]:
        """A peer is gone, `asked` where the script says so; returns what is complete now that nobody waits for it."""
        self.lost.append(peer)
        if not asked:
            self.lost_unasked.append(peer)
        self.event("lost", peer=peer, text=why, **fields)
        if self.members_over_time:
            self._note_members()
        tasks = [self.complete(index) for index in sorted(self._open)]
        return [task for task in tasks if task is not None]

    def begin_members(self, first: Collection[int]) -> None:
        """Members will change: these are the first."""
        self.absent = set(range(self.fleet.experiment.peers)) - set(first)
        self.members_over_time = [(0.0, len(first))]

    def join(self, peer: int, givers: Sequence[int], step: int) -> None:
        """A peer is a member from now on, with the weights of these peers."""
        self.absent.discard(peer)
        whose = f"the weights of {peers_text(sorted(givers))}" if givers else "its own weights"
        self._note_members()
        self.event("join", peer=peer, text=f"peer {peer} is a member from step {step} on, with {whose}", step=step)

    def leave(self, peer: int) -> None:
        """A peer has said goodbye: it is not lost."""
        self.absent.add(peer)
        self._note_members()
        self.event("leave", peer=peer, text=f"peer {peer} has left")

    def _note_members(self) -> None:
        count = self.fleet.experiment.peers - len(self.absent | set(self.lost))
        self.members_over_time.append((max(self.emulated_s, self.clock_s()), count))

    def _gone(self, peer: int) -> bool:
        return peer in self.lost or peer in self.absent

    def event(self, kind: str, **fields: Any) -> None:
        """A line in the events of the run."""
        self.recorder.event(max(self.emulated_s, self.clock_s()), kind, **fields)

    def warn(self, text: str) -> None:
        """Something that the reader of the results should know."""
        self.warnings.append(text)
        self.event("warning", text=text)

    def refresh(self, now_s: float, events: int | None = None) -> None:
        """Let the live view know; `events` counts what a virtual world has carried out."""
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
        """The real time until the run's time or steps are over, at the pace so far; an accuracy may end it sooner."""
        stop_ns, steps = self.fleet.stop_ns, self.fleet.experiment.stop.steps
        done = max(now_s * 1e9 / stop_ns if stop_ns else 0.0, float(np.mean(self.steps)) / steps if steps else 0.0)
        return wall_s * (1 - done) / done if 0.02 < done < 1 else None

    # ---- what comes out -------------------------------------------------------------------------------------------

    def outcome(self, completed: bool, reason: str, wall_s: float, weights: np.ndarray) -> Outcome:
        """How the run ended.  `wall_s` counts from the start barrier; `weights` float32 [peers, size]."""
        for index in sorted(self._open):  # what not every peer has reported is true all the same
            self.links.write(self._open[index])
        self._warn_of_refusals()
        if unscored := self.scores.records_unscored:
            self.warn(
                f"{unscored} of {self.records} records have no scores: this machine had neither time to score them nor "
                "room to keep their weights until the end, and a time to accuracy that they may hide is left out; record less "
                "often, or use fewer peers"
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

    def _warn_of_refusals(self) -> None:
        """Say what peers did not take in, and which peers' own values were no longer finite."""
        refused = sum((Counter(errors) for errors in self.errors.values()), Counter())
        empty = refused.pop(SENT_EMPTY, 0)
        if empty:
            names = peers_text([peer for peer, errors in sorted(self.errors.items()) if errors.get(SENT_EMPTY)])
            self.warn(
                f"training diverged: {empty} messages went without elements because the sender's own values ({names}) were not "
                f"finite; {CAUSES}"
            )
        if refused:
            self.warn(
                f"{sum(refused.values())} frames or messages were refused: "
                + ", ".join(f"{word} {count}" for word, count in sorted(refused.items()))
                + (", whose values a sender outside this run, or a fault, made not finite" if refused[NOT_FINITE] else "")
            )
