"""Shared segments in both worlds: by the book in virtual time, and alike in real time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.sharing import arrivals_s, random_network, random_transfers
from grapevine import ConfigError, Experiment, run
from grapevine.experiments.config.experiment import Processes, Stop, Virtual
from grapevine.experiments.fleet import build
from grapevine.experiments.tasks import Quadratic
from grapevine.experiments.worlds.virtual.link import PeerLink
from grapevine.experiments.worlds.virtual.shared_link import SharedLink
from grapevine.netem import Edges, Uniform, UniformDevices
from grapevine.peer.endpoint import Prepared
from grapevine.peer.payloads import Parcel
from grapevine.peer.strategies import DPSGD, Slices, Strategy
from grapevine.peer.wire import HEADER_BYTES
from grapevine.topology.graphs.menu import Ring
from tests.netem.shaping.fluid import leave_ns


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_virtual_transfers_arrive_by_the_book(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message's last bit leaves when progressive filling says, and arrives a delay later."""
    graph = random_network(seed, 8)
    listed = random_transfers(graph, seed, 120, 2.0)
    sizes: dict[tuple[int, int], list[int]] = {}
    prepare = PeerLink.prepare

    def preparing(self: PeerLink, parcel: Parcel, now_ns: int, horizon_ns: float) -> Prepared:
        prepared = prepare(self, parcel, now_ns, horizon_ns)
        debt_bytes = self.sender.debt_bytes if not isinstance(self, SharedLink) else 0
        sizes.setdefault((self.source, self.target), []).append(prepared.size_bytes + debt_bytes)
        return prepared

    monkeypatch.setattr(PeerLink, "prepare", preparing)
    monkeypatch.setattr(PeerLink, "arrived", lambda self, delivery: None)  # acknowledgements take bytes too
    arrived_s, _ = arrivals_s(graph, listed, Virtual(), 20.0)
    plan = Edges().plan(graph, 0)
    order = sorted(range(len(listed)), key=lambda place: listed[place][0])
    transfers = [(*listed[place][:3], sizes[listed[place][1:3]].pop(0)) for place in order]
    assert all(size > 4 * listed[place][3] + HEADER_BYTES for place, (*_, size) in zip(order, transfers, strict=True))
    expected_s = [
        (left_ns + plan.links[source, target].delay_ns) / 1e9
        for left_ns, (_, source, target, _) in zip(leave_ns(plan, transfers), transfers, strict=True)
    ]
    np.testing.assert_allclose(arrived_s[order], expected_s, rtol=2e-7, atol=2e-7)  # as exact as float32 keeps it


@pytest.mark.live
def test_both_worlds_share_alike(tmp_path: Path) -> None:
    """What the stamps of the emulator say, not what this machine's timers do; a host too slow for real time says so."""
    graph = random_network(5, 6)
    listed = random_transfers(graph, 5, 60, 1.5)
    virtual_s, _ = arrivals_s(graph, listed, Virtual(), 2.5)
    live_s, late_ms = arrivals_s(graph, listed, Processes(), 2.5)
    asked_s = np.array([at_ns / 1e9 for at_ns, *_ in listed])
    known = np.isfinite(virtual_s)
    assert known.mean() > 0.9
    if late_ms > 5:
        pytest.skip("this machine is too busy for real time just now, and the run says so itself")
    apart_s = np.abs(live_s - virtual_s)[known]
    near = (apart_s <= 0.002) | (apart_s <= 0.02 * (virtual_s - asked_s)[known])
    assert near.mean() >= 0.95
    assert np.median(apart_s) < 0.0005


BOTTLENECK = """
peers = 4
[topology]
name = "complete"
[network]
name = "uniform"
[[network.bottlenecks]]
rate = "10 Mbit/s"
here = [0, 1]
{more}
"""


def test_a_bottleneck_in_a_file_is_read_written_and_refused_with_its_key() -> None:
    experiment = Experiment.parse(BOTTLENECK.format(more="there = [2]"))
    assert Experiment.parse(experiment.to_toml()) == experiment
    assert len(build(experiment).plan.cables) == 2
    for more, problem in (
        ('rat = "1"', r"network\.bottlenecks\[0\]\.rat: no such field"),
        ("there = [9]", r"network.*bottlenecks\[0\]\.there: there is no peer 9"),
    ):
        with pytest.raises(ConfigError, match=problem):
            build(Experiment.parse(BOTTLENECK.format(more=more)))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [DPSGD(), Slices()])
def test_strategies_bear_messages_that_overtake_each_other(strategy: Strategy, tmp_path: Path) -> None:
    """With a jitter of several messages' length, and some packets twice, over shared and private links."""
    asked = Experiment(
        peers=5, topology=Ring(), world=Virtual(), strategy=strategy, stop=Stop(time="6 s"),
        task=Quadratic(targets=(1.0, 2.0, 3.0, 4.0, 5.0), dimension=500), devices=UniformDevices(speed="500 samples/s"),
        network=Uniform(rate="4 Mbit/s", delay="90 ms", jitter="80 ms", reorder=True, duplicate=0.1, uplink="5 Mbit/s"),
    )  # fmt: skip
    result = run(asked, out=tmp_path / "run")
    assert result.summary["completed"], result.summary["reason"]
    assert not [text for text in result.summary["warnings"] if "dropped" in text]
    assert abs(result.weights.mean() - 3.0) < 0.2
