"""Utilisation and queues of links, alone and on shared segments, with strategies that adapt to measured rates.

In virtual time.  `python -m benchmarks.utilisation [strategy ...]`
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from grapevine import Experiment
from grapevine.experiments.config.experiment import Stop, Virtual
from grapevine.experiments.fleet import build
from grapevine.experiments.results.recorder import Recorder
from grapevine.experiments.tasks import Quadratic
from grapevine.experiments.worlds.collector import Collector
from grapevine.experiments.worlds.interrupt import Interrupt
from grapevine.experiments.worlds.virtual.world import VirtualWorld
from grapevine.netem import MixedDevices, Network, Uniform
from grapevine.netem.networks.bottlenecks import Bottleneck
from grapevine.peer.strategies import Ako, DLion, Slices, Strategy, TFAko
from grapevine.topology.graphs.menu import Complete

PEERS = 4
ELEMENTS = 10_000
MODEL_BYTES = 4 * ELEMENTS
STEP_NS = 50_000_000
PACES = (1.0, 0.97, 1.03, 0.985)  # factors of the peers' speeds, so that their steps do not stay in phase
LOOKS = 8  # readings of the queues per horizon
DELAYS_MS = (1, 5, 20, 100, 300)
RATIOS = (0.5, 1.2, 6.0, 50.0)
STRATEGIES: dict[str, Strategy] = {
    "slices": Slices(),
    "ako": Ako(schedule="room"),
    "tfako": TFAko(),
    "dlion": DLion(batching=False, transfer_every=0),
}


class Use(NamedTuple):
    """Use of a fleet's segments, over the second half of a run."""

    share: float
    """Carried bytes divided by the bytes that the segments can carry in that time."""
    expected: float
    """The expected share: the strategy's `fill`, or less if one whole model a step needs less."""
    standing_ns: float
    """95th percentile, over horizons, of the time that a segment needs to send its shortest queue in a horizon, ns."""
    standing_horizons: float
    """The same time in horizons; a horizon is a step, or the number of steps for which the strategy saves up."""
    longest_horizons: float
    """The longest queue of all segments, in horizons."""
    rates: float
    """The mean of the sum of the measured rates, divided by the segment's rate."""


def make_world(
    folder: Path, strategy: Strategy, network: Network, stop: Stop, step_ns: int = STEP_NS, elements: int = ELEMENTS
) -> VirtualWorld:
    """Return a fleet of four peers on a complete graph, whose steps take about `step_ns`."""
    targets = tuple(tuple(row) for row in np.random.default_rng(6).normal(0, 3, (PEERS, elements)).tolist())
    devices = MixedDevices(speeds=tuple(f"{pace * 1e9 / step_ns:.6f} samples/s" for pace in PACES))
    experiment = Experiment(
        peers=PEERS, world=Virtual(), topology=Complete(), task=Quadratic(targets=targets), strategy=strategy,
        network=network, devices=devices, stop=stop,
    )  # fmt: skip
    fleet = build(experiment)
    return VirtualWorld(fleet, Collector(fleet, Recorder(folder / "run", "", {}), lambda status: None), Interrupt())


def measure(
    strategy: Strategy, network: Network, groups: list[list[tuple[int, int]]], rate_bytes_per_s: float, steps: int = 320,
    step_ns: int = STEP_NS,
) -> Use:  # fmt: skip
    """Run a strategy; each of the `groups` of links shares one segment of `rate_bytes_per_s`."""
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder), strategy, network, Stop(time=f"{steps * step_ns} ns"), step_ns)
        found = _Looks(world, groups, rate_bytes_per_s)
        horizon_ns = max(step_ns, 20_000_000)
        begin_ns, end_ns = steps * step_ns // 2, steps * step_ns
        for look_ns in range(begin_ns, end_ns, horizon_ns // LOOKS):
            world._at(look_ns + 1, found.look)
        world._at(begin_ns + 1, found.count)
        world._at(end_ns - 1, found.count)
        world.train(records=False)
        horizons = max(world.members[0].peer.meters[1].patience, 1.0)
    windows = int(LOOKS * horizons)
    waiting_ns = np.array(found.waiting_ns)
    kept = len(waiting_ns) // windows * windows
    least_ns = waiting_ns[:kept].reshape(-1, windows, len(groups)).min(axis=1)
    carried = (np.array(found.counts[-1]) - np.array(found.counts[0])) / ((end_ns - begin_ns - 2) / 1e9) / rate_bytes_per_s
    standing_ns = float(np.quantile(least_ns, 0.95))
    whole = MODEL_BYTES / (step_ns / 1e9) * len(groups[0]) / rate_bytes_per_s
    return Use(
        float(carried.mean()),
        min(getattr(strategy, "fill", 1.0), whole),
        standing_ns,
        standing_ns / (horizons * horizon_ns),
        float(waiting_ns.max()) / (horizons * horizon_ns),
        float(np.mean(found.rates)),
    )


class _Looks:
    """Readings of a world's segments during a run."""

    def __init__(self, world: VirtualWorld, groups: list[list[tuple[int, int]]], rate_bytes_per_s: float) -> None:
        self.world = world
        self.groups = groups
        self.rate_bytes_per_s = rate_bytes_per_s
        self.waiting_ns: list[list[float]] = []
        self.rates: list[float] = []
        self.counts: list[list[int]] = []

    def look(self) -> None:
        links, now_ns = self.world.transport.links, self.world.now_ns
        waiting = [sum(links[pair].waiting_bytes(now_ns) for pair in group) for group in self.groups]
        self.waiting_ns.append([each / self.rate_bytes_per_s * 1e9 for each in waiting])
        measured = [[links[pair].meter.rate_bytes_per_s or 0.0 for pair in group] for group in self.groups]
        self.rates.append(float(np.mean([sum(each) for each in measured])) / self.rate_bytes_per_s)

    def count(self) -> None:
        links = self.world.transport.links
        self.counts.append([sum(links[pair].sent.bytes for pair in group) for group in self.groups])


def settings(delay_ms: float, ratio: float) -> dict[str, tuple[Network, list[list[tuple[int, int]]], float]]:
    """Return the networks by name, each with the groups of links that share a segment, and a segment's rate, bytes/s.

    `ratio`: model bytes over the bytes that a link's part of its segment carries in a step.
    """
    pairs = [(source, target) for source in range(PEERS) for target in range(PEERS) if source != target]
    rate = MODEL_BYTES / (ratio * STEP_NS / 1e9)
    shared = f"{rate * (PEERS - 1) * 8:.0f} bit/s"
    delay = f"{delay_ms} ms"
    uplinks = [[pair for pair in pairs if pair[0] == peer] for peer in range(PEERS)]
    downlinks = [[pair for pair in pairs if pair[1] == peer] for peer in range(PEERS)]
    cable = [[pair for pair in pairs if pair[0] < 2 <= pair[1]], [pair for pair in pairs if pair[1] < 2 <= pair[0]]]
    return {
        "alone": (Uniform(rate=f"{rate * 8:.0f} bit/s", delay=delay), [[pair] for pair in pairs], rate),
        "uplink": (Uniform(delay=delay, uplink=shared), uplinks, rate * (PEERS - 1)),
        "downlink": (Uniform(delay=delay, downlink=shared), downlinks, rate * (PEERS - 1)),
        "both": (Uniform(delay=delay, uplink=shared, downlink=shared), uplinks, rate * (PEERS - 1)),
        "cable": (
            Uniform(delay=delay, bottlenecks=(Bottleneck(rate=f"{rate * 32:.0f} bit/s", here=(0, 1)),)), cable, rate * 4,
        ),
    }  # fmt: skip


def table(names: list[str], setting: str, delays_ms: tuple[float, ...], ratios: tuple[float, ...]) -> Table:
    """Return a table with one row for each delay and ratio, and the figures of each strategy."""
    title = f"{setting}: carried / expected share of the segment (95 % of queues, in ms and horizons, longest; measured rates)"
    made = Table(title=title)
    for column in ("delay", "ratio", *names):
        made.add_column(column, justify="right")
    for delay_ms in delays_ms:
        for ratio in ratios:
            network, groups, rate = settings(delay_ms, ratio)[setting]
            found = [measure(STRATEGIES[name], network, groups, rate) for name in names]
            cells = [_cell(use) for use in found]
            made.add_row(f"{delay_ms} ms", f"{ratio}", *cells)
    return made


def _cell(use: Any) -> str:
    mark = "" if use.share >= 0.85 * use.expected and use.standing_horizons <= 1 else "[red]![/red]"
    return (
        f"{mark}{use.share:.0%}/{use.expected:.0%} ({use.standing_ns / 1e6:.0f} ms, {use.standing_horizons:.2f}, "
        f"{use.longest_horizons:.1f}; {use.rates:.2f})"
    )


def main() -> None:
    names = sys.argv[1:] or list(STRATEGIES)
    console = Console(width=150)
    console.print(table(names, "alone", DELAYS_MS, RATIOS))
    for setting in ("uplink", "downlink", "both", "cable"):
        console.print(table(names, setting, (5, 100), (1.2, 6.0, 50.0)))


if __name__ == "__main__":
    main()
