import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grapevine.netem.links.link import Link
from grapevine.netem.shaping.shaper import Shaper

SECOND_NS = 10**9


def drain(shaper, now_ns=0):
    """Everything queued, released each time at the moment that the shaper names."""
    released = []
    while (next_ns := shaper.next_ns()) is not None:
        now_ns = max(now_ns, next_ns)
        batch = shaper.release(now_ns)
        assert batch, "nothing came at the moment named"
        released += batch
    return released


def test_unshaped_links_release_at_once_in_the_order_offered():
    shaper = Shaper({1: Link(), 2: Link(delay_ns=7)})
    for item, target in enumerate([1, 2, 1]):
        shaper.offer(target, item, 10**9, now_ns=5)
    assert shaper.next_ns() == 5
    assert shaper.backlog_bytes(1) == 2 * 10**9
    assert shaper.release(5) == [(1, 0, (5, 5, 5)), (2, 1, (5, 5, 12)), (1, 2, (5, 5, 5))]
    assert shaper.release(5) == []
    assert shaper.next_ns() is None
    assert shaper.backlog_bytes(1) == 0


def test_chunks_leave_when_they_begin_within_the_lookahead():
    shaper = Shaper({1: Link(1e6)}, lookahead_ns=2_000_000)
    for item in range(5):
        shaper.offer(1, item, 1000, now_ns=0)  # 1 ms each
    assert [item for _, item, _ in shaper.release(0)] == [0, 1, 2]
    assert shaper.next_ns() == 1_000_000
    assert shaper.release(999_999) == []
    assert [(item, transit.start_ns) for _, item, transit in shaper.release(1_000_000)] == [(3, 3_000_000)]
    assert shaper.backlog_bytes(1) == 1000


def test_late_releases_do_not_slow_a_link():
    def stamps(times_ns):
        shaper = Shaper({1: Link(1e6, 10), 2: Link(2e6, 20), 3: Link()}, lookahead_ns=0)
        for item in range(300):
            shaper.offer(1 + item % 3, item, 1000 + item, now_ns=0)
        return sorted(chunk for now_ns in times_ns for chunk in shaper.release(now_ns))

    prompt = stamps(range(0, SECOND_NS, 100_000))
    assert len(prompt) == 300
    assert stamps([SECOND_NS]) == prompt
    assert stamps([0, 37_000_000, SECOND_NS]) == prompt


@settings(deadline=None, max_examples=100)
@given(
    offers=st.lists(st.tuples(st.integers(0, 5_000_000), st.integers(0, 2), st.integers(1, 5000)), max_size=40),
    pauses=st.lists(st.integers(1, 50_000_000), min_size=1, max_size=20),
)
def test_a_link_alone_gets_the_same_stamps_from_any_caller(offers, pauses):
    def stamps(shaper, wakes_ns):
        released, now_ns = [], 0
        for wait_ns, target, size_bytes in offers:
            now_ns += wait_ns
            while wakes_ns and wakes_ns[0] <= now_ns:
                released += shaper.release(wakes_ns.pop(0))
            shaper.offer(target, len(released), size_bytes, now_ns)
        return sorted((target, transit) for target, _, transit in released + drain(shaper, now_ns))

    def shaper():
        return Shaper({0: Link(1e6, 5), 1: Link(1e5, 7), 2: Link(delay_ns=9)}, lookahead_ns=1_000_000)

    assert stamps(shaper(), list(itertools.accumulate(pauses))) == stamps(shaper(), [])


@pytest.mark.parametrize("lookahead_ns", [0, 10_000_000])
def test_urgent_goes_past_data_also_past_what_was_released_ahead_of_its_time(lookahead_ns):
    """Else an answer would come later by as much as data were released early, and the sender would think its link fuller."""
    shaper = Shaper({1: Link(1e6, delay_ns=25_000_000)}, lookahead_ns)
    for item in range(30):
        shaper.offer(1, item, 1000, now_ns=0)
    begun = shaper.release(0)
    assert len(begun) > 1 or not lookahead_ns
    shaper.offer(1, "acknowledgement", 50, now_ns=1, urgent=True)
    (_, item, transit), *rest = drain(shaper, 1)
    feed_ns = 50 / 1e6 * SECOND_NS
    assert (item, transit.due_ns) == ("acknowledgement", 1 + feed_ns + 25_000_000)
    assert [item for _, item, _ in rest] == list(range(len(begun), 30))


def test_the_link_makes_up_for_urgent_bytes_with_the_next_data():
    shaper = Shaper({1: Link(1e6)}, lookahead_ns=0)
    for item in range(4):
        shaper.offer(1, item, 1000, now_ns=0)
    shaper.release(0)
    for _ in range(3):
        shaper.offer(1, "acknowledgement", 50, now_ns=1, urgent=True)
    last = drain(shaper, 1)[-1]
    assert last[2].finish_ns == pytest.approx((4000 + 3 * 50) / 1e6 * SECOND_NS, abs=2)


def test_urgent_bytes_over_an_idle_link_are_not_made_up_for_later():
    shaper = Shaper({1: Link(1e6)}, lookahead_ns=0)
    for turn in range(100):
        shaper.offer(1, "acknowledgement", 50, turn * SECOND_NS, urgent=True)
        shaper.release(turn * SECOND_NS)
    shaper.offer(1, "data", 1000, 100 * SECOND_NS)
    ((_, _, transit),) = shaper.release(100 * SECOND_NS)
    assert transit.finish_ns - transit.start_ns <= 1_050_000


@pytest.mark.parametrize("rate", [1e6, math.inf])
def test_drop_forgets_one_neighbour_only(rate):
    shaper = Shaper({1: Link(rate), 2: Link(rate)})
    for target in (1, 2, 1):
        shaper.offer(target, target, 100, now_ns=0)
    shaper.offer(1, 1, 30, now_ns=0, urgent=True)
    assert shaper.drop(1) == 230
    assert shaper.backlog_bytes(1) == 0
    assert [target for target, *_ in drain(shaper)] == [2]
    assert shaper.drop(1) == 0


def test_what_is_offered_or_dropped_changes_the_next_moment():
    shaper = Shaper({1: Link(1e5), 2: Link(1e5)}, lookahead_ns=0)
    for target in (2, 1, 1, 1, 1):
        shaper.offer(target, None, 1000, now_ns=0)  # 10 ms each
    shaper.release(0)
    shaper.release(20_000_000)
    far_ns = shaper.next_ns()
    shaper.offer(2, None, 1000, now_ns=20_000_001)
    assert shaper.next_ns() == 20_000_001 < far_ns
    shaper.drop(2)
    assert shaper.next_ns() == far_ns
    shaper.offer(2, None, 1000, now_ns=20_000_001)
    shaper.next_ns()
    shaper.drop(1)
    assert [target for target, *_ in shaper.release(20_000_001)] == [2]
    shaper.drop(2)
    assert shaper.next_ns() is None


RATES = st.sampled_from([1e5, 1e6, 1e8, math.inf])
CHUNK = st.tuples(st.integers(0, 2), st.integers(1, 20_000), st.booleans())
STEP = st.one_of(
    st.tuples(st.just("offer"), CHUNK),
    st.tuples(st.just("wait"), st.integers(0, 30_000_000)),
    st.tuples(st.just("release"), st.none()),
)


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(steps=st.lists(STEP, max_size=60), rates=st.tuples(RATES, RATES, RATES), data=st.data())
def test_every_chunk_is_released_once_in_its_links_order(steps, rates, data):
    lookahead_ns = data.draw(st.sampled_from([0, 10_000_000]))
    shaper = Shaper({target: Link(rate) for target, rate in enumerate(rates)}, lookahead_ns)
    now_ns, offered, released, sizes = 0, [], [], {}
    for item, (what, argument) in enumerate(steps):
        if what == "wait":
            now_ns += argument
        elif what == "release":
            batch = shaper.release(now_ns)
            starts_ns = [transit.start_ns for *_, transit in batch]
            assert starts_ns == sorted(starts_ns)
            assert all(start_ns <= now_ns + lookahead_ns for start_ns in starts_ns)
            assert (next_ns := shaper.next_ns()) is None or next_ns > now_ns
            released += batch
        else:
            target, sizes[item], urgent = argument
            shaper.offer(target, item, sizes[item], now_ns, urgent=urgent)
            offered.append((target, item, urgent, now_ns))
        held_bytes = sum(sizes.values()) - sum(sizes[item] for _, item, _ in released)
        assert sum(map(shaper.backlog_bytes, range(3))) == held_bytes
    released += drain(shaper, now_ns)
    assert sorted(item for _, item, _ in released) == [item for _, item, *_ in offered]
    stamps = {item: transit for _, item, transit in released}
    assert all(stamps[item].start_ns >= offered_ns for _, item, _, offered_ns in offered)
    kinds = {item: urgent for _, item, urgent, _ in offered}
    for target, urgent in itertools.product(range(3), [False, True]):
        order = [item for to, item, _ in released if to == target and kinds[item] == urgent]
        assert order == sorted(order)
    for target in range(3):
        due_ns = [transit.due_ns for to, item, transit in released if to == target and not kinds[item]]
        assert due_ns == sorted(due_ns)


@settings(deadline=None, max_examples=100)
@given(chunks=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 20_000)), min_size=1, max_size=60))
def test_no_link_is_ever_faster_than_its_rate(chunks):
    rates = [1e5, 1e6, math.inf]
    shaper = Shaper({target: Link(rate) for target, rate in enumerate(rates)})
    for target, size_bytes in chunks:
        shaper.offer(target, size_bytes, size_bytes, now_ns=0)
    released = drain(shaper)
    for target, rate in enumerate(rates):
        mine = [transit.finish_ns for to, _, transit in released if to == target]
        size_bytes = sum(size for to, size in chunks if to == target)
        assert not mine or max(mine) >= size_bytes / rate * SECOND_NS - 1


def test_no_negative_lookahead():
    with pytest.raises(ValueError, match="lookahead"):
        Shaper({}, lookahead_ns=-1)
