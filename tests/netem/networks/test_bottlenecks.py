import networkx as nx
import pytest

from grapevine.netem import Bottleneck, Home, Regions, Uniform

MBIT = 1e6 / 8


def cables(graph, *bottlenecks, network=Uniform):
    return network(bottlenecks=bottlenecks).plan(graph, 0).cables


def test_a_cable_between_two_groups_has_two_directions():
    there, back = cables(nx.complete_graph(4), Bottleneck(rate="8 Mbit/s", here=(0, 1), there=(3,)))
    assert there.rate_bytes_per_s == back.rate_bytes_per_s == 8 * MBIT
    assert there.links == ((0, 3), (1, 3))
    assert back.links == ((3, 0), (3, 1))


def test_the_other_end_defaults_to_all_other_peers_and_may_be_the_same_group():
    there, _ = cables(nx.path_graph(4), Bottleneck(rate="8 Mbit/s", here=(1,)))
    assert there.links == ((1, 0), (1, 2))
    (cell,) = cables(nx.complete_graph(4), Bottleneck(rate="8 Mbit/s", here=(0, 1, 2), there=(2, 1, 0)))
    assert len(cell.links) == 6


def test_places_name_groups():
    network = Regions(places=("Oregon", "Tokyo"), bottlenecks=(Bottleneck(rate="8 Mbit/s", here=("Oregon",)),))
    there, _ = network.plan(nx.complete_graph(5), 0).cables
    assert {source for source, _ in there.links} == {0, 2, 4}
    home = Home(lines=("dsl", "cable"), bottlenecks=(Bottleneck(rate="8 Mbit/s", here=("dsl",), there=(1,)),))
    assert [cable.links for cable in home.plan(nx.path_graph(3), 0).cables] == [((0, 1), (2, 1)), ((1, 0), (1, 2))]


@pytest.mark.parametrize(
    ("bottleneck", "problem"),
    [
        ({"rate": "8 Mbit/s", "here": (7,)}, r"bottlenecks\[0\].here: there is no peer 7: expected 0 to 3"),
        ({"rate": "8 Mbit/s", "here": ("Oslo",)}, r"no peer is at a place 'Oslo': known places are none, give the numbers"),
        ({"rate": "8 Mbit/s", "here": (0,), "there": (2,)}, "no link of the graph joins 0 and 2"),
        ({"rate": "8", "here": (0,)}, "rate: '8' is not a rate"),
        ({"rate": "8 Mbit/s", "here": ()}, "here: the list is empty"),
    ],
)
def test_a_bad_bottleneck_is_refused(bottleneck, problem):
    with pytest.raises(ValueError, match=problem):
        cables(nx.cycle_graph(4), Bottleneck(**bottleneck))


def test_the_kernel_backend_refuses_bottlenecks():
    with pytest.raises(ValueError, match="bottlenecks: the kernel backend lacks it"):
        Uniform(rate="1 Mbit/s", backend="kernel", bottlenecks=(Bottleneck(rate="1 Mbit/s", here=(0,)),))
