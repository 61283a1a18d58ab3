"""Links and devices that are slowed, cut, healed while they are used: exact times, and no byte lost."""

from __future__ import annotations

import math
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grapevine.netem import (
    ChangingLink,
    Device,
    Link,
    LinkSpec,
    Losses,
    NetworkPlan,
    Profile,
    Shaper,
    Steady,
    Step,
    Tcp,
    TcpLink,
)
from grapevine.netem.links.alterations import (
    FAR_NS,
    PLAIN,
    Altered,
    AlteredDevice,
    Change,
    Condition,
    Tempo,
    cut_for_good_ns,
    without_open_end,
)
from grapevine.netem.links.profile_laws import Diurnal
from grapevine.netem.networks.plan import capped_rate

S = 1_000_000_000
MS = 1_000_000
CUT = Condition(up=False)


def made(spec: LinkSpec, *changes: Change) -> Link:
    """Return the link of a plan with these changes."""
    spec = msgspec.structs.replace(spec, changes=changes)
    return NetworkPlan(links={(0, 1): spec}, uplinks=[math.inf] * 2, downlinks=[math.inf] * 2).link(0, 1)


# ---- one message, closed forms ------------------------------------------------------------------------------------------


def test_a_rate_that_falls_to_a_tenth_while_a_message_leaves() -> None:
    link = made(LinkSpec(1e6, 20 * MS), Change(S // 2, Condition(rate_factor=0.1)))
    assert link.send(0, 1_000_000) == (0, 5_500 * MS, 5_520 * MS)  # half of it in 0.5 s, the other half in 5 s


def test_a_rate_in_bits_takes_the_place_of_the_links_own() -> None:
    link = made(LinkSpec(1e6), Change(S, Condition(rate_bytes_per_s=2e6)), Change(2 * S, PLAIN))
    assert link.send(0, 4_000_000).finish_ns == 3 * S  # 1 MB, 2 MB, 1 MB


def test_a_cut_holds_a_message_up_for_as_long_as_it_lasts() -> None:
    link = made(LinkSpec(1e6, 20 * MS), Change(S // 2, CUT), Change(10 * S, PLAIN))
    assert link.send(0, 1_000_000).due_ns == 10_520 * MS
    assert link.send(0, 1_000_000).due_ns == 11_520 * MS
    assert link.beside_ns(S, 1000) == 10 * S + MS + 20 * MS  # acknowledgements wait too


def test_what_has_left_before_a_cut_arrives() -> None:
    link = made(LinkSpec(1e6, 200 * MS), Change(S, CUT), Change(10 * S, PLAIN))
    assert link.send(0, 1_000_000).due_ns == 1200 * MS


def test_an_unlimited_link_can_be_cut_and_slowed() -> None:
    link = made(LinkSpec(), Change(S, CUT), Change(2 * S, Condition(rate_bytes_per_s=1e6)), Change(3 * S, PLAIN))
    assert link.send(S // 2, 10**9) == (S // 2, S // 2, S // 2)
    assert link.send(S, 500_000) == (S, 2 * S + S // 2, 2 * S + S // 2)
    assert link.send(S, 10**9).finish_ns == 3 * S


def test_a_delay_is_multiplied_and_added_to() -> None:
    changes = Change(S, Condition(delay_factor=3.0)), Change(2 * S, Condition(delay_more_ns=5 * MS)), Change(3 * S, PLAIN)
    link = made(LinkSpec(math.inf, 10 * MS), *changes)
    assert [link.send(second * S, 100).due_ns - second * S for second in range(4)] == [10 * MS, 30 * MS, 15 * MS, 10 * MS]


def test_loss_slows_a_link_as_mathis_has_it() -> None:
    spec = LinkSpec(1e6, 50 * MS, loss=0.0001)
    link = made(spec, Change(S, Condition(loss=0.01)), Change(2 * S, Condition(delay_factor=2.0, loss=0.01)))
    for second, (delay, loss) in enumerate(((50 * MS, 0.0001), (50 * MS, 0.01), (100 * MS, 0.01))):
        rate = capped_rate(1e6, delay, loss)
        assert link.send(second * S, 10_000).finish_ns == math.ceil(second * S + 10_000 / rate * 1e9)


def test_what_is_cut_for_good_never_arrives() -> None:
    changes = [Change(S, CUT), Change(2 * S, Condition(rate_factor=0.5, up=False))]
    assert cut_for_good_ns(changes) == S
    assert cut_for_good_ns([*changes, Change(3 * S, PLAIN)]) is None
    assert without_open_end(changes) == [Change(S, PLAIN), Change(2 * S, Condition(rate_factor=0.5))]
    link = made(LinkSpec(1e6, MS), *changes)
    assert link.send(0, 500_000).due_ns == 501 * MS
    assert link.send(S, 100).due_ns >= FAR_NS
    assert link.send(5 * S, 100).due_ns >= FAR_NS


# ---- against profiles, which are tested by themselves --------------------------------------------------------------------


def segments() -> st.SearchStrategy[list[tuple[int, float]]]:
    """Pairs of a time and the share of the rate that holds during it (0: a cut)."""
    return st.lists(st.tuples(st.integers(1, 400), st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0])), min_size=1, max_size=8)


def both(given_segments: list[tuple[int, float]], rate: float, delay_ns: int) -> tuple[Altered, Profile]:
    """Return the same link twice: as an altered one and as a profile; both end at the full rate."""
    at_ns, changes, steps = 0, [], []
    for lasts_ms, share in given_segments:
        changes.append(Change(at_ns, Condition(rate_factor=share) if share else CUT))
        steps.append(Step(lasts_ms * MS, rate * share, delay_ns, 0.01))
        at_ns += lasts_ms * MS
    changes.append(Change(at_ns, PLAIN))
    return Altered(Steady(rate, delay_ns, 0.01), changes), Profile([*steps, Step(S, rate, delay_ns, 0.01)])


@settings(max_examples=60, deadline=None)
@given(segments(), st.lists(st.tuples(st.integers(0, 500), st.integers(1, 2_000_000)), min_size=1, max_size=10))
def test_an_altered_link_equals_the_profile_of_the_same_steps(shares, sends) -> None:
    altered, profile = both(shares, 1e6, 30 * MS)
    cut = any(share == 0 for _, share in shares)  # TCP reads the rate during a cut, and the two differ there
    for tcp in (False,) if cut else (False, True):
        links = []
        for line in (altered, profile):
            rng = np.random.default_rng(5)
            losses = Losses(0.01, rng)
            links.append(TcpLink(line, Tcp("cubic", 60 * MS, losses)) if tcp else ChangingLink(line, 3 * MS, rng))
        now_ns = 0
        for wait_ms, size in sends:
            now_ns += wait_ms * MS
            one, two = (link.send(now_ns, size) for link in links)
            assert one == pytest.approx(two, abs=200)


@settings(max_examples=60, deadline=None)
@given(segments(), st.lists(st.integers(1, 300_000), min_size=1, max_size=12), st.integers(0, 500))
def test_every_byte_leaves_at_the_rate_in_force(shares, sizes, begin_ms) -> None:
    """The integral of the rate over the time in which the link is busy equals the bytes sent."""
    altered, _ = both(shares, 1e6, 0)
    link = ChangingLink(altered)
    transits = [link.send(begin_ms * MS, size) for size in sizes]
    carried, now_ns, end_ns = 0.0, float(begin_ms * MS), transits[-1].finish_ns
    while now_ns < end_ns:
        step, until_ns = altered.holds(now_ns)
        carried += step.rate_bytes_per_s * (min(until_ns, end_ns) - now_ns) / 1e9
        now_ns = min(until_ns, end_ns)
    assert carried == pytest.approx(sum(sizes), abs=0.01)
    assert all(one.due_ns <= two.due_ns for one, two in pairwise(transits))


def test_changes_apply_on_top_of_a_profile_and_keep_its_random_numbers() -> None:
    spec = LinkSpec(1e6, 10 * MS, 5 * MS, profile_law=Diurnal(rate_bytes_per_s=1e6, swing=0.5, period_ns=20 * S))
    plain, altered = made(spec), made(spec, Change(5 * S, Condition(rate_factor=0.5)), Change(9 * S, PLAIN))
    assert all(plain.send(at * 100 * MS, 1000) == altered.send(at * 100 * MS, 1000) for at in range(50))
    one, two = plain.send(5 * S, 600_000), altered.send(5 * S, 300_000)
    assert one.finish_ns == pytest.approx(two.finish_ns, abs=2)  # half the rate carries half as much in the same time


def test_a_link_within_a_shared_profile_is_changed_at_its_own_time() -> None:
    profile = Profile([Step(10 * S, 1e6)], looped=True)
    link = ChangingLink(Altered(profile, [Change(S, CUT), Change(2 * S, PLAIN)], 7 * S), ahead_ns=7 * S)
    assert link.send(S // 2, 1_000_000).finish_ns == 2 * S + S // 2


# ---- links that are altered while they are used ---------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1e6, math.inf])
def test_a_link_goes_on_as_it_is_when_nothing_is_done_to_it(rate: float) -> None:
    kept, changed = (Link(rate, 10 * MS, 3 * MS, np.random.default_rng(2)) for _ in range(2))
    changed.send(0, 70_001)
    kept.send(0, 70_001)
    changed = changed.altered([], Steady(rate, 10 * MS), capped_rate)
    for at in range(20):
        sent = at * 40 * MS, 33_333 + at, at % 3 != 1
        assert changed.send(*sent) == pytest.approx(kept.send(*sent), abs=1)


@pytest.mark.parametrize("kind", ["plain", "changing", "tcp"])
def test_a_link_that_is_cut_for_good_waits_until_it_is_healed(kind: str) -> None:
    own = Steady(1e6, 10 * MS)
    link: Link = Link(1e6, 10 * MS)
    if kind == "changing":
        link = ChangingLink(Profile([Step(S, 1e6, 10 * MS)]))
    if kind == "tcp":
        link = TcpLink(own, Tcp("cubic", 20 * MS))
    link.send(0, 1000)
    cut = [Change(S, CUT)]
    link = link.altered(cut, own, capped_rate)
    assert link.halted
    assert link.free_ns == FAR_NS
    link = link.altered([*cut, Change(3 * S, PLAIN)], own, capped_rate)
    assert not link.halted
    assert link.free_ns < S
    transit = link.send(2 * S, 1000)  # offered during the cut
    assert 3 * S < transit.due_ns < 3 * S + 20 * MS


def test_loss_can_come_to_a_tcp_link_that_had_none() -> None:
    own = Steady(1e7, 10 * MS)
    link = TcpLink(own, Tcp("cubic", 20 * MS))
    clean = [link.send(at * S, 1_000_000).due_ns - at * S for at in range(5)]
    link = link.altered([Change(5 * S, Condition(loss=0.05))], own, None)
    lossy = [link.send(at * S, 1_000_000).due_ns - at * S for at in range(10, 60, 10)]
    assert min(lossy) > 1.5 * max(clean[1:])


def test_what_is_queued_at_a_shaper_waits_for_a_halted_link_and_goes_over_the_new_one() -> None:
    own = Steady(1e6, MS)
    shaper = Shaper({1: Link(1e6, MS), 2: Link()}, lookahead_ns=0)
    links = {target: Link(1e6, MS).altered([Change(0, CUT)], own, None) for target in (1, 2)}
    for target, link in links.items():
        shaper.relink(target, link)
        shaper.offer(target, "data", 10_000, 0)
        shaper.offer(target, "answer", 28, 0, urgent=True)
    assert shaper.release(100 * S) == []
    for target, link in links.items():
        shaper.relink(target, link.altered([Change(0, CUT), Change(5 * S, PLAIN)], own, None))
    released = shaper.release(100 * S)
    assert sorted((target, item) for target, item, _ in released) == [(t, i) for t in (1, 2) for i in ("answer", "data")]
    assert {item: transit.due_ns - 5 * S for target, item, transit in released if target == 1} == {
        "data": 11 * MS,
        "answer": 11 * MS + 28_000,
    }


# ---- devices --------------------------------------------------------------------------------------------------------------


def device(*tempos: tuple[float, float]) -> AlteredDevice:
    """100 samples/s; tempos as (seconds, factor)."""
    return AlteredDevice(100.0, 0, Device(100.0), tuple(Tempo(round(at * S), factor) for at, factor in tempos))


@pytest.mark.parametrize(
    ("tempos", "begin_s", "took_s"),
    [
        ([], 0.0, 1.0),
        ([(0.5, 0.25)], 0.0, 2.5),  # half of it, then the rest at a quarter of the speed
        ([(0.5, 0.25)], 3.0, 4.0),
        ([(0.5, 0.0), (5.5, 1.0)], 0.0, 6.0),  # a pause
        ([(0.5, 0.0), (5.5, 1.0)], 0.75, 5.75),  # begun within it
        ([(0.5, 0.0), (5.5, 1.0)], 6.0, 1.0),
        ([(0.0, 2.0), (0.25, 1.0)], 0.0, 0.75),
        ([(1.0, 0.1)], 0.0, 1.0),  # done just then
    ],
)
def test_a_step_takes_its_own_time_at_the_tempo_in_force(tempos, begin_s, took_s) -> None:
    assert device(*tempos).step_ns(100, round(begin_s * S), 3) == round(took_s * S)


def test_without_a_step_the_nominal_duration_ignores_tempos() -> None:
    assert device((0.0, 0.1)).step_ns(100) == S
