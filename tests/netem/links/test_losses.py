import numpy as np
import pytest

from grapevine.netem.links.losses import Losses


def lost(losses, packets=200_000):
    return np.array([losses.pass_packets(1) for _ in range(packets)])


@pytest.mark.parametrize(("burst", "share_in_burst"), [(1, 1), (4, 1), (10, 0.5)])
def test_the_share_is_as_asked_whatever_the_bursts(burst, share_in_burst):
    got = lost(Losses(0.02, np.random.default_rng(1), burst, share_in_burst))
    assert got.mean() == pytest.approx(0.02, rel=0.15)


def test_bursts_are_as_long_as_asked():
    got = lost(Losses(0.05, np.random.default_rng(2), burst=5))
    begins = np.flatnonzero(np.diff(np.concatenate([[0], got])) == 1)
    assert got.sum() / len(begins) == pytest.approx(5, rel=0.1)


def test_losses_alone_are_independent():
    got = lost(Losses(0.1, np.random.default_rng(3)))
    assert np.corrcoef(got[1:], got[:-1])[0, 1] == pytest.approx(0, abs=0.01)


def test_packets_may_pass_in_any_portions():
    one, other = (Losses(0.03, np.random.default_rng(4), burst=2) for _ in range(2))
    portions = np.random.default_rng(5).integers(0, 300, 400)
    assert sum(one.pass_packets(int(portion)) for portion in portions) == other.pass_packets(int(portions.sum()))


def test_which_packets_are_lost_does_not_depend_on_the_portions():
    one, other = (Losses(0.03, np.random.default_rng(7), burst=2) for _ in range(2))
    places, passed = [], 0
    for portion in np.random.default_rng(8).integers(0, 300, 400).tolist():
        places += [passed + place for place in one.lost_among(portion)]
        passed += portion
    assert places == other.lost_among(passed)
    assert places == sorted(set(places))
    assert len(places) == pytest.approx(0.03 * passed, rel=0.2)


def test_nothing_is_lost_at_none_and_a_new_share_holds_from_then_on():
    losses = Losses(0.0, np.random.default_rng(6))
    assert losses.pass_packets(10**9) == 0
    assert losses.tries() == 1
    losses.become(0.1)
    assert losses.pass_packets(100_000) == pytest.approx(10_000, rel=0.05)
    assert np.mean([losses.tries() for _ in range(20_000)]) == pytest.approx(1 / 0.9, rel=0.02)


@pytest.mark.parametrize(
    "bad", [{"share": 1.0}, {"share": -0.1}, {"share": 0.5, "share_in_burst": 0.5}, {"share": 0.1, "burst": 0.5}]
)
def test_a_bad_loss_is_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        Losses(rng=np.random.default_rng(0), **bad)
