"""The events that the launcher carries out in a fleet of processes: kills, joins and leaves of the script, and pokes.

Links and devices have the other events of the script from the start.  After a poke the launcher sends the peer that owns a link
all past and future alterations of it, in place of those it had.  Messages that are on the wire by then keep their times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from grapevine.experiments.config.errors import ConfigError
from grapevine.experiments.config.events import (
    Event,
    JoinEvent,
    KillEvent,
    LeaveEvent,
    LinkEvent,
    Pair,
    PartitionEvent,
    PauseEvent,
    SpeedEvent,
    without_stale,
)
from grapevine.experiments.config.menus import EVENTS
from grapevine.experiments.fleet import Fleet
from grapevine.experiments.scenario import changes_of, check, in_order, tempos_of
from grapevine.experiments.worlds.collector import Collector
from grapevine.experiments.worlds.processes import control
from grapevine.experiments.worlds.processes.poke_socket import Rendezvous
from grapevine.experiments.worlds.processes.turnover import Turnover
from grapevine.netem.links.alterations import cut_for_good_ns, without_open_end

BY_SCRIPT = "killed by the script"
BY_POKE = "killed by a poke"
REMEMBERED_NS = 1_000_000_000
"""Events of this age or less are always kept, because peers may still compute with them; older ones only if still in force."""


class Pokes:
    """Carries out pokes, and the events of the script that peers cannot carry out.

    `now_ns()` is the emulated time, `say(peer, message)` sends a message, `kill(peer, why)` ends a process, `alive()` are the
    peers that run.
    """

    def __init__(
        self,
        fleet: Fleet,
        collector: Collector,
        now_ns: Callable[[], int],
        say: Callable[[int, control.Down], None],
        kill: Callable[[int, str], None],
        alive: Callable[[], Iterable[int]],
        turnover: Turnover | None = None,
    ) -> None:
        self.fleet = fleet
        self.collector = collector
        self.now_ns = now_ns
        self.say = say
        self.kill = kill
        self.alive = alive
        self.turnover = turnover
        self._events = fleet.script  # of the script and the pokes so far, without stale ones
        self._script = deque(self._events)
        self._rendezvous: Rendezvous | None = None
        self._over = False

    def open(self) -> None:
        """Let the fleet be poked from now on."""
        try:
            self._rendezvous = Rendezvous(self.collector.recorder.inside)
        except OSError as error:
            self.collector.event(
                "note", text=f"this fleet cannot be poked, since its folder cannot hold a socket: {error.strerror}"
            )

    def close(self) -> None:
        """End the script and the pokes, because the training is over."""
        self._over = True
        if self._rendezvous is not None:
            self._rendezvous.close()
            self._rendezvous = None

    @property
    def fds(self) -> list[int]:
        """The file descriptors on which pokes arrive."""
        return [] if self._rendezvous is None else self._rendezvous.fds

    def pause_s(self, most_s: float, dilation: float) -> float:
        """Return the real seconds until the next event of the script, at most `most_s`."""
        if not self._script:
            return most_s
        return max(0.0, min(most_s, (self._script[0].at_ns - self.now_ns()) / 1e9 * dilation))

    def look(self) -> None:
        """Carry out the events of the script that are due, and the pokes that have arrived."""
        now_ns = self.now_ns()
        while not self._over and self._script and self._script[0].at_ns <= now_ns:
            event = self._script.popleft()
            self.collector.recorder.event(event.at_ns / 1e9, "script", text=event.describe())
            if isinstance(event, KillEvent):
                self.kill(event.peer, BY_SCRIPT)
            elif isinstance(event, LinkEvent | PartitionEvent):
                self._cut_for_good(event)
            elif self.turnover is not None:
                self.turnover.script(event)
        if self._rendezvous is not None:
            self._rendezvous.serve(self._answer)

    def _cut_for_good(self, event: LinkEvent | PartitionEvent) -> None:
        """Send the links a cut that the script never heals; they do not have it, because a poke may heal it."""
        changes = changes_of(self._events, event.affected(self.fleet.plan.links))
        self._tell_links(pair for pair, known in changes.items() if cut_for_good_ns(known) == event.at_ns)

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Carry out a poke; return the answer: the event and its time, or why it was refused."""
        now_ns = self.now_ns()
        given = question.get("event")
        try:
            event = EVENTS.read({**given, "at": f"{now_ns} ns"} if isinstance(given, dict) else given)
            self._check(event)
        except ConfigError as error:
            return {"refused": str(error)}
        self._events = without_stale(in_order([*self._events, event]), now_ns - REMEMBERED_NS)
        text = event.describe()
        self.collector.event("poke", text=text)
        if isinstance(event, KillEvent):
            self.kill(event.peer, BY_POKE)
        elif isinstance(event, LinkEvent | PartitionEvent):
            affected = event.affected(self.fleet.plan.links)
            self.collector.links.poked.update(affected)
            self._tell_links(affected)
        elif isinstance(event, SpeedEvent | PauseEvent):
            self.say(event.peer, control.Alter({}, list(tempos_of(self._events, event.peer))))
        elif isinstance(event, JoinEvent | LeaveEvent) and self.turnover is not None:
            (self.turnover.ask_in if isinstance(event, JoinEvent) else self.turnover.ask_out)(event.peer)
        return {"done": text, "time_s": now_ns / 1e9}

    def _check(self, event: Event) -> None:
        """Raise ConfigError if the fleet cannot carry the event out now."""
        plan = self.fleet.plan
        check(event, plan, self.fleet.devices, self.fleet.experiment.task.batch_size, EVENTS.key)
        alive = set(self.alive())
        if isinstance(event, JoinEvent | LeaveEvent):
            self._check_turnover(event)
        if isinstance(event, KillEvent | SpeedEvent | PauseEvent | JoinEvent | LeaveEvent) and event.peer not in alive:
            raise ConfigError(key="event.peer", value=event.peer, problem=f"peer {event.peer} does not run any more")
        if isinstance(event, LinkEvent | PartitionEvent) and not any(set(pair) <= alive for pair in event.affected(plan.links)):
            raise ConfigError(key="event", problem=f"{event.describe()}: of no link do both peers still run")

    def _check_turnover(self, event: JoinEvent | LeaveEvent) -> None:
        if self.turnover is None:
            raise ConfigError(
                key="event.do", value=event.kind, problem="the members of this fleet stay from start to end",
                cure='let the file say [membership] name = "open", or plan a join or leave among its [[events]]',
            )  # fmt: skip
        if problem := self.turnover.refusal(event):
            raise ConfigError(key="event.peer", value=event.peer, problem=problem)

    def _tell_links(self, pairs: Iterable[Pair]) -> None:
        now_ns = self.now_ns()
        of_peer: dict[int, dict[int, control.LinkState]] = {}
        for pair, changes in changes_of(self._events, pairs).items():
            since_ns = cut_for_good_ns(changes)
            known = without_open_end(changes) if since_ns is not None and since_ns > now_ns else changes
            spec = msgspec.structs.replace(self.fleet.plan.links[pair], changes=())
            state = control.LinkState(spec.rate_bytes_per_s, spec.delay_ns, spec.loss, spec.cap is not None, known)
            of_peer.setdefault(pair[0], {})[pair[1]] = state
        for peer, links in of_peer.items():
            self.say(peer, control.Alter(links))
