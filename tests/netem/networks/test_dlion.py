import networkx as nx
import pytest

from grapevine.netem.networks.dlion import CORES, LINES, Dlion, DlionDevices, MicroCloudNetwork

MBIT = 1e6 / 8
SECOND_NS = 10**9
GRAPH = nx.complete_graph(6)


@pytest.mark.parametrize("environment", list(LINES))
def test_a_worker_shares_its_line_in_each_direction(environment):
    plan = Dlion(environment=environment, rate_factor=0.5).plan(GRAPH, 0)
    rates = [rate / 2 * MBIT for rate in LINES[environment]]
    assert plan.uplinks == plan.downlinks == rates
    assert plan.links[0, 5].effective_rate_bytes_per_s == min(rates[0], rates[5])
    assert plan.links[0, 5].delay_ns == 1_000_000
    assert Dlion(environment=environment).plan(nx.complete_graph(8), 0).uplinks[6] == 2 * rates[0]


def test_dynamic_goes_from_one_environment_to_the_next():
    plan = Dlion(environment="dynamic", phase="10 s").plan(GRAPH, 0)
    for peer in range(6):
        rates = [LINES[name][peer] * MBIT for name in ("homogeneous", "heterogeneous", "reversed")]
        got = [plan.up_profiles[peer].rate_at(time_s * SECOND_NS) for time_s in (0, 9, 10, 20, 30, 45)]
        assert got == [rates[0], rates[0], rates[1], rates[2], rates[0], rates[1]]
        assert plan.uplinks[peer] == plan.downlinks[peer] == pytest.approx(sum(rates) / 3)
    assert all(spec.rate_bytes_per_s >= 20 * MBIT and spec.varies for spec in plan.links.values())
    shared = plan.shared()
    assert len(shared.profiles) == len(shared.limits) == 12
    assert all(len(route) == 2 for route in shared.routes.values())


def test_a_site_has_one_line_to_all_others():
    plan = MicroCloudNetwork(size=3, rate="10 Mbit/s").plan(nx.complete_graph(7), 0)  # sites of 3, 2, 2, as the topology's
    assert plan.places == ["site 0"] * 3 + ["site 1"] * 2 + ["site 2"] * 2
    assert plan.links[0, 2].effective_rate_bytes_per_s == 1000 * MBIT
    assert plan.links[0, 3].delay_ns == 20_000_000
    assert len(plan.cables) == 6
    out = next(cable for cable in plan.cables if (0, 3) in cable.links and (1, 6) in cable.links)
    assert out.rate_bytes_per_s == 10 * MBIT
    assert {source for source, _ in out.links} == {0, 1, 2}
    shared = plan.shared()
    assert (0, 1) not in shared.routes
    assert len(shared.routes[0, 3]) == 2


def test_a_worker_is_as_fast_as_its_cores():
    for environment, cores in CORES.items():
        devices = DlionDevices(environment=environment, core="10 samples/s", overhead="1 ms").plan(7)
        assert [device.step_ns(24) for device in devices] == [1_000_000 + round(2.4e9 / n) for n in (*cores, cores[0])]
    slow = DlionDevices(environment="dynamic", core="1 samples/s", phase="10 s").plan(6)[5]
    assert slow.step_ns(24, 1 * SECOND_NS, 0) == SECOND_NS  # alike: 24 cores
    assert slow.step_ns(24, 12 * SECOND_NS, 1) == 4 * SECOND_NS  # unlike: 6
    assert slow.step_ns(36, 9 * SECOND_NS, 2) == 3 * SECOND_NS  # 24 samples till the change, 12 after it


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Dlion(environment="homo"), "environment: 'homo' is unknown: expected homogeneous"),
        (lambda: Dlion(phase="0 s"), "phase: is 0 s"),
        (lambda: Dlion(rate_factor=0), "rate_factor"),
        (lambda: DlionDevices(environment="gpu"), "environment: 'gpu' is unknown"),
        (lambda: DlionDevices(core="3"), "core: '3' is not a speed"),
        (lambda: MicroCloudNetwork(size=0), "size: a site of 0 peers is too small"),
        (lambda: MicroCloudNetwork(rate="fast"), "rate: 'fast' is not a rate"),
    ],
)
def test_bad_options_are_refused(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()
