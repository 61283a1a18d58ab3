"""What a device is: how long one peer's training steps take."""

import math

import msgspec


class Device(msgspec.Struct, frozen=True):
    """How long one peer's training steps take."""

    samples_per_s: float = math.inf
    """Samples a second; infinite = as fast as this machine is."""
    overhead_ns: int = 0
    """Fixed cost of a step, ns."""

    def step_ns(self, batch_size: int, now_ns: int = 0, step: int | None = None) -> int:
        """How long a step over `batch_size` samples takes that begins at `now_ns`; 0 = as fast as this machine is.

        `step` is its number, for devices that draw luck for each; None = an average one.
        """
        return self.overhead_ns + round(batch_size * 1e9 / self.samples_per_s)


class Devices(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """Which devices the peers are."""

    def plan(self, peers: int, seed: int = 0) -> list[Device]:
        """The device of each of `peers` peers, in their order; `seed` (0 or more) is for what they draw."""
        raise NotImplementedError
