import networkx as nx
import pytest

from grapevine.netem import Regions, Uniform, UniformDevices
from grapevine.netem.units import speed_samples_per_s


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"rate": "1 Mbit/s", "reorder": True}, "reorder: has no effect without jitter: set jitter too"),
        ({"duplicate": 0.1}, "duplicate: takes no time on links without a rate: set a rate too"),
        ({"rate": "1 Mbit/s", "duplicate": 0.1, "backend": "kernel"}, "duplicate: the kernel backend lacks it"),
        ({"rate": "1 Mbit/s", "queue": "50 ms"}, "queue: has no effect without TCP: set tcp"),
        ({"rate": "1 Mbit/s", "outage_every": "1 ns"}, "outage_every: 1 ns is too short: expected 1 ms or more"),
        ({"rate": "1 Mbit/s", "loss": 0.01, "loss_burst": 3.0}, "loss_burst: has no effect without TCP"),
    ],
)
def test_an_option_without_effect_is_refused_with_the_cure(options, problem):
    with pytest.raises(ValueError, match=problem):
        Uniform(**options).plan(nx.path_graph(2), 0)


def test_duplicates_take_their_share_of_the_rate():
    plan = Uniform(rate="8 Mbit/s", duplicate=0.25).plan(nx.path_graph(2), 1)
    assert plan.links[0, 1].effective_rate_bytes_per_s == 0.8e6
    first, again = (plan.link(0, 1).send(0, 4_000_000) for _ in range(2))
    assert first == again
    assert first.finish_ns == pytest.approx(5e9, rel=0.05)
    assert plan.shared().limits == []
    shared = Uniform(uplink="8 Mbit/s", duplicate=0.25).plan(nx.path_graph(2), 1)
    assert shared.shared().limits == [1e6, 1e6]


def test_reordering_and_duplicates_do_not_change_each_others_random_numbers():
    options = {"rate": "8 Mbit/s", "delay": "50 ms", "jitter": "40 ms"}
    plain = Uniform(**options).plan(nx.path_graph(2), 1).link(0, 1)
    doubled = Uniform(duplicate=0.5, **options).plan(nx.path_graph(2), 1).link(0, 1)
    for place in range(9):
        one, two = (link.send(10**9 * place, 900) for link in (plain, doubled))
        assert one.due_ns - one.finish_ns == two.due_ns - two.finish_ns
    assert Uniform(reorder=True, **options).plan(nx.path_graph(2), 1).link(0, 1).reorders
    assert Regions(jitter="5 ms", reorder=True).plan(nx.path_graph(2), 1).link(0, 1).reorders


def test_a_speed_may_be_the_time_of_a_sample():
    assert speed_samples_per_s("0.5 ms/sample") == 2000
    assert speed_samples_per_s("2 s/sample") == 0.5
    assert speed_samples_per_s("250 us/sample ") == pytest.approx(4000)
    device = UniformDevices(speed="0.5 ms/sample", overhead="2 ms").plan(1)[0]
    assert device.step_ns(32) == 18_000_000
    for text in ("0 ms/sample", "3 h/sample", "ms/sample"):
        with pytest.raises(ValueError, match=r"is (not a speed|out of range)"):
            speed_samples_per_s(text)
