"""Max N against its definition, and the layout that it goes by."""

from __future__ import annotations

import numpy as np
import pytest

from grapevine.peer.layout import lay
from grapevine.peer.strategies.max_n import MaxN

LAYOUT = lay([("a", (3, 5)), ("nothing", (0, 4)), ("b", (2,)), ("one", ()), ("c", (40,))])


def by_definition(vector: np.ndarray, n: float) -> set[int]:
    """Tensor by tensor the entries with |g| >= (1 - N / 100) max |g|, but zeros."""
    found: set[int] = set()
    for tensor in LAYOUT:
        part = np.abs(vector[tensor.start : tensor.stop])
        found |= {tensor.start + place for place, size in enumerate(part) if size >= (1 - n / 100) * part.max() and size > 0}
    return found


def test_tensors_lie_one_after_the_other() -> None:
    assert [(tensor.start, tensor.stop) for tensor in LAYOUT] == [(0, 15), (15, 15), (15, 17), (17, 18), (18, 58)]
    assert lay([]) == ()


@pytest.mark.parametrize("room", [1, 4, 5, 17, 40, 57, 58, 100])
@pytest.mark.parametrize("n_least", [0.0, 0.85, 30.0, 100.0])
def test_the_largest_n_that_fits_is_chosen_and_n_least_goes_anyhow(room: int, n_least: float) -> None:
    rng = np.random.default_rng(room)
    vector = rng.normal(size=58) * np.repeat([1, 100, 0.01, 1e-6], [15, 2, 1, 40])
    vector[[3, 20]] = 0.0
    chosen = MaxN(LAYOUT).choose(vector, room, n_least)
    assert chosen.dtype == np.uint32
    assert (np.diff(chosen.astype(int)) > 0).all()
    largest = np.concatenate([np.full(t.stop - t.start, np.abs(vector[t.start : t.stop]).max(initial=0)) for t in LAYOUT])
    each_n = 100 * (1 - np.abs(vector) / largest) + 1e-9  # between two of these the choice does not change
    fitting = [n for n in sorted(each_n) if len(by_definition(vector, n)) <= room]
    expected = by_definition(vector, fitting[-1]) if fitting else set()
    assert set(chosen.tolist()) == expected | by_definition(vector, n_least)


def test_one_tensor_of_small_gradients_is_not_starved_by_another() -> None:
    vector = np.concatenate([np.linspace(100, 200, 17), [0.5], np.linspace(0.001, 0.002, 40)])
    chosen = MaxN(LAYOUT).choose(vector, 20, 0.85)
    assert (chosen >= 18).sum() > 5


def test_nothing_is_chosen_of_nothing_and_all_equals_go_together() -> None:
    assert not len(MaxN(LAYOUT).choose(np.zeros(58), 10, 100.0))
    assert len(MaxN(LAYOUT).choose(np.ones(58), 1, 0.0)) == 58
