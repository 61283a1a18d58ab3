"""A codec of a user's own: its number on the wire, and that it reads what it wrote, are seen to before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np
import pytest

from grapevine import Codec, ConfigError, Dense, Experiment, Float16, Quadratic, Sparse, Stop, Virtual, run
from grapevine.experiments.config.own_trials import try_codec
from grapevine.peer.payloads import decode, decode_head, encode
from grapevine.peer.spaces import Spaces
from grapevine.peer.wire import WireError


class Half(Float16, frozen=True, tag="half"):
    number: ClassVar[int] = 129


class Eighths(Codec, frozen=True, tag="eighths"):
    """Whole multiples of a step, in two bytes."""

    number: ClassVar[int] = 255

    step: float = 0.125

    def body_bytes(self, count: int) -> int:
        return 2 * count

    def encode(self, values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        levels = np.clip(np.rint(values / self.step), -32768, 32767).astype("<i2")
        return levels.view(np.uint8), levels.astype(np.float32) * np.float32(self.step)

    def decode(self, body: np.ndarray, count: int) -> np.ndarray:
        return body.view("<i2").astype(np.float32) * np.float32(self.step)


class Numberless(Eighths, frozen=True):
    number: ClassVar[int] = None  # type: ignore[assignment]


class Taken(Eighths, frozen=True):
    number: ClassVar[int] = 2


class Long(Eighths, frozen=True):
    def body_bytes(self, count: int) -> int:
        return 2 * count + 1


class Forgetful(Eighths, frozen=True):
    def decode(self, body: np.ndarray, count: int) -> np.ndarray:
        return np.zeros(count, np.float32)


class Raising(Eighths, frozen=True):
    def decode(self, body: np.ndarray, count: int) -> np.ndarray:
        raise IndexError("beyond")


class Boastful(Eighths, frozen=True):
    lossless: ClassVar[bool] = True


def test_what_reads_back_what_it_wrote_is_taken() -> None:
    for codec in (Half(), Eighths(), Eighths(step=0.5)):
        try_codec(codec)


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (Numberless(), "its number on the wire is None; write number: ClassVar[int] = 128 in the class, or another"),
        (Taken(), "its number on the wire is 2, the number of int8; write number"),
        (Long(), "with 0 elements it raised"),
        (Forgetful(), "with 1 elements decode does not return the values that encode returned"),
        (Raising(), "with 0 elements it raised"),
        (Boastful(), "it has lossless = True but changes some of 1 elements; take lossless = True out"),
    ],
)  # fmt: skip
def test_what_does_not_is_refused_before_a_run_starts(codec: Codec, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run(Experiment(peers=3, world=Virtual(), task=Quadratic(), codec=codec), out=tmp_path / "out")
    assert str(caught.value).startswith(f'codec.name = "{__name__}:{type(codec).__name__}": {message}')
    assert not (tmp_path / "out").exists()


def test_a_codec_is_read_only_by_peers_that_write_with_it() -> None:
    values = np.arange(5, dtype=np.float32)
    for payload in (Dense(values), Sparse(np.arange(5, dtype=np.uint32), values)):
        parcel, read = encode(payload, Eighths(step=0.5), 3)
        head = decode_head(parcel.head)
        assert np.array_equal(decode(head, parcel.body, Spaces(5, Eighths(step=0.5))).values, read)
        for other in (Float16(), Half()):
            with pytest.raises(WireError, match="codec number 255"):
                decode(head, parcel.body, Spaces(5, other))


def test_what_a_codec_makes_of_foreign_bytes_ends_no_peer() -> None:
    parcel, _ = encode(Dense(np.ones(3, np.float32)), Eighths(), 0)
    for codec in (Raising(), Wrong()):
        with pytest.raises(WireError, match="codec number 255"):
            decode(decode_head(parcel.head), parcel.body, Spaces(3, codec))


class Wrong(Eighths, frozen=True):
    def decode(self, body: np.ndarray, count: int) -> np.ndarray:
        return np.zeros(count + 1)


def test_fields_of_a_codec_travel_in_the_file() -> None:
    experiment = Experiment(codec=Eighths(step=0.25))
    assert Experiment.parse(experiment.to_toml()).codec == Eighths(step=0.25)
    assert isinstance(experiment.codec, msgspec.Struct)


def test_a_mean_survives_a_coarse_codec(tmp_path: Path) -> None:
    """`mix` takes the rounding back: the fleet's mean walks as gradient descent on the mean target, with any codec."""
    targets = (0.0, 1.0, 5.0)
    experiment = Experiment(
        peers=3, world=Virtual(), task=Quadratic(targets=targets), codec=Eighths(step=0.5), stop=Stop(steps=12)
    )
    weights = run(experiment, out=tmp_path / "out").weights
    assert weights.mean() == pytest.approx(2.0 * (1 - 0.9**12), abs=1e-5)
