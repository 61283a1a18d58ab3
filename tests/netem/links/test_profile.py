import copy
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grapevine.netem.links.link import ChangingLink, Link, TcpLink
from grapevine.netem.links.profile import Profile, Steady, Step
from grapevine.netem.links.profile_laws import Cellular, Diurnal, Listed, Outages, Still, Walk
from grapevine.netem.links.tcp import Tcp

S = 1_000_000_000
STEPS = st.lists(st.tuples(st.integers(S // 10, 3 * S), st.sampled_from([0.0, 1e3, 1e5, 3e6])), min_size=1, max_size=6)


def carried_bytes(steps, looped, start_ns, end_ns):
    """The integral of the rate, step by step: slow and plain."""
    total, at_ns, place = 0.0, 0, 0
    while at_ns < end_ns:
        last = place == len(steps) - 1
        lasts_ns, rate = steps[place]
        until_ns = math.inf if last and not looped else at_ns + lasts_ns
        total += rate * max(0, min(until_ns, end_ns) - max(at_ns, start_ns)) / S
        at_ns, place = until_ns, (place + 1) % len(steps)
    return total


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(steps=STEPS, looped=st.booleans(), start_ns=st.integers(0, 20 * S), size=st.integers(1, 10**6))
def test_bytes_leave_at_the_rate_in_force(steps, looped, start_ns, size):
    if (not any(rate for _, rate in steps)) if looped else not steps[-1][1]:
        with pytest.raises(ValueError, match="stay at 0"):
            Profile([Step(*step) for step in steps], looped)
        return
    finish_ns = Profile([Step(*step) for step in steps], looped).finish(start_ns, size)
    if finish_ns - start_ns < 200 * S:
        fastest = max(rate for _, rate in steps)
        assert carried_bytes(steps, looped, start_ns, finish_ns) == pytest.approx(size, abs=1e-6 * size + fastest * 1e-6)


def test_a_backlog_over_a_change_of_rate_in_closed_form():
    """1 MB/s for 1 s, then 0.25 MB/s: 1.5 MB take 1 + 0.5 / 0.25 s, however they are cut."""
    for cuts in (1, 3, 1500):
        link = ChangingLink(Profile([Step(S, 1e6), Step(S, 0.25e6)]))
        for _ in range(cuts):
            last = link.send(0, 1_500_000 // cuts)
        assert last.finish_ns == 3 * S


def test_what_waits_in_an_outage_leaves_after_it():
    link = ChangingLink(Profile([Step(S, 1e6, 5), Step(S, 0.0, 5)], looped=True))
    assert link.send(S, 1000) == (S, 2 * S + 1_000_000, 2 * S + 1_000_005)
    assert link.send(3 * S - 500_000, 1000) == (3 * S - 500_000, 4 * S + 500_000, 4 * S + 500_005)


def test_a_profile_of_one_step_equals_a_steady_link():
    plain, changing = Link(12345.0, 67), ChangingLink(Profile([Step(S, 12345.0, 67)]))
    for now_ns in range(0, 50 * S, S // 7):
        assert abs(plain.send(now_ns, 900).due_ns - changing.send(now_ns, 900).due_ns) <= 1
    assert Steady(12345.0).finish(5.0, 12345) == 5.0 + S


def test_a_few_bytes_go_beside_what_waits():
    profile = Profile([Step(S, 1e6, 5), Step(S, 0.0, 7)], looped=True)
    for link in (Link(1e6, 5), ChangingLink(profile), TcpLink(profile, Tcp("cubic", 10))):
        link.send(0, 10_000_000)
        free_ns = link.free_ns
        assert link.beside_ns(100, 40) == 100 + 40_000 + 5
        assert link.free_ns == free_ns
    assert ChangingLink(profile).beside_ns(S, 40) == 2 * S + 40_000 + 5


def test_a_delay_that_shrinks_lets_nothing_overtake():
    link = ChangingLink(Profile([Step(S, 1e9, 80_000_000), Step(S, 1e9, 1_000_000)]))
    assert link.send(S - 10_000, 1000).due_ns == S + 80_000_000 - 9_000
    assert link.send(S, 1000).due_ns == S + 80_000_000 - 9_000
    assert link.send(2 * S, 1000).due_ns == 2 * S + 1_001_000


def test_links_may_share_a_profile_each_from_its_own_place():
    profile = Profile([Step(S, 1e6), Step(S, 2e6)], looped=True)
    finish_ns = [ChangingLink(profile, ahead_ns=ahead_ns).send(0, 1000).finish_ns for ahead_ns in (0, S, 2 * S)]
    assert finish_ns == [10**6, 5 * 10**5, 10**6]


MOTIONS = [
    Still(step=Step(S, 1e6)),
    Listed(given=(Step(S, 1e6), Step(S, 2e6)), looped=True),
    Diurnal(rate_bytes_per_s=1e6, swing=0.5, period_ns=60 * S),
    Walk(rate_bytes_per_s=1e6, deviation=0.2, range=3.0, every_ns=S),
    Cellular(rate_bytes_per_s=1e6, variation=0.78, correlation=0.82),
    Outages(profile_law=Still(step=Step(S, 1e6)), every_ns=10 * S, length_ns=2 * S),
    Outages(profile_law=Diurnal(rate_bytes_per_s=1e6, swing=0.5, period_ns=60 * S), every_ns=10 * S, length_ns=S),
]


@pytest.mark.slow
@pytest.mark.parametrize("profile_law", MOTIONS, ids=lambda profile_law: type(profile_law).__name__)
def test_profiles_are_reproducible_and_can_be_copied(profile_law):
    one, other = (ChangingLink(profile_law.profile(np.random.default_rng(1))) for _ in range(2))
    for now_ns in range(0, 400 * S, 7 * S):
        assert one.send(now_ns, 30_000) == other.send(now_ns, 30_000)
        other = copy.deepcopy(other)  # as a trip to another process makes it


@pytest.mark.slow
@pytest.mark.parametrize("profile_law", MOTIONS, ids=lambda profile_law: type(profile_law).__name__)
def test_profiles_keep_their_mean(profile_law):
    profile = profile_law.profile(np.random.default_rng(2))
    size = 2e10
    mean = size / (profile.finish(0, size) / S)
    # A walk's rate is its median, and its logarithm is uniformly distributed: the mean of x over it is (r - 1/r) / (2 ln r).
    factor = (3 - 1 / 3) / (2 * math.log(3)) if isinstance(profile_law, Walk) else 1
    assert mean == pytest.approx(profile_law.mean_rate_bytes_per_s * factor, rel=0.06)


def rates(profile_law, seconds=60_000):
    profile = profile_law.profile(np.random.default_rng(3))
    return np.array([profile.rate_at(second * S) for second in range(seconds)])


@pytest.mark.slow
@pytest.mark.parametrize(("mean", "variation", "correlation"), [(12.77, 0.78, 0.82), (5.95, 0.52, 0.74), (4.56, 0.85, 0.62)])
def test_cellular_rates_have_the_asked_statistics(mean, variation, correlation):
    got = rates(Cellular(rate_bytes_per_s=mean, variation=variation, correlation=correlation))
    assert got.mean() == pytest.approx(mean, rel=0.05)
    assert got.std() / got.mean() == pytest.approx(variation, rel=0.08)
    assert np.corrcoef(got[1:], got[:-1])[0, 1] == pytest.approx(correlation, abs=0.03)


def test_a_walk_stays_within_its_bounds_and_reaches_all_of_them():
    got = rates(Walk(rate_bytes_per_s=1e6, deviation=0.3, range=4.0, every_ns=S), 20_000)
    assert got.min() >= 1e6 / 4 * (1 - 1e-9)
    assert got.max() <= 4e6 * (1 + 1e-9)
    logs = np.log(got / 1e6) / math.log(4)
    assert np.quantile(logs, [0.1, 0.5, 0.9]) == pytest.approx([-0.8, 0, 0.8], abs=0.12)


def test_a_day_swings_about_its_mean():
    day = Diurnal(rate_bytes_per_s=1e6, swing=0.5, period_ns=960 * S, phase=0.25).profile(np.random.default_rng(0))
    assert day.rate_at(0) == pytest.approx(1.5e6, rel=0.01)
    assert day.rate_at(480 * S) == pytest.approx(0.5e6, rel=0.01)
    assert day.finish(0, 960e6) == pytest.approx(960 * S, rel=1e-9)


def test_outages_come_and_go_as_often_as_asked():
    profile = Outages(profile_law=Still(step=Step(9999 * S, 1e6)), every_ns=9 * S, length_ns=S).profile(
        np.random.default_rng(4)
    )
    profile.finish(0, 1e11)
    down = [step.lasts_ns for step in profile.known if not step.rate_bytes_per_s]
    assert sum(down) / sum(step.lasts_ns for step in profile.known) == pytest.approx(0.1, rel=0.05)
    assert len(down) == pytest.approx(sum(step.lasts_ns for step in profile.known) / (10 * S), rel=0.05)


@pytest.mark.parametrize(
    "step", [Step(0, 1.0), Step(1, -1.0), Step(1, math.inf), Step(1, math.nan), Step(1, 1.0, -1), Step(1, 1.0, 0, 1.0)]
)
def test_a_bad_step_is_refused(step):
    with pytest.raises(ValueError, match="expected a step above 0 ns"):
        Profile([step])


def test_a_profile_needs_a_step():
    with pytest.raises(ValueError, match="no steps"):
        Profile([])
