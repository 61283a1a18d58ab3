import itertools

import networkx as nx
import pytest

from grapevine.netem import LinkSpec, Regions, region_table

MBIT = 1e6 / 8
TABLES = {"ec2": 11, "aws18": 18, "dtfm10": 10}


@pytest.mark.parametrize(("name", "count"), TABLES.items())
def test_all_pairs_are_present_and_plausible(name, count):
    table = region_table(name)
    assert len(set(table.regions)) == len(table.regions) == count
    for matrix, low, high in ((table.rtt_ms, 5, 420), (table.rate_mbit_per_s, 15, 5000)):
        assert len(matrix) == count
        for i, row in enumerate(matrix):
            assert len(row) == count
            assert row[i] is None
            assert all(low <= value <= high for j, value in enumerate(row) if i != j)


@pytest.mark.parametrize("name", ["ec2", "dtfm10"])
def test_what_the_source_took_as_symmetric_is_symmetric(name):
    table = region_table(name)
    for a, b in itertools.combinations(table.regions, 2):
        assert table.between(a, b) == table.between(b, a)


def test_aws18_keeps_both_directions_as_measured():
    table = region_table("aws18")
    assert table.between("us-east-1", "us-east-2") == (4739, 11.5)
    assert table.between("us-east-2", "us-east-1") == (4739, 11.4)
    for a, b in itertools.combinations(table.regions, 2):
        assert table.between(a, b)[1] == pytest.approx(table.between(b, a)[1], rel=0.25)


@pytest.mark.parametrize("name", TABLES)
def test_every_table_names_its_source_and_our_choices(name):
    table = region_table(name)
    assert table.source
    assert table.measured
    assert "our choice" in table.lan_source
    assert bool(table.filled_rtt) == bool(table.filled_source) == (name == "ec2")


@pytest.mark.parametrize(
    ("a", "b", "rate", "rtt"),
    [
        ("Virginia", "California", 120, 72),
        ("Virginia", "Sao Paulo", 100, 120),
        ("Singapore", "Sao Paulo", 17, 328),
        ("Ireland", "Frankfurt", 190, 20),
        ("Frankfurt", "Mumbai", 100, 113.9),
        ("Tokyo", "Seoul", 165, 31),
        ("Oregon", "Sydney", 45, 162),
    ],
)
def test_ec2_as_gaia_measured(a, b, rate, rtt):
    assert region_table("ec2").between(a, b) == (rate, rtt)


def test_ec2_round_trips_that_gaia_lacks_are_those_of_aws18():
    on_aws = {
        "Virginia": "us-east-1",
        "California": "us-west-1",
        "Oregon": "us-west-2",
        "Ireland": "eu-west-1",
        "Frankfurt": "eu-central-1",
        "Tokyo": "ap-northeast-1",
        "Seoul": "ap-northeast-2",
        "Singapore": "ap-southeast-1",
        "Sydney": "ap-southeast-2",
        "Mumbai": "ap-south-1",
        "Sao Paulo": "sa-east-1",
    }
    ec2, aws18 = region_table("ec2"), region_table("aws18")
    mumbai = {frozenset({"Mumbai", region}) for region in ec2.regions if region != "Mumbai"}
    seoul = {frozenset({"Seoul", region}) for region in ("Oregon", "Ireland", "Frankfurt")}
    assert {frozenset(pair) for pair in ec2.filled_rtt} == mumbai | seoul
    for a, b in ec2.filled_rtt:
        there, back = aws18.between(on_aws[a], on_aws[b])[1], aws18.between(on_aws[b], on_aws[a])[1]
        assert ec2.between(a, b)[1] == pytest.approx((there + back) / 2, abs=0.051)


def test_rates_and_half_the_round_trip():
    plan = Regions(places=("Singapore", "Sao Paulo")).plan(nx.path_graph(2), seed=0)
    assert plan.links == dict.fromkeys([(0, 1), (1, 0)], LinkSpec(17 * MBIT, 164_000_000))
    assert plan.places == ["Singapore", "Sao Paulo"]


def test_places_are_cycled_and_one_region_is_a_lan():
    plan = Regions(table="dtfm10", places=("Tokyo", "London", "Ohio")).plan(nx.complete_graph(7), seed=0)
    assert plan.places == ["Tokyo", "London", "Ohio", "Tokyo", "London", "Ohio", "Tokyo"]
    assert plan.links[0, 3] == plan.links[3, 6] == LinkSpec(2000 * MBIT, 5_000_000)
    assert plan.links[0, 1] == plan.links[6, 4] == LinkSpec(366 * MBIT, 105_000_000)


def test_all_regions_of_the_table_by_default():
    plan = Regions(table="aws18").plan(nx.complete_graph(20), seed=0)
    assert plan.places == [*region_table("aws18").regions, "us-east-1", "us-east-2"]
    assert len(plan.links) == 380
    assert plan.links[0, 18] == LinkSpec(10_000 * MBIT, 250_000)


def test_the_factor_scales_rates_alone():
    graph = nx.complete_graph(12)  # two of them in Virginia
    whole = Regions(uplink="50 Mbit/s", loss=0.001, jitter="1 ms").plan(graph, seed=0)
    tenth = Regions(uplink="50 Mbit/s", loss=0.001, jitter="1 ms", rate_factor=0.1).plan(graph, seed=0)
    assert tenth.uplinks == whole.uplinks == [50 * MBIT] * 12
    for pair, spec in whole.links.items():
        scaled = tenth.links[pair]
        assert scaled.rate_bytes_per_s == pytest.approx(spec.rate_bytes_per_s / 10)
        assert (scaled.delay_ns, scaled.jitter_ns, scaled.loss) == (spec.delay_ns, min(1_000_000, spec.delay_ns), 0.001)
