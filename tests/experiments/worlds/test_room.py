"""How far adaptive strategies use links, alone and on lines that are shared, and how soon they know that a rate has changed."""

from __future__ import annotations

import pytest

from benchmarks import lag
from benchmarks.utilisation import STRATEGIES, measure, settings

SUM_MOST = 1.12  # of rates measured while busy, over a shared line: 1 / fill, and a little


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "delay_ms", "ratio"),
    [("slices", 5, 1.2), ("slices", 300, 6.0), ("ako", 1, 50.0), ("ako", 5, 6.0), ("tfako", 20, 1.2), ("dlion", 5, 6.0)],
)
def test_a_link_of_ones_own_is_used(name: str, delay_ms: float, ratio: float) -> None:
    """At least 85 % of its capacity where `fill` is 0.9, and no queue outlasts a step."""
    network, groups, rate = settings(delay_ms, ratio)["alone"]
    use = measure(STRATEGIES[name], network, groups, rate, steps=200)
    assert 0.85 <= use.share <= 1.0
    assert use.standing_horizons <= 1.0
    assert 0.9 <= use.rates <= 1.01


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "ratio"), [("uplink", 1.2), ("downlink", 6.0), ("both", 6.0), ("cable", 1.2)])
def test_a_line_that_links_share_is_used_without_long_queues(setting: str, ratio: float) -> None:
    network, groups, rate = settings(5, ratio)[setting]
    use = measure(STRATEGIES["ako"], network, groups, rate, steps=200)
    assert 0.85 <= use.share <= 1.0 + 1e-9
    assert use.standing_horizons <= 1.0
    assert 0.9 <= use.rates <= SUM_MOST


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.1, 3.0])
def test_a_change_of_rate_is_known_within_two_round_trips_and_two_steps(factor: float) -> None:
    """On half of the links, whose peers look at them once a step only."""
    assert lag.measure(STRATEGIES["slices"], factor, 5, seconds=1.0).known_ms <= lag.target_ms(5)
