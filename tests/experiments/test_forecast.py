"""`grapevine check`: its forecast agrees with the numbers of the experiment."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from grapevine.experiments import forecast as forecast_module
from grapevine.experiments.cli.main import main
from grapevine.experiments.config.experiment import Experiment, Processes, Stop, Virtual
from grapevine.experiments.fleet import build
from grapevine.experiments.forecast import Forecast, forecast, timeless, wide_jitter
from grapevine.experiments.run import run
from grapevine.experiments.tasks import Digits, Quadratic
from grapevine.netem import HostDevices, MixedDevices, Uniform, UniformDevices, Unshaped
from grapevine.peer.codecs import Codec, Float32, Int8
from grapevine.peer.optimizers import Adam, Sgd
from grapevine.peer.payloads import Dense, Sparse, encode
from grapevine.peer.peer import Peer
from grapevine.peer.strategies import DGC, DPSGD, Ako, AllReduce, FedAvg, Full, ParameterServer, Slices, Solo, Strategy
from grapevine.peer.wire import HEADER_BYTES
from grapevine.topology.graphs.menu import Complete, Star


class InStep(Strategy, frozen=True, tag="in-step"):
    """A user's synchronous strategy."""

    synchronous: ClassVar[bool] = True

    async def run(self, peer: Peer) -> None:
        while peer.running:
            peer.apply(await peer.gradient())
            await peer.gather(step=peer.step)


SIZE = 1000
MODEL_BYTES = 4 * SIZE
ANSWER_BYTES = HEADER_BYTES

BASE = Experiment(
    peers=4,
    task=Quadratic(dimension=SIZE, batch_size=10),
    network=Uniform(rate="32 Mbit/s", delay="3 ms"),  # a model of 4,000 bytes takes 1 ms, and 3 ms to arrive
    devices=UniformDevices(speed="1000 samples/s"),  # 10 ms a step
    strategy=DPSGD(),
    stop=Stop(steps=50),
)


def told(**changes: object) -> Forecast:
    """Return the forecast for the base experiment with some parts changed."""
    return forecast(build(BASE.replace(**changes)))


def test_sizes_and_times_of_a_uniform_fleet() -> None:
    seen = told()
    assert (seen.parameters, seen.model_bytes) == (SIZE, MODEL_BYTES)
    assert seen.step_ns == [10e6] * 4
    assert len(seen.links) == 8
    assert {link.transfer_ns for link in seen.links} == {4e6}
    assert not any(link.binds for link in seen.links)
    # chunks hold 2 ms of line rate, 8,000 bytes: one for each message, and one answer comes back for it
    assert seen.sent_bytes == [2 * (MODEL_BYTES + _head(SIZE) + HEADER_BYTES + ANSWER_BYTES)] * 4
    assert seen.round_ns == 10e6  # models travel while the gradient is computed
    assert seen.emulated_ns == 50 * 10e6
    assert seen.wall_ns == seen.emulated_ns
    assert seen.gradient_ns > 0
    assert seen.warnings == []


def test_a_strategy_that_waits_for_whole_models_waits_for_the_slowest_link() -> None:
    assert told(strategy=DPSGD(order="adapt-then-combine")).round_ns == 10e6 + 4e6
    assert told(topology=Complete(), strategy=Full()).round_ns == 10e6 + 4e6
    assert told(network=Uniform(delay="50 ms")).round_ns == 50e6
    assert told(network=Uniform(delay="50 ms"), strategy=Slices()).round_ns == 10e6
    slow = MixedDevices(speeds=("1000 samples/s", "200 samples/s"))
    assert told(devices=slow).step_ns == [10e6, 50e6, 10e6, 50e6]
    assert told(devices=slow).round_ns == 50e6


def test_a_link_binds_where_a_model_takes_longer_than_a_step() -> None:
    seen = told(network=Uniform(rate="3.2 Mbit/s"), devices=MixedDevices(speeds=("900 samples/s", "2000 samples/s")))
    assert {link.source: link.binds for link in seen.links} == {
        0: False,
        1: True,
        2: False,
        3: True,
    }  # 10 ms against 11.1 and 5


def test_access_lines_are_shared_by_the_links_of_a_peer() -> None:
    seen = told(topology=Star(), network=Uniform(rate="32 Mbit/s", uplink="24 Mbit/s", downlink="48 Mbit/s"))
    rates = {(link.source, link.target): link.rate_bytes_per_s * 8 / 1e6 for link in seen.links}
    assert rates == {(0, 1): 8, (0, 2): 8, (0, 3): 8, (1, 0): 16, (2, 0): 16, (3, 0): 16}


def test_partial_exchange_sends_what_the_links_carry() -> None:
    slow = Uniform(rate="1.6 Mbit/s")  # 2,000 bytes in a step of 10 ms
    assert told(network=slow, strategy=Slices(fill=0.5)).sent_bytes == [2 * (1000 + ANSWER_BYTES)] * 4
    whole = MODEL_BYTES + _head(SIZE) + HEADER_BYTES
    assert told(network=Uniform(), strategy=Slices(fill=1.0)).sent_bytes == [2 * (whole + ANSWER_BYTES)] * 4
    assert told(strategy=Solo()).sent_bytes == [0] * 4
    assert told(codec=Int8()).sent_bytes == [2 * (SIZE + 4 + _head(SIZE) + HEADER_BYTES + ANSWER_BYTES)] * 4


def test_a_message_of_many_chunks_has_a_header_for_each() -> None:
    # 1.6 Mbit/s in 2 ms is 400 bytes, less than the least chunk: 4,000 bytes travel in 3 chunks of 1,400 at most
    seen = told(network=Uniform(rate="1.6 Mbit/s"))
    assert seen.sent_bytes == [2 * (MODEL_BYTES + _head(SIZE) + 3 * HEADER_BYTES + ANSWER_BYTES)] * 4


def test_the_forecast_bytes_equal_those_of_a_run(tmp_path: Path) -> None:
    experiment = BASE.replace(world=Virtual(), stop=Stop(steps=40))
    summary = run(experiment, tmp_path / "run").summary
    foretold = forecast(build(experiment)).sent_bytes[0]
    assert summary["bytes_sent"] / summary["steps_total"] == pytest.approx(foretold, rel=0.02)


class Rarely(InStep, frozen=True, tag="rarely"):
    """Every peer sends a tenth of its model's elements with each step, and says so."""

    def step_bytes(self, size: int, codec: Codec) -> float:
        return Sparse.body_bytes(size // 10, codec)

    async def run(self, peer: Peer) -> None:
        chosen = np.arange(peer.size // 10, dtype=np.uint32)
        while peer.running:
            await peer.broadcast(Sparse(chosen, (await peer.gradient())[chosen]))
            await peer.gather(step=peer.step)
            peer.apply(np.zeros(peer.size, np.float32))


@pytest.mark.parametrize("strategy", [Rarely(), DGC(sparsity=0.75, warmup_steps=0)])
@pytest.mark.parametrize("codec", [Float32(), Int8()])
def test_the_bytes_that_a_strategy_declares_are_forecast(strategy: Strategy, codec: Codec, tmp_path: Path) -> None:
    experiment = BASE.replace(world=Virtual(), stop=Stop(steps=40), topology=Complete(), strategy=strategy, codec=codec)
    summary = run(experiment, tmp_path / "run").summary
    foretold = forecast(build(experiment)).sent_bytes[0]
    assert summary["bytes_sent"] / summary["steps_total"] == pytest.approx(
        foretold, rel=0.03
    )  # the first messages are cut in two


def test_a_strategy_that_waits_for_the_bytes_that_it_declares_waits_for_their_transfer() -> None:
    assert told(strategy=InStep()).round_ns == 10e6
    assert told(strategy=Rarely()).round_ns == 10e6 + 3e6 + 8 * 100 / 4e6 * 1e9  # 100 elements of 8 bytes at 4 MB/s


@pytest.mark.parametrize("strategy", [Slices(), Ako(), ParameterServer(mode="asp")])
def test_steps_without_virtual_time_over_links_with_delay_are_a_warning(strategy: Strategy) -> None:
    fleet = BASE.replace(world=Virtual(), devices=HostDevices(), topology=Complete(), strategy=strategy)
    (warning,) = [text for text in forecast(build(fleet)).warnings if "no virtual time" in text]
    assert "makes all its steps before the first message arrives; set devices.name" in warning
    assert timeless(build(fleet)) == warning
    for changes in (
        {"devices": UniformDevices(speed="1000 samples/s")}, {"network": Unshaped()}, {"world": Processes()},
        {"strategy": DPSGD()}, {"strategy": Solo()}, {"strategy": AllReduce()}, {"strategy": ParameterServer(mode="bsp")},
        {"strategy": DGC()}, {"strategy": InStep()},
    ):  # fmt: skip
        assert timeless(build(fleet.replace(**changes))) is None, changes


def test_check_and_run_warn_of_more_jitter_than_delay(tmp_path: Path) -> None:
    wide = BASE.replace(world=Virtual(), network=Uniform(rate="8 Mbit/s", delay="5 ms", jitter="20 ms"), stop=Stop(steps=2))
    (warning,) = [text for text in forecast(build(wide)).warnings if "jitter" in text]
    assert warning.startswith("8 links (first: 0 -> 1) have a jitter of 20 ms, more than their delay of 5 ms: ")
    assert warning in run(wide, tmp_path / "run").summary["warnings"]
    for network in (Uniform(delay="20 ms", jitter="20 ms"), Unshaped()):
        assert wide_jitter(build(wide.replace(network=network))) is None


def test_the_pace_of_this_machine_is_the_least_a_step_takes() -> None:
    assert told(devices=HostDevices(), network=Unshaped()).at_least
    assert not told(devices=HostDevices()).at_least
    assert not told(network=Unshaped()).at_least


def _head(elements: int) -> int:
    return len(encode(Dense(np.zeros(elements, np.float32)), Float32(), 1000)[0].head)


def test_the_emulated_and_the_real_time_of_a_run() -> None:
    assert told(stop=Stop(time="200 ms")).emulated_ns == 200e6
    assert told(stop=Stop(time="200 ms", steps=5)).emulated_ns == 50e6
    assert told(world=Processes(dilation=4.0)).wall_ns == 4 * 50 * 10e6
    assert told(world=Virtual()).wall_ns is None


def test_without_emulated_devices_the_pace_is_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_module, "_gradient_ns", lambda fleet: 3e6)
    monkeypatch.setattr(forecast_module, "_cores", lambda: 2)
    seen = told(devices=Experiment().devices, strategy=Solo())
    assert seen.step_ns == [6e6] * 4  # four peers on two cores
    assert seen.warnings == []


def test_a_machine_that_is_too_slow_is_a_warning_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_module, "_gradient_ns", lambda fleet: 20e6)
    monkeypatch.setattr(forecast_module, "_cores", lambda: 2)
    (warning,) = told().warnings  # 4 x 20 ms of computing in each 10 ms
    assert "8.0 cores, and this machine has 2" in warning
    assert "set world.dilation to 6 or more" in warning
    assert told(world=Processes(dilation=4.0)).warnings == []
    assert told(world=Virtual()).warnings == []


def test_gradients_that_come_late_need_a_small_learning_rate() -> None:
    ako = BASE.replace(topology=Complete(), strategy=Ako(), network=Uniform(delay="200 ms"))  # 20 steps
    (warning,) = forecast(build(ako)).warnings
    assert "up to 20 steps late" in warning
    assert "set optimizer.learning_rate to 0.03 or less" in warning
    assert forecast(build(ako.replace(optimizer=Sgd(learning_rate=0.03)))).warnings == []
    (warning,) = forecast(build(ako.replace(optimizer=Sgd(learning_rate=0.03, momentum=0.9)))).warnings
    assert "momentum included" in warning
    assert "set optimizer.learning_rate to 0.003 or less" in warning
    assert forecast(build(ako.replace(strategy=Slices()))).warnings == []
    assert forecast(build(ako.replace(optimizer=Adam()))).warnings == []


def test_a_run_that_ends_before_a_model_has_arrived() -> None:
    seen = told(network=Uniform(delay="2 s"), stop=Stop(time="1 s"), strategy=Slices())
    (warning,) = seen.warnings
    assert "a whole model needs 2 s" in warning
    assert "raise stop.time" in warning


def test_an_accuracy_that_no_task_has() -> None:
    assert "this task has no accuracy" in told(stop=Stop(steps=5, accuracy=0.9)).warnings[0]
    assert forecast(build(Experiment(stop=Stop(steps=5, accuracy=0.9)))).warnings == []


def test_the_machine_is_measured_on_the_task_itself() -> None:
    seen = forecast(build(Experiment(peers=4, task=Digits(hidden=(8,)))))
    assert seen.parameters == 64 * 8 + 8 + 8 * 10 + 10
    assert 0 < seen.gradient_ns < 1e9
    assert all(math.isfinite(step) and step > 0 for step in seen.step_ns)


def test_the_printed_forecast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "base.toml"
    file.write_text(BASE.to_toml())
    assert main(["check", str(file)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "experiment: is valid and can be run",
        "4 peers, 4 edges, degree 2, diameter 2",
        "spectral gap 0.6667",
        "1,000 parameters, 4 kB as float32",
        "10 ms to compute",
        "about 8.31 kB by a peer in a step",
        "about 500 ms emulated, 500 ms in real time; stops at 50 steps",
        "0 of 8 links bind",
        "0 -> 1 32 Mbit/s 3 ms 4 ms",
    ):
        assert words in text
    assert main(["check", str(file), "--set", "peers=6"]) == 0
    assert "and 4 more" in capsys.readouterr().out  # as slow as those listed
    settings = ["--set", "network.name=unshaped", "--set", "devices.name=host"]
    assert main(["check", str(file), *settings]) == 0
    assert " ".join(capsys.readouterr().out.split()).count(" at least ") == 2
    assert main(["check", str(file), "--set", "network.rate=1 Mbit/s", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["graph"]["diameter"] == 2
    assert figures["model_bytes"] == MODEL_BYTES
    assert all(link["binds"] for link in figures["links"])


def test_the_events_are_printed_in_order_of_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "scripted.toml"
    events = '[{at = "400 ms", do = "heal"}, {at = "90 ms", do = "rate", link = [0, 1], factor = 0.1}]'
    file.write_text(BASE.to_toml())
    assert main(["check", str(file), "--set", f"events={events}"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "at 90 ms link 0-1: rate x 0.1 at 400 ms all links are healed" in text
    assert main(["check", str(file), "--set", f"events={events}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["script"][0] == {"time_s": 0.09, "what": "link 0-1: rate x 0.1"}
    assert main(["check", str(file), "--set", 'events=[{at = "1 s", do = "cut", link = [0, 2]}]']) == 2
    assert "--set: events[0].link = [0, 2]: peers 0 and 2 are not neighbours" in capsys.readouterr().err


@pytest.mark.parametrize("strategy", [FedAvg(), ParameterServer()])
def test_a_server_has_no_data_to_time_a_gradient_with(strategy: Strategy) -> None:
    assert told(topology=Complete(), strategy=strategy, task=Digits()).gradient_ns > 0
