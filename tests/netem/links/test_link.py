import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grapevine.netem.links.link import Link, Transit
from grapevine.netem.links.losses import Doubles

SIZES = st.lists(st.integers(0, 100_000), min_size=1, max_size=40)


def test_one_chunk_takes_size_over_rate_and_the_delay():
    link = Link(rate_bytes_per_s=1e6, delay_ns=40_000_000)
    assert link.send(5_000_000, 2000) == Transit(5_000_000, 7_000_000, 47_000_000)
    assert link.free_ns == 7_000_000


def test_a_second_chunk_waits_for_the_first_and_an_idle_line_does_not_save_up():
    link = Link(rate_bytes_per_s=1e6)
    link.send(0, 1000)
    assert link.send(0, 1000) == Transit(1_000_000, 2_000_000, 2_000_000)
    assert link.send(9_000_000, 1000) == Transit(9_000_000, 10_000_000, 10_000_000)


def test_without_a_rate_only_the_delay_counts():
    link = Link(delay_ns=3)
    assert [link.send(10, 10**9), link.send(10, 1)] == [Transit(10, 10, 13)] * 2
    assert link.rate_bytes_per_s == math.inf


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(sizes=SIZES, rate=st.integers(1, 10**9))
def test_goodput_is_exact_however_the_bytes_are_cut(sizes, rate):
    link = Link(rate_bytes_per_s=rate)
    for size in sizes:
        finish_ns = link.send(0, size).finish_ns
    exact_ns = Fraction(sum(sizes) * 10**9, rate)
    assert abs(finish_ns - exact_ns) < 1 + float(exact_ns) * 1e-12


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(
    chunks=st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 10**6), st.booleans(), st.booleans()), max_size=40),
    rate=st.sampled_from([1e4, 1e6, 3e9, math.inf]),
    delay_ns=st.integers(0, 10**8),
    jitter_ns=st.integers(0, 10**8),
)
def test_first_in_first_out_and_jitter_within_its_bounds(chunks, rate, delay_ns, jitter_ns):
    link = Link(rate, delay_ns, jitter_ns, np.random.default_rng(1))
    now_ns, before = 0, Transit(0, 0, 0)
    for wait_ns, size_bytes, first, urgent in chunks:
        now_ns += wait_ns
        transit = link.send(now_ns, size_bytes, first, urgent)
        assert all(isinstance(stamp, int) for stamp in transit)
        assert transit.start_ns == max(now_ns, before.finish_ns)
        assert transit.finish_ns >= transit.start_ns
        assert transit.due_ns >= before.due_ns
        earliest_ns = max(transit.finish_ns, transit.finish_ns + delay_ns - jitter_ns)
        assert earliest_ns <= transit.due_ns <= transit.finish_ns + delay_ns + jitter_ns
        before = transit


def test_jitter_is_uniform_over_both_sides_and_drawn_once_a_message():
    link = Link(delay_ns=1000, jitter_ns=100, rng=np.random.default_rng(2))
    late = [link.send(now, 1).due_ns - now - 1000 for now in range(0, 20_000 * 10_000, 10_000)]
    assert min(late) == -100
    assert max(late) == 100
    assert np.mean(late) == pytest.approx(0, abs=2)
    assert np.var(late) == pytest.approx((201**2 - 1) / 12, rel=0.03)  # discrete uniform over 201 values


def test_the_chunks_of_a_message_share_its_jitter_even_around_an_urgent_one():
    link = Link(delay_ns=10**6, jitter_ns=10**5, rng=np.random.default_rng(3))

    def lateness_ns(now_ns, **which):
        return link.send(now_ns, 1, **which).due_ns - now_ns

    opening = lateness_ns(0, first=True)
    acknowledgement = lateness_ns(10**7, first=True, urgent=True)
    assert acknowledgement != opening
    assert lateness_ns(2 * 10**7, first=False) == opening
    assert lateness_ns(3 * 10**7, first=True) != opening


def test_a_link_held_up_by_a_shared_segment_is_free_when_its_bytes_have_left():
    link = Link(rate_bytes_per_s=1e9, delay_ns=7)
    assert link.pace(0, 1000) == (0, 1e9, None)
    assert link.arrive(5000) == 5007
    assert link.send(0, 1000) == Transit(5000, 6000, 6007)


def test_packets_that_go_twice_take_their_time_however_the_bytes_are_cut():
    def link():
        line = Link(rate_bytes_per_s=1e6)
        line.double(Doubles(0.25, np.random.default_rng(3)))
        return line

    whole, cut = link(), link()
    finish_ns = [cut.send(0, size).finish_ns for size in [700] * 10_000][-1]
    assert whole.send(0, 7_000_000).finish_ns == finish_ns
    assert finish_ns == pytest.approx(8.75e9, rel=0.02)


def test_messages_overtake_each_other_only_where_it_is_asked_for():
    def due_ns(reorders):
        link = Link(delay_ns=50_000_000, jitter_ns=40_000_000, rng=np.random.default_rng(2))
        link.reorders = reorders
        return [[link.send(now_ns, 10, first).due_ns for first in (True, False)] for now_ns in range(0, 10**9, 10**7)]

    kept, mixed = due_ns(False), due_ns(True)
    assert kept == sorted(kept)
    assert mixed != sorted(mixed)
    assert all(one <= two for one, two in mixed)  # within a message nothing does
    assert all(10_000_000 <= one - place * 10**7 <= 90_000_000 for place, (one, _) in enumerate(mixed))


@pytest.mark.parametrize(
    "bad",
    [
        {"rate_bytes_per_s": 0},
        {"rate_bytes_per_s": -1.0},
        {"rate_bytes_per_s": math.nan},
        {"delay_ns": -1},
        {"jitter_ns": -1},
        {"jitter_ns": 1},
    ],
)
def test_a_bad_link_is_refused(bad):
    with pytest.raises(ValueError, match="link"):
        Link(**bad)
