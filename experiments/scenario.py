"""The scenario of a run: its events, compiled into changes of the fleet's links and devices, and the ends of peers.

All events of a file are known before the run, so links and devices are planned with them (`netem.links.alterations`) and carry
them out exactly and alike in both worlds. A world itself only ends peers; and where pokes may follow, it cuts the links that
the file cuts without healing them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from grapevine.experiments.config.bounds import LONGEST_NS, SLOWEST_BYTES_PER_S
from grapevine.experiments.config.errors import ConfigError
from grapevine.experiments.config.events import (
    CutEvent,
    DelayEvent,
    Event,
    HealEvent,
    JoinEvent,
    KillEvent,
    LeaveEvent,
    LinkEvent,
    LossEvent,
    Pair,
    PartitionEvent,
    PauseEvent,
    RateEvent,
    SpeedEvent,
)
from grapevine.netem import Device, NetworkPlan
from grapevine.netem.links.alterations import PLAIN, AlteredDevice, Change, Tempo, cut_for_good_ns, without_open_end
from grapevine.netem.networks.plan import LinkSpec
from grapevine.netem.units import duration_ns

if TYPE_CHECKING:
    from grapevine.experiments.config.experiment import Experiment

MOST_SHOWN = 8


def planned(
    experiment: Experiment, plan: NetworkPlan, devices: Sequence[Device], open_ends: bool
) -> tuple[NetworkPlan, list[Device]]:
    """Return the network and the devices with the experiment's events in them.

    With `open_ends`, links that are cut and never healed stay cut in the plan; without, the world cuts them.
    Raises ConfigError that names the event if one cannot be carried out.
    """
    events = in_order(experiment.events)
    if not events:
        return plan, list(devices)
    for place, event in enumerate(experiment.events):
        check(event, plan, devices, experiment.task.batch_size, f"events[{place}]")
    _refuse_late(experiment)
    _refuse_after_kill(experiment)
    _refuse_dead_ends(experiment, plan)
    links = dict(plan.links)
    for pair, changes in changes_of(events, plan.links).items():
        kept = changes if open_ends else without_open_end(changes)
        links[pair] = msgspec.structs.replace(plan.links[pair], changes=tuple(kept))
    altered = [altered_device(device, tempos_of(events, peer)) for peer, device in enumerate(devices)]
    return msgspec.structs.replace(plan, links=links), altered


def in_order(events: Iterable[Event]) -> list[Event]:
    """Return the events in order of time; events of one instant keep their order."""
    return sorted(events, key=lambda event: event.at_ns)


def kills(events: Iterable[Event]) -> list[tuple[int, int]]:
    """Return (emulated ns, peer) of each kill, in order of time."""
    return [(event.at_ns, event.peer) for event in in_order(events) if isinstance(event, KillEvent)]


def changes_of(events: Sequence[Event], pairs: Iterable[Pair]) -> dict[Pair, list[Change]]:
    """Return the changes of each directed link that the events change; `events` are in order of time.

    An event without an effect, such as healing a link that is not cut, gives no change.
    """
    changes: dict[Pair, list[Change]] = {}
    pairs = list(pairs)
    for event in events:
        if not isinstance(event, LinkEvent | PartitionEvent):
            continue
        for pair in event.affected(pairs):
            so_far = changes.get(pair, [])
            condition = event.condition(so_far[-1].condition if so_far else PLAIN)
            if so_far and so_far[-1].at_ns == event.at_ns:
                so_far.pop()
            if condition != (so_far[-1].condition if so_far else PLAIN):
                changes.setdefault(pair, so_far).append(Change(event.at_ns, condition))
    return changes


def tempos_of(events: Sequence[Event], peer: int) -> tuple[Tempo, ...]:
    """Return the tempos of a peer's device over time; `events` are in order of time."""
    mine = [event for event in events if isinstance(event, SpeedEvent | PauseEvent) and event.peer == peer]
    pauses = [(event.at_ns, event.at_ns + duration_ns(event.length)) for event in mine if isinstance(event, PauseEvent)]
    speeds = [(event.at_ns, event.factor) for event in mine if isinstance(event, SpeedEvent)]
    tempos = []
    for at_ns in sorted({event.at_ns for event in mine} | {end_ns for _, end_ns in pauses}):
        factor = next((factor for since_ns, factor in reversed(speeds) if since_ns <= at_ns), 1.0)
        paused = any(begin_ns <= at_ns < end_ns for begin_ns, end_ns in pauses)
        tempos.append(Tempo(at_ns, 0.0 if paused else factor))
    return tuple(tempos)


def altered_device(device: Device, tempos: tuple[Tempo, ...]) -> Device:
    """Return the device with these tempos, in place of its earlier ones."""
    own = device.device if isinstance(device, AlteredDevice) else device
    return AlteredDevice(own.samples_per_s, own.overhead_ns, own, tempos) if tempos else own


# ---- events that cannot be carried out ---------------------------------------------------------------------------------------


def check(event: Event, plan: NetworkPlan, devices: Sequence[Device], batch_size: int, key: str) -> None:
    """Raise ConfigError, with the wrong key below `key`, if this fleet cannot carry out the event."""
    peers = len(devices)
    if plan.kernel and isinstance(event, LinkEvent | PartitionEvent):
        problem = "links that the kernel carries cannot be changed"
        raise ConfigError(key=f"{key}.do", value=event.kind, problem=problem, cure='set network.backend = "userspace"')
    if isinstance(event, LinkEvent):
        _check_links(event, plan, peers, key)
    elif isinstance(event, PartitionEvent):
        for group in event.groups:
            for peer in group:
                check_peer(peer, peers, f"{key}.groups")
        if not event.affected(plan.links):
            problem = "cuts no link, because no link goes from one group to another"
            raise ConfigError(key=f"{key}.groups", value=event.groups, problem=problem, cure="give other groups")
    elif isinstance(event, SpeedEvent | PauseEvent | KillEvent | JoinEvent | LeaveEvent):
        check_peer(event.peer, peers, f"{key}.peer")
        if isinstance(event, SpeedEvent | PauseEvent) and devices[event.peer].step_ns(batch_size) == 0:
            raise ConfigError(
                key=f"{key}.peer", value=event.peer, problem=f"the device of peer {event.peer} is not emulated",
                cure='set devices.name = "uniform" with a speed such as "2000 samples/s"',
            )  # fmt: skip
        if isinstance(event, SpeedEvent) and devices[event.peer].step_ns(batch_size) > LONGEST_NS * event.factor:
            problem = f"a step of peer {event.peer} would take more than ten years"
            raise ConfigError(key=f"{key}.factor", value=event.factor, problem=problem, cure="raise the factor")


def check_peer(peer: int, peers: int, key: str) -> None:
    if peer >= peers:
        raise ConfigError(key=key, value=peer, problem=f"there is no peer {peer}", cure=f"the peers are 0 to {peers - 1}")


def _check_links(event: LinkEvent, plan: NetworkPlan, peers: int, key: str) -> None:
    for peer in event.link or ():
        check_peer(peer, peers, f"{key}.link")
    if event.peer is not None:
        check_peer(event.peer, peers, f"{key}.peer")
    if event.link is not None and event.link not in plan.links:
        first, second = event.link
        known = [target for source, target in plan.links if source == first]
        shown = ", ".join(map(str, known[:MOST_SHOWN])) + (", ..." if len(known) > MOST_SHOWN else "")
        problem = f"peers {first} and {second} are not neighbours"
        cure = f"the neighbours of peer {first} are {shown}"
        raise ConfigError(key=f"{key}.link", value=event.link, problem=problem, cure=cure)
    for source, target in event.affected(plan.links):
        problem, field, cure = _unfit(event, plan.links[source, target])
        if problem:
            where = f"link {source} -> {target}: {problem}"
            raise ConfigError(key=f"{key}.{field}", value=getattr(event, field), problem=where, cure=cure)


def _unfit(event: LinkEvent, spec: LinkSpec) -> tuple[str, str, str]:
    """Return why the event does not fit a link: the problem, the wrong field, the cure; "" each if it fits."""
    if isinstance(event, DelayEvent):
        delay_ns = spec.delay_ns * event.factor + duration_ns(event.add)
        if delay_ns > LONGEST_NS:
            field = "factor" if event.factor > 1 else "add"
            return "its delay would be longer than ten years", field, "give a smaller value"
    if isinstance(event, RateEvent):
        rate = spec.effective_rate_bytes_per_s if event.to is None else event.condition(PLAIN).rate_bytes_per_s
        assert rate is not None
        if event.to is None and math.isinf(rate) and event.factor != 1:
            return "its rate is unlimited, and a factor does not change it", "factor", 'give the rate: to = "10 Mbit/s"'
        if event.to is not None and math.isinf(rate) and spec.tcp != "none":
            return "its rate cannot be unlimited with tcp", "to", 'give a rate such as "1 Gbit/s"'
        slowest = rate * (event.factor or 1.0)
        if slowest < SLOWEST_BYTES_PER_S:
            field = "to" if event.factor is None else "factor"
            return f"it would carry {slowest * 8:.3g} bit/s", field, "give 1 bit/s or more"
    capped = spec.tcp == "none" and spec.cap is None  # its rate was computed from its loss and delay before the run
    if isinstance(event, LossEvent) and capped and event.to != spec.loss:
        return "its loss cannot be changed, because its rate changes over time", "to", 'set network.tcp = "cubic"'
    if isinstance(event, LossEvent) and spec.tcp == "none" and spec.delay_ns == 0 and event.to:
        return "loss has no effect, because its delay is 0", "to", 'set network.delay, or network.tcp = "cubic"'
    if isinstance(event, DelayEvent) and capped and spec.loss and event.condition(PLAIN) != PLAIN:
        return "its delay cannot be changed, because its rate changes over time", "factor", 'set network.tcp = "cubic"'
    return "", "", ""


def _refuse_late(experiment: Experiment) -> None:
    if experiment.stop.time is None:
        return
    for place, event in enumerate(experiment.events):
        if event.at_ns >= duration_ns(experiment.stop.time):
            raise ConfigError(
                key=f"events[{place}].at", value=event.at, problem=f"the run stops at {experiment.stop.time}",
                cure="raise stop.time, or give an earlier time",
            )  # fmt: skip


def _refuse_after_kill(experiment: Experiment) -> None:
    """Raise ConfigError for an event about a peer after its kill."""
    ended: dict[int, int] = {}
    for event in in_order(experiment.events):
        if isinstance(event, SpeedEvent | PauseEvent | KillEvent | JoinEvent | LeaveEvent) and event.peer in ended:
            place = next(place for place, each in enumerate(experiment.events) if each is event)
            raise ConfigError(
                key=f"events[{place}].peer", value=event.peer,
                problem=f"events[{ended[event.peer]}] kills peer {event.peer} before this", cure="remove one of the two events",
            )  # fmt: skip
        if isinstance(event, KillEvent):
            ended[event.peer] = next(place for place, each in enumerate(experiment.events) if each is event)


def _refuse_dead_ends(experiment: Experiment, plan: NetworkPlan) -> None:
    """Raise ConfigError for a cut that is never healed in a run without stop.time: peers might wait for ever."""
    if experiment.stop.time is not None:
        return
    dead = {peer for _, peer in kills(experiment.events)}
    for pair, changes in changes_of(in_order(experiment.events), plan.links).items():
        since_ns = cut_for_good_ns(changes)
        if since_ns is not None and not dead & set(pair):
            cutting = (CutEvent, PartitionEvent)
            place = max(
                place
                for place, event in enumerate(experiment.events)
                if isinstance(event, cutting) and event.at_ns == since_ns and event.affected([pair])
            )
            raise ConfigError(
                key=f"events[{place}].do", value=experiment.events[place].kind,
                problem=f"link {pair[0]} -> {pair[1]} is never healed, so peers might wait for ever",
                cure=f'add an event do = "{HealEvent.__struct_config__.tag}", or set stop.time',
            )  # fmt: skip
