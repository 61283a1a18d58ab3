import msgspec
import pytest

from grapevine.netem import AnyDevices, HostDevices, MixedDevices, UniformDevices


def test_the_host_takes_no_emulated_time():
    assert [device.step_ns(32) for device in HostDevices().plan(3)] == [0, 0, 0]


def test_a_step_takes_the_overhead_and_a_time_for_each_sample():
    devices = UniformDevices(speed="2000 samples/s", overhead="3 ms").plan(2)
    assert [device.step_ns(32) for device in devices] == [19_000_000, 19_000_000]
    assert devices[0].step_ns(0) == 3_000_000


def test_mixed_speeds_are_cycled_over_the_peers():
    devices = MixedDevices(speeds=("1000 samples/s", "250 samples/s"), overhead="1 ms").plan(5)
    assert [device.step_ns(10) // 1_000_000 for device in devices] == [11, 41, 11, 41, 11]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "uniform"}, "missing required field `speed`"),
        ({"name": "uniform", "speed": "fast"}, "speed: 'fast' is not a speed.*'2000 samples/s'"),
        ({"name": "uniform", "speed": 2000}, "Expected `str`"),
        ({"name": "uniform", "speed": "1 samples/s", "overhead": "2"}, "overhead: '2' is not a duration"),
        ({"name": "mixed", "speeds": []}, "length >= 1"),
        ({"name": "mixed", "speeds": ["1 samples/s", "0 samples/s"]}, "speeds: '0 samples/s'"),
        ({"name": "host", "speed": "1 samples/s"}, "unknown field `speed`"),
    ],
)
def test_bad_options_are_refused_when_read(table, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(table, AnyDevices)


def test_an_empty_list_of_speeds_is_refused_from_python_too():
    with pytest.raises(ValueError, match="speeds"):
        MixedDevices(speeds=())
