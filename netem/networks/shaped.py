"""The options of all networks with shaped links: TCP, outages, laws of jitter and loss."""

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
"""The shortest mean time between outages; a message that takes longer draws each outage in its time."""


class Shaped(Network, frozen=True, kw_only=True):
    """A network whose links may have TCP, outages, and laws of jitter and loss."""

    tcp: Control = "none"
    """Congestion control: "cubic" or "bbr" (a round-based model of Linux's TCP: slow start, losses, idle times; needs a rate),
    or "none" = rate and delay, loss by Mathis' formula."""
    queue: Duration | None = None
    """Size of the queue before a link, as the time that the link takes to send a full queue, such as "50 ms"; bytes beyond
    it are lost; with tcp only (without tcp a sender never sends more than the link takes). Left out = the longer of a round
    trip and 50 ms."""
    jitter_law: Law = "uniform"
    """"uniform" (jitter is the half width), "normal" or "pareto" (jitter is the standard deviation; with pareto few messages
    are late, but these are very late)."""
    jitter_correlation: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Correlation of a message's jitter with the previous message's, 0 to below 1; the law of each jitter stays the same."""
    loss_burst: Annotated[float, msgspec.Meta(ge=1)] = 1.0
    """Mean length of a burst of lost packets, 1 or more; 1 = packets are lost independently; with tcp only."""
    duplicate: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Share of packets (1500 bytes) sent twice, 0 to below 1: duplicates take time on the link, and the receiver drops them."""
    reorder: bool = False
    """Whether a message overtakes earlier ones when its jitter makes it arrive before them; its own bytes stay in order."""
    outage_every: Duration = "0 s"
    """Mean time from the end of an outage of a link to its next, such as "5 min" (exponential), 1 ms or more; "0 s" = none."""
    outage_length: Duration = "1 s"
    """Mean length of an outage (exponential); bytes wait during an outage, and none is lost."""
    backend: Backend = "userspace"
    """What emulates the links: "userspace" (anywhere), or "kernel" (namespaces and tc, real TCP; root, world "processes")."""

    bottlenecks: tuple[Bottleneck, ...] = ()
    """Cables that several links share, in the file [[network.bottlenecks]] with rate, here and there: rate = "10 Mbit/s",
    here = [0, 1] (peers, or names of places), there = [2, 3] (left out = all others)."""

    def finish_plan(self, plan: NetworkPlan) -> NetworkPlan:
        """Return `plan` with the bottlenecks; raise ValueError if one does not fit, or if `duplicate` has no effect."""
        rates = [*(link.rate_bytes_per_s for link in plan.links.values()), *plan.uplinks, *plan.downlinks]
        if self.duplicate and rates and min(rates) == math.inf:
            raise ValueError('duplicate: takes no time on links without a rate: set a rate too, such as "20 Mbit/s"')
        return with_bottlenecks(plan, self.bottlenecks)

    def refuse_unfinished(self, plan: NetworkPlan) -> None:
        """Raise ValueError if a link of `plan` lacks these options, because it did not pass through `finish_spec`."""
        changes = duration_ns(self.outage_every) > 0
        for (source, target), spec in plan.links.items():
            options = (spec.tcp, spec.jitter_law, spec.jitter_correlation, spec.loss_burst, spec.duplicate, spec.reorders)
            wanted = (self.tcp, self.jitter_law, self.jitter_correlation, self.loss_burst, self.duplicate, self.reorder)
            if options != wanted or (changes and spec.profile_law is None):
                raise ValueError(
                    f"link {source} -> {target} lacks the options of the network, such as tcp or outage_every; "
                    "let plan pass each LinkSpec through self.finish_spec(spec), and its plan through self.finish_plan(plan)"
                )
        if self.bottlenecks and not plan.cables:
            raise ValueError("the plan lacks the bottlenecks; let plan end with return self.finish_plan(plan)")

    def check_links(self) -> None:
        """Raise ValueError if these options do not fit together; the annotations hold the range of each option."""
        if self.queue is not None:
            read("queue", duration_ns, self.queue)
        if 0 < read("outage_every", duration_ns, self.outage_every) < OUTAGES_EVERY_NS:
            raise ValueError(f"outage_every: {self.outage_every} is too short: expected 1 ms or more, such as 5 min, or 0 s")
        if not read("outage_length", duration_ns, self.outage_length):
            raise ValueError("outage_length: is 0 s: expected more, such as 1 s")
        for name in ("bottlenecks", "duplicate", "reorder"):
            if self.backend == "kernel" and getattr(self, name):
                raise ValueError(f'{name}: the kernel backend lacks it: use backend = "userspace", or leave {name} out')
        for name, plain in (("queue", None), ("loss_burst", 1.0)):
            if name == "loss_burst" and self.backend == "kernel":
                continue  # netem has bursts by itself
            if self.tcp == "none" and getattr(self, name) != plain:
                raise ValueError(f'{name}: has no effect without TCP: set tcp = "cubic" or "bbr", or leave {name} out')

    def finish_spec(self, spec: LinkSpec, where: str = "") -> LinkSpec:
        """Return `spec` with these options; raise ValueError, its message after `where`, if they do not fit."""
        every_ns, length_ns = duration_ns(self.outage_every), duration_ns(self.outage_length)
        if math.isinf(spec.rate_bytes_per_s) and (self.tcp != "none" or every_ns):
            option = "tcp" if self.tcp != "none" else "outage_every"
            raise ValueError(f'{where}{option}: needs a rate, and a link here is unlimited: set a rate, such as "1 Gbit/s"')
        if self.reorder and not spec.jitter_ns and not where:
            raise ValueError('reorder: has no effect without jitter: set jitter too, such as "4 ms", or leave reorder out')
        profile_law = spec.profile_law
        if self.loss_burst > 1 and spec.loss > self.loss_burst / (self.loss_burst + 1):
            most = self.loss_burst / (self.loss_burst + 1)
            raise ValueError(
                f"{where}loss_burst: bursts of {self.loss_burst} packets do not allow a loss of {spec.loss}: "
                f"expected a loss of {most:.3g} at most, or longer bursts"
            )
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
