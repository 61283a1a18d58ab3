"""A device: the duration of one peer's training steps."""

import math
from abc import abstractmethod

import msgspec


class Device(msgspec.Struct, frozen=True):
    """The speed of one peer's training steps."""

    samples_per_s: float = math.inf
    """Samples a second; infinite = as fast as this machine."""
    overhead_ns: int = 0
    """Fixed cost of a step, ns."""

    def __post_init__(self) -> None:
        if not self.samples_per_s > 0:
            raise ValueError(f"a device of {self.samples_per_s!r} samples a second; expected more than 0")
        if self.overhead_ns < 0:
            raise ValueError(f"a device with an overhead of {self.overhead_ns!r} ns; expected 0 or more")

    def step_ns(self, batch_size: int, now_ns: int = 0, step: int | None = None) -> int:
        """Return the duration of a step over `batch_size` samples that begins at `now_ns`, ns; 0 = as fast as this machine.

        `step` is the step's number, for devices that draw a random number for each step; None = an average step.
        """
        return self.overhead_ns + round(batch_size * 1e9 / self.samples_per_s)


class Devices(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """The devices of the peers."""

    @abstractmethod
    def plan(self, peers: int, seed: int = 0) -> list[Device]:
        """Return the devices of peers 0 to `peers` - 1; devices draw their random numbers from `seed`, 0 or more."""
        raise NotImplementedError
