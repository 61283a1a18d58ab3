"""The forecast of a run without running it: times, bytes, the links that bind, and warnings with their cures."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from grapevine.experiments.config.sections import Processes
from grapevine.experiments.results.numbers import plural
from grapevine.netem.units import show_duration
from grapevine.peer.meter import LinkMeter
from grapevine.peer.optimizers import Sgd
from grapevine.peer.payloads import Dense, encode
from grapevine.peer.wire import HEADER_BYTES

if TYPE_CHECKING:
    from grapevine.experiments.fleet import Fleet

TRIALS = 9
"""The number of gradients computed to measure this machine's speed."""
ROUNDS = 16
"""Number of rounds that the forecast reads of an endless schedule."""
STEP = 1000
"""A typical step for a message's head, whose length depends on it by a byte or two."""
DELAY_BOUND = math.pi / 4
"""Learning rate times delay in steps: a delayed gradient descent of unit curvature oscillates above pi/2."""


class LinkForecast(NamedTuple):
    """One direction of an edge, when all links of its peers are busy."""

    source: int
    target: int
    rate_bytes_per_s: float
    """Rate of the link (loss included), or its share of an uplink, downlink or cable if less; infinite = unlimited."""
    delay_ns: int
    transfer_ns: float
    """Time from the sending of a whole model's first bit to the arrival of its last bit."""
    binds: bool
    """Whether `transfer_ns` is longer than a step of the sender."""
    often: float = 1.0
    """The share of the rounds that use the link."""


@dataclass(frozen=True)
class Forecast:
    """Estimated sizes and times of a run."""

    parameters: int
    model_bytes: int
    """Size of a whole model as the codec writes it."""
    gradient_ns: float
    """Time of one gradient on this machine."""
    step_ns: list[float]
    """Emulated time of a step of each peer, without the exchange."""
    round_ns: float
    """Emulated time of a step of the slowest peer, with the exchange if the strategy waits for it."""
    sent_bytes: list[float]
    """Bytes that each peer sends in a step, about; heads, headers and acknowledgements included."""
    links: list[LinkForecast]
    emulated_ns: float
    """Emulated time of the run's stop, if no accuracy stops it before."""
    wall_ns: float | None
    """Real time until the stop, without the start-up; None = as fast as this machine computes."""
    at_least: bool
    """Whether the times are lower bounds: neither devices nor links are emulated, so this machine sets the pace."""
    warnings: list[str]


def forecast(fleet: Fleet) -> Forecast:
    """Return the forecast of a fleet's run; it computes a few gradients to measure this machine's speed."""
    experiment, problem = fleet.experiment, fleet.problem
    model_bytes = experiment.codec.body_bytes(problem.size)
    gradient_ns = _gradient_ns(fleet)
    step_ns = _step_ns(fleet, gradient_ns)
    links = list(_links(fleet, model_bytes, step_ns))
    round_ns = _round_ns(fleet, links, step_ns)
    emulated_ns = _emulated_ns(fleet, round_ns)
    dilation = experiment.world.dilation if isinstance(experiment.world, Processes) else None
    return Forecast(
        parameters=problem.size,
        model_bytes=model_bytes,
        gradient_ns=gradient_ns,
        step_ns=step_ns,
        round_ns=round_ns,
        sent_bytes=_sent_bytes(fleet, links, model_bytes, step_ns),
        links=links,
        emulated_ns=emulated_ns,
        wall_ns=None if dilation is None else emulated_ns * dilation,
        at_least=_untimed(fleet) and not _shaped(fleet),
        warnings=[
            *filter(None, [timeless(fleet), wide_jitter(fleet)]),
            *_too_slow(fleet, gradient_ns),
            *_too_late(fleet, links, step_ns),
            *_never_sent(fleet, links),
            *_never_reached(fleet),
        ],
    )


def timeless(fleet: Fleet) -> str | None:
    """Return a warning if steps take no virtual time while messages do and the strategy is asynchronous; else None."""
    strategy = fleet.experiment.strategy
    waits = strategy.synchronous or strategy.shares == "nothing"
    if waits or isinstance(fleet.experiment.world, Processes) or not _untimed(fleet) or not _shaped(fleet):
        return None
    return (
        "steps take no virtual time on these devices, but messages do: a strategy that does not wait makes all its steps "
        'before the first message arrives; set devices.name = "uniform" with a speed such as "2000 samples/s"'
    )


def wide_jitter(fleet: Fleet) -> str | None:
    """Return a warning if links have more jitter than delay, so that their mean delay is longer than planned; else None."""
    wide = {pair: spec for pair, spec in fleet.plan.links.items() if spec.jitter_ns > spec.delay_ns}
    if not wide:
        return None
    (source, target), spec = next(iter(wide.items()))
    links = plural(len(wide), "link")
    return (
        f"{links} (first: {source} -> {target}) have a jitter of {show_duration(spec.jitter_ns)}, more than their delay of "
        f"{show_duration(spec.delay_ns)}: a message cannot arrive before it has left, so the mean delay is longer than set; "
        "lower the jitter to the delay, or raise the delay"
    )


def _untimed(fleet: Fleet) -> bool:
    """Whether a peer's steps have no emulated duration."""
    return any(device.step_ns(fleet.experiment.task.batch_size) == 0 for device in fleet.devices)


def _shaped(fleet: Fleet) -> bool:
    """Whether the network emulates a rate or a delay."""
    plan = fleet.plan
    segments = bool(plan.cables) or any(math.isfinite(rate) for rate in (*plan.uplinks, *plan.downlinks))
    return segments or any(math.isfinite(link.effective_rate_bytes_per_s) or link.delay_ns for link in plan.links.values())


def _gradient_ns(fleet: Fleet) -> float:
    """Return the time of one gradient on this machine: the median of a few, after one that warms up."""
    problem, batch_size = fleet.problem, fleet.experiment.task.batch_size
    trains = next((peer for peer, samples in enumerate(problem.samples) if samples != 0), 0)  # a server has no data
    sampler = problem.sampler(trains, np.random.default_rng([fleet.experiment.seed, 0]))
    spent = []
    for _ in range(TRIALS + 1):
        batch = sampler.draw(batch_size)
        began_ns = time.perf_counter_ns()
        problem.gradient(problem.initial, batch)
        spent.append(time.perf_counter_ns() - began_ns)
    return float(median(spent[1:]))


def _step_ns(fleet: Fleet, gradient_ns: float) -> list[float]:
    """Return the emulated time of each peer's step: the device's, or this machine's if no device is emulated."""
    experiment = fleet.experiment
    emulated = [device.step_ns(experiment.task.batch_size) for device in fleet.devices]
    if not isinstance(experiment.world, Processes):
        return [float(step) for step in emulated]
    crowd = max(1.0, experiment.peers / _cores())
    return [max(float(step), gradient_ns * crowd / experiment.world.dilation) for step in emulated]


def _links(fleet: Fleet, model_bytes: int, step_ns: list[float]) -> Iterator[LinkForecast]:
    """Yield every link that carries models, with its rate when all links of its peers are busy."""
    plan, rounds = fleet.plan, _rounds(fleet)
    sent = Counter(pair for pairs in rounds for pair in pairs)
    out: Counter[int] = Counter()
    into: Counter[int] = Counter()
    for pairs in rounds:  # over several rounds, the largest number of messages that a peer sends or receives in one
        out |= Counter(source for source, _ in pairs)
        into |= Counter(target for _, target in pairs)
    cables: dict[tuple[int, int], float] = {}  # a link's least share of a cable, bytes/s
    for cable in plan.cables:
        for pair in (crossing := [pair for pair in cable.links if pair in sent]):
            cables[pair] = min(cable.rate_bytes_per_s / len(crossing), cables.get(pair, math.inf))
    for source, target in sorted(sent):
        spec = plan.links[source, target]
        shares = plan.uplinks[source] / out[source], plan.downlinks[target] / into[target]
        rate = min(spec.effective_rate_bytes_per_s, *shares, cables.get((source, target), math.inf))
        transfer_ns = spec.delay_ns + model_bytes / rate * 1e9
        often = sent[source, target] / len(rounds)
        yield LinkForecast(source, target, rate, spec.delay_ns, transfer_ns, transfer_ns > step_ns[source], often)


def _rounds(fleet: Fleet) -> list[list[tuple[int, int]]]:
    """Return the links of each round: one round for a graph, a schedule's period, or the first rounds of an endless one."""
    rounds = fleet.rounds
    if rounds is None:
        graph = fleet.graph if fleet.membership is None else fleet.membership.graph
        return [[(source, target) for source in graph for target in graph.neighbors(source)]]
    return [
        [(source, target) for source in range(rounds.n) for target in rounds.targets(t, source)]
        for t in range(rounds.period or ROUNDS)
    ]


def _round_ns(fleet: Fleet, links: list[LinkForecast], step_ns: list[float]) -> float:
    """Return the time of the slowest peer's step; a strategy that waits for messages waits for the slowest link too."""
    strategy, slowest = fleet.experiment.strategy, max(step_ns)
    declared = strategy.step_bytes(fleet.problem.size, fleet.experiment.codec)
    if not links or not (strategy.aggregates or (strategy.synchronous and declared is not None)):
        return slowest
    if declared is None:
        exchange = max(link.transfer_ns for link in links)
    else:
        exchange = max(link.delay_ns + declared / link.rate_bytes_per_s * 1e9 for link in links)
    return max(slowest, exchange) if strategy.sends_first else slowest + exchange


def _sent_bytes(fleet: Fleet, links: list[LinkForecast], model_bytes: int, step_ns: list[float]) -> list[float]:
    """Return each peer's bytes in a step, with acknowledgements.

    They are none, those that the strategy declares, whole models, or as much of them as its links carry.
    """
    strategy = fleet.experiment.strategy
    sent = [0.0] * fleet.experiment.peers
    declared = strategy.step_bytes(fleet.problem.size, fleet.experiment.codec)
    body_bytes = model_bytes if declared is None else declared
    head = encode(Dense(fleet.problem.initial), fleet.experiment.codec, STEP)[0].head
    for link in links if strategy.shares != "nothing" else ():
        room = link.rate_bytes_per_s * step_ns[link.source] / 1e9 if step_ns[link.source] else math.inf
        whole = float(body_bytes + len(head) + HEADER_BYTES * _chunks(body_bytes, link.rate_bytes_per_s))
        all_of_it = strategy.aggregates or declared is not None
        sent[link.source] += link.often * (whole if all_of_it else strategy.link_share * min(whole, room))
        sent[link.target] += link.often * HEADER_BYTES
    return sent


def _chunks(size_bytes: float, rate_bytes_per_s: float) -> int:
    """Return the number of chunks of a message over a link whose rate is known."""
    meter = LinkMeter()
    meter.rate_bytes_per_s = rate_bytes_per_s
    return max(1, math.ceil(size_bytes / meter.chunk_bytes()))


def _emulated_ns(fleet: Fleet, round_ns: float) -> float:
    stop = fleet.experiment.stop
    by_time = math.inf if fleet.stop_ns is None else float(fleet.stop_ns)
    return min(by_time, math.inf if stop.steps is None else stop.steps * round_ns)


def _too_slow(fleet: Fleet, gradient_ns: float) -> Iterator[str]:
    """Yield a warning if this machine cannot compute all peers' gradients in the emulated time of their steps."""
    world = fleet.experiment.world
    emulated = [device.step_ns(fleet.experiment.task.batch_size) for device in fleet.devices]
    if not isinstance(world, Processes) or not all(emulated):
        return
    busy = sum(gradient_ns / step for step in emulated)  # cores kept busy by gradients alone, at a dilation of 1
    if busy > world.dilation * _cores():
        yield (
            f"the gradients need {busy:.1f} cores, and this machine has {_cores()}: it falls behind the emulated clock; "
            f"set world.dilation to {math.ceil(busy / _cores() * 1.5)} or more, slower devices, or fewer peers"
        )


def _too_late(fleet: Fleet, links: list[LinkForecast], step_ns: list[float]) -> Iterator[str]:
    """Yield a warning if gradients arrive so many steps late that training oscillates at this learning rate."""
    experiment = fleet.experiment
    strategy, optimizer = experiment.strategy, experiment.optimizer
    if strategy.shares != "gradients" or strategy.aggregates or not isinstance(optimizer, Sgd) or not links:
        return
    late = [(link.transfer_ns / step_ns[link.source], link) for link in links if step_ns[link.source]]
    steps, link = max(late, default=(0.0, links[0]), key=lambda pair: pair[0])
    rate = optimizer.learning_rate / (1 - optimizer.momentum)
    if rate * steps > DELAY_BOUND:
        rate_text = f"learning rate {rate:g}" + (" (momentum included)" if optimizer.momentum else "")
        most = _rounded_down(optimizer.learning_rate * DELAY_BOUND / (rate * steps))
        yield (
            f"gradients arrive up to {steps:.0f} steps late (link {link.source} -> {link.target}, "
            f"{show_duration(round(link.transfer_ns))}); {rate_text} x {steps:.0f} steps = {rate * steps:.2g}; above pi/2 "
            f"training oscillates where the curvature is 1: set optimizer.learning_rate to {most:g} or less, "
            "or share parameters (strategy slices)"
        )


def _never_sent(fleet: Fleet, links: list[LinkForecast]) -> Iterator[str]:
    """Yield a warning if the run stops before a whole model has crossed its link."""
    if fleet.stop_ns is None or fleet.experiment.strategy.shares == "nothing":
        return
    late = [link for link in links if link.transfer_ns > fleet.stop_ns]
    if late:
        worst = max(late, key=lambda link: link.transfer_ns)
        yield (
            f"a whole model needs {show_duration(round(worst.transfer_ns))} over the link {worst.source} -> {worst.target}, "
            f"and the run stops after {fleet.experiment.stop.time}: raise stop.time or the rate, or train a smaller model"
        )


def _never_reached(fleet: Fleet) -> Iterator[str]:
    """Yield a warning if the run stops at an accuracy and the task has none."""
    if fleet.experiment.stop.accuracy is not None:
        _, accuracy = fleet.problem.evaluate(fleet.problem.initial[None], "validation")
        if np.isnan(accuracy).all():
            yield "stop.accuracy is never reached, because this task has no accuracy: leave stop.accuracy out"


def _rounded_down(value: float) -> float:
    """Return the largest number with one significant digit that is at most `value`, which is above 0."""
    unit = 10.0 ** math.floor(math.log10(value))
    return math.floor(value / unit) * unit


def _cores() -> int:
    return len(os.sched_getaffinity(0))
