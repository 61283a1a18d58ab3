"""What a run will be like, told without running it: times, bytes, the links that bind, and doubts with their cures."""

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
from grapevine.netem.units import show_duration
from grapevine.peer.meter import LinkMeter
from grapevine.peer.optimizers import Sgd
from grapevine.peer.payloads import Dense, encode
from grapevine.peer.wire import HEADER_BYTES

if TYPE_CHECKING:
    from grapevine.experiments.fleet import Fleet

TRIALS = 9
"""Gradients computed to learn how fast this machine is."""
ROUNDS = 16
"""Of a schedule without end, how many rounds are looked at."""
STEP = 1000
"""The step in a message's head, whose length it changes by a byte or two."""
DELAY_BOUND = math.pi / 4
"""Learning rate times delay in steps: a delayed gradient descent of unit curvature oscillates above pi/2."""


class LinkForecast(NamedTuple):
    """One direction of an edge, when all links of its peers are busy."""

    source: int
    target: int
    rate_bytes_per_s: float
    """Its own rate (loss included), or its share of an uplink or downlink where that is less; infinite = unlimited."""
    delay_ns: int
    transfer_ns: float
    """From the first bit of a whole model sent until its last has arrived."""
    binds: bool
    """Whether that is longer than a step of the sender."""
    often: float = 1.0
    """The share of the rounds in which it is used."""


@dataclass(frozen=True)
class Forecast:
    """What will happen, as far as it can be told beforehand."""

    parameters: int
    model_bytes: int
    """A whole model as the codec writes it."""
    gradient_ns: float
    """What one gradient takes on this machine."""
    step_ns: list[float]
    """Emulated time of a step of each peer, exchange not counted."""
    round_ns: float
    """Emulated time of a step of the slowest peer, exchange counted where a strategy waits for it."""
    sent_bytes: list[float]
    """What each peer sends in a step, about: heads, headers and acknowledgements included."""
    links: list[LinkForecast]
    emulated_ns: float
    """When the run stops, if no accuracy stops it before."""
    wall_ns: float | None
    """What that takes in real time, the start not counted; None = as fast as it can be computed."""
    at_least: bool
    """Whether times are the least that is possible: this machine's own pace, and nothing emulated to keep it."""
    warnings: list[str]


def forecast(fleet: Fleet) -> Forecast:
    """What will happen when this fleet runs; it computes a few gradients to learn the speed of this machine."""
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
            *filter(None, [timeless(fleet)]),
            *_too_slow(fleet, gradient_ns),
            *_too_late(fleet, links, step_ns),
            *_never_sent(fleet, links),
            *_never_reached(fleet),
        ],
    )


def timeless(fleet: Fleet) -> str | None:
    """The warning that steps take no virtual time while messages do, which no asynchronous strategy was made for."""
    strategy = fleet.experiment.strategy
    waits = strategy.synchronous or strategy.shares == "nothing"
    if waits or isinstance(fleet.experiment.world, Processes) or not _untimed(fleet) or not _shaped(fleet):
        return None
    return (
        "steps take no virtual time on these devices but messages do: a strategy that does not wait has made all its steps "
        'before the first message arrives; set devices.name = "uniform" with a speed such as "2000 samples/s"'
    )


def _untimed(fleet: Fleet) -> bool:
    """Whether some peer's steps take whatever they take on this machine."""
    return any(device.step_ns(fleet.experiment.task.batch_size) == 0 for device in fleet.devices)


def _shaped(fleet: Fleet) -> bool:
    """Whether any rate or delay was asked for."""
    plan = fleet.plan
    lines = bool(plan.cables) or any(math.isfinite(rate) for rate in (*plan.uplinks, *plan.downlinks))
    return lines or any(math.isfinite(link.effective_rate_bytes_per_s) or link.delay_ns for link in plan.links.values())


def _gradient_ns(fleet: Fleet) -> float:
    """How long one gradient takes here: the median of a few, after one that warms up."""
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
    """Emulated time of a step: what the device says, or this machine's time where it is the device."""
    experiment = fleet.experiment
    emulated = [device.step_ns(experiment.task.batch_size) for device in fleet.devices]
    if not isinstance(experiment.world, Processes):
        return [float(step) for step in emulated]
    crowd = max(1.0, experiment.peers / _cores())
    return [max(float(step), gradient_ns * crowd / experiment.world.dilation) for step in emulated]


def _links(fleet: Fleet, model_bytes: int, step_ns: list[float]) -> Iterator[LinkForecast]:
    """Every direction that carries models, at the rate that is left for it when its peers use all of theirs."""
    plan, rounds = fleet.plan, _rounds(fleet)
    sent = Counter(pair for pairs in rounds for pair in pairs)
    out: Counter[int] = Counter()
    into: Counter[int] = Counter()
    for pairs in rounds:  # of several rounds, the most that one peer sends or hears at once
        out |= Counter(source for source, _ in pairs)
        into |= Counter(target for _, target in pairs)
    cables: dict[tuple[int, int], float] = {}  # what a link has of the cable that leaves it least
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
    """Who sends to whom in each round: one for a graph that stays, a period, or the first rounds of those without end."""
    rounds = fleet.rounds
    if rounds is None:
        return [[(source, target) for source in fleet.graph for target in fleet.graph.neighbors(source)]]
    return [
        [(source, target) for source in range(rounds.n) for target in rounds.targets(t, source)]
        for t in range(rounds.period or ROUNDS)
    ]


def _round_ns(fleet: Fleet, links: list[LinkForecast], step_ns: list[float]) -> float:
    """A step of the slowest peer: who waits for whole contributions waits for the slowest link of the fleet."""
    strategy, slowest = fleet.experiment.strategy, max(step_ns)
    if not strategy.aggregates or not links:
        return slowest
    exchange = max(link.transfer_ns for link in links)
    return max(slowest, exchange) if strategy.sends_first else slowest + exchange


def _sent_bytes(fleet: Fleet, links: list[LinkForecast], model_bytes: int, step_ns: list[float]) -> list[float]:
    """Whole models to every neighbour, nothing, or what the links carry during a step; and an answer to each message."""
    strategy = fleet.experiment.strategy
    sent = [0.0] * fleet.experiment.peers
    head = encode(Dense(fleet.problem.initial), fleet.experiment.codec, STEP)[0].head
    for link in links if strategy.shares != "nothing" else ():
        room = link.rate_bytes_per_s * step_ns[link.source] / 1e9 if step_ns[link.source] else math.inf
        whole = float(model_bytes + len(head) + HEADER_BYTES * _chunks(model_bytes, link.rate_bytes_per_s))
        sent[link.source] += link.often * (whole if strategy.aggregates else getattr(strategy, "fill", 1.0) * min(whole, room))
        sent[link.target] += link.often * HEADER_BYTES
    return sent


def _chunks(size_bytes: int, rate_bytes_per_s: float) -> int:
    """In how many frames a message travels over a link whose rate is known."""
    meter = LinkMeter()
    meter.rate_bytes_per_s = rate_bytes_per_s
    return max(1, math.ceil(size_bytes / meter.chunk_bytes()))


def _emulated_ns(fleet: Fleet, round_ns: float) -> float:
    stop = fleet.experiment.stop
    by_time = math.inf if fleet.stop_ns is None else float(fleet.stop_ns)
    return min(by_time, math.inf if stop.steps is None else stop.steps * round_ns)


def _too_slow(fleet: Fleet, gradient_ns: float) -> Iterator[str]:
    """The gradients of all peers must be computed in the emulated time of their steps."""
    world = fleet.experiment.world
    emulated = [device.step_ns(fleet.experiment.task.batch_size) for device in fleet.devices]
    if not isinstance(world, Processes) or not all(emulated):
        return
    busy = sum(gradient_ns / step for step in emulated)  # cores kept busy by gradients alone, at a dilation of 1
    if busy > world.dilation * _cores():
        yield (
            f"the gradients keep {busy:.1f} cores busy, and this machine has {_cores()}: it falls behind the emulated clock; "
            f"set world.dilation to {math.ceil(busy / _cores() * 1.5)} or more, slower devices, or fewer peers"
        )


def _too_late(fleet: Fleet, links: list[LinkForecast], step_ns: list[float]) -> Iterator[str]:
    """Gradients that arrive many steps late make training oscillate, unless the learning rate is small."""
    experiment = fleet.experiment
    strategy, optimizer = experiment.strategy, experiment.optimizer
    if strategy.shares != "gradients" or strategy.aggregates or not isinstance(optimizer, Sgd) or not links:
        return
    late = [(link.transfer_ns / step_ns[link.source], link) for link in links if step_ns[link.source]]
    steps, link = max(late, default=(0.0, links[0]), key=lambda pair: pair[0])
    rate = optimizer.learning_rate / (1 - optimizer.momentum)
    if rate * steps > DELAY_BOUND:
        told = f"learning rate {rate:g}" + (" (momentum counted)" if optimizer.momentum else "")
        most = _rounded_down(optimizer.learning_rate * DELAY_BOUND / (rate * steps))
        yield (
            f"gradients arrive up to {steps:.0f} steps late (link {link.source} -> {link.target}, "
            f"{show_duration(round(link.transfer_ns))}); {told} x {steps:.0f} steps = {rate * steps:.2g}, and from pi/2 "
            f"on training oscillates where the curvature is 1: set optimizer.learning_rate to {most:g} or less, "
            "or share parameters (strategy slices)"
        )


def _never_sent(fleet: Fleet, links: list[LinkForecast]) -> Iterator[str]:
    """A time to stop that comes before the first model has crossed its link."""
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
    """An accuracy to stop at, where the task has none."""
    if fleet.experiment.stop.accuracy is not None:
        _, accuracy = fleet.problem.evaluate(fleet.problem.initial[None], "validation")
        if np.isnan(accuracy).all():
            yield "stop.accuracy is never reached, since this task has no accuracy: leave it out"


def _rounded_down(value: float) -> float:
    """The largest number of one digit that is not above `value`, which is above 0."""
    unit = 10.0 ** math.floor(math.log10(value))
    return math.floor(value / unit) * unit


def _cores() -> int:
    return len(os.sched_getaffinity(0))
