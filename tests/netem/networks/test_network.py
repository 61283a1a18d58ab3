import math

import msgspec
import networkx as nx
import pytest

from grapevine.netem import AnyNetwork, Edges, LinkSpec, NetworkPlan, Regions, Uniform, Unshaped

MBIT = 1e6 / 8
MS = 1_000_000


def test_mathis_formula():
    spec = LinkSpec(delay_ns=50 * MS, loss=0.001)  # RTT 100 ms
    assert spec.effective_rate_bytes_per_s == pytest.approx(1.22 * 1448 / (0.1 * math.sqrt(0.001)))
    assert spec.effective_rate_bytes_per_s == pytest.approx(4.5 * MBIT, rel=0.01)
    assert LinkSpec(delay_ns=50 * MS, loss=0.01).effective_rate_bytes_per_s == pytest.approx(1.4 * MBIT, rel=0.02)


def test_loss_binds_only_above_its_rate_and_not_without_delay():
    assert LinkSpec(1 * MBIT, 50 * MS, 0, 0.001).effective_rate_bytes_per_s == 1 * MBIT
    assert LinkSpec(9 * MBIT, 0, 0, 0.5).effective_rate_bytes_per_s == 9 * MBIT
    assert LinkSpec(delay_ns=50 * MS).effective_rate_bytes_per_s == math.inf


def test_unshaped_limits_nothing():
    plan = Unshaped().plan(nx.path_graph(3), seed=0)
    assert plan.links == dict.fromkeys([(0, 1), (1, 0), (1, 2), (2, 1)], LinkSpec())
    assert plan.uplinks == plan.downlinks == [math.inf] * 3
    assert plan.places is None
    assert plan.link(0, 1).send(4, 10**9) == (4, 4, 4)


def test_uniform_sets_every_link_and_access_line():
    network = Uniform(rate="20 Mbit/s", delay="40 ms", jitter="4 ms", loss=0.01, uplink="50 Mbit/s", downlink="200 Mbit/s")
    plan = network.plan(nx.complete_graph(4), seed=0)
    assert len(plan.links) == 12
    assert set(plan.links.values()) == {LinkSpec(20 * MBIT, 40 * MS, 4 * MS, 0.01)}
    assert (plan.uplinks, plan.downlinks) == ([50 * MBIT] * 4, [200 * MBIT] * 4)


def test_an_empty_uniform_is_unshaped():
    assert Uniform().plan(nx.path_graph(2), 0) == Unshaped().plan(nx.path_graph(2), 0)


def test_the_link_has_the_effective_rate_the_delay_and_the_jitter():
    link = Uniform(rate="20 Mbit/s", delay="50 ms", jitter="3 ms", loss=0.001).plan(nx.path_graph(2), 0).link(0, 1)
    assert link.rate_bytes_per_s == pytest.approx(4.47 * MBIT, rel=0.001)
    assert (link.delay_ns, link.jitter_ns) == (50 * MS, 3 * MS)


def test_each_link_draws_its_own_numbers_and_keeps_them_when_peers_join():
    def dues(peers, seed, source, target):
        link = Uniform(delay="50 ms", jitter="9 ms").plan(nx.complete_graph(peers), seed).link(source, target)
        return [link.send(now_ns, 1).due_ns - now_ns for now_ns in range(0, 10**10, 10**9)]

    assert dues(3, 7, 0, 1) == dues(3, 7, 0, 1) == dues(9, 7, 0, 1)
    assert len({tuple(dues(3, *key)) for key in [(7, 0, 1), (7, 1, 0), (7, 0, 2), (7, 2, 1), (8, 0, 1)]}) == 5


@pytest.mark.parametrize("network", [Unshaped(), Uniform(rate="1 Mbit/s"), Edges(rate="1 Mbit/s"), Regions()])
def test_every_network_plans_both_directions_of_every_edge_and_arc(network):
    for graph in (nx.random_regular_graph(4, 14, seed=1), nx.gn_graph(14, seed=1), nx.empty_graph(3)):
        plan = network.plan(graph, seed=3)
        assert isinstance(plan, NetworkPlan)
        assert set(plan.links) == {pair for u, v in graph.edges for pair in ((u, v), (v, u))}
        assert list(plan.links) == sorted(plan.links)
        assert len(plan.uplinks) == len(plan.downlinks) == len(graph)


def test_nodes_must_be_numbered():
    with pytest.raises(ValueError, match="convert_node_labels_to_integers"):
        Unshaped().plan(nx.relabel_nodes(nx.path_graph(3), {0: "a"}), 0)


def test_loops_are_left_out():
    assert Unshaped().plan(nx.Graph([(0, 0), (0, 1)]), 0).links.keys() == {(0, 1), (1, 0)}


def test_edges_take_their_attributes_and_the_options_where_they_have_none():
    graph = nx.Graph()
    graph.add_edge(0, 1, rate="5 Mbit/s", delay="10 ms", jitter="1 ms", loss="0.02", weight=3.0)
    graph.add_edge(1, 2, loss=0.5)
    graph.nodes[1]["uplink"] = "7 Mbit/s"
    graph.nodes[2]["downlink"] = "8 Mbit/s"
    plan = Edges(rate="1 Mbit/s", delay="2 ms", uplink="9 Mbit/s").plan(graph, seed=0)
    assert plan.links[0, 1] == plan.links[1, 0] == LinkSpec(5 * MBIT, 10 * MS, MS, 0.02)
    assert plan.links[1, 2] == plan.links[2, 1] == LinkSpec(MBIT, 2 * MS, 0, 0.5)
    assert plan.uplinks == [9 * MBIT, 7 * MBIT, 9 * MBIT]
    assert plan.downlinks == [math.inf, math.inf, 8 * MBIT]


def test_an_arc_holds_for_the_way_back_unless_there_is_one():
    graph = nx.DiGraph()
    graph.add_edge(0, 1, rate="5 Mbit/s")
    graph.add_edge(1, 2, rate="6 Mbit/s")
    graph.add_edge(2, 1, rate="7 Mbit/s")
    plan = Edges().plan(graph, seed=0)
    rates = {pair: spec.rate_bytes_per_s / MBIT for pair, spec in plan.links.items()}
    assert rates == {(0, 1): 5, (1, 0): 5, (1, 2): 6, (2, 1): 7}


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"rate": "5"}, r"edge 1-2: rate: '5' is not a rate.*'20 Mbit/s'"),
        ({"rate": 5.0}, r"edge 1-2: rate: 5.0 is not a rate"),
        ({"delay": "ten ms"}, r"edge 1-2: delay: 'ten ms'"),
        ({"jitter": "-1 ms"}, r"edge 1-2: jitter: '-1 ms'"),
        ({"loss": 1.0}, r"edge 1-2: loss: 1.0 is not a share.*0.001"),
        ({"loss": "1 %"}, r"edge 1-2: loss: '1 %'"),
        ({"loss": math.nan}, r"edge 1-2: loss: nan"),
        ({"loss": True}, r"edge 1-2: loss: True"),
        ({"loss": None}, r"edge 1-2: loss: None"),
    ],
)
def test_a_wrong_attribute_names_its_edge(attributes, message):
    graph = nx.path_graph(3)
    graph.edges[1, 2].update(attributes)
    with pytest.raises(ValueError, match=message):
        Edges().plan(graph, seed=0)


def test_a_wrong_attribute_names_its_node():
    graph = nx.path_graph(3)
    graph.nodes[2]["uplink"] = "fast"
    with pytest.raises(ValueError, match="node 2: uplink: 'fast' is not a rate"):
        Edges().plan(graph, seed=0)


def test_edges_refuses_a_graph_without_attributes():
    with pytest.raises(ValueError, match="unshaped"):
        Edges().plan(nx.cycle_graph(4), seed=0)


def test_edge_attributes_survive_graphml(tmp_path):
    graph = nx.path_graph(2)
    graph.edges[0, 1].update(rate="5 Mbit/s", delay="10 ms", loss=0.01)
    nx.write_graphml(graph, tmp_path / "graph.graphml")
    read = nx.read_graphml(tmp_path / "graph.graphml", node_type=int)
    assert Edges().plan(read, seed=0).links[0, 1] == LinkSpec(5 * MBIT, 10 * MS, 0, 0.01)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "uniform", "rate": "20"}, "rate: '20' is not a rate"),
        ({"name": "uniform", "rate": 20}, "Expected `str`"),
        ({"name": "uniform", "delay": "40"}, "delay: '40' is not a duration"),
        ({"name": "uniform", "loss": 1}, "Expected `float` < 1.0"),
        ({"name": "uniform", "downlink": "0 B/s"}, "downlink: '0 B/s'"),
        ({"name": "uniform", "lag": "1 s"}, "unknown field `lag`"),
        ({"name": "edges", "uplink": "much"}, "uplink: 'much'"),
        ({"name": "edges", "jitter": "x"}, "jitter: 'x'"),
        ({"name": "regions", "table": "gcp"}, "Invalid enum value 'gcp'"),
        ({"name": "regions", "places": ["Virginia", "Atlantis"]}, "places: 'Atlantis' is not a region of ec2: expected Vir"),
        ({"name": "regions", "rate_factor": 0}, "Expected `float` > 0"),
        ({"name": "regions", "rate_factor": math.inf}, "rate_factor: inf"),
        ({"name": "regions", "jitter": "1"}, "jitter: '1'"),
        ({"name": "regions", "downlink": "1"}, "downlink: '1'"),
        ({"name": "carrier-pigeon"}, "Invalid value 'carrier-pigeon'"),
    ],
)
def test_bad_options_are_refused_when_read(table, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(table, AnyNetwork)


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [(Regions, {"table": "gcp"}, "expected ec2, aws18, dtfm10"), (Uniform, {"loss": -0.1}, "loss: -0.1")],
)
def test_bad_options_are_refused_from_python_too(network, options, message):
    with pytest.raises(ValueError, match=message):
        network(**options)


@pytest.mark.parametrize("network", [Unshaped(), Uniform(rate="1 B/s"), Edges(), Regions(places=("Tokyo", "Seoul"))])
def test_options_survive_the_trip_to_a_file_and_back(network):
    assert msgspec.convert(msgspec.to_builtins(network), AnyNetwork) == network
