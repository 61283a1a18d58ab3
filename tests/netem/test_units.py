import math

import pytest

from grapevine.netem.units import duration_ns, rate_bytes_per_s, show_bytes, show_duration, show_rate, speed_samples_per_s


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("80 ms", 80_000_000),
        ("80ms", 80_000_000),
        (" 1.5 s ", 1_500_000_000),
        ("0 s", 0),
        ("0.1 ms", 100_000),
        ("250 us", 250_000),
        ("250 µs", 250_000),
        ("7 ns", 7),
        ("2 min", 120_000_000_000),
        (".5 h", 1_800_000_000_000),
        ("1e-3 s", 1_000_000),
        ("+3 s", 3_000_000_000),
    ],
)
def test_durations(text, expected_ns):
    assert duration_ns(text) == expected_ns
    assert isinstance(duration_ns(text), int)


@pytest.mark.parametrize(
    ("text", "expected_bytes_per_s"),
    [
        ("20 Mbit/s", 2.5e6),
        ("8 bit/s", 1.0),
        ("8 kbit/s", 1e3),
        ("1 Gbit/s", 1.25e8),
        ("3 B/s", 3.0),
        ("3 kB/s", 3e3),
        ("2.5MB/s", 2.5e6),
        ("1 GB/s", 1e9),
        ("unlimited", math.inf),
    ],
)
def test_rates(text, expected_bytes_per_s):
    assert rate_bytes_per_s(text) == expected_bytes_per_s


def test_speeds():
    assert speed_samples_per_s("2000 samples/s") == 2000.0


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *[(duration_ns, text) for text in ["80", "ms", "", "80 msec", "80 MS", "-1 ms", "1 2 s", "nan s", "inf s"]],
        *[(duration_ns, text) for text in ["80 Mbit/s", "1e30 s", "1e999 s", "1_000 ms", "٣ s", "80 ms 3"]],
        *[(rate_bytes_per_s, text) for text in ["20", "20 Mbps", "20 mbit/s", "0 Mbit/s", "-3 B/s", "3 s", "1e999 B/s"]],
        *[(speed_samples_per_s, text) for text in ["2000", "2000 Hz", "0 samples/s", "samples/s"]],
        *[(parse, 20) for parse in (duration_ns, rate_bytes_per_s, speed_samples_per_s)],
        (duration_ns, None),
    ],
)
def test_bad_text_names_itself_and_an_example(parse, text):
    with pytest.raises(ValueError, match="for example") as caught:
        parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("parse", "text", "meant"),
    [
        (rate_bytes_per_s, "2 Mbps", "Mbit/s"), (rate_bytes_per_s, "2 mbps", "Mbit/s"), (rate_bytes_per_s, "2 Mb/s", "Mbit/s"),
        (rate_bytes_per_s, "2 MBps", "MB/s"), (rate_bytes_per_s, "2 kbits/s", "kbit/s"), (rate_bytes_per_s, "2 GB/sec", "GB/s"),
        (rate_bytes_per_s, "2 bps", "bit/s"), (duration_ns, "20 sec", "s"), (duration_ns, "20 msec", "ms"),
        (duration_ns, "3 MS", "ms"), (duration_ns, "2 hours", "h"), (speed_samples_per_s, "20 sample/s", "samples/s"),
    ],
)  # fmt: skip
def test_units_as_people_write_them_are_refused_with_the_one_that_was_meant(parse, text, meant):
    with pytest.raises(ValueError, match=rf"unknown unit .*; did you mean {meant}\? .*expected a number and a unit"):
        parse(text)


def test_an_unrecognisable_unit_has_no_suggestion():
    with pytest.raises(ValueError, match=r"unknown unit 'furlongs'; expected a number"):
        duration_ns("3 furlongs")


def test_an_unknown_unit_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown unit 'mbit/s'.*Mbit/s"):
        rate_bytes_per_s("20 mbit/s")


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (show_duration(80_000_000), "80 ms"),
        (show_duration(1_500_000_000), "1.5 s"),
        (show_duration(250_000), "250 us"),
        (show_duration(7), "7 ns"),
        (show_duration(0), "0 s"),
        (show_duration(12345e9), "12345 s"),
        (show_rate(2.5e6), "20 Mbit/s"),
        (show_rate(1.25e9), "10 Gbit/s"),
        (show_rate(1.0), "8 bit/s"),
        (show_rate(558_640.3), "4.469 Mbit/s"),
        (show_rate(math.inf), "unlimited"),
        (show_bytes(1_400_000), "1.4 MB"),
        (show_bytes(999), "999 B"),
        (show_bytes(2.5e9), "2.5 GB"),
    ],
)
def test_values_are_shown_with_four_digits_and_a_unit(shown, expected):
    assert shown == expected


@pytest.mark.parametrize("duration", [1, 999, 80_000_000, 1_500_000_000, 3_600_000_000_000])
def test_a_shown_duration_reads_back(duration):
    assert duration_ns(show_duration(duration)) == pytest.approx(duration, rel=1e-3)


@pytest.mark.parametrize("rate", [1.0, 1e3, 2.5e6, 1.25e9, math.inf])
def test_a_shown_rate_reads_back(rate):
    assert rate_bytes_per_s(show_rate(rate)) == pytest.approx(rate, rel=1e-3)
