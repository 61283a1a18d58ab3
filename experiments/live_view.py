"""The live view of a run: its progress on the terminal while the fleet trains."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from grapevine.experiments.results.numbers import figure, peers_text, percent
from grapevine.experiments.terminal import open_console, printable
from grapevine.netem.units import show_bytes, show_duration

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.table import Table

REFRESH_S = 0.25
PLAIN_S = 5.0
SPEED_OVER_S = 3.0
SHORTEST_S = 0.5
MOST_ROWS = 16
GOING = ("starting", "training")
"""The phases in which the live view shows when the run will end."""

Status = Mapping[str, Any]


class Progress:
    """A run's progress on stderr: a table that changes in place on a terminal, else a line every few seconds.

    A context manager. `stop_text` describes when the run will end, `places` holds the region of each peer. `quiet` shows
    nothing. `console` and `clock` (seconds) replace stderr and the monotonic clock.
    """

    def __init__(
        self,
        experiment_name: str,
        peers: int,
        stop_text: str,
        quiet: bool = False,
        places: Sequence[str] | None = None,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._peers, self._stop, self._quiet = printable(experiment_name), peers, stop_text, quiet
        self._places = [printable(place) for place in places or ()]
        self._console, self._clock = console, clock
        self._live: Live | None = None
        self._status: Status | None = None
        self._shown: Status | None = None
        self._due_s = -math.inf
        self._counts: deque[tuple[float, int, int]] = deque()

    def __enter__(self) -> Progress:
        if not self._quiet:
            from rich.live import Live

            self._console = self._console or open_console(stderr=True)
            if self._console.is_terminal:
                self._live = Live(console=self._console, auto_refresh=False)
                self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._status is not None and self._status is not self._shown:
            self._show(self._status)
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, status: Status) -> None:
        """Take a newer status; show it if the phase has changed, or if the last one was shown long enough ago.

        `status` has emulated_s, wall_s, bytes_sent, steps, train_loss and validation_accuracy (one value a peer; nan =
        unknown), validation_accuracy_mean, lost (peers) and phase; and may have bytes_by_peer, events (of virtual time, so
        far) and left_s (real seconds until the end).
        """
        if self._quiet:
            return
        new_phase = self._status is None or status["phase"] != self._status["phase"]
        self._status = dict(status)
        now_s = self._clock()
        self._count(now_s, sum(status["steps"]), status.get("events") or 0)
        if now_s >= self._due_s or new_phase:
            self._due_s = now_s + (REFRESH_S if self._live else PLAIN_S)
            self._show(self._status)

    def _show(self, status: Status) -> None:
        self._shown = status
        if self._live is not None:
            self._live.update(self._picture(status), refresh=True)
        elif self._console is not None:
            self._console.print(
                f"{self._name}: {status['phase']} | {self._fleet(status)}", markup=False, highlight=False, soft_wrap=True
            )

    def _picture(self, status: Status) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        until = f" until {self._stop}" if self._stop and status["phase"] in GOING else ""
        title = Text.assemble((self._name, "bold"), f"  {status['phase']}{until}")
        table = self._each(status) if self._peers <= MOST_ROWS else self._spread(status)
        return Group(title, table, Text(self._fleet(status), style="bold"))

    def _fleet(self, status: Status) -> str:
        """Return the fleet's status on one line."""
        parts = [
            f"{status['emulated_s']:.1f} s emulated ({status['wall_s']:.1f} s real)",
            f"{figure(self._per_s(1))} steps/s",
            f"validation {percent(_known(status['validation_accuracy_mean']))}",
            f"{show_bytes(status['bytes_sent'])} sent",
        ]
        if status.get("events"):
            parts.insert(2, f"{figure(self._per_s(2))} events/s")
        if status.get("left_s") is not None:
            parts.append(f"{show_duration(round(status['left_s']) * 10**9)} left")
        if status["lost"]:
            parts.append(f"lost: {peers_text(sorted(status['lost']))}")
        return " | ".join(parts)

    def _each(self, status: Status) -> RenderableType:
        """Return a table with one row for each peer."""
        sent = status.get("bytes_by_peer")
        place, traffic = ["place"] if self._places else [], ["sent"] if sent else []
        table = _table(["peer", *place, "step", "loss", "validation", *traffic])
        for peer in range(self._peers):
            lost = peer in status["lost"]
            cells = [f"{peer} (lost)" if lost else str(peer), *([self._places[peer]] if self._places else [])]
            cells.append(f"{status['steps'][peer]:,}")
            cells.append(figure(_known(status["train_loss"][peer])))
            cells.append(percent(_known(status["validation_accuracy"][peer])))
            table.add_row(*cells, *([show_bytes(sent[peer])] if sent else []), style="red" if lost else "")
        return table

    def _spread(self, status: Status) -> RenderableType:
        """Return a table with the lowest, the median and the highest value of many peers."""
        table = _table([f"{self._peers:,} peers", "step", "loss", "validation"])
        alive = [peer for peer in range(self._peers) if peer not in set(status["lost"])]
        steps, losses, accuracies = (
            sorted(value for peer in alive if not math.isnan(value := status[key][peer]))
            for key in ("steps", "train_loss", "validation_accuracy")
        )
        for name, share in (("lowest", 0.0), ("median", 0.5), ("highest", 1.0)):
            step, loss, accuracy = (_at(values, share) for values in (steps, losses, accuracies))
            table.add_row(name, figure(step), figure(loss), percent(accuracy))
        return table

    def _count(self, now_s: float, steps: int, events: int) -> None:
        self._counts.append((now_s, steps, events))
        while len(self._counts) > 2 and now_s - self._counts[1][0] >= SPEED_OVER_S:
            self._counts.popleft()

    def _per_s(self, column: int) -> float | None:
        """Return steps (1) or events (2) a second of all peers together, over the last few seconds of the wall clock; None
        before there are two counts."""
        before, now = self._counts[0], self._counts[-1]
        seconds = now[0] - before[0]
        return round((now[column] - before[column]) / seconds) if seconds > SHORTEST_S else None


def _table(titles: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        first = title == titles[0]
        words = first or title == "place"
        table.add_column(title, justify="left" if words else "right", no_wrap=True, min_width=9 if first else 6)
    return table


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _at(values: Sequence[float], share: float) -> float | None:
    """Return the value at a share (0 to 1) of a sorted list's length; None for an empty list."""
    return values[round(share * (len(values) - 1))] if values else None
