import math

import msgspec
import networkx as nx
import numpy as np
import pytest

from grapevine.netem import AnyNetwork, Uniform
from grapevine.netem.links.link import ChangingLink, Link, TcpLink
from grapevine.netem.networks.changing import CellularNetwork, DiurnalNetwork, RandomWalk, ScheduleNetwork, Trace
from grapevine.netem.networks.traces import read_trace

S = 1_000_000_000
MS = 1_000_000
MBIT = 1e6 / 8
PAIR = nx.path_graph(2)

TABLE = """# a comment
time [s],rate [Mbit/s],delay [ms],loss [%]
0,8,10,0
2,4,20,1
3,0,20,0
"""


@pytest.fixture
def table(tmp_path):
    (tmp_path / "trace.csv").write_text(TABLE)
    return str(tmp_path / "trace.csv")


def test_a_table_is_read_with_its_units(table, tmp_path):
    assert read_trace(table) == [
        (2 * S, 8 * MBIT, 10 * MS, 0.0), (S, 4 * MBIT, 20 * MS, 0.01), (S, 0.0, 20 * MS, 0.0),
    ]  # fmt: skip
    (tmp_path / "text.csv").write_text("rate,time\n1 Mbit/s,0 s\n0 bit/s,500 ms\n")
    assert read_trace(str(tmp_path / "text.csv"), 7, 0.5) == [(S // 2, MBIT, 7, 0.5), (S // 2, 0.0, 7, 0.5)]


def test_a_mahimahi_trace_delivers_its_packets(tmp_path):
    (tmp_path / "link.up").write_text("\n".join(map(str, [1, 50, 100, 100, 101, 250])))
    steps = read_trace(str(tmp_path / "link.up"), 5)
    assert [step.lasts_ns for step in steps] == [100 * MS, 100 * MS, 50 * MS]
    assert [step.rate_bytes_per_s * step.lasts_ns / S / 1504 for step in steps] == pytest.approx([4, 1, 1])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "header is ''"),
        ("a.csv", "time,speed\n", "expected time and rate"),
        ("a.csv", "time,rate\n", "no rows"),
        ("a.csv", "time,rate\n0 s,fast\n", "row 2: 'fast' is not a rate"),
        ("a.csv", "time,rate\n1 s,1 Mbit/s\n", "row 2: the time 1 s"),
        ("a.csv", "time,rate\n0 s,1 Mbit/s\n0 s,1 Mbit/s\n", "row 3: the time 0 s"),
        ("a.csv", "time,rate\n0 s\n", "row 2: 1 cells under 2"),
        ("a.csv", "time,rate\n0 s,0 bit/s\n", "stay at 0"),
        ("a", "", "no packet"),
        ("a", "5\n4\n", "line 2: '4'"),
        ("a", "x\n", "line 1: 'x'"),
        ("a", "9" * 5000, "line 1: '999"),
        ("a", "1\n9999999999999999\n", "expected 100,000,000 ms at most"),
        ("a.csv", f"time,rate\n0 s,{'1' * 200_000}\n", "is not a table: field larger"),
    ],
)
def test_a_bad_file_names_itself_and_the_row(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        Trace(path=str(tmp_path / name)).plan(PAIR, 0)
    assert str(caught.value).startswith("path: ")


def test_a_file_that_is_not_there():
    with pytest.raises(ValueError, match=r"path: gone.csv: cannot be read: no such file"):
        Trace(path="gone.csv").plan(PAIR, 0)


def test_a_trace_is_looped_or_holds(table):
    link = Trace(path=table).plan(PAIR, 0).link(0, 1)
    assert link.send(4 * S, 1_000_000) == (4 * S, 5 * S, 5 * S + 10 * MS)
    plan = Trace(path=table).plan(PAIR, 0)
    assert plan.links[0, 1].rate_bytes_per_s == pytest.approx((2 * 8 + 4) / 4 * MBIT)
    with pytest.raises(ValueError, match="stay at 0"):
        Trace(path=table, loop=False).plan(PAIR, 0)


def test_loss_in_a_trace_acts_by_mathis_or_through_tcp(table):
    capped = Trace(path=table).plan(PAIR, 0).link(0, 1)
    assert isinstance(capped, ChangingLink)
    mathis = 1.22 * 1448 / (0.04 * math.sqrt(0.01))
    assert capped.send(2 * S, 1000).finish_ns - 2 * S == pytest.approx(1000 / min(4 * MBIT, mathis) * S, abs=2)
    plan = Trace(path=table, tcp="cubic").plan(PAIR, 0)
    assert plan.links[0, 1].loss == 0.01
    assert isinstance(plan.link(0, 1), TcpLink)


def test_links_share_a_trace_or_begin_each_at_its_own_place(table):
    graph = nx.complete_graph(5)
    together, scattered = (Trace(path=table, scatter=scatter).plan(graph, 1) for scatter in (False, True))
    assert len({together.link(*pair).send(0, 10_000) for pair in together.links}) == 1
    assert len({scattered.link(*pair).send(0, 10_000) for pair in scattered.links}) > 1
    assert together.link(0, 1).profile is together.link(1, 2).profile


def test_a_schedule_changes_at_its_times():
    network = ScheduleNetwork(times=("0 s", "1 s"), rates=("8 Mbit/s", "2 Mbit/s"), delays=("1 ms", "5 ms"), loop_after="3 s")
    link = network.plan(PAIR, 0).link(0, 1)
    assert link.send(0, 1_250_000) == (0, 2 * S, 2 * S + 5 * MS)
    assert link.send(3 * S, 1_000_000).due_ns == 4 * S + 5 * MS
    forever = ScheduleNetwork(times=("0 s", "1 s"), rates=("8 Mbit/s", "2 Mbit/s")).plan(PAIR, 0).link(0, 1)
    assert forever.send(100 * S, 250_000).finish_ns == 101 * S


@pytest.mark.parametrize(
    "network",
    [
        RandomWalk(rate="8 Mbit/s", delay="10 ms"),
        CellularNetwork(rate="8 Mbit/s", delay="10 ms"),
        Uniform(rate="8 Mbit/s", delay="10 ms", outage_every="3 s"),
        Uniform(rate="8 Mbit/s", delay="10 ms", jitter="3 ms", jitter_law="pareto", jitter_correlation=0.5),
        Uniform(rate="8 Mbit/s", delay="10 ms", loss=0.01, tcp="cubic", loss_burst=3.0, queue="20 ms"),
        CellularNetwork(rate="8 Mbit/s", delay="10 ms", loss=0.001, tcp="bbr", outage_every="5 s", outage_length="2 s"),
    ],
)
def test_each_link_draws_its_own_numbers_and_keeps_them_when_peers_join(network):
    def dues(peers, seed, source, target):
        link = network.plan(nx.complete_graph(peers), seed).link(source, target)
        return [link.send(now_ns, 100_000).due_ns - now_ns for now_ns in range(0, 60 * S, S)]

    assert dues(3, 7, 0, 1) == dues(3, 7, 0, 1) == dues(6, 7, 0, 1)
    assert len({tuple(dues(3, *key)) for key in [(7, 0, 1), (7, 1, 0), (7, 0, 2), (8, 0, 1)]}) == 4


def test_outages_hold_everything_up_and_lose_nothing():
    link = Uniform(rate="8 Mbit/s", outage_every="5 s", outage_length="5 s").plan(PAIR, 0).link(0, 1)
    for _ in range(1000):
        last = link.send(0, 1_000_000)
    assert last.finish_ns == pytest.approx(2000 * S, rel=0.15)


def test_a_shallow_queue_costs_cubic_rate_and_a_deep_one_does_not():
    spent = {}
    for queue in ("1 ms", "200 ms"):
        link = Uniform(rate="20 Mbit/s", delay="50 ms", tcp="cubic", queue=queue).plan(PAIR, 0).link(0, 1)
        spent[queue] = link.send(0, 100_000_000).due_ns
    assert spent["1 ms"] > 1.02 * spent["200 ms"]


def test_without_options_links_are_plain_and_with_tcp_slower():
    plain, tcp = (Uniform(rate="20 Mbit/s", delay="40 ms", tcp=control).plan(PAIR, 0) for control in ("none", "cubic"))
    assert type(plain.link(0, 1)) is Link
    assert tcp.link(0, 1).send(0, 100_000).due_ns > plain.link(0, 1).send(0, 100_000).due_ns
    assert tcp.links[0, 1].effective_rate_bytes_per_s == pytest.approx(20 * MBIT * 1448 / 1500)


def test_the_effective_rate_of_bbr_falls_by_the_loss_alone():
    spec = Uniform(rate="20 Mbit/s", delay="40 ms", loss=0.01, tcp="bbr").plan(PAIR, 0).links[0, 1]
    assert spec.effective_rate_bytes_per_s == pytest.approx(20 * MBIT * 1448 / 1500 * 0.99)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "uniform", "tcp": "cubic"}, "tcp: needs a rate"),
        ({"name": "uniform", "outage_every": "5 s"}, "outage_every: needs a rate"),
        ({"name": "uniform", "rate": "1 Mbit/s", "queue": "5 ms"}, "queue: has no effect without TCP"),
        ({"name": "uniform", "rate": "1 Mbit/s", "loss_burst": 3.0}, "loss_burst: has no effect without TCP"),
        (
            {"name": "uniform", "rate": "1 B/s", "tcp": "bbr", "loss": 0.9, "loss_burst": 2.0},
            "loss_burst: bursts of 2.0 packets do not allow a loss of 0.9",
        ),
        ({"name": "uniform", "rate": "1 Mbit/s", "outage_length": "0 s"}, "outage_length"),
        ({"name": "uniform", "tcp": "reno"}, "Invalid enum value 'reno'"),
        ({"name": "trace"}, "missing required field `path`"),
        ({"name": "trace", "path": "a", "scatter": True, "loop": False}, "scatter: "),
        ({"name": "schedule", "times": ["1 s"], "rates": ["1 Mbit/s"]}, 'times: expected "0 s" first'),
        ({"name": "schedule", "times": ["0 s", "1 s"], "rates": ["1 Mbit/s"]}, "rates: 1 for 2 times"),
        ({"name": "schedule", "times": ["0 s"], "rates": ["0 bit/s"]}, "rates: .*stay at 0"),
        ({"name": "schedule", "times": ["0 s", "2 s"], "rates": ["1 B/s", "2 B/s"], "loop_after": "2 s"}, "loop_after"),
        ({"name": "diurnal", "rate": "unlimited"}, "rate: a rate that changes cannot be unlimited"),
        ({"name": "diurnal", "rate": "1 Mbit/s", "period": "0 s"}, "period: 0 s is too short"),
        ({"name": "random-walk", "rate": "1 Mbit/s", "every": "0 s"}, "every: 0 s is too short"),
        ({"name": "cellular", "rate": "1 Mbit/s", "correlation": 1.0}, "Expected `float` < 1.0"),
    ],
)
def test_bad_options_are_refused_when_read(table, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(table, AnyNetwork)


def test_an_edge_without_a_rate_is_named():
    graph = nx.path_graph(3)
    graph.edges[0, 1]["rate"] = "1 Mbit/s"
    with pytest.raises(ValueError, match="edge 1-2: tcp: needs a rate"):
        msgspec.convert({"name": "edges", "tcp": "bbr"}, AnyNetwork).plan(graph, 0)


def test_a_day_is_as_long_as_asked():
    link = DiurnalNetwork(rate="8 Mbit/s", swing=0.9, period="10 s", phase=0.75).plan(PAIR, 0).link(0, 1)
    spent = [link.send(now_ns, 1000).finish_ns - now_ns for now_ns in range(0, 20 * S, S)]
    assert np.argmax(spent) % 10 == 0
    assert np.argmin(spent) % 10 == 5
