import msgspec
import networkx as nx
import pytest

from grapevine.netem import AnyNetwork, LinkSpec, Regions
from grapevine.netem.networks.presets import Aws18, DataCentre, Dtfm10, Ec2, FiveG, FourG, Home, Lan, Satellite, access_lines
from grapevine.netem.networks.tables import read_table

MBIT = 1e6 / 8
MS = 1_000_000
PRESETS = [Lan(), DataCentre(), Ec2(), Aws18(), Dtfm10(), Home(), FourG(), FiveG(), Satellite()]


@pytest.mark.parametrize("network", PRESETS, ids=lambda network: network.__struct_config__.tag)
def test_a_preset_plans_every_link_and_reads_back(network):
    plan = network.plan(nx.complete_graph(12), 3)
    assert len(plan.links) == 132
    for pair in [(0, 1), (11, 3)]:
        transit = plan.link(*pair).send(0, 10_000)
        assert 0 < transit.finish_ns < transit.due_ns
    assert msgspec.convert(msgspec.to_builtins(network), AnyNetwork) == network


@pytest.mark.parametrize(("preset", "table"), [(Ec2, "ec2"), (Aws18, "aws18"), (Dtfm10, "dtfm10")])
def test_tables_by_name_are_those_of_regions(preset, table):
    graph = nx.complete_graph(20)
    assert preset(rate_factor=0.5).plan(graph, 1) == Regions(table=table, rate_factor=0.5).plan(graph, 1)


def test_at_home_the_slower_line_and_both_delays_count():
    plan = Home(lines=("cable", "dsl")).plan(nx.complete_graph(3), 0)
    assert plan.links[0, 1] == LinkSpec(1 * MBIT, 14 * MS + 25 * MS + 10 * MS)
    assert plan.links[1, 0] == LinkSpec(0.384 * MBIT, 49 * MS)
    assert plan.uplinks == [1 * MBIT, 0.384 * MBIT, 1 * MBIT]
    assert plan.downlinks == [5 * MBIT, 1.5 * MBIT, 5 * MBIT]
    assert plan.places == ["cable", "dsl", "cable"]
    assert all(line.rtt_ms > 0 and line.down_kbit_per_s >= line.up_kbit_per_s for line in access_lines().values())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "home", "lines": []}, "length >= 1"),
        ({"name": "home", "lines": ["modem"]}, "Invalid enum value 'modem'"),
        ({"name": "home", "distance": "far"}, "distance: 'far'"),
        ({"name": "aws18", "table": "ec2"}, "Invalid enum value 'ec2'"),
        ({"name": "4g", "rate": "x"}, "rate: 'x'"),
    ],
)
def test_bad_options_are_refused_when_read(table, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(table, AnyNetwork)


CSV = "source,target,rate [Mbit/s],rtt [ms]\nOslo,Rome,300,42\nRome,Lima,50,190\nLima,Rome,40,191\nOslo,Lima,60,200\n"
TOML = """
title = "two"
source = "ours"
measured = "by ping"
regions = ["Oslo", "Rome"]
rtt_ms = [[0, 42], [43, 0]]
rate_mbit_per_s = [[0, 300], [200, 0]]
lan_source = "ours"
[lan]
rate_mbit_per_s = 1000
rtt_ms = 1
"""


def test_a_users_table(tmp_path):
    (tmp_path / "own.csv").write_text(CSV)
    (tmp_path / "own.toml").write_text(TOML)
    table = read_table(str(tmp_path / "own.csv"))
    assert table.regions == ("Oslo", "Rome", "Lima")
    assert table.between("Rome", "Oslo") == table.between("Oslo", "Rome") == (300, 42)
    assert (table.between("Rome", "Lima"), table.between("Lima", "Rome")) == ((50, 190), (40, 191))
    plan = Regions(path=str(tmp_path / "own.toml"), places=("Rome", "Oslo", "Oslo")).plan(nx.complete_graph(3), 0)
    assert plan.links[0, 1] == LinkSpec(200 * MBIT, 21_500_000)
    assert plan.links[1, 2] == LinkSpec(1000 * MBIT, 500_000)
    with pytest.raises(ValueError, match=r"places: 'Bern' is not a region of .*own.csv: expected Oslo, Rome, Lima"):
        Regions(path=str(tmp_path / "own.csv"), places=("Bern",)).plan(nx.complete_graph(3), 0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "from,to\n", "header is 'from,to': expected source,target"),
        ("a.csv", CSV + "Oslo,Bern,1,1\n", "expected more than 0 for every pair"),
        ("a.csv", CSV + "Oslo,Bern,1\n", "row 6"),
        ("a.toml", "title = ", "own|Invalid"),
        ("a.toml", TOML.replace("42", "-1"), "is -1.0 from Oslo to Rome"),
        ("a.toml", TOML.replace("[[0, 42], [43, 0]]", "[[0, 42]]"), "rtt_ms: expected 2 rows of 2"),
        ("a.toml", 'regions = ["a"]', "missing required field"),
    ],
)
def test_a_bad_table_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        Regions(path=str(tmp_path / name)).plan(nx.path_graph(2), 0)
    assert str(caught.value).startswith("path: ")
