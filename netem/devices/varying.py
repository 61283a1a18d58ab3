"""Devices whose speed varies: recorded, randomly straggling, pausing, throttled by heat."""

import math
from typing import Annotated

import msgspec
import numpy as np

from grapevine.netem.devices.device import Device, Devices
from grapevine.netem.links.profile import SECOND_NS, Profile, Step
from grapevine.netem.text_files import read_text, rows_of
from grapevine.netem.units import Duration, Speed, duration_ns, read, speed_samples_per_s

_STREAM = 0x12  # keeps the devices' random numbers apart from those that other parts draw from the same seed
LONGEST_S, SLOWEST, FASTEST = 315_576_000, 1e-6, 1e12  # ten years, and samples/s; the bounds of netem.units


class StragglingDevice(Device, frozen=True):
    """A device whose steps take a random factor longer or shorter: log-normal, of mean 1."""

    spread: float = 0.0
    """Standard deviation of the factor's logarithm."""
    seed_and_peer: tuple[int, int] = (0, 0)
    """The seed and the peer's number, from which each step's factor is drawn."""

    def step_ns(self, batch_size: int, now_ns: int = 0, step: int | None = None) -> int:
        plain_ns = super().step_ns(batch_size)
        if step is None:
            return plain_ns
        seed, peer = self.seed_and_peer
        z = float(np.random.default_rng([seed, _STREAM, peer, step]).standard_normal())
        return round(plain_ns * math.exp(self.spread * z - self.spread**2 / 2))


class VaryingDevice(Device, frozen=True):
    """A device whose speed follows a profile: a step is done when the integral of the speed reaches its samples."""

    profile: Profile | None = None
    """Samples a second, over time."""
    ahead_ns: int = 0
    """The device's place in the profile at time 0, ns."""

    def step_ns(self, batch_size: int, now_ns: int = 0, step: int | None = None) -> int:
        if self.profile is None or (step is None and now_ns == 0):
            return super().step_ns(batch_size)
        begin_ns = now_ns + self.ahead_ns + self.overhead_ns
        return self.overhead_ns + math.ceil(self.profile.finish(begin_ns, batch_size) - begin_ns)


class StragglingDevices(Devices, frozen=True, kw_only=True, tag="straggling"):
    """Peers whose steps are sometimes slow: each step takes a log-normal factor longer or shorter."""

    speed: Speed
    """Mean speed, such as "2000 samples/s"; more than 0."""
    spread: Annotated[float, msgspec.Meta(gt=0, le=3)] = 0.3
    """Standard deviation of the logarithm of a step's time: 0.3 = one step in 20 takes 1.6 times the usual; above 0, to 3."""
    overhead: Duration = "0 s"
    """Fixed cost of a step, such as "2 ms"; 0 or more."""

    def __post_init__(self) -> None:
        if not 0 < self.spread <= 3:
            raise ValueError(f"spread: {self.spread} is out of range: expected above 0, to 3, such as 0.3")
        self.plan(1)

    def plan(self, peers: int, seed: int = 0) -> list[Device]:
        plain = read("speed", speed_samples_per_s, self.speed), read("overhead", duration_ns, self.overhead)
        return [StragglingDevice(*plain, self.spread, (seed, peer)) for peer in range(peers)]


class PausingDevices(Devices, frozen=True, kw_only=True, tag="pausing"):
    """Peers that pause regularly, as for garbage collection, checkpoints or other users."""

    speed: Speed
    """Speed between pauses, such as "2000 samples/s"; more than 0."""
    every: Duration = "10 s"
    """Time from the beginning of a pause to the beginning of the next."""
    length: Duration = "1 s"
    """Length of a pause; less than every."""
    together: bool = False
    """Whether all peers pause at the same time; else each peer pauses at its own random moment."""
    overhead: Duration = "0 s"
    """Fixed cost of a step, such as "2 ms"; 0 or more; not stretched by pauses."""

    def __post_init__(self) -> None:
        self.plan(1)

    def plan(self, peers: int, seed: int = 0) -> list[Device]:
        speed = read("speed", speed_samples_per_s, self.speed)
        every_ns, length_ns = read("every", duration_ns, self.every), read("length", duration_ns, self.length)
        if not 0 < length_ns < every_ns:
            raise ValueError(f"length: pauses of {self.length} every {self.every}: expected more than 0 s and less than every")
        profile = Profile([Step(every_ns - length_ns, speed), Step(length_ns, 0.0)], looped=True)
        overhead_ns = read("overhead", duration_ns, self.overhead)
        moments = [0 if self.together else _moment_ns(seed, peer, every_ns) for peer in range(peers)]
        return [VaryingDevice(profile.mean_rate_bytes_per_s, overhead_ns, profile, moment_ns) for moment_ns in moments]


class ThrottlingDevices(Devices, frozen=True, kw_only=True, tag="throttling"):
    """Peers that slow down with heat: full speed at first, falling to a share of it."""

    speed: Speed
    """Speed of a cold device, such as "2000 samples/s"; more than 0."""
    down_to: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.6
    """Share of the speed that a warm device keeps; above 0, to 1."""
    within: Duration = "2 min"
    """Time constant: after this, the speed has fallen by 63 % of the whole fall (if the peer is busy from the start)."""
    overhead: Duration = "0 s"
    """Fixed cost of a step, such as "2 ms"; 0 or more; not slowed by heat."""

    def __post_init__(self) -> None:
        self.plan(1)

    def plan(self, peers: int, seed: int = 0) -> list[Device]:
        speed = read("speed", speed_samples_per_s, self.speed)
        within_ns = read("within", duration_ns, self.within)
        if within_ns < 1_000_000:
            raise ValueError(f"within: {self.within} is too short: expected 1 ms or more, such as 2 min")
        if not 0 < self.down_to <= 1:
            raise ValueError(f"down_to: {self.down_to} is out of range: expected above 0, to 1, such as 0.6")
        shares = [self.down_to + (1 - self.down_to) * math.exp(-(place + 0.5) / 16) for place in range(128)]
        steps = [Step(within_ns // 16, speed * share) for share in shares]
        profile = Profile([*steps, Step(SECOND_NS, speed * self.down_to)])
        device = VaryingDevice(speed * self.down_to, read("overhead", duration_ns, self.overhead), profile)
        return [device] * peers


class TraceDevices(Devices, frozen=True, kw_only=True, tag="trace"):
    """Peers at recorded speeds: a table of times and samples a second."""

    path: Annotated[str, msgspec.Meta(min_length=1)]
    """A .csv file with the header "time [s],speed [samples/s]"; a row holds from its time on, the first is at 0; a speed is
    0 (a pause) or from 1e-6 to 1e12; the last row lasts as long as the one before, then the record starts again."""
    scatter: bool = True
    """Whether each peer begins at its own random place in the record."""
    overhead: Duration = "0 s"
    """Fixed cost of a step, such as "2 ms"; 0 or more."""

    def __post_init__(self) -> None:
        read("overhead", duration_ns, self.overhead)

    def plan(self, peers: int, seed: int = 0) -> list[Device]:
        """Raises ValueError that names the file and the mistake."""
        steps = read("path", _read_speeds, self.path)
        profile, overhead_ns = Profile(steps, looped=True), duration_ns(self.overhead)
        length_ns = sum(step.lasts_ns for step in steps)
        moments = [_moment_ns(seed, peer, length_ns) if self.scatter else 0 for peer in range(peers)]
        return [VaryingDevice(profile.mean_rate_bytes_per_s, overhead_ns, profile, moment_ns) for moment_ns in moments]


def _moment_ns(seed: int, peer: int, length_ns: int) -> int:
    return int(np.random.default_rng([seed, _STREAM, peer]).random() * length_ns)


def _read_speeds(path: str) -> list[Step]:
    try:
        return _speeds(rows_of(read_text(path)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _speeds(rows: list[list[str]]) -> list[Step]:
    if not rows or [cell.strip() for cell in rows[0]] != ["time [s]", "speed [samples/s]"]:
        raise ValueError("the header is missing: expected time [s],speed [samples/s]")
    times_ns: list[int] = []
    speeds: list[float] = []
    for number, row in enumerate(rows[1:], start=2):
        try:
            time_s, speed = map(float, row)
        except ValueError:
            raise ValueError(f"row {number}: {','.join(row)!r}: expected a time and a speed, such as 30,2000") from None
        after_ns = times_ns[-1] if times_ns else -1
        time_ns = round(time_s * SECOND_NS) if 0 <= time_s <= LONGEST_S else -1
        if not (after_ns < time_ns and (speed == 0 or SLOWEST <= speed <= FASTEST)) or (not times_ns and time_ns):
            expected_speeds = f"speeds of 0, or from {SLOWEST:g} to {FASTEST:g}"
            raise ValueError(f"row {number}: expected times that begin at 0 and grow, and {expected_speeds}")
        times_ns.append(time_ns)
        speeds.append(speed)
    if not any(speeds):
        raise ValueError("no row has a speed above 0, so no step would end: expected one or more")
    ends_ns = [*times_ns[1:], times_ns[-1] + (times_ns[-1] - times_ns[-2] if len(times_ns) > 1 else SECOND_NS)]
    return [Step(end - start, speed) for start, end, speed in zip(times_ns, ends_ns, speeds, strict=True)]
