"""What the emulated network really delivers: asked against got, per link, measured by the peers' own sockets and threads.

A fleet of processes comes up with a strategy that only sends: first small messages one by one (the delay), then large ones
without a pause (the rate), one neighbour after the other.  Everything got is read off the real clock at the moment when a
chunk is handed over, so a host that is too slow shows.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.build import Fleet, build
from experiments.config import Experiment, Processes, Stop
from experiments.config_errors import ConfigError
from experiments.interrupt import Interrupt
from experiments.record import Recorder
from experiments.tables import Record
from experiments.tasks import Iid, Quadratic
from experiments.worlds.messages import FINAL, Evaluate, Report
from experiments.worlds.tally import Tally
from netem import HostDevices
from peer.payloads import Dense
from peer.peer import Peer
from peer.strategies import Solo, Strategy

PINGS = 40
PING_PAUSE_NS = 10_000_000
PING_ELEMENTS = 16
BULK_S = 0.8
BULK_LEAST_BYTES, BULK_MOST_BYTES = 65_536, 64 << 20
MESSAGE_ELEMENTS = 262_144


class _Probing(Strategy, frozen=True, tag="probe"):
    """Sends to each neighbour in turn, a slot of time each; `bulk_bytes` says how much goes over each directed link."""

    bulk_bytes: dict[int, dict[int, int]]
    slot_ns: int
    pinging: bool

    async def run(self, peer: Peer) -> None:
        for place, neighbour in enumerate(list(peer.neighbours)):
            await peer.sleep(max(0, place * self.slot_ns - peer.now_ns))
            if self.pinging:
                for _ in range(PINGS):
                    await peer.send(neighbour, Dense(peer.weights[:PING_ELEMENTS]))
                    await peer.sleep(PING_PAUSE_NS)
            else:
                left = self.bulk_bytes[peer.id][neighbour] // 4
                while left > 0:
                    await peer.send(neighbour, Dense(peer.weights[: min(left, MESSAGE_ELEMENTS)]))
                    left -= MESSAGE_ELEMENTS
        await peer.sleep(max(0, len(self.bulk_bytes[peer.id]) * self.slot_ns - peer.now_ns))


class _Listening(Tally):
    """Keeps what each receiver measured."""

    def __init__(self, fleet: Fleet, recorder: Recorder) -> None:
        super().__init__(fleet, recorder, lambda status: None)
        self.got: dict[tuple[int, int], Any] = {}

    def report(self, report: Report) -> Evaluate | None:
        if report.index == FINAL:
            for link in report.incoming:
                self.got[link.source, report.peer] = link
        return super().report(report)


def probe(experiment: Experiment) -> list[dict[str, Any]]:
    """Bring the experiment's network up without training and measure every directed link.

    Returns one row a link: source, target, `rate_asked_bytes_per_s` (after loss, uplink and downlink; inf = unshaped),
    `rate_got_bytes_per_s`, `rate_error` (relative; nan where unshaped), `delay_asked_s`, `delay_got_s` (median),
    `delay_got_p99_s`, `delay_error_s`.  Raises ConfigError as `build` does, and for the virtual world.
    """
    if not isinstance(experiment.world, Processes):
        raise ConfigError(
            key="world.name", value="virtual", problem="there is nothing to probe in virtual time: its links are exact",
            cure='use world.name = "processes"',
        )  # fmt: skip
    quiet = experiment.replace(
        strategy=Solo(), task=Quadratic(dimension=MESSAGE_ELEMENTS), partition=Iid(), devices=HostDevices(),
        stop=Stop(steps=1), record=Record(every="1000 h"),
    )  # fmt: skip
    fleet = build(quiet)
    bulk = {(source, target): _bulk_bytes(fleet, source, target) for source, target in fleet.plan.links}
    delays, rates = _measure(fleet, bulk, True), _measure(fleet, bulk, False)
    return [_row(fleet, link, delays[link], rates[link]) for link in sorted(fleet.plan.links)]


def _measure(fleet: Fleet, bulk: dict[tuple[int, int], int], pinging: bool) -> dict[tuple[int, int], Any]:
    from experiments.worlds.processes import ProcessesWorld

    per_peer: dict[int, dict[int, int]] = {peer: {} for peer in range(fleet.experiment.peers)}
    for (source, target), size in bulk.items():
        per_peer[source][target] = size
    longest_s = max((size / _asked(fleet, *link) for link, size in bulk.items()), default=0.0)
    delay_s = 2 * max((spec.delay_ns + spec.jitter_ns for spec in fleet.plan.links.values()), default=0) / 1e9
    slot_s = (PINGS * PING_PAUSE_NS / 1e9 if pinging else longest_s) + delay_s + 0.2
    strategy = _Probing(bulk_bytes=per_peer, slot_ns=int(slot_s * 1e9), pinging=pinging)
    probing = replace(fleet, experiment=fleet.experiment.replace(strategy=strategy), rounds=None)
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder) / "probe", fleet.experiment.to_toml(), {})
        tally = _Listening(probing, recorder)
        with Interrupt() as interrupt:
            ProcessesWorld(probing, tally, interrupt).run()
            if interrupt.requested:
                raise KeyboardInterrupt
    return tally.got


def _asked(fleet: Fleet, source: int, target: int) -> float:
    """What one flow alone can get on a link, bytes/s."""
    plan = fleet.plan
    return min(plan.links[source, target].effective_rate_bytes_per_s, plan.uplinks[source], plan.downlinks[target])


def _bulk_bytes(fleet: Fleet, source: int, target: int) -> int:
    return int(np.clip(min(_asked(fleet, source, target) * BULK_S, 1e12), BULK_LEAST_BYTES, BULK_MOST_BYTES))


def _row(fleet: Fleet, link: tuple[int, int], pinged: Any, moved: Any) -> dict[str, Any]:
    asked, spec = _asked(fleet, *link), fleet.plan.links[link]
    return {
        "source": link[0],
        "target": link[1],
        "rate_asked_bytes_per_s": asked,
        "rate_got_bytes_per_s": moved.rate_bytes_per_s,
        "rate_error": moved.rate_bytes_per_s / asked - 1 if math.isfinite(asked) else math.nan,
        "delay_asked_s": spec.delay_ns / 1e9,
        "delay_got_s": pinged.delay_s,
        "delay_got_p99_s": pinged.delay_p99_s,
        "delay_error_s": pinged.delay_s - spec.delay_ns / 1e9,
    }
