"""Access lines of the peers, shared by their links."""

import math

import networkx as nx
import pytest

from grapevine.netem import Access


def test_a_link_is_as_fast_as_the_slower_line_and_lines_are_shared() -> None:
    network = Access(lines=("8 Mbit/s", "4 Mbit/s", "unlimited"), up=("2 Mbit/s", "4 Mbit/s", "unlimited"), delay="5 ms")
    plan = network.plan(nx.complete_graph(4), 0)
    rates = {pair: spec.rate_bytes_per_s for pair, spec in plan.links.items()}
    assert rates[0, 1] == rates[0, 2] == 250_000
    assert rates[1, 0] == 500_000
    assert rates[2, 0] == 1_000_000
    assert rates[2, 1] == rates[1, 2] == 500_000
    assert rates[3, 1] == 250_000  # the lines are cycled over the peers
    assert plan.uplinks == [250_000, 500_000, math.inf, 250_000]
    assert plan.downlinks == [1_000_000, 500_000, math.inf, 1_000_000]
    assert {spec.delay_ns for spec in plan.links.values()} == {5_000_000}


def test_a_factor_scales_every_line() -> None:
    plan = Access(lines=("800 Mbit/s", "40 Mbit/s"), rate_factor=0.01).plan(nx.complete_graph(2), 0)
    assert plan.uplinks == plan.downlinks == pytest.approx([1_000_000, 50_000])
    assert plan.links[0, 1].rate_bytes_per_s == pytest.approx(50_000)


def test_links_have_rates_of_their_own_below_the_lines() -> None:
    network = Access(lines=("6 Mbit/s", "unlimited"), links=("8 Mbit/s", "4 Mbit/s", "2 Mbit/s"), rate_factor=0.5)
    plan = network.plan(nx.complete_graph(4), 0)
    rates = {pair: spec.rate_bytes_per_s for pair, spec in plan.links.items()}
    # in order 0-1, 0-2, 0-3, 1-2, 1-3, 2-3; the lines of peers 0 and 2 carry 3 Mbit/s
    expected = {(0, 1): 375_000, (0, 2): 250_000, (0, 3): 125_000, (1, 2): 375_000, (1, 3): 250_000, (2, 3): 125_000}
    assert {edge: rates[edge] for edge in expected} == expected
    assert all(rates[target, source] == rate for (source, target), rate in expected.items())


def test_without_lines_links_share_nothing() -> None:
    plan = Access(lines=("unlimited",), links=("8 Mbit/s", "4 Mbit/s")).plan(nx.complete_graph(3), 0)
    assert plan.shared().limits == []
    assert {spec.rate_bytes_per_s for spec in plan.links.values()} == {1_000_000, 500_000}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lines": ()}, "lines: the list is empty"),
        ({"lines": ("5",)}, "lines"),
        ({"lines": ("5 Mbit/s",), "up": ("1 Mbit/s", "2 Mbit/s")}, "up: 2 for 1 lines: expected one for each"),
        ({"links": ("5",)}, "links"),
        ({"rate_factor": 0}, "rate_factor: 0 is out of range"),
        ({"delay": "5"}, "delay"),
        ({"lines": ("unlimited",), "tcp": "cubic"}, "tcp: needs a rate"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Access(**options)
