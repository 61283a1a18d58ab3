import math

import numpy as np
import pytest

from grapevine.netem.links.jitter import Jitter

WIDTH = 1_000_000


def drawn(law, correlation=0.0, count=40_000):
    jitter = Jitter(WIDTH, np.random.default_rng(1), law, correlation)
    return np.array([jitter.draw() for _ in range(count)]) / WIDTH


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(
    ("law", "quantiles"),
    [
        ("uniform", [-0.9, -0.5, 0.0, 0.5, 0.9]),
        ("normal", [-1.645, -0.674, 0.0, 0.674, 1.645]),
        ("pareto", [(q ** (-1 / 3) - 1.5) * 2 / math.sqrt(3) for q in (0.95, 0.75, 0.5, 0.25, 0.05)]),
    ],
)
def test_the_law_does_not_depend_on_the_correlation(law, quantiles, correlation):
    got = np.quantile(drawn(law, correlation), [0.05, 0.25, 0.5, 0.75, 0.95])
    assert got == pytest.approx(quantiles, abs=0.04 if correlation < 0.5 else 0.12)


@pytest.mark.parametrize(("law", "expected"), [("normal", 0.5), ("uniform", 6 / math.pi * math.asin(0.25))])
def test_a_message_is_correlated_with_the_previous_one(law, expected):
    got = drawn(law, 0.5)
    assert np.corrcoef(got[1:], got[:-1])[0, 1] == pytest.approx(expected, abs=0.02)
    assert np.corrcoef(got[2:], got[:-2])[0, 1] == pytest.approx(expected**2, abs=0.03)


def test_the_bounds_of_the_laws():
    assert np.abs(drawn("uniform", 0.7)).max() <= 1
    assert drawn("pareto").min() >= -math.sqrt(1 / 3) - 1e-6


@pytest.mark.parametrize("bad", [{"width_ns": -1}, {"correlation": 1.0}, {"correlation": -0.1}, {"law": "gamma"}])
def test_a_bad_jitter_is_refused(bad):
    with pytest.raises(ValueError, match="jitter"):
        Jitter(**{"width_ns": 1, "rng": np.random.default_rng(0)} | bad)
