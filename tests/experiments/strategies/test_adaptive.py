"""What adapts to measured links does so in time: sizes, queues, frequency, weights."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from grapevine.experiments.config.experiment import Stop
from grapevine.experiments.tasks import Quadratic
from grapevine.netem import MixedDevices, Network, NetworkPlan, ScheduleNetwork, Uniform, UniformDevices
from grapevine.peer.message import Message
from grapevine.peer.meter import LinkMeter, SpeedMeter
from grapevine.peer.optimizers import Sgd
from grapevine.peer.payloads import Dense
from grapevine.peer.strategies.ako import Ako
from grapevine.peer.strategies.dlion import DLion
from grapevine.peer.strategies.gaia import Gaia
from grapevine.peer.strategies.slices import Slices, _Heard
from grapevine.peer.strategies.tfako import TFAko
from grapevine.topology.graphs.menu import Ring
from tests.experiments.strategies.fleets import WIDE, asked, carried_out, listen, longest_queue_s, make_world, normal_targets
from tests.helpers import make_peer

MODEST = normal_targets(3, 5_000, seed=6)
DROP_S, RISE_S, END_S = 3, 6, 10

ADAPTIVE = [
    Ako(),
    Ako(schedule="rates"),
    TFAko(parts_most=64),
    Slices(),
    DLion(batching=False, transfer_every=0),
    DLion(batching=False, transfer_every=0, keep=False),
    Gaia(slack=100, threshold=0.0, adapt=0.0),
    Gaia(slack=100, threshold=0.01),
]


class OneDrops(Network, frozen=True, tag="one-drops"):
    """The link from peer 0 to peer 1 changes, the others stay."""

    changing: ScheduleNetwork
    still: Uniform

    def plan(self, graph: Any, seed: int) -> NetworkPlan:
        plan = self.still.plan(graph, seed)
        links = plan.links | {(0, 1): self.changing.plan(graph, seed).links[0, 1]}
        return msgspec.structs.replace(plan, links=links)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ADAPTIVE, ids=lambda strategy: type(strategy).__name__)
@pytest.mark.parametrize(("which", "delay"), [("all", "1 ms"), ("one", "20 ms")])
def test_a_link_that_drops_to_a_tenth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: Any, which: str, delay: str
) -> None:
    """Sizes fall to a third within 3 exchanges, no queue lasts a second, and both recover with the link; where one link
    drops alone, what the others carry does not."""
    said = listen(monkeypatch)
    rates = ("2 Mbit/s", "200 kbit/s", "2 Mbit/s")
    schedule = ScheduleNetwork(times=("0 s", f"{DROP_S} s", f"{RISE_S} s"), rates=rates, delay=delay)
    network = schedule if which == "all" else OneDrops(changing=schedule, still=Uniform(rate="2 Mbit/s", delay=delay))
    world = make_world(
        tmp_path,
        asked(3, task=Quadratic(targets=MODEST, noise=3.0), strategy=strategy, network=network,
              devices=UniformDevices(speed="20 samples/s"), stop=Stop(time=f"{END_S} s")),
    )  # fmt: skip
    queues_s: list[float] = []
    for twentieth in range(1, END_S * 20):
        world._at(twentieth * 50_000_000 + 1, lambda: queues_s.append(longest_queue_s(world)))
    assert world.run().completed
    assert len(queues_s) == END_S * 20 - 1
    assert 0.0 < max(queues_s) < 1.0
    sizes: dict[tuple[int, int], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for message in said:
        if len(message.payload.values):
            sizes[message.source, message.target][message.now_ns] += len(message.payload.values)
    assert len(sizes) == 6
    for link, exchanges in sizes.items():
        before = _sizes(exchanges, 1.5, DROP_S)
        during = _sizes(exchanges, DROP_S, RISE_S)
        after = _sizes(exchanges, RISE_S + 2, END_S)
        assert np.median(after) > 0.7 * np.median(before)
        if which == "one" and link != (0, 1):
            if link != (1, 0):  # whose acknowledgements come back over the slow link
                assert np.median(during) > 0.7 * np.median(before)
            continue
        assert np.median(during[3:]) < 0.35 * np.median(before)
        assert max(during[3:6]) < 0.5 * np.median(before)


def _sizes(exchanges: dict[int, int], since_s: float, until_s: float) -> list[int]:
    return [size for now_ns, size in exchanges.items() if since_s * 1e9 < now_ns <= until_s * 1e9]


@pytest.mark.slow
@pytest.mark.parametrize("rate_kbit", [64, 400, 2_000, 20_000, 1_000_000])
def test_slices_keep_every_link_busy_without_tuning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate_kbit: int) -> None:
    """From 160 times less than a model in a step to far more: the link is used, and no message is a trifle."""
    said = listen(monkeypatch)
    network = Uniform(rate=f"{rate_kbit} kbit/s", delay="1 ms")
    devices = UniformDevices(speed="20 samples/s")
    carried_out(
        tmp_path,
        asked(4, topology=Ring(), task=Quadratic(targets=WIDE), strategy=Slices(), network=network, devices=devices,
              stop=Stop(steps=360)),
    )  # fmt: skip
    late = [message for message in said if message.step > 160 and (message.source, message.target) == (0, 1)]
    sent = sum(4 * len(message.payload.values) for message in late)
    carried = min(rate_kbit * 125 * 0.05, 80_000) * 200
    assert sent > 0.6 * carried
    assert sent <= 1.05 * carried
    assert np.median([len(message.payload.values) for message in late]) >= min(20_000 / 64, rate_kbit * 125 * 0.2 / 4 * 0.5)


def test_slices_weigh_by_how_often_a_neighbour_is_heard_and_by_the_delay() -> None:
    """Halves of a vector every 2.5 ms: each element every 5 ms, half a step of 10 ms; a link of 30 ms is 3 steps late."""
    peer = make_peer(0, {1: 0.2, 2: 0.2}, 4)
    peer.speed.computed(10_000_000, 1)
    often, seldom, weigh = _Heard(), _Heard(), Slices()._weight
    half = Dense(np.zeros(2, np.float32))
    for number in range(4):
        message = Message(1, 0, half, (10_000_000.0,), 2_500_000 * number)
        assert weigh(peer, message, often) == pytest.approx(0.2 * 0.5 if number else 0.2)
        assert weigh(peer, Message(1, 0, half, (10_000_000.0,), 25_000_000 * number), seldom) == pytest.approx(0.2)
        assert Slices(scaling=False)._weight(peer, message, often) == 0.2
    peer.meters[2] = LinkMeter()
    peer.meters[2].round_trip_ns = 60_000_000.0
    assert weigh(peer, Message(2, 0, half, (10_000_000.0,), 0), _Heard()) == pytest.approx(0.2 / 2)
    assert weigh(peer, Message(2, 0, half, (30_000_000.0,), 0), _Heard()) == pytest.approx(0.2 / np.sqrt(2))


@pytest.mark.slow
@pytest.mark.parametrize("rate", ["1 Mbit/s", "100 Mbit/s"])
def test_slices_agree_on_what_everybody_was_trained_with(tmp_path: Path, rate: str) -> None:
    """Peers whose steps take 1, 2, 4 and 8 times as long pull towards corners of their own: the mean model lies at the shares
    of their samples, however often they are heard."""
    corners = tuple(tuple(100.0 * (place % 4 == peer) for place in range(400)) for peer in range(4))
    devices = MixedDevices(speeds=("320 samples/s", "160 samples/s", "80 samples/s", "40 samples/s"))
    found, _ = carried_out(
        tmp_path,
        asked(4, task=Quadratic(targets=corners), strategy=Slices(), devices=devices, optimizer=Sgd(learning_rate=0.02),
              network=Uniform(rate=rate, delay="1 ms"), stop=Stop(time="12 s")),
    )  # fmt: skip
    mean = np.mean([peer.weights for peer in found], axis=0)
    shares = [mean[peer::4].mean() for peer in range(4)]
    np.testing.assert_allclose(shares / np.sum(shares), np.array([8, 4, 2, 1]) / 15, atol=0.04)  # 0.3 without scaling


def test_slices_go_on_when_peers_die(tmp_path: Path) -> None:
    devices = MixedDevices(speeds=("20 samples/s", "70 samples/s"))
    experiment = asked(4, topology=Ring(), task=Quadratic(targets=WIDE), strategy=Slices(), devices=devices)
    found, outcome = carried_out(tmp_path, experiment, [(300_000_000, 2)])
    assert list(outcome.peers_lost) == [2]
    assert all(peer.step == 30 for peer in found if peer.id != 2)
    low, high = np.min(WIDE, axis=0), np.max(WIDE, axis=0)
    for peer in found:
        assert (peer.weights >= np.minimum(low, 0) - 1e-4).all()
        assert (peer.weights <= np.maximum(high, 0) + 1e-4).all()


def test_a_speed_meter_tells_the_overhead_from_the_samples() -> None:
    meter = SpeedMeter()
    for batch in (32, 16, 32, 40):
        meter.computed(7_000_000 + 250_000 * batch, batch)
    assert meter.overhead_ns == pytest.approx(7_000_000, rel=1e-6)
    assert meter.sample_ns == pytest.approx(250_000, rel=1e-6)
    for _ in range(300):  # batches of one size say nothing more about it, and change nothing
        meter.computed(7_000_000 + 250_000 * 40, 40)
    assert meter.overhead_ns == pytest.approx(7_000_000, rel=1e-3)
    assert meter.sample_ns == pytest.approx(250_000, rel=1e-3)
