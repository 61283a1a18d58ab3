"""The probe: each link's rate and delay as asked and as measured, by the peers' own sockets and threads.

A fleet of processes is started several times with a strategy that only sends: small messages one by one (delay and
jitter), large ones without a pause (rate), the same over all links at once (sharing), and, if loss or TCP's windows slow
links, single messages of a usual size (transfers).  All but the sharing is measured in turns: the links of one turn share no
peer and no cable, so each is alone.  All measurements use the real clock, so they show a machine that is too slow.  The
expected effect of jitter, loss and TCP comes from the same messages in virtual time, with the same random numbers.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import msgspec
import numpy as np

from grapevine.experiments.config.errors import ConfigError
from grapevine.experiments.config.experiment import Experiment, Processes, Stop, Virtual
from grapevine.experiments.config.sections import Record
from grapevine.experiments.fleet import Fleet, build
from grapevine.experiments.results.recorder import Recorder
from grapevine.experiments.tasks import Iid, Quadratic
from grapevine.experiments.worlds.collector import Collector
from grapevine.experiments.worlds.interrupt import Interrupt
from grapevine.experiments.worlds.peer_report import FINAL, Incoming, Report
from grapevine.experiments.worlds.scoring import Evaluate
from grapevine.netem import HostDevices, max_min
from grapevine.peer.payloads import Dense
from grapevine.peer.peer import Peer
from grapevine.peer.strategies import Solo, Strategy

PINGS = 100
PING_PAUSE_NS = 5_000_000
PING_ELEMENTS = 16
BULK_S = 0.8
BULK_LEAST_BYTES, BULK_MOST_BYTES = 65_536, 64 << 20
MESSAGE_ELEMENTS = 262_144
TRANSFERS, TRANSFER_BYTES = 6, 65_536
TRANSFER_PAUSE_NS = 100_000_000
TRANSFERS_AT_MOST_S = 20.0
ALONE_AT_MOST_S = 120.0  # for all turns of links measured alone; if they would take longer, some turns are chosen
REST_NS = 200_000_000  # between two turns, and after the last message of a run
LEAD_NS = 1_000_000_000  # before the first message, because the processes have just started

Pair = tuple[int, int]


class Sending(msgspec.Struct, frozen=True):
    """One message that a peer sends at an instant, counted from the end of the lead."""

    at_ns: int
    target: int
    elements: int


class Probing(Strategy, frozen=True, tag="probe"):
    """Sends given messages at given instants, and notes for each neighbour the mean time (s) of its messages."""

    sendings: dict[int, list[Sending]]
    end_ns: int

    async def run(self, peer: Peer) -> None:
        times_s: dict[int, list[float]] = {}
        for sending in [*self.sendings.get(peer.id, []), Sending(self.end_ns, -1, 0)]:
            at_ns = sending.at_ns + LEAD_NS
            while peer.now_ns < at_ns:
                message = await peer.receive(at_ns)
                if message is not None:
                    times_s.setdefault(message.source, []).append((peer.now_ns - message.scalars[0]) / 1e9)
            if sending.elements:
                await peer.send(sending.target, Dense(peer.weights[: sending.elements]), (float(peer.now_ns),))
        peer.notes |= {str(source): fmean(times) for source, times in times_s.items()}


class Measured(NamedTuple):
    """One run's measurements of each link: the receiver's figures, and the mean time of a message (s); nan = none sent."""

    links: dict[Pair, Any]
    times_s: dict[Pair, float]


class _Listening(Collector):
    """A collector that keeps each receiver's measurements."""

    def __init__(self, fleet: Fleet, recorder: Recorder) -> None:
        super().__init__(fleet, recorder, lambda status: None)
        self.got: dict[Pair, Any] = {}
        self.times_s: dict[Pair, float] = {}

    def report(self, report: Report) -> Evaluate | None:
        if report.index == FINAL:
            for link in report.incoming:
                self.got[link.source, report.peer] = link
            self.times_s |= {(int(source), report.peer): time_s for source, time_s in report.notes.items()}
        return super().report(report)


def probe(experiment: Experiment) -> list[dict[str, Any]]:
    """Set up the experiment's network without training and measure every link; of a large fleet some links.

    Returns one row for each link, times in s and rates in bytes/s:
    source, target;
    alone: `rate_asked_bytes_per_s` (after loss, uplink and downlink; inf = unshaped), `rate_model_bytes_per_s` (of a link that
    varies the rate of the same messages in virtual time, else as asked), `rate_got_bytes_per_s`, `rate_error` (relative to the
    model; nan if unshaped);
    `delay_asked_s`, `delay_got_s` (median), `delay_error_s` (relative to the model's median, which equals the delay asked if
    nothing varies), `delay_late_p99_s`, `jitter_asked_s`, and the quantiles `delay_model_s`, `delay_model_p05_s`, `..p95_s`,
    `..p99_s`, `delay_got_p05_s`, ...;
    all links at once: `share_asked_bytes_per_s` (max-min fair), `share_got_bytes_per_s`, `share_error`;
    one message of `transfer_bytes` at a time, if loss or TCP slow the link: `transfer_model_s`, `transfer_got_s`,
    `transfer_error`.  A figure that does not apply is nan, and so are the figures alone of a link without a turn.
    Raises ConfigError like `build`, and for the virtual world.
    """
    if not isinstance(experiment.world, Processes):
        raise ConfigError(
            key="world.name", value="virtual", problem="links in virtual time are exact, so there is no error to measure",
            cure='use world.name = "processes"',
        )  # fmt: skip
    quiet = experiment.replace(
        strategy=Solo(), task=Quadratic(dimension=MESSAGE_ELEMENTS), partition=Iid(), devices=HostDevices(),
        stop=Stop(steps=1), record=Record(every="1000 h"), events=(),
    )  # fmt: skip
    fleet = build(quiet)
    links = sorted(fleet.plan.links)
    alone = {link: _asked(fleet, *link) for link in links}
    shares = _shares(fleet)
    turns = _turns(fleet)
    pings = _pings(fleet, turns)
    got = _measure(fleet, pings)
    model = None if fleet.plan.kernel else _measure(fleet, pings, real=False)
    bulk = _bulk(fleet, turns)
    rates = _measure(fleet, bulk)
    ideal = _measure(fleet, bulk, real=False) if any(spec.varies for spec in fleet.plan.links.values()) else None
    shared = _measure(fleet, _all_at_once(fleet, shares)) if _apart(alone, shares) else None
    transfers = _transfers(fleet, turns)
    rows = []
    for link in links:
        due = ideal.links[link].rate_bytes_per_s if ideal is not None else alone[link]
        row = _row(link, alone[link], due, rates.links[link]) | _delay(fleet, link, got, model)
        rows.append(row | _sharing(link, shares, shared))
    if transfers.sendings:
        real, virtual = _measure(fleet, transfers), _measure(fleet, transfers, real=False)
        for row, link in zip(rows, links, strict=True):
            row |= _transfer(real.times_s.get(link, math.nan), virtual.times_s.get(link, math.nan))
    else:
        rows = [row | _transfer(math.nan, math.nan) for row in rows]
    return rows


# ---- which messages are sent, and when -----------------------------------------------------------------------------------


def _turns(fleet: Fleet) -> list[list[Pair]]:
    """Return the links to measure alone, turn by turn: in one turn no two links have a peer or a cable in common.

    So no other message crosses a measured link's uplink, downlink, cables or reverse direction, on which acknowledgements
    travel. First fit in order of source and target. If all turns would take longer than ALONE_AT_MOST_S, evenly spaced turns
    are chosen, and the links of the others are left out.
    """
    cables: dict[Pair, list[str]] = {}
    for number, cable in enumerate(fleet.plan.cables):
        for link in cable.links:
            cables.setdefault(link, []).append(f"cable {number}")
    turns: list[list[Pair]] = []
    taken: list[set[int | str]] = []
    for link in sorted(fleet.plan.links):
        uses: set[int | str] = {*link, *cables.get(link, ())}
        place = next((place for place, others in enumerate(taken) if others.isdisjoint(uses)), len(turns))
        if place == len(turns):
            turns.append([])
            taken.append(set())
        turns[place].append(link)
        taken[place] |= uses
    lasts_s = sum(max(_bulk_ns(fleet, link, _asked(fleet, *link)) for link in turn) for turn in turns) / 1e9
    if lasts_s <= ALONE_AT_MOST_S:
        return turns
    count = max(1, int(len(turns) * ALONE_AT_MOST_S / lasts_s))
    return [turns[place * len(turns) // count] for place in range(count)]


def _in_turns(turns: list[list[Pair]], queues: dict[Pair, list[tuple[int, int]]], lasts_ns: dict[Pair, int]) -> Probing:
    """Return the strategy that sends each link's `queues`, (time since its turn's start, elements); a turn lasts as long as
    its slowest link."""
    sendings: dict[int, list[Sending]] = {}
    begins_ns = 0
    for turn in turns:
        for source, target in turn:
            queue = [Sending(begins_ns + at_ns, target, elements) for at_ns, elements in queues[source, target]]
            sendings.setdefault(source, []).extend(queue)
        begins_ns += max(lasts_ns[link] for link in turn)
    return Probing(sendings=sendings, end_ns=begins_ns)


def _pings(fleet: Fleet, turns: list[list[Pair]]) -> Probing:
    """Return the strategy that sends small messages, turn by turn."""
    links = [link for turn in turns for link in turn]
    pings = [(number * PING_PAUSE_NS, PING_ELEMENTS) for number in range(PINGS)]
    lasts_ns = {link: PINGS * PING_PAUSE_NS + _slowest_ns(fleet, link) + REST_NS for link in links}
    return _in_turns(turns, dict.fromkeys(links, pings), lasts_ns)


def _bulk(fleet: Fleet, turns: list[list[Pair]]) -> Probing:
    """Return the strategy that sends large messages without a pause, turn by turn, so that each link is busy for BULK_S."""
    rates = {link: _asked(fleet, *link) for turn in turns for link in turn}
    queues = {link: [(0, elements) for elements in _messages(_bulk_bytes(rate) // 4)] for link, rate in rates.items()}
    return _in_turns(turns, queues, {link: _bulk_ns(fleet, link, rate) for link, rate in rates.items()})


def _all_at_once(fleet: Fleet, shares: dict[Pair, float]) -> Probing:
    """Return the strategy that sends large messages over all links at once; each peer alternates between its neighbours."""
    sendings: dict[int, list[Sending]] = {}
    for peer, targets in _targets(fleet).items():
        sizes = {target: _bulk_bytes(shares[peer, target]) // 4 for target in targets}
        queues = [[Sending(0, target, elements) for elements in _messages(size)] for target, size in sizes.items()]
        longest = max(map(len, queues), default=0)
        sendings[peer] = [queue[at] for at in range(longest) for queue in queues if at < len(queue)]
    return Probing(sendings=sendings, end_ns=max(_bulk_ns(fleet, link, rate) for link, rate in shares.items()))


def _bulk_bytes(rate: float) -> int:
    return int(np.clip(min(rate * BULK_S, 1e12), BULK_LEAST_BYTES, BULK_MOST_BYTES))


def _bulk_ns(fleet: Fleet, link: Pair, rate: float) -> int:
    """Return the time for which a link is busy with the large messages, with a rest."""
    busy_ns = _bulk_bytes(rate) / rate * 1e9
    if fleet.plan.links[link].varies:  # slower at times; doubled, because its random numbers may differ between turns
        busy_ns = max(busy_ns, 2 * fleet.plan.link(*link).send(LEAD_NS, _bulk_bytes(rate)).finish_ns)
    return int(busy_ns) + _slowest_ns(fleet, link) + REST_NS


def _transfers(fleet: Fleet, turns: list[list[Pair]]) -> Probing:
    """Return the strategy that sends single messages over links slowed by loss or TCP, each after the last has arrived."""
    plan, left_ns = fleet.plan, TRANSFERS_AT_MOST_S * 1e9
    chosen: list[list[Pair]] = []
    queues: dict[Pair, list[tuple[int, int]]] = {}
    lasts_ns: dict[Pair, int] = {}
    for turn in turns:
        slow = [link for link in turn if not plan.kernel and (plan.links[link].loss or plan.links[link].tcp != "none")]
        if not slow or left_ns <= 0:
            continue
        for source, target in slow:
            link = plan.link(source, target)
            line_ns = math.ceil(TRANSFER_BYTES / min(plan.uplinks[source], plan.downlinks[target]) * 1e9)
            now_ns, queue = 0, []
            for _ in range(TRANSFERS):
                queue.append((now_ns, TRANSFER_BYTES // 4))
                now_ns = link.send(now_ns, TRANSFER_BYTES).due_ns + line_ns
                now_ns += 2 * plan.links[source, target].delay_ns + TRANSFER_PAUSE_NS
            queues[source, target] = queue
            lasts_ns[source, target] = now_ns + _slowest_ns(fleet, (source, target)) + REST_NS
        chosen.append(slow)
        left_ns -= max(lasts_ns[link] for link in slow)
    return _in_turns(chosen, queues, lasts_ns)


def _messages(elements: int) -> Iterable[int]:
    for left in range(elements, 0, -MESSAGE_ELEMENTS):
        yield min(left, MESSAGE_ELEMENTS)


def _targets(fleet: Fleet) -> dict[int, list[int]]:
    targets: dict[int, list[int]] = {}
    for source, target in sorted(fleet.plan.links):
        targets.setdefault(source, []).append(target)
    return targets


def _slowest_ns(fleet: Fleet, link: Pair) -> int:
    """Return the longest time of a message and its acknowledgement on their way, after the message has left."""
    return 2 * max(spec.delay_ns + 3 * spec.jitter_ns for spec in (fleet.plan.links[link], fleet.plan.links[link[::-1]]))


# ---- asked rates --------------------------------------------------------------------------------------------------------


def _asked(fleet: Fleet, source: int, target: int) -> float:
    """Return the rate of one flow alone on a link, bytes/s."""
    plan = fleet.plan
    cables = [cable.rate_bytes_per_s for cable in plan.cables if (source, target) in cable.links]
    return min(plan.links[source, target].effective_rate_bytes_per_s, plan.uplinks[source], plan.downlinks[target], *cables)


def _shares(fleet: Fleet) -> dict[Pair, float]:
    """Return each link's rate when all links are busy, bytes/s: max-min fair over the shared segments."""
    limits, routes, _ = fleet.plan.shared()
    links = sorted(fleet.plan.links)
    caps = [fleet.plan.links[link].effective_rate_bytes_per_s for link in links]
    return dict(zip(links, max_min(limits, [routes.get(link, ()) for link in links], caps), strict=True))


def _apart(alone: dict[Pair, float], shares: dict[Pair, float]) -> bool:
    """Whether sharing makes any link slower."""
    return any(shares[link] < rate * (1 - 1e-6) for link, rate in alone.items())


# ---- one run ------------------------------------------------------------------------------------------------------------


def _measure(fleet: Fleet, strategy: Probing, real: bool = True) -> Measured:
    from grapevine.experiments.worlds.processes.launcher import ProcessesWorld
    from grapevine.experiments.worlds.virtual.world import VirtualWorld

    experiment = fleet.experiment.replace(strategy=strategy)
    if not real:
        experiment = experiment.replace(world=Virtual())
    probing = replace(fleet, experiment=experiment, rounds=None)
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder) / "probe", fleet.experiment.to_toml(), {})
        collector = _Listening(probing, recorder)
        with Interrupt() as interrupt:
            (ProcessesWorld if real else VirtualWorld)(probing, collector, interrupt).run()
            if interrupt.requested:
                raise KeyboardInterrupt
    times_s = {link: collector.times_s.get(link, math.nan) for link in fleet.plan.links}
    sent = {(peer, sending.target) for peer, sendings in strategy.sendings.items() for sending in sendings}
    unmeasured = Incoming(-1, math.nan, math.nan, math.nan, math.nan)
    return Measured({link: collector.got[link] if link in sent else unmeasured for link in fleet.plan.links}, times_s)


# ---- one row ------------------------------------------------------------------------------------------------------------


def _row(link: Pair, asked: float, due: float, moved: Any) -> dict[str, Any]:
    return {
        "source": link[0],
        "target": link[1],
        "rate_asked_bytes_per_s": asked,
        "rate_model_bytes_per_s": due,
        "rate_got_bytes_per_s": moved.rate_bytes_per_s,
        "rate_error": _relative(moved.rate_bytes_per_s, due),
    }


def _delay(fleet: Fleet, link: Pair, got: Measured, model: Measured | None) -> dict[str, Any]:
    spec, pinged = fleet.plan.links[link], got.links[link]
    asked = model.links[link] if model is not None else None
    row = {
        "delay_asked_s": spec.delay_ns / 1e9,
        "delay_got_s": pinged.delay_s,
        "delay_got_p99_s": pinged.delay_p99_s,
        "delay_error_s": pinged.delay_s - (asked.delay_s if asked else spec.delay_ns / 1e9),
        "jitter_asked_s": spec.jitter_ns / 1e9,
    }
    row["delay_model_s"] = asked.delay_s if asked else math.nan
    for name in ("p05", "p95", "p99"):
        row[f"delay_model_{name}_s"] = getattr(asked, f"delay_{name}_s") if asked else math.nan
        row[f"delay_got_{name}_s"] = getattr(pinged, f"delay_{name}_s")
    row["delay_late_p99_s"] = math.nan if spec.varies else row["delay_got_p99_s"] - row["delay_model_p99_s"]
    return row


def _sharing(link: Pair, shares: dict[Pair, float], shared: Measured | None) -> dict[str, Any]:
    asked = shares[link] if shared is not None else math.nan
    got = shared.links[link].rate_bytes_per_s if shared is not None else math.nan
    return {"share_asked_bytes_per_s": asked, "share_got_bytes_per_s": got, "share_error": _relative(got, asked)}


def _transfer(got_s: float, model_s: float) -> dict[str, Any]:
    return {
        "transfer_bytes": TRANSFER_BYTES if math.isfinite(got_s) else 0,
        "transfer_model_s": model_s,
        "transfer_got_s": got_s,
        "transfer_error": _relative(got_s, model_s),
    }


def _relative(got: float, asked: float) -> float:
    return got / asked - 1 if math.isfinite(asked) and asked else math.nan
