"""What all networks with shaped links have in common: TCP, outages, laws of jitter and loss."""

import math
from typing import Annotated

import msgspec

from grapevine.netem.links.jitter import Law
from grapevine.netem.links.profile import Step
from grapevine.netem.links.profile_laws import Outages, Slowed, Still
from grapevine.netem.networks.bottlenecks import Bottleneck, with_bottlenecks
from grapevine.netem.networks.plan import Backend, Control, LinkSpec, Network, NetworkPlan, capped_rate
from grapevine.netem.units import Duration, duration_ns, read

OUTAGES_EVERY_NS = 1_000_000
"""The least mean time between outages: each is drawn by itself, however long a message takes."""


class Shaped(Network, frozen=True, kw_only=True):
    """A network whose links may have TCP's manners, outages, and laws of jitter and loss."""

    tcp: Control = "none"
    """What fills a link: "cubic" or "bbr" (a round-based model of Linux's TCP: slow start, losses, idle times; needs a rate),
    or "none" = rate and delay, loss by Mathis' formula."""
    queue: Duration | None = None
    """What the queue before a link holds, in the time that the link takes for it, such as "50 ms"; what comes on top is
    lost; with tcp only (without it a sender never sends more than the link takes). Left out = the longer of a round
    trip and 50 ms."""
    jitter_law: Law = "uniform"
    """"uniform" (jitter is the half width), "normal" or "pareto" (jitter is the standard deviation; pareto: seldom, but then
    very late)."""
    jitter_correlation: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """How like a message's jitter is to that of the one before it, 0 to below 1; the law stays as wide as it is."""
    loss_burst: Annotated[float, msgspec.Meta(ge=1)] = 1.0
    """Mean length of a burst of lost packets, 1 or more; 1 = each is lost by itself; with tcp only."""
    duplicate: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Share of packets (1500 bytes) that go twice, 0 to below 1: they take time on the line, and the receiver drops them."""
    reorder: bool = False
    """Whether a message may overtake those before it, where their jitters say so; a message's own bytes stay in order."""
    outage_every: Duration = "0 s"
    """Mean time from the end of an outage of a link to its next, such as "5 min" (exponential), 1 ms or more; "0 s" = none."""
    outage_length: Duration = "1 s"
    """Mean length of an outage (exponential); nothing is lost in it, all waits."""
    backend: Backend = "userspace"
    """Who carries this out: "userspace" (anywhere), or "kernel" (namespaces and tc, real TCP; root, world "processes")."""

    bottlenecks: tuple[Bottleneck, ...] = ()
    """Cables that several links share, in the file [[network.bottlenecks]] with rate, here and there: rate = "10 Mbit/s",
    here = [0, 1] (peers, or names of places), there = [2, 3] (left out = everybody else)."""

    def finish_plan(self, plan: NetworkPlan) -> NetworkPlan:
        """`plan` with the bottlenecks; raises ValueError where one does not fit, or where nothing has a rate to double."""
        rates = [*(link.rate_bytes_per_s for link in plan.links.values()), *plan.uplinks, *plan.downlinks]
        if self.duplicate and rates and min(rates) == math.inf:
            raise ValueError('duplicate: takes no time on links without a rate: set a rate too, such as "20 Mbit/s"')
        return with_bottlenecks(plan, self.bottlenecks)

    def check_links(self) -> None:
        """Raises ValueError where these options do not fit together; what each may be by itself stands at its annotation."""
        if self.queue is not None:
            read("queue", duration_ns, self.queue)
        if 0 < read("outage_every", duration_ns, self.outage_every) < OUTAGES_EVERY_NS:
            raise ValueError(f"outage_every: {self.outage_every} is too short: expected 1 ms or more, such as 5 min, or 0 s")
        if not read("outage_length", duration_ns, self.outage_length):
            raise ValueError("outage_length: an outage takes longer than 0 s, such as 1 s")
        for name in ("bottlenecks", "duplicate", "reorder"):
            if self.backend == "kernel" and getattr(self, name):
                raise ValueError(f'{name}: not with the kernel backend: use backend = "userspace", or leave {name} out')
        for name, plain in (("queue", None), ("loss_burst", 1.0)):
            if name == "loss_burst" and self.backend == "kernel":
                continue  # netem has bursts by itself
            if self.tcp == "none" and getattr(self, name) != plain:
                raise ValueError(f'{name}: has no effect without TCP: set tcp = "cubic" or "bbr", or leave {name} out')

    def finish_spec(self, spec: LinkSpec, where: str = "") -> LinkSpec:
        """`spec` with these options; raises ValueError, after `where`, where they do not fit."""
        every_ns, length_ns = duration_ns(self.outage_every), duration_ns(self.outage_length)
        if math.isinf(spec.rate_bytes_per_s) and (self.tcp != "none" or every_ns):
            what = "tcp" if self.tcp != "none" else "outage_every"
            raise ValueError(f'{where}{what}: a link without a rate has none: set a rate too, such as "1 Gbit/s"')
        if self.reorder and not spec.jitter_ns and not where:
            raise ValueError('reorder: without jitter nothing overtakes: set jitter too, such as "4 ms", or leave reorder out')
        profile_law = spec.profile_law
        if self.loss_burst > 1 and spec.loss > self.loss_burst / (self.loss_burst + 1):
            raise ValueError(f"{where}loss_burst: a loss of {spec.loss} leaves no packet between bursts of {self.loss_burst}")
        if every_ns:
            still = Still(step=Step(3_600_000_000_000, spec.rate_bytes_per_s, spec.delay_ns, spec.loss))
            profile_law = Outages(profile_law=profile_law or still, every_ns=every_ns, length_ns=length_ns)
        if profile_law is not None and self.tcp == "none":
            profile_law = Slowed(profile_law=profile_law, cap=capped_rate)
        return msgspec.structs.replace(
            spec, tcp=self.tcp, queue_ns=None if self.queue is None else duration_ns(self.queue), jitter_law=self.jitter_law,
            jitter_correlation=self.jitter_correlation, loss_burst=self.loss_burst, profile_law=profile_law,
            duplicate=self.duplicate, reorders=self.reorder,
        )  # fmt: skip
