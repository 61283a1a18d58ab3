"""The `ip` and `tc` commands for a network that the Linux kernel carries, and a check for options that tc lacks.

Every peer has its own network namespace, and a hub routes between them. A peer's packets pass tc twice:

- in the sender's namespace: one htb class for each neighbour limits the link's rate, under one parent for the uplink;
- in the hub, before the receiver: one htb class for each sender shares the downlink, and a netem below it delays and loses.

So packets are lost after the sender's own queue, where its TCP notices the loss as on a real network, and the rate applies
before the delay. A rate counts the bytes of IP packets, like the rate of a link with `tcp`; tc counts Ethernet's headers too,
so the commands give it 1514 / 1500 of the rate: exact for full packets, which nearly all are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from grapevine.netem.links.tcp import PACKET_BYTES
from grapevine.netem.networks.plan import LinkSpec, NetworkPlan

HUB_ADDRESS = "10.88.255.254"
FORWARD = "sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'"
"""The command that makes the hub a router."""
MOST_PEERS = 65_000  # addresses in 10.88.0.0/16, and classes of one tc queue, which have 16 bits
_FRAME_BYTES = PACKET_BYTES + 14  # with Ethernet's header
_PARENT = "1:1"
_BURST_NS = 1_000_000  # a class may send this at once after a pause: a timer that is late by less costs no rate
_SEGMENT_NS = 50_000  # the longest time that one buffer of several packets may take on its link
_MOST_SEGMENTS = 44  # 64 KB
_QUEUE_NS = 50_000_000  # before a downlink, where the round trip is shorter
_NO_RATE = 12.5e9  # bytes/s, for a class of a link without a rate: 100 Gbit/s


class Command(NamedTuple):
    """One command; `str()` gives the shell command."""

    tool: str
    """`ip`, `tc`, or `ip netns exec`."""
    namespace: str
    """The namespace in which it runs; "" = the launcher's."""
    words: str

    def __str__(self) -> str:
        if self.tool in ("ip", "tc"):
            where = f"-n {self.namespace} " if self.namespace else ""
            return f"{self.tool} {where}{self.words}"
        return f"{self.tool} {self.namespace} {self.words}"


def commands(plan: NetworkPlan, prefix: str, dilation: float = 1.0) -> list[Command]:
    """Return the commands that set up a plan's network, in order, in namespaces whose names begin with `prefix`.

    `dilation` divides rates and multiplies delays. Raises ValueError like `refuse`.
    """
    refuse(plan)
    peers = range(len(plan.uplinks))
    steps = [Command("ip", "", f"netns add {name}") for name in namespaces(plan, prefix)]
    steps += _hub(prefix)
    for peer in peers:
        steps += _cards(plan, prefix, peer, dilation)
    for peer in peers:
        steps += _sending(plan, namespace(prefix, peer), peer, dilation)
        steps += _receiving(plan, namespace(prefix, None), peer, dilation)
    return steps


def namespace(prefix: str, peer: int | None) -> str:
    """Return the name of a peer's namespace; None = the hub's."""
    return f"{prefix}-hub" if peer is None else f"{prefix}-p{peer}"


def namespaces(plan: NetworkPlan, prefix: str) -> list[str]:
    """Return the names of all namespaces of a network."""
    return [namespace(prefix, None), *(namespace(prefix, peer) for peer in range(len(plan.uplinks)))]


def address(peer: int) -> str:
    """Return a peer's IP address, valid in every namespace of its network."""
    return f"10.88.{(peer + 1) >> 8}.{(peer + 1) & 255}"


def carried_by_kernel(plan: NetworkPlan) -> NetworkPlan:
    """Return the same network with every link left to the kernel. Raises ValueError like `refuse`."""
    refuse(plan)
    known: dict[LinkSpec, LinkSpec] = {}
    for spec in plan.links.values():
        if spec not in known:
            known[spec] = msgspec.structs.replace(spec, kernel=True)
    return msgspec.structs.replace(plan, links={ends: known[spec] for ends, spec in plan.links.items()}, kernel=True)


def needs_netem(plan: NetworkPlan) -> str:
    """Return the options of the network that need sch_netem, such as "delay and loss"; "" = none."""
    return " and ".join(name for name in ("delay", "jitter", "loss") if any(_has(spec, name) for spec in plan.links.values()))


def refuse(plan: NetworkPlan) -> None:
    """Raise ValueError if tc cannot express the network."""
    if len(plan.uplinks) > MOST_PEERS:
        raise ValueError(f"it has addresses for {MOST_PEERS} peers, fewer than {len(plan.uplinks)}; use fewer peers")
    if plan.cables:
        raise ValueError('it cannot let links share cables; use backend = "userspace"')
    if plan.up_profiles or plan.down_profiles:
        raise ValueError('tc cannot change uplinks and downlinks over time; use backend = "userspace"')
    for (source, target), spec in plan.links.items():
        why = _beyond(spec)
        if why:
            raise ValueError(f"link {source} -> {target}: {why}")


def _beyond(spec: LinkSpec) -> str:
    """Return the option of a link that tc lacks, with the cure; "" = none."""
    instead = 'use backend = "userspace"'
    if spec.profile_law is not None or spec.profile is not None or spec.changes:
        return f'tc cannot change a link over time; {instead}, or a network of steady links ("uniform")'
    if spec.tcp != "none":
        return f"the kernel uses its own TCP, not a model; leave tcp out, or {instead}"
    if spec.jitter_correlation:
        return f"netem ignores its jitter correlation; leave jitter_correlation out, or {instead}"
    return ""


def _has(spec: LinkSpec, name: str) -> bool:
    return bool({"delay": spec.delay_ns, "jitter": spec.jitter_ns, "loss": spec.loss}[name])


# ---- namespaces and cards -------------------------------------------------------------------------------------------


def _hub(prefix: str) -> list[Command]:
    name = namespace(prefix, None)
    return [
        Command("ip", name, "link set lo up"),
        Command("ip", name, f"addr add {HUB_ADDRESS}/32 dev lo"),
        Command("ip netns exec", name, FORWARD),
    ]


def _cards(plan: NetworkPlan, prefix: str, peer: int, dilation: float) -> list[Command]:
    """Return the commands for a pair of virtual Ethernet cards between a peer and the hub, and the routes to both."""
    own, hub, card = namespace(prefix, peer), namespace(prefix, None), f"p{peer}"
    segments = _segments(plan, peer, dilation)
    return [
        Command("ip", own, f"link add eth0 type veth peer name {card} netns {hub}"),
        Command("ip", own, "link set lo up"),
        Command("ip", own, f"addr add {address(peer)}/32 dev eth0"),
        Command("ip", own, f"link set eth0 gso_max_segs {segments} up"),
        Command("ip", own, f"route add default via {HUB_ADDRESS} dev eth0 onlink"),
        Command("ip", hub, f"link set {card} up"),
        Command("ip", hub, f"route add {address(peer)}/32 dev {card}"),
    ]


def _segments(plan: NetworkPlan, peer: int, dilation: float) -> int:
    """Return how many packets TCP may hand over as one buffer: at most 50 us of the slowest link; 1 if a link loses packets."""
    specs = {target: plan.links[peer, target] for target in _neighbours(plan, peer)}
    if any(spec.loss for spec in specs.values()):
        return 1
    rates = [spec.rate_bytes_per_s for spec in specs.values()] + [plan.downlinks[target] for target in specs]
    slowest = min([plan.uplinks[peer], *rates]) / dilation
    return int(max(1.0, min(slowest * _SEGMENT_NS / 1e9 / PACKET_BYTES, _MOST_SEGMENTS)))


# ---- queues ---------------------------------------------------------------------------------------------------------


def _sending(plan: NetworkPlan, name: str, peer: int, dilation: float) -> Iterator[Command]:
    """Return the commands for the rates of a peer's links and for the uplink that they share."""
    links = _neighbours(plan, peer)
    uplink = plan.uplinks[peer] / dilation
    rates = {target: plan.links[peer, target].rate_bytes_per_s / dilation for target in links}
    if not links or all(math.isinf(rate) for rate in (uplink, *rates.values())):
        return
    yield from _root(name, "eth0", uplink)
    for target in links:
        if math.isinf(uplink) and math.isinf(rates[target]):
            continue
        share = min(rates[target], uplink / len(links)), min(rates[target], uplink)
        yield from _leaf(name, "eth0", target, f"dst {address(target)}/32", *share, math.isfinite(uplink))


def _receiving(plan: NetworkPlan, name: str, peer: int, dilation: float) -> Iterator[Command]:
    """Return the commands for packets to a peer: delay, jitter and loss of each link, and the downlink that they share."""
    links = _neighbours(plan, peer)
    card, downlink = f"p{peer}", plan.downlinks[peer] / dilation
    specs = {source: plan.links[source, peer] for source in links}
    netem = {source: any(_has(spec, kind) for kind in ("delay", "jitter", "loss")) for source, spec in specs.items()}
    if not links or (math.isinf(downlink) and not any(netem.values())):
        return
    yield from _root(name, card, downlink)
    for source, spec in specs.items():
        if math.isinf(downlink) and not netem[source]:
            continue
        share = min(spec.rate_bytes_per_s / dilation, downlink / len(links)), downlink
        share = share if math.isfinite(downlink) else (_NO_RATE, _NO_RATE)  # the sender's side holds the link's rate
        yield from _leaf(name, card, source, f"src {address(source)}/32", *share, math.isfinite(downlink))
        where = f"qdisc add dev {card} parent 1:{_minor(source)} handle {_minor(source)}:"
        if netem[source]:
            yield Command("tc", name, f"{where} netem {_netem(spec, downlink, dilation)}")
        else:
            queue_bytes = max(20 * PACKET_BYTES, round(downlink * _QUEUE_NS / 1e9))
            yield Command("tc", name, f"{where} bfifo limit {queue_bytes}")


def _root(name: str, card: str, shared: float) -> Iterator[Command]:
    """Return the commands for a card's htb, with one class over all others if they share a rate."""
    yield Command("tc", name, f"qdisc add dev {card} root handle 1: htb")
    if math.isfinite(shared):
        yield Command("tc", name, f"class add dev {card} parent 1: classid {_PARENT} {_htb(shared, shared)}")


def _leaf(name: str, card: str, other: int, match: str, rate: float, ceil: float, shared: bool) -> Iterator[Command]:
    """Return the commands for the class of packets to, or from, one other peer."""
    above, own = _PARENT if shared else "1:", f"1:{_minor(other)}"
    yield Command("tc", name, f"class add dev {card} parent {above} classid {own} {_htb(rate, ceil)}")
    yield Command("tc", name, f"filter add dev {card} parent 1: protocol ip prio 1 u32 match ip {match} flowid {own}")


def _htb(rate: float, ceil: float) -> str:
    """Return a class with `rate` guaranteed and borrowing up to `ceil`, both bytes/s; classes share the rest equally."""
    bursts = (max(_FRAME_BYTES, round(each * _BURST_NS / 1e9)) for each in (rate, ceil))
    burst, cburst = bursts
    return f"htb rate {_bits(rate)} ceil {_bits(ceil)} burst {burst} cburst {cburst} quantum {_FRAME_BYTES}"


def _netem(spec: LinkSpec, downlink: float, dilation: float) -> str:
    """Return netem's options: delay, jitter, loss, and a `rate` above any link's, with which netem keeps packets in order."""
    words = [f"limit {_packets(spec, downlink, dilation)}"]
    if spec.delay_ns or spec.jitter_ns:
        words.append(f"delay {_us(spec.delay_ns * dilation)}")
        if spec.jitter_ns:
            words.append(_us(spec.jitter_ns * dilation))
            words.append("" if spec.jitter_law == "uniform" else f"distribution {spec.jitter_law}")
    if spec.loss and spec.loss_burst > 1:
        leave = 1 / spec.loss_burst
        enter = spec.loss * leave / (1 - spec.loss)
        words.append(f"loss gemodel {_percent(enter)} {_percent(leave)}")
    elif spec.loss:
        words.append(f"loss {_percent(spec.loss)}")
    return " ".join([word for word in words if word] + [f"rate {_bits(_NO_RATE)}"])


def _packets(spec: LinkSpec, downlink: float, dilation: float) -> int:
    """Return netem's limit in packets: twice those under way (acknowledgements are small), and a queue before the downlink."""
    rate = min(spec.rate_bytes_per_s / dilation, downlink, _NO_RATE / 10)
    under_way_ns = (spec.delay_ns + 4 * spec.jitter_ns) * dilation
    queue_ns = max(2 * spec.delay_ns * dilation, _QUEUE_NS)
    return max(100, math.ceil(rate * (2 * under_way_ns + queue_ns) / 1e9 / PACKET_BYTES))


def _neighbours(plan: NetworkPlan, peer: int) -> list[int]:
    return sorted(target for source, target in plan.links if source == peer)


def _minor(peer: int) -> str:
    """Return the number of a peer's class in tc's hexadecimal; 1 is the parent's."""
    return f"{peer + 2:x}"


def _bits(rate_bytes_per_s: float) -> str:
    """Return a rate of IP packets in tc's units, which count Ethernet's headers too."""
    if rate_bytes_per_s >= _NO_RATE:
        return "100gbit"
    return f"{round(rate_bytes_per_s * 8 * _FRAME_BYTES / PACKET_BYTES)}bit"


def _us(duration_ns: float) -> str:
    return f"{duration_ns / 1e3:.3f}".rstrip("0").rstrip(".") + "us"


def _percent(share: float) -> str:
    return f"{100 * share:.6f}".rstrip("0").rstrip(".") + "%"
