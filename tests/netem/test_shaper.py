import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netem.link import Link
from netem.shaper import Downlink, Shaper

MBIT = 1e6 / 8
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


def backlogged_rates(links, uplink, chunks, seconds=20):
    """Bytes/s of each link over all but the first second when every link always has something to send."""
    shaper = Shaper(links, uplink)
    sent = dict.fromkeys(links, 0)
    now_ns = 0
    while now_ns < seconds * SECOND_NS:
        for target, size_bytes in chunks.items():
            while shaper.backlog_bytes(target) < 40 * size_bytes:
                shaper.offer(target, size_bytes, size_bytes, now_ns)
        now_ns = max(now_ns, shaper.next_ns())
        for target, size_bytes, transit in shaper.release(now_ns):
            if SECOND_NS < transit.finish_ns <= seconds * SECOND_NS:
                sent[target] += size_bytes
    return {target: size / (seconds - 1) for target, size in sent.items()}


def max_min_shares(caps, uplink):
    """Progressive filling: the slowest link takes its cap or an equal share, the rest share what it leaves."""
    shares, left = {}, uplink
    for count, target in enumerate(sorted(caps, key=caps.get)):
        shares[target] = min(caps[target], left / (len(caps) - count))
        left -= shares[target]
    return shares


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


@pytest.mark.parametrize("uplink", [math.inf, 3e6])
def test_late_releases_do_not_slow_a_link(uplink):
    def stamps(times_ns):
        shaper = Shaper({1: Link(1e6, 10), 2: Link(2e6, 20), 3: Link()}, uplink, lookahead_ns=0)
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


@pytest.mark.parametrize("count", [2, 3, 8])
def test_backlogged_equal_links_share_the_uplink_equally_within_one_chunk(count):
    shaper = Shaper({target: Link(delay_ns=target) for target in range(count)}, uplink_bytes_per_s=1e6)
    for target in range(count):  # offered one link after the other: sharing is not the order of offers
        for _ in range(50):
            shaper.offer(target, None, 1000, now_ns=0)
    served = dict.fromkeys(range(count), 0)
    for position, (target, _, transit) in enumerate(drain(shaper), start=1):
        served[target] += 1
        assert transit.finish_ns == position * 1_000_000  # the uplink is never idle and never faster
        assert max(served.values()) - min(served.values()) <= 1
    assert set(served.values()) == {50}


def test_equal_links_share_in_bytes_although_their_chunks_differ():
    rates = backlogged_rates({1: Link(100 * MBIT), 2: Link(20 * MBIT)}, 30 * MBIT, {1: 25_000, 2: 5_000})
    assert rates[1] == pytest.approx(15 * MBIT, rel=0.005)
    assert rates[2] == pytest.approx(15 * MBIT, rel=0.005)


@pytest.mark.parametrize(
    ("caps", "uplink", "chunks"),
    [
        ([10, 100], 30, [2_500, 25_000]),
        ([10, 100], 30, [25_000, 2_500]),
        ([5, math.inf], 100, [1_400, 50_000]),
        ([1, 100, 100, 100, 100], 20, [1_400, 25_000, 25_000, 25_000, 25_000]),
        ([1, 2, 3, 4, 5, 6, 7, 8], 20, [4_096] * 8),
        ([9.5, 10.5, 30], 40, [2_000, 2_000, 8_000]),
        ([10, 10], 40, [2_500, 2_500]),
    ],
)
def test_capped_and_fast_links_get_their_max_min_shares(caps, uplink, chunks):
    links = {target: Link(cap * MBIT) for target, cap in enumerate(caps)}
    rates = backlogged_rates(links, uplink * MBIT, dict(enumerate(chunks)))
    for target, share in max_min_shares(dict(enumerate(caps)), uplink).items():
        assert rates[target] == pytest.approx(share * MBIT, rel=0.02)


def test_a_chunk_is_cut_through_and_takes_the_slower_of_uplink_and_link():
    shaper = Shaper({1: Link(1e6), 2: Link(1e9)}, uplink_bytes_per_s=1e7)
    shaper.offer(1, "slow link", 1000, now_ns=0)
    shaper.offer(2, "fast link", 1000, now_ns=0)
    stamps = {item: tuple(transit) for _, item, transit in drain(shaper)}
    assert stamps == {"slow link": (0, 1_000_000, 1_000_000), "fast link": (100_000, 200_000, 200_000)}


@pytest.mark.parametrize("lookahead_ns", [0, 10_000_000])
@pytest.mark.parametrize("uplink", [math.inf, 5e5])
def test_urgent_goes_past_data_also_past_what_was_released_ahead_of_its_time(uplink, lookahead_ns):
    """Else an answer would come later by as much as data were released early, and the sender would think its link fuller."""
    shaper = Shaper({1: Link(1e6, delay_ns=25_000_000)}, uplink, lookahead_ns)
    for item in range(30):
        shaper.offer(1, item, 1000, now_ns=0)
    begun = shaper.release(0)
    assert len(begun) > 1 or not lookahead_ns
    shaper.offer(1, "acknowledgement", 50, now_ns=1, urgent=True)
    (_, item, transit), *rest = drain(shaper, 1)
    feed_ns = 50 / min(uplink, 1e6) * SECOND_NS
    assert (item, transit.due_ns) == ("acknowledgement", 1 + feed_ns + 25_000_000)
    assert [item for _, item, _ in rest] == list(range(len(begun), 30))


@pytest.mark.parametrize("uplink", [math.inf, 5e5])
def test_the_link_makes_up_for_urgent_bytes_with_the_next_data(uplink):
    shaper = Shaper({1: Link(1e6)}, uplink, lookahead_ns=0)
    for item in range(4):
        shaper.offer(1, item, 1000, now_ns=0)
    shaper.release(0)
    for _ in range(3):
        shaper.offer(1, "acknowledgement", 50, now_ns=1, urgent=True)
    last = drain(shaper, 1)[-1]
    assert last[2].finish_ns == pytest.approx((4000 + 3 * 50) / min(uplink, 1e6) * SECOND_NS, abs=2)


def test_urgent_bytes_over_an_idle_link_are_not_made_up_for_later():
    shaper = Shaper({1: Link(1e6)}, lookahead_ns=0)
    for turn in range(100):
        shaper.offer(1, "acknowledgement", 50, turn * SECOND_NS, urgent=True)
        shaper.release(turn * SECOND_NS)
    shaper.offer(1, "data", 1000, 100 * SECOND_NS)
    ((_, _, transit),) = shaper.release(100 * SECOND_NS)
    assert transit.finish_ns - transit.start_ns <= 1_050_000


@pytest.mark.parametrize("rate", [1e6, math.inf])
@pytest.mark.parametrize("uplink", [math.inf, 1e6])
def test_drop_forgets_one_neighbour_only(rate, uplink):
    shaper = Shaper({1: Link(rate), 2: Link(rate)}, uplink)
    for target in (1, 2, 1):
        shaper.offer(target, target, 100, now_ns=0)
    shaper.offer(1, 1, 30, now_ns=0, urgent=True)
    assert shaper.drop(1) == 230
    assert shaper.backlog_bytes(1) == 0
    assert [target for target, *_ in drain(shaper)] == [2]
    assert shaper.drop(1) == 0


@pytest.mark.parametrize("uplink", [math.inf, 1e9])
def test_what_is_offered_or_dropped_changes_the_next_moment(uplink):
    shaper = Shaper({1: Link(1e5), 2: Link(1e5)}, uplink, lookahead_ns=0)
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


def test_a_longer_chunk_lets_links_begin_earlier():
    shaper = Shaper({1: Link(1e5), 2: Link(1e5)}, uplink_bytes_per_s=1e6, lookahead_ns=0)
    for target in (1, 2) * 5:
        shaper.offer(target, None, 1000, now_ns=0)
    while (before_ns := shaper.next_ns()) < 5_000_000:
        shaper.release(before_ns)
    shaper.offer(2, None, 10_000, now_ns=0)  # holds the uplink for 10 ms: the other may stock up for so long
    assert shaper.next_ns() < before_ns


RATES = st.sampled_from([1e5, 1e6, 1e8, math.inf])
CHUNK = st.tuples(st.integers(0, 2), st.integers(1, 20_000), st.booleans())
STEP = st.one_of(
    st.tuples(st.just("offer"), CHUNK),
    st.tuples(st.just("wait"), st.integers(0, 30_000_000)),
    st.tuples(st.just("release"), st.none()),
)


@settings(deadline=None, max_examples=200)
@given(steps=st.lists(STEP, max_size=60), rates=st.tuples(RATES, RATES, RATES), uplink=RATES, data=st.data())
def test_every_chunk_is_released_once_in_its_links_order(steps, rates, uplink, data):
    lookahead_ns = data.draw(st.sampled_from([0, 10_000_000]))
    shaper = Shaper({target: Link(rate) for target, rate in enumerate(rates)}, uplink, lookahead_ns)
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
def test_neither_uplink_nor_link_is_ever_faster_than_its_rate(chunks):
    rates, uplink = [1e5, 1e6, math.inf], 5e5
    shaper = Shaper({target: Link(rate) for target, rate in enumerate(rates)}, uplink)
    for target, size_bytes in chunks:
        shaper.offer(target, size_bytes, size_bytes, now_ns=0)
    released = drain(shaper)
    finish_ns = max(transit.finish_ns for *_, transit in released)
    assert finish_ns >= sum(size for _, size in chunks) / uplink * SECOND_NS - 1
    for target, rate in enumerate(rates):
        mine = [transit.finish_ns for to, _, transit in released if to == target]
        size_bytes = sum(size for to, size in chunks if to == target)
        assert not mine or max(mine) >= size_bytes / rate * SECOND_NS - 1


def test_a_downlink_above_its_rate_leaves_at_exactly_that_rate():
    downlink = Downlink(3e6)
    arrivals_ns = [downlink.receive(due_ns=1_000_000 * (i // 4), size_bytes=1000 + i) for i in range(400)]
    assert arrivals_ns == sorted(arrivals_ns)
    # The first chunk had all the time before it was due; from then on the line is never idle.
    assert arrivals_ns[-1] == math.ceil(sum(1000 + i for i in range(1, 400)) / 3e6 * SECOND_NS)


@pytest.mark.parametrize("rate", [1e6, math.inf])
def test_a_lone_flow_at_or_below_the_downlinks_rate_is_not_delayed(rate):
    downlink, link = Downlink(rate), Link(1e6, delay_ns=5)
    due_ns = [link.send(0, size_bytes).due_ns for size_bytes in range(1, 2000, 7)]
    assert [downlink.receive(due, size) for due, size in zip(due_ns, range(1, 2000, 7), strict=True)] == due_ns


@settings(deadline=None, max_examples=100)
@given(
    chunks=st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 50_000)), max_size=40),
    rate=st.floats(1e3, 1e9),
)
def test_a_downlink_is_never_early_and_keeps_the_order(chunks, rate):
    downlink, before_ns, due_ns = Downlink(rate), -math.inf, 0
    for wait_ns, size_bytes in chunks:
        due_ns += wait_ns
        in_ns = downlink.receive(due_ns, size_bytes)
        assert in_ns >= due_ns
        assert in_ns >= before_ns + size_bytes / rate * SECOND_NS - 1
        before_ns = in_ns


@pytest.mark.parametrize("rate", [0, -1.0, math.nan])
def test_no_access_line_without_a_rate(rate):
    with pytest.raises(ValueError, match="uplink"):
        Shaper({}, rate)
    with pytest.raises(ValueError, match="downlink"):
        Downlink(rate)


def test_no_negative_lookahead():
    with pytest.raises(ValueError, match="lookahead"):
        Shaper({}, lookahead_ns=-1)
