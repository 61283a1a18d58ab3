"""Chunks, acknowledgements and what is measured from them, against closed forms; time is given, never slept."""

from __future__ import annotations

import itertools
from math import inf

import numpy as np
import pytest

from grapevine.peer.endpoint import MEASURE_EVERY, OVERTAKEN, Endpoint
from grapevine.peer.meter import CHUNK_FIRST_BYTES, CHUNK_MOST_BYTES, PROBE_BYTES, LinkMeter, SpeedMeter
from grapevine.peer.wire import Chunk, WireError
from tests.helpers import answer, chunks_of, give, pair, parcel_of


def carry(sender: Endpoint, receiver: Endpoint, count: int, rate_bytes_per_s: float, delay_ns: int, start_ns: int = 0) -> int:
    """Send a message over an ideal link and bring the acknowledgement back; returns when the last chunk had left."""
    leaves_ns = float(start_ns)
    for chunk in chunks_of(sender, receiver.peer, count, start_ns):
        leaves_ns += chunk.size_bytes / rate_bytes_per_s * 1e9
        complete = receiver.receive(chunk, round(leaves_ns) + delay_ns)
    assert complete is not None
    sender.acknowledged(*complete[1][:-1], round(leaves_ns) + 2 * delay_ns)
    return round(leaves_ns)


@pytest.mark.parametrize("rate_bytes_per_s", [1e5, 1e6, 1e8])
@pytest.mark.parametrize("delay_ns", [0, 40_000_000])
def test_rate_and_delay_are_measured_exactly_on_an_ideal_link(rate_bytes_per_s: float, delay_ns: int) -> None:
    """The delay cancels: rate = bytes after the first chunk over the time after it."""
    sender, receiver = pair()
    carry(sender, receiver, 20_000, rate_bytes_per_s, delay_ns)
    meter = sender.meters[1]
    assert meter.rate_bytes_per_s == pytest.approx(rate_bytes_per_s, rel=1e-6)
    assert meter.delay_ns == pytest.approx(delay_ns, abs=2)
    assert meter.in_flight_bytes == 0


def test_small_messages_over_a_long_link_do_not_starve_the_rate() -> None:
    """Bytes over round trip would say 4 kB / 0.4 s; dispersion says what the link carries."""
    sender, receiver = pair()
    for turn in range(8):
        carry(sender, receiver, 1_000, 1e6, 200_000_000, turn * 1_000_000_000)
    assert sender.meters[1].rate_bytes_per_s == pytest.approx(1e6, rel=1e-3)


def test_a_rate_that_fell_to_a_tenth_is_known_within_three_messages() -> None:
    sender, receiver = pair()
    now_ns = 0
    for _ in range(5):
        now_ns = carry(sender, receiver, 30_000, 1e7, 0, now_ns)
    for _ in range(3):
        now_ns = carry(sender, receiver, 30_000, 1e6, 0, now_ns)
    assert sender.meters[1].rate_bytes_per_s == pytest.approx(1e6, rel=0.15)


def test_chunks_are_two_milliseconds_of_the_measured_rate() -> None:
    sender, receiver = pair()
    assert sender.meters[1].chunk_bytes() == CHUNK_FIRST_BYTES
    carry(sender, receiver, 50_000, 5e6, 0)
    assert sender.meters[1].chunk_bytes() == pytest.approx(10_000, rel=1e-3)
    assert max(len(chunk.piece) for chunk in chunks_of(sender, 1, 50_000)) == sender.meters[1].chunk_bytes()


def test_a_small_message_is_cut_in_two_every_fourth_time() -> None:
    sender, _ = pair()
    counts = [len(chunks_of(sender, 1, 1_000)) for _ in range(2 * MEASURE_EVERY)]
    assert counts == [2, 1, 1, 1] * 2


def test_whole_messages_arrive_as_sent_and_out_of_order_chunks_are_refused() -> None:
    sender, receiver = pair()
    chunks = chunks_of(sender, 1, 30_000)
    assert len(chunks) > 3
    for chunk in chunks[:-1]:
        assert receiver.receive(chunk, 0) is None
    arrival, answer = receiver.receive(chunks[-1], 5) or pytest.fail("not complete")
    assert arrival.body.view(np.float32).tolist() == list(range(30_000))
    assert (arrival.source, arrival.arrived_ns, answer.message) == (0, 5, 0)
    later = chunks_of(sender, 1, 30_000)
    receiver.receive(later[0], 0)
    with pytest.raises(WireError):
        receiver.receive(later[2], 0)


def test_an_answer_to_nothing_is_refused() -> None:
    sender, receiver = pair()
    for chunk in chunks_of(sender, 1, 10):
        complete = receiver.receive(chunk, 0)
    assert complete is not None
    sender.acknowledged(*complete[1][:-1], 0)
    assert sender.errors == {}
    sender.acknowledged(*complete[1][:-1], 0)
    sender.acknowledged(*complete[1]._replace(source=7)[:-1], 0)
    assert sender.errors == {"acknowledgement": 2}


def test_an_answer_that_says_less_than_before_or_more_than_was_sent_is_refused() -> None:
    meter = LinkMeter()
    message = give(meter, 10_000, 0, 20e6)
    assert not meter.acknowledged(message, 9_001, 5, 10)
    assert not meter.acknowledged(message, 0, 0, 10)
    assert meter.acknowledged(message, 4_000, 4_000_000, 10)
    for spread_bytes, spread_ns in ((4_000, 4_000_000), (3_000, 5_000_000), (5_000, 3_000_000)):
        assert not meter.acknowledged(message, spread_bytes, spread_ns, 20)
    assert meter.in_flight_bytes == 5_000
    assert meter.acknowledged(message, 9_000, 9_000_000, 20)
    assert meter.in_flight_bytes == 0


def test_a_message_that_is_still_arriving_frees_room_and_measures() -> None:
    """The receiver tells at the first chunk that is there 20 ms after the first one or after it told last, and at the end."""
    sender, receiver = pair()
    carry(sender, receiver, 5_000, 1e6, 5_000_000)
    sender.meters[1].room_bytes(100_000_000, 80e6)
    assert sender.meters[1].report_ms(80e6) == 20
    chunks = sender.send(1, parcel_of(20_000), 100_000_000, 80e6)
    sizes = [chunk.size_bytes for chunk in chunks]
    arrives_ns, told = 105_000_000.0, []
    for chunk in chunks:
        arrives_ns += chunk.size_bytes * 1e3
        if (answered := receiver.receive(chunk, round(arrives_ns))) is not None:
            told.append(chunk.number)
            sender.acknowledged(*answered[1][:-1], round(arrives_ns) + 5_000_000)
            assert sender.meters[1].in_flight_bytes == sum(sizes[chunk.number + 1 :])
            assert sender.meters[1].rate_bytes_per_s == pytest.approx(1e6, rel=1e-3)
    between = -(-20_000_000 // (sizes[1] * 1_000))
    assert told == [*range(between, len(chunks) - 1, between), len(chunks) - 1]
    assert sender.meters[1].round_trip_ns == pytest.approx(10_000_000, rel=1e-3)


def test_a_peer_that_never_asks_for_room_gets_no_reports() -> None:
    sender, receiver = pair()
    carry(sender, receiver, 5_000, 1e6, 0)
    answers = [receiver.receive(chunk, 10**9 * place) for place, chunk in enumerate(chunks_of(sender, 1, 20_000))]
    assert [answered is not None for answered in answers] == [False] * (len(answers) - 1) + [True]


def test_the_round_trip_is_the_least_without_queues_and_without_what_a_message_takes() -> None:
    """1 MB/s, 30 ms there and back: what waits behind 50 kB comes 50 ms later, which does not count; old ones are forgotten."""
    meter = LinkMeter()
    now_ns = 0
    for wait_ns in (50_000_000, 0, 50_000_000):
        now_ns += 10**9
        answer(meter, give(meter, 10_000, now_ns, 20e6), 9_000_000, now_ns + 40_000_000 + wait_ns)
    assert meter.delay_ns == pytest.approx(15e6)
    for _ in range(14):
        now_ns += 10**9
        answer(meter, give(meter, 10_000, now_ns, 20e6), 9_000_000, now_ns + 110_000_000)
    assert meter.delay_ns == pytest.approx(50e6)


def test_an_answer_that_is_overdue_bounds_the_rate() -> None:
    """10 kB that take 10 ms at 1 MB/s, with 4 ms of round trip: after 104 ms without an answer it is 100 kB/s at most."""
    meter = measured(1e6, 4_000_000)
    give(meter, 10_000, 0, 20e6)
    meter.look(14_000_000)
    assert meter.rate_bytes_per_s == pytest.approx(1e6)
    meter.look(104_000_000)
    assert meter.rate_bytes_per_s == pytest.approx(1e5)


def test_a_stretch_that_was_slower_counts_at_once_and_a_faster_one_when_all_are() -> None:
    meter, now_ns = measured(1e6, 10_000_000), 0
    meter.room_bytes(now_ns, 50e6)  # its sender sends by what is measured
    for _ in range(20):
        answer(meter, give(meter, 51_000, now_ns, 50e6), 50_000_000, now_ns + 61_000_000)
        now_ns += 60_000_000
    answer(meter, give(meter, 6_000, now_ns, 50e6), 50_000_000, now_ns + 61_000_000)
    assert meter.rate_bytes_per_s == pytest.approx(1e5)
    for _ in range(2):
        now_ns += 60_000_000
        answer(meter, give(meter, 51_000, now_ns, 50e6), 25_000_000, now_ns + 36_000_000)
    assert meter.rate_bytes_per_s == pytest.approx(2e6)


@pytest.mark.parametrize("count", [0, 1, 100, 4_000, 50_000])
def test_a_prepared_message_has_the_sizes_of_its_chunks(count: int) -> None:
    """So a world that carries whole messages takes the same bytes as one that carries chunks."""
    whole, cut = pair()[0], pair()[0]
    for _ in range(2 * MEASURE_EVERY):
        prepared, chunks = whole.prepare(1, parcel_of(count), 0, 20e6), cut.send(1, parcel_of(count), 0, 20e6)
        sizes = [chunk.size_bytes for chunk in chunks]
        assert prepared.message == chunks[0].message
        assert (prepared.size_bytes, prepared.first_bytes) == (sum(sizes), sizes[0])
        assert set(sizes[1:-1]) <= {prepared.chunk_bytes}
        assert max(sizes[1:], default=0) <= prepared.chunk_bytes
        assert whole.meters[1].in_flight_bytes == cut.meters[1].in_flight_bytes


def test_a_neighbour_that_comes_back_begins_anew() -> None:
    sender, receiver = pair()
    carry(sender, receiver, 1_000, 1e6, 0)
    for end, other in ((sender, 1), (receiver, 0)):
        end.lose(other)
        end.add(other)
    assert sender.meters[1].rate_bytes_per_s is None
    carry(sender, receiver, 1_000, 1e6, 0)
    assert sender.meters[1].rate_bytes_per_s == pytest.approx(1e6, rel=1e-3)
    assert not sender.errors


def test_a_lost_neighbour_is_forgotten() -> None:
    sender, receiver = pair()
    chunk = chunks_of(sender, 1, 10)[0]
    receiver.lose(0)
    with pytest.raises(WireError):
        receiver.receive(chunk, 0)
    assert 0 not in receiver.meters


def test_before_any_measurement_one_probe_is_under_way() -> None:
    meter = LinkMeter()
    assert meter.room_bytes(0, 20e6) == PROBE_BYTES
    give(meter, 30_000, 0, 20e6)
    assert meter.room_bytes(10**12, 20e6) == PROBE_BYTES - 30_000


def measured(rate_bytes_per_s: float, round_trip_ns: int = 0) -> LinkMeter:
    """A link that was measured before time 0."""
    meter = LinkMeter()
    took_ns = round(1_000 / rate_bytes_per_s * 1e9)
    answer(meter, give(meter, 2_000, -2 * took_ns - round_trip_ns, 20e6), took_ns, 0)
    return meter


def test_room_refills_at_the_measured_rate_up_to_the_horizon() -> None:
    meter = measured(1e6)
    assert meter.room_bytes(0, 100e6) == pytest.approx(100_000)
    answer(meter, give(meter, 100_000, 0, 100e6), 99_000_000, 0)
    assert meter.room_bytes(30_000_000, 100e6) == pytest.approx(30_000)
    assert meter.room_bytes(10**12, 100e6) == pytest.approx(100_000)


def test_room_never_exceeds_rate_times_time_in_the_long_run() -> None:
    meter, sent_bytes, horizon_ns = measured(1e6, 10_000_000), 0.0, 50e6
    for step in range(1000):
        now_ns = step * 10_000_000
        room_bytes = int(meter.room_bytes(now_ns, horizon_ns))
        if room_bytes:
            answer(meter, give(meter, room_bytes, now_ns, horizon_ns), (room_bytes - 1_000) * 1_000, now_ns)
            sent_bytes += room_bytes
    assert sent_bytes <= 1e6 * 9.99 + 1e6 * horizon_ns / 1e9 + 2
    assert sent_bytes >= 1e6 * 9.9


def test_unanswered_bytes_stop_the_flow() -> None:
    """A link that has become slower answers late: what is under way is bounded by a round trip and a horizon."""
    meter, horizon_ns = measured(1e6, 20_000_000), 50e6
    sent_bytes = 0.0
    for step in range(1000):
        room_bytes = meter.room_bytes(step * 10_000_000, horizon_ns)
        give(meter, int(room_bytes), step * 10_000_000, horizon_ns)
        sent_bytes += int(room_bytes)
    assert sent_bytes <= 1e6 * (0.020 + 0.050 + 0.0125) + meter.chunk_bytes() + 2_000


def test_chunks_that_arrive_together_measure_an_endless_rate() -> None:
    meter = LinkMeter()
    answer(meter, give(meter, 2_000, 0, 20e6), 0, 0)
    assert meter.rate_bytes_per_s == inf
    assert meter.room_bytes(0, 20e6) == inf
    assert meter.chunk_bytes() == CHUNK_MOST_BYTES


def test_speed_follows_the_steps() -> None:
    speed = SpeedMeter()
    assert speed.samples_per_s is None
    for _ in range(5):
        speed.computed(10_000_000, 32)
    assert speed.samples_per_s == pytest.approx(3200)
    for _ in range(80):
        speed.computed(20_000_000, 32)
    assert speed.samples_per_s == pytest.approx(1600, rel=0.01)


def test_a_link_once_measured_too_slow_still_saves_up_for_a_message() -> None:
    """Else nothing would go, nothing be measured, and the mistake would last for ever."""
    meter = measured(1_000)
    meter.least_bytes = 5_000
    assert meter.room_bytes(0, 20e6) == 5_000
    answer(meter, give(meter, 5_000, 0, 20e6), 40_000_000, 90_000_000)  # it was 100 kB/s after all
    assert meter.rate_bytes_per_s is not None
    assert meter.rate_bytes_per_s > 3_000
    assert meter.room_bytes(10**10, 20e6) == 5_000


def test_chunks_that_come_twice_are_refused_and_disturb_nothing() -> None:
    sender, receiver = pair()
    chunks = chunks_of(sender, 1, 30_000)
    for chunk in chunks[:-1]:
        receiver.receive(chunk, 0)
        with pytest.raises(WireError) as refused:
            receiver.receive(chunk, 0)
        assert refused.value.kind == "replay"
    assert receiver.receive(chunks[-1], 0) is not None


def test_a_message_that_is_sent_again_is_not_delivered_again() -> None:
    sender, receiver = pair()
    first, second = chunks_of(sender, 1, 10), chunks_of(sender, 1, 10)
    assert [receiver.receive(chunk, 0) is not None for chunk in (*first, *second)].count(True) == 2
    for chunk in (*first, *second):
        with pytest.raises(WireError, match="was here before"):
            receiver.receive(chunk, 0)


def test_a_line_is_busy_until_what_was_sent_has_left() -> None:
    """1 MB/s: 10 kB take 10 ms, a second 10 kB as long again; a rate measured too high does not add up to a queue."""
    meter = LinkMeter()
    assert meter.busy_ns(0) == 0.0
    first = give(meter, 10_000, 0, 20e6)
    assert meter.busy_ns(5) is None  # not measured yet
    answer(meter, first, 9_000_000, 14_000_000)
    assert meter.round_trip_ns == pytest.approx(4e6)
    assert meter.busy_ns(20_000_000) == 0.0
    second = give(meter, 10_000, 20_000_000, 20e6)
    give(meter, 10_000, 25_000_000, 20e6)
    assert meter.busy_ns(25_000_000) == pytest.approx(15e6)
    assert meter.busy_ns(41_000_000) == pytest.approx(6e6)  # 10 kB beyond the last, and only 4 ms of them can be on the way
    answer(meter, second, 9_000_000, 41_000_000)
    assert meter.busy_ns(41_000_000) == 0.0


def test_a_message_may_overtake_another_but_none_comes_twice() -> None:
    """Interleaved chunks of two messages, the later one first; what was here before is refused."""
    sender, receiver = pair()
    one, two, three = (chunks_of(sender, receiver.peer, 9_000, 0) for _ in range(3))
    rounds = itertools.zip_longest(three, one)
    done = [complete[0] for both in rounds for chunk in both if chunk and (complete := receiver.receive(chunk, 5))]
    assert [arrival.message for arrival in done] == [2, 0]
    with pytest.raises(WireError, match="here before"):
        receiver.receive(one[0], 6)
    late = [receiver.receive(chunk, 7) for chunk in two][-1]
    assert late is not None
    assert late[0].message == 1
    with pytest.raises(WireError, match="here before"):
        receiver.receive(two[0], 8)


@pytest.mark.parametrize("jump", [OVERTAKEN + 1, 1_000, 2**62])
def test_a_number_far_ahead_makes_no_other_message_old(jump: int) -> None:
    """Whoever knows the run's number may forge one; the neighbour itself goes on counting where it was."""
    sender, receiver = pair()

    def taken(chunk: Chunk) -> bool:
        try:
            return receiver.receive(chunk, 0) is not None
        except WireError:
            return False

    honest = [sender.send(1, parcel_of(10), 0, 20e6)[-1] for _ in range(3 * OVERTAKEN)]
    honest = [chunk._replace(number=0, offset=0, total_bytes=len(chunk.piece)) for chunk in honest]
    assert all(taken(chunk) for chunk in honest[:5])
    forged = honest[0]._replace(message=5 + jump)
    assert taken(forged)
    assert not taken(forged)
    assert all(taken(chunk) for chunk in honest[5:] if chunk.message != forged.message)
    assert not any(taken(chunk) for chunk in honest)


def test_messages_in_any_order_are_each_taken_once() -> None:
    """However far they overtake one another, as under a jitter of many steps."""
    sender, receiver = pair()
    chunks = [sender.send(1, parcel_of(10), 0, 20e6)[-1] for _ in range(4 * OVERTAKEN)]
    order = [*range(2 * OVERTAKEN, 3 * OVERTAKEN), *range(OVERTAKEN), *range(3 * OVERTAKEN, 4 * OVERTAKEN)]
    for place in order:
        chunk = chunks[place]._replace(number=0, offset=0, total_bytes=len(chunks[place].piece))
        assert receiver.receive(chunk, 0) is not None
        with pytest.raises(WireError):
            receiver.receive(chunk, 0)
