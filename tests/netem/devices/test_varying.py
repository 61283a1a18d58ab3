import math

import msgspec
import numpy as np
import pytest

from grapevine.netem import AnyDevices
from grapevine.netem.devices.varying import PausingDevices, StragglingDevices, ThrottlingDevices, TraceDevices

S = 1_000_000_000


def test_stragglers_keep_their_mean_and_spread():
    device = StragglingDevices(speed="1000 samples/s", spread=0.4, overhead="10 ms").plan(1, seed=1)[0]
    steps = np.array([device.step_ns(10, step=step) for step in range(5000)])
    assert steps.mean() == pytest.approx(20_000_000, rel=0.02)
    assert np.log(steps).std() == pytest.approx(0.4, rel=0.05)
    assert device.step_ns(10) == 20_000_000


def test_each_peer_and_step_has_its_own_reproducible_factor():
    devices = StragglingDevices(speed="1000 samples/s")
    luck = {(peer, step): devices.plan(4, seed=2)[peer].step_ns(10, 0, step) for peer in range(4) for step in range(4)}
    assert len(set(luck.values())) == 16
    assert luck[3, 1] == devices.plan(9, seed=2)[3].step_ns(10, 5 * S, 1)
    assert luck[3, 1] != devices.plan(9, seed=3)[3].step_ns(10, 0, 1)


def test_nothing_is_computed_in_a_pause():
    device = PausingDevices(speed="100 samples/s", every="10 s", length="1 s", together=True).plan(2)[1]
    assert device.step_ns(100, S, 0) == S
    assert device.step_ns(100, 17 * S // 2, 0) == 2 * S
    assert device.step_ns(100, 19 * S // 2, 0) == 3 * S // 2
    assert device.step_ns(90) == S
    devices = PausingDevices(speed="100 samples/s").plan(5, seed=1)
    assert len({device.step_ns(100 * 30, 1, 0) for device in devices}) > 1


def test_heat_slows_down_to_the_share_that_is_left():
    device = ThrottlingDevices(speed="1000 samples/s", down_to=0.5, within="100 s").plan(1)[0]
    assert device.step_ns(1, 1, 0) == pytest.approx(1e6, rel=0.04)
    share = 0.5 + 0.5 * math.exp(-1)
    assert device.step_ns(1, 100 * S, 0) == pytest.approx(1e6 / share, rel=0.04)
    assert device.step_ns(1, 10_000 * S, 0) == 2_000_000


def test_a_recorded_speed_is_integrated_over_the_step(tmp_path):
    (tmp_path / "speed.csv").write_text("time [s],speed [samples/s]\n0,100\n1,0\n2,50\n")
    device = TraceDevices(path=str(tmp_path / "speed.csv"), scatter=False, overhead="250 ms").plan(1)[0]
    # From 0.75 s on: 25 samples until 1 s, none until 2 s, 50 until 3 s, and the last 25 in the next pass.
    assert device.step_ns(100, S // 2, 0) == S // 4 + S // 4 + S + S + S // 4
    assert device.step_ns(50) == S // 4 + S
    scattered = TraceDevices(path=str(tmp_path / "speed.csv")).plan(6, seed=1)
    assert len({each.step_ns(10, 1, 0) for each in scattered}) > 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header"),
        ("time [s],speed [samples/s]\n", "no row has a speed"),
        ("time [s],speed [samples/s]\n0,0\n", "no row has a speed"),
        ("time [s],speed [samples/s]\n1,5\n", "row 2"),
        ("time [s],speed [samples/s]\n0,x\n", "row 2: '0,x'"),
        ("time [s],speed [samples/s]\n0,5\ninf,5\n", "row 3: expected times"),
        ("time [s],speed [samples/s]\n0,1e308\n", "row 2: expected times"),
        ("time [s],speed [samples/s]\n0,1e-300\n", "row 2: expected times"),
        (f"time [s],speed [samples/s]\n0,{'1' * 200_000}\n", "is not a table: field larger"),
    ],
)
def test_a_bad_record_is_refused(tmp_path, text, message):
    (tmp_path / "speed.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        TraceDevices(path=str(tmp_path / "speed.csv")).plan(1)
    assert str(caught.value).startswith("path: ")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "straggling", "speed": "1 samples/s", "spread": 0.0}, "Expected `float` > 0"),
        ({"name": "pausing", "speed": "1 samples/s", "length": "10 s"}, "length: pauses of 10 s every 10 s"),
        ({"name": "throttling", "speed": "1 samples/s", "within": "0 s"}, "within: 0 s is too short"),
        ({"name": "throttling", "speed": "fast"}, "speed: 'fast'"),
        ({"name": "trace"}, "missing required field `path`"),
    ],
)
def test_bad_options_are_refused_when_read(table, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(table, AnyDevices)
