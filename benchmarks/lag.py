"""The time until a strategy has measured a change of its links, and until its queues are short: `python -m benchmarks.lag`.

In virtual time.  All links change at once; the figures are medians over the links.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.utilisation import STEP_NS, STRATEGIES, make_world
from grapevine.experiments.config.experiment import Stop
from grapevine.experiments.worlds.virtual.link import PeerLink
from grapevine.netem import ScheduleNetwork
from grapevine.peer.strategies import Strategy

RATE_KBIT = 9_000
ELEMENTS = 60_000  # 240 kB: four steps of the link's time
CHANGE_NS = 2_000_000_000
LOOK_NS = 2_000_000
NEAR = 0.3  # a rate is known when the measured one is within this share of it
FACTORS = (0.1, 0.03, 3.0)
DELAYS_MS = (5, 100)


class Lag(NamedTuple):
    """Times after the change over all links, ms; inf = not before the run's end."""

    known_ms: float
    """Median time until the measured rate is near the new one, and stays there for a step."""
    slowest_ms: float
    """The same time of the slowest link."""
    drained_ms: float
    """Median time until the queue is shorter than a horizon, and stays shorter for a step."""


def measure(strategy: Strategy, factor: float, delay_ms: float, seconds: float = 10.0) -> Lag:
    """Change the rate of all links by `factor` and read meters and queues every 2 ms."""
    rates = f"{RATE_KBIT} kbit/s", f"{RATE_KBIT * factor:.0f} kbit/s"
    network = ScheduleNetwork(times=("0 s", f"{CHANGE_NS / 1e9} s"), rates=rates, delay=f"{delay_ms} ms")
    with tempfile.TemporaryDirectory() as folder:
        end_ns = CHANGE_NS + int(seconds * 1e9)
        world = make_world(Path(folder), strategy, network, Stop(time=f"{end_ns} ns"), elements=ELEMENTS)
        links = list(world.transport.links.values())
        rate = RATE_KBIT * 125 * factor
        near: list[list[bool]] = []
        short: list[list[bool]] = []

        def look() -> None:
            near.append([abs((link.meter.rate_bytes_per_s or 0.0) / rate - 1) <= NEAR for link in links])
            short.append([_waits_ns(link, world.now_ns) <= STEP_NS for link in links])

        for look_ns in range(CHANGE_NS, end_ns, LOOK_NS):
            world._at(look_ns + 1, look)
        world.train(records=False)
    known = [_since_ms(np.array(near)[:, place]) for place in range(len(links))]
    drained = [_since_ms(np.array(short)[:, place]) for place in range(len(links))]
    return Lag(float(np.median(known)), max(known), float(np.median(drained)))


def _waits_ns(link: PeerLink, now_ns: int) -> int:
    return link.sender.link.free_ns - now_ns


def _since_ms(holds: np.ndarray) -> float:
    """Return the time at which a condition first holds for a whole step, ms; inf if never."""
    steps = STEP_NS // LOOK_NS
    whole = np.convolve(holds, np.ones(steps), "valid") >= steps
    return float(np.argmax(whole) * LOOK_NS / 1e6) if whole.any() else np.inf


def target_ms(delay_ms: float) -> float:
    """Return the target, two round trips and two steps, ms."""
    return 4 * delay_ms + 2 * STEP_NS / 1e6


def main() -> None:
    names = sys.argv[1:] or list(STRATEGIES)
    table = Table(title="ms after a change until the rate is known within 30 % (of the slowest link); until the queue is short")
    for column in ("delay", "change", "target", *names):
        table.add_column(column, justify="right")
    for delay_ms in DELAYS_MS:
        for factor in FACTORS:
            cells = []
            for name in names:
                lag = measure(STRATEGIES[name], factor, delay_ms)
                cells.append(f"{lag.known_ms:.0f} ({lag.slowest_ms:.0f}); {lag.drained_ms:.0f}")
            table.add_row(f"{delay_ms} ms", f"x {factor:g}", f"{target_ms(delay_ms):.0f}", *cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
