"""Networks whose links change over time: all in the same way, or each with its own random numbers."""

import itertools
import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated

import msgspec

from grapevine.netem.links.profile import SECOND_NS, Profile, Step
from grapevine.netem.links.profile_laws import Cellular, Diurnal, Listed, ProfileLaw, Walk
from grapevine.netem.networks.plan import LinkSpec, NetworkPlan, capped_rate, loss_share, plan_links
from grapevine.netem.networks.shaped import Shaped
from grapevine.netem.networks.traces import read_trace
from grapevine.netem.units import UNLIMITED, Duration, Rate, duration_ns, rate_bytes_per_s, read

if TYPE_CHECKING:
    import networkx as nx


RateOrOutage = Annotated[str, msgspec.Meta(extra={"example": "20 Mbit/s"})]


class Changing(Shaped, frozen=True, kw_only=True):
    """A network of links that change over time."""

    delay: Duration = "0 s"
    """One-way delay, such as "40 ms"; 0 or more."""
    jitter: Duration = "0 s"
    """A message is early or late by up to this, and never overtakes; such as "4 ms"."""
    loss: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Share of packets lost, 0 to below 1: slows a link (without tcp by Mathis' formula), loses no message."""
    uplink: Rate = UNLIMITED
    """The rate that all links of a peer share when it sends, such as "50 Mbit/s"."""
    downlink: Rate = UNLIMITED
    """The rate that all links of a peer share when it receives, such as "200 Mbit/s"."""

    def __post_init__(self) -> None:
        self.check_links()
        read("loss", loss_share, self.loss)
        for field in ("uplink", "downlink"):
            read(field, rate_bytes_per_s, getattr(self, field))
        read("jitter", duration_ns, self.jitter)
        read("delay", duration_ns, self.delay)
        self.check_motion()

    def check_motion(self) -> None:
        """Raise ValueError if the options do not make a profile."""
        self.profile_law(duration_ns(self.delay))

    @abstractmethod
    def profile_law(self, delay_ns: int) -> ProfileLaw:
        """Return the law that the links' profiles are drawn from."""
        raise NotImplementedError

    def plan(self, graph: "nx.Graph", seed: int) -> NetworkPlan:
        spec = self.spec(self.profile_law(duration_ns(self.delay)))
        uplink, downlink = rate_bytes_per_s(self.uplink), rate_bytes_per_s(self.downlink)
        return self.finish_plan(
            plan_links(graph, seed, lambda source, target: spec, lambda peer: uplink, lambda peer: downlink)
        )

    def spec(self, profile_law: ProfileLaw) -> LinkSpec:
        """Return a link with this law; its planned rate is the law's mean rate."""
        rate = profile_law.mean_rate_bytes_per_s
        return self.finish_spec(
            LinkSpec(rate, duration_ns(self.delay), duration_ns(self.jitter), self.loss, profile_law=profile_law)
        )


class Trace(Changing, frozen=True, kw_only=True, tag="trace"):
    """Links recorded in a file: a table of time, rate, delay and loss, or mahimahi's packet deliveries."""

    path: Annotated[str, msgspec.Meta(min_length=1)]
    """A .csv file with a header such as "time [s],rate [Mbit/s],delay [ms],loss" (the last two may lack; a row holds from
    its time on), or any other name: mahimahi, the millisecond of each delivery of 1504 bytes, a line each."""
    loop: bool = True
    """Whether the record starts again at its end; else its last row holds for ever."""
    scatter: bool = False
    """Whether each link begins at its own place in the record (with loop), so that links do not change at the same time."""

    def check_motion(self) -> None:
        """Check the options alone: the file is read when the links are planned."""
        if not self.path:
            raise ValueError("path: is empty: expected the file of a recorded link")
        if self.scatter and not self.loop:
            raise ValueError("scatter: links that begin inside the record reach its end: set loop = true too")
        if self.scatter and duration_ns(self.outage_every):
            raise ValueError("scatter: cannot be combined with outage_every: leave one of them out")

    def profile_law(self, delay_ns: int) -> ProfileLaw:
        steps = tuple(read("path", lambda path: read_trace(path, delay_ns, self.loss), self.path))
        read("path", lambda path: Profile(steps, self.loop), self.path)
        return Listed(given=steps, looped=self.loop)

    def spec(self, profile_law: ProfileLaw) -> LinkSpec:
        """Return a link; all links share one profile, except where each has its own outages."""
        spec = super().spec(profile_law)
        assert isinstance(profile_law, Listed)
        delay_ns, loss = profile_law.given[0].delay_ns, max(step.loss for step in profile_law.given)
        spec = msgspec.structs.replace(spec, delay_ns=delay_ns, loss=loss if self.tcp != "none" else self.loss)
        if duration_ns(self.outage_every):
            return spec
        given = profile_law.given if self.tcp != "none" else tuple(_capped(step) for step in profile_law.given)
        return msgspec.structs.replace(spec, profile_law=None, profile=Profile(given, self.loop), scattered=self.scatter)


class ScheduleNetwork(Changing, frozen=True, kw_only=True, tag="schedule"):
    """Links that change at given times: a list of times, and of the rates that hold from these times on."""

    times: Annotated[tuple[Duration, ...], msgspec.Meta(min_length=1)] = ("0 s",)
    """The time from which each rate holds, such as ["0 s", "30 s"]; the first is "0 s"."""
    rates: Annotated[tuple[RateOrOutage, ...], msgspec.Meta(min_length=1)] = ("20 Mbit/s",)
    """One rate for each of `times`, such as ["20 Mbit/s", "2 Mbit/s"]; "0 bit/s" = an outage."""
    delays: tuple[Duration, ...] = ()
    """One one-way delay for each of `times`; empty = `delay` all the time."""
    loop_after: Duration | None = None
    """The time at which the schedule starts again, after the last of `times`; left out = the last rate holds for ever."""

    def profile_law(self, delay_ns: int) -> ProfileLaw:
        starts_ns = [read("times", duration_ns, time) for time in self.times]
        rates = [read("rates", _rate_or_outage, rate) for rate in self.rates]
        delays_ns = [read("delays", duration_ns, delay) for delay in self.delays] or [delay_ns] * len(starts_ns)
        if starts_ns[:1] != [0] or any(a >= b for a, b in itertools.pairwise(starts_ns)):
            raise ValueError('times: expected "0 s" first, then growing times, such as ["0 s", "30 s"]')
        for field, values in (("rates", rates), ("delays", delays_ns)):
            if len(values) != len(starts_ns):
                raise ValueError(f"{field}: {len(values)} for {len(starts_ns)} times: expected one for each time")
        end_ns = starts_ns[-1] + SECOND_NS
        if self.loop_after is not None and (end_ns := read("loop_after", duration_ns, self.loop_after)) <= starts_ns[-1]:
            raise ValueError(
                f"loop_after: {self.loop_after} is too early: expected more than {self.times[-1]}, the last of times"
            )
        ends_ns = [*starts_ns[1:], end_ns]
        steps = tuple(
            Step(end - start, rate, delay, self.loss)
            for start, end, rate, delay in zip(starts_ns, ends_ns, rates, delays_ns, strict=True)
        )
        profile_law = Listed(given=steps, looped=self.loop_after is not None)
        read("rates", lambda _: Profile(steps, profile_law.looped), self.rates)
        return profile_law


class DiurnalNetwork(Changing, frozen=True, kw_only=True, tag="diurnal"):
    """Links that are slower at some hours: a sine of rate over the day."""

    rate: Rate = "20 Mbit/s"
    """The mean rate over a period, such as "20 Mbit/s"."""
    swing: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.5
    """Amplitude of the sine as a share of the mean, 0 to below 1."""
    period: Duration = "24 h"
    """Length of a day; shorter for short runs, such as "10 min"."""
    phase: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """The run's start within the period, 0 to below 1: at 0 the rate equals its mean and rises."""

    def profile_law(self, delay_ns: int) -> ProfileLaw:
        period_ns = read("period", duration_ns, self.period)
        if period_ns < 1_000_000:
            raise ValueError(f"period: {self.period} is too short: expected 1 ms or more, such as 24 h")
        for field in ("swing", "phase"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"{field}: {getattr(self, field)!r} is not from 0 to below 1")
        rate = read("rate", _finite_rate, self.rate)
        return Diurnal(
            rate_bytes_per_s=rate, swing=self.swing, period_ns=period_ns, phase=self.phase, delay_ns=delay_ns, loss=self.loss
        )


class RandomWalk(Changing, frozen=True, kw_only=True, tag="random-walk"):
    """Links that wander: the logarithm of each link's rate walks at random between two bounds."""

    rate: Rate = "20 Mbit/s"
    """The median rate, which is each link's first, such as "20 Mbit/s"."""
    deviation: Annotated[float, msgspec.Meta(gt=0)] = 0.1
    """Standard deviation of a step of the rate's logarithm: 0.1 is about 10 %; more than 0."""
    every: Duration = "1 s"
    """The time for which a rate holds."""
    within: Annotated[float, msgspec.Meta(gt=1)] = 4.0
    """The rate stays between rate / within and rate x within (it is reflected there); more than 1."""

    def profile_law(self, delay_ns: int) -> ProfileLaw:
        every_ns = read("every", _some_time_ns, self.every)
        if not (0 < self.deviation < math.inf and 1 < self.within < math.inf):
            raise ValueError("deviation: expected more than 0, and within more than 1")
        rate = read("rate", _finite_rate, self.rate)
        return Walk(
            rate_bytes_per_s=rate, deviation=self.deviation, range=self.within,
            every_ns=every_ns, delay_ns=delay_ns, loss=self.loss,
        )  # fmt: skip


class CellularNetwork(Changing, frozen=True, kw_only=True, tag="cellular"):
    """Links of mobile phones, synthetic: rates log-normal and correlated in time, with outages if configured."""

    rate: Rate = "20 Mbit/s"
    """The mean rate, such as "13 Mbit/s"."""
    variation: Annotated[float, msgspec.Meta(gt=0)] = 0.7
    """Standard deviation of the rate over its mean; measured on LTE: 0.5 to 0.8."""
    correlation: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.8
    """Correlation of a rate with the next one, after `every`; measured on LTE at 1 s: 0.6 to 0.9."""
    every: Duration = "1 s"
    """The time for which a rate holds."""

    def profile_law(self, delay_ns: int) -> ProfileLaw:
        every_ns = read("every", _some_time_ns, self.every)
        if not (0 < self.variation < math.inf and 0 <= self.correlation < 1):
            raise ValueError("variation: expected more than 0, and correlation from 0 to below 1")
        rate = read("rate", _finite_rate, self.rate)
        return Cellular(
            rate_bytes_per_s=rate, variation=self.variation, correlation=self.correlation,
            every_ns=every_ns, delay_ns=delay_ns, loss=self.loss,
        )  # fmt: skip


def _capped(step: Step) -> Step:
    return step._replace(rate_bytes_per_s=capped_rate(*step[1:]))


def _finite_rate(text: str) -> float:
    rate = rate_bytes_per_s(text)
    if math.isinf(rate):
        raise ValueError("a rate that changes cannot be unlimited: expected a number, such as 20 Mbit/s")
    return rate


def _rate_or_outage(text: str) -> float:
    return 0.0 if isinstance(text, str) and text.strip() in ("0 bit/s", "0 B/s") else _finite_rate(text)


def _some_time_ns(text: str) -> int:
    every_ns = duration_ns(text)
    if every_ns < 1_000_000:
        raise ValueError(f"{text} is too short for a step: expected 1 ms or more, such as 1 s")
    return every_ns
