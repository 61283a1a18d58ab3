"""Lines of the peers' own, shared by their links."""

import math

import networkx as nx
import pytest

from netem import Access


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lines": ()}, "lines: the list is empty"),
        ({"lines": ("5",)}, "lines"),
        ({"lines": ("5 Mbit/s",), "up": ("1 Mbit/s", "2 Mbit/s")}, "up: 2 for 1 lines: expected one for each"),
        ({"rate_factor": 0}, "rate_factor: 0 is no factor"),
        ({"delay": "5"}, "delay"),
        ({"lines": ("unlimited",), "tcp": "cubic"}, "tcp: a link without a rate"),
    ],
)
def test_what_is_no_line_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Access(**options)
