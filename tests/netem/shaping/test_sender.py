"""One link's sender: what goes past the queue is made up for once, wherever the link is used from."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grapevine.netem.links.link import ChangingLink, Link
from grapevine.netem.links.profile import Profile, Step
from grapevine.netem.shaping.sender import FlowSender, Sender

SECOND_NS = 10**9


class Noting(Link):
    """A link of 1 MB/s that notes the sizes that it is given."""

    def __init__(self) -> None:
        super().__init__(1e6)
        self.sizes: list[int] = []

    def send(self, now_ns, size_bytes, first=True, urgent=False):
        self.sizes.append(size_bytes)
        return super().send(now_ns, size_bytes, first, urgent)


def indebted(link, debt_bytes):
    """A sender whose busy link has carried so many bytes past its queue."""
    sender = Sender(link)
    link.free_ns = 10 * SECOND_NS
    sender.slip(0, debt_bytes)
    return sender


def test_bytes_go_past_a_busy_link_and_arrive_as_over_an_idle_one():
    sender = Sender(Link(1e6, delay_ns=7_000_000))
    sender.carry(0, 50_000)
    assert [sender.slip(at_ns, 1_000) for at_ns in (0, 5)] == [8_000_000, 8_000_005]
    assert sender.debt_bytes == 2_000
    assert sender.slip(60_000_000, 100) == 67_100_000  # by then the link is idle: nothing waited for what went before
    assert sender.debt_bytes == 100


@given(
    debt_bytes=st.integers(0, 5_000),
    first_bytes=st.integers(1, 3_000),
    rest_bytes=st.integers(0, 30_000),
    chunk_bytes=st.integers(50, 4_000),
)
@settings(max_examples=200, deadline=None)
def test_a_message_makes_up_for_all_that_went_past_evenly(debt_bytes, first_bytes, rest_bytes, chunk_bytes):
    whole, cut = Noting(), Noting()
    in_one = indebted(whole, debt_bytes).carry(0, first_bytes, rest_bytes)
    in_chunks = indebted(cut, debt_bytes).carry_chunks(0, first_bytes, rest_bytes, chunk_bytes)
    total_bytes = first_bytes + rest_bytes
    assert sum(whole.sizes) == sum(cut.sizes) == total_bytes + debt_bytes
    assert cut.sizes[0] == whole.sizes[0]
    assert whole.sizes[0] - first_bytes == pytest.approx(debt_bytes * first_bytes / total_bytes, abs=1)
    assert in_one[1] == in_chunks[-1].finish_ns
    chunks = [min(chunk_bytes, rest_bytes - start) for start in range(0, rest_bytes, chunk_bytes)]
    assert len(cut.sizes) == 1 + len(chunks)
    for size_bytes, plain_bytes in zip(cut.sizes[1:], chunks, strict=True):
        assert size_bytes - plain_bytes == pytest.approx(debt_bytes * plain_bytes / total_bytes, abs=2)


def test_bytes_over_an_idle_link_delay_the_next_message_and_do_not_stretch_it():
    sender = Sender(Noting())
    sender.slip(5_000_000, 100)
    first_ns, finish_ns, due_ns = sender.carry(5_000_000, 1_000, 2_000)
    assert (first_ns, finish_ns, due_ns - first_ns) == (6_100_000, 8_100_000, 2_000_000)


@pytest.mark.parametrize(("idle_ns", "left_bytes"), [(0, 100), (40_000, 60), (100_000, 0), (10**9, 0)])
def test_idle_time_pays_for_bytes_that_went_past(idle_ns, left_bytes):
    sent, queued = Noting(), Noting()
    sender = Sender(sent)
    sender.slip(7, 100)
    sender.carry(7 + idle_ns, 1_000)
    waiting = Sender(queued)
    waiting.slip(7, 100)
    waiting.offer(7 + idle_ns, 1_000, None)
    waiting.take(7 + idle_ns)
    assert sent.sizes == queued.sizes == [1_000 + left_bytes]


def test_idle_time_pays_at_the_rate_in_force():
    """100 Mbit/s for 0.1 s, then 1 kbit/s: what overtakes the slow link is paid at 125 bytes a second."""
    profile = Profile([Step(100_000_000, 12_500_000.0), Step(100 * SECOND_NS, 125.0)])
    sender = Sender(ChangingLink(profile))
    for at_ns in range(SECOND_NS, 2 * SECOND_NS, 10_000_000):
        sender.slip(at_ns, 72)
    _, finish_ns, _ = sender.carry(2 * SECOND_NS, 100)
    assert finish_ns == pytest.approx(SECOND_NS + (100 * 72 + 100) / 125 * 1e9, rel=0.01)


def test_the_next_chunk_of_a_queue_makes_up_for_all_of_it_and_the_one_after_it_for_nothing():
    link = Noting()
    sender = Sender(link)
    for item in "ab":
        sender.offer(0, 1_000, item)
    assert sender.offer(0, 60, "answer", urgent=True) == (0, 0, 60_000)
    taken = [sender.take(sender.start_ns()) for _ in range(2)]
    assert link.sizes == [1_060, 1_000]
    assert [item for item, _ in taken] == ["a", "b"]
    assert taken[-1][1].finish_ns == 2_060_000
    assert not sender.busy(2_060_000)


def test_over_an_open_link_everything_goes_at_once_and_nothing_is_owed():
    sender = Sender(Link(math.inf, delay_ns=5))
    assert [sender.offer(3, 10**9, None, urgent=urgent) for urgent in (False, True)] == [(3, 3, 8)] * 2
    assert (sender.debt_bytes, len(sender.queue)) == (0, 0)


def test_a_flow_counts_as_busy_until_its_last_chunk_has_left():
    sender = FlowSender(Link(1e6, delay_ns=1_000))
    for item, first in (("a", True), ("b", False)):
        assert sender.offer(10, 500, item, first) is None
    sender.slip(10, 40)
    assert sender.begin(2) == 1_040
    assert [chunk.size_bytes for chunk in sender.leaving] == [540, 500]
    assert sender.leave(0.0, 99.5, False) == ("a", (10, 100, 1_100))
    assert sender.busy(10**12)
    assert sender.leave(99.5, 200.0, True) == ("b", (100, 200, 1_200))
    assert not sender.busy(0)


def test_what_is_forgotten_is_owed_no_more():
    sender = FlowSender(Link(1e6))
    for size_bytes in (300, 200, 100):
        sender.offer(0, size_bytes, None)
    sender.slip(0, 50)
    sender.begin(1)
    assert sender.forget() == 650
    assert (sender.busy(0), sender.debt_bytes, sender.queued_bytes) == (False, 0, 0)
