"""Work of every kind in both worlds: the same answers, the device's time, refusals in words; a task of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from grapevine import ConfigError, Experiment, Peer, Problem, Processes, Stop, Strategy, Task, UniformDevices, Virtual, run
from grapevine.experiments.fleet import build
from grapevine.experiments.tasks import Digits, LearningProblem, Quadratic, QuadraticProblem
from grapevine.experiments.tasks.partitions import Partition
from tests.experiments.strategies.fleets import asked, carried_out, make_world

STEP_NS = 10_000_000
"""Of one sample, at 100 samples a second."""


class LeastSquares(Task, frozen=True, tag="least-squares"):
    """Lines through noisy points: 30 for each peer, and 100 to validate and to test."""

    slopes: tuple[float, ...] = (2.0, -1.0, 0.5)

    def problem(self, peers: int, partition: Partition, seed: int) -> Problem:
        rng = np.random.default_rng([seed, 17])
        x = rng.standard_normal((30 * peers + 200, len(self.slopes))).astype(np.float32)
        y = x @ np.array(self.slopes, np.float32) + 0.1 * rng.standard_normal(len(x)).astype(np.float32)
        shards = partition.split(y[: 30 * peers], peers, seed)
        return Lines(np.zeros(len(self.slopes)), shards, {"x": x, "y": y})


class Lines(Problem):
    """The mean of (x w - y)^2 / 2 over the samples."""

    def gradient(self, weights: np.ndarray, batch: Any) -> tuple[float, np.ndarray]:
        x, y = self.arrays["x"][batch.indices], self.arrays["y"][batch.indices]
        error = x @ weights - y
        return float(error @ error) / (2 * len(y)), error @ x / len(y)

    def evaluate(self, weights: np.ndarray, data: str = "test") -> tuple[np.ndarray, np.ndarray]:
        rows = slice(-200, -100) if data == "validation" else slice(-100, None)
        errors = weights @ self.arrays["x"][rows].T - self.arrays["y"][rows]
        return (errors**2).mean(axis=1) / 2, np.full(len(weights), np.nan)


class Counting(Digits, frozen=True, tag="counting-digits"):
    """The digits, and how often each class is among a peer's samples."""

    def problem(self, peers: int, partition: Partition, seed: int) -> LearningProblem:
        problem = super().problem(peers, partition, seed)
        problem.__class__ = CountingProblem
        return problem


class CountingProblem(LearningProblem):
    def offers(self) -> dict[str, Any]:
        return {**super().offers(), "histogram": lambda peer, classes: 0.1 * self.samples[peer]}

    def histogram(self, peer: int, weights: np.ndarray, classes: int) -> np.ndarray:
        return np.bincount(self.arrays["train_y"][self.indices(peer)], minlength=classes)


class Everything(Strategy, frozen=True, tag="everything"):
    """Asks for work of every kind, and says what it got and how long it took."""

    asks: ClassVar[tuple[str, ...]] = ("clip", "targets", "predict", "histogram")

    @property
    def held_out_share(self) -> float:
        return 0.2

    @property
    def probe_samples(self) -> int:
        return 25

    async def run(self, peer: Peer) -> None:
        while peer.running:
            away = peer.weights + np.float32(0.05)
            batch, probe = peer.batch(12), peer.probe()
            outputs = await self._timed(peer, "predict", peer.predict(probe, weights=away))
            targets = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
            parts = [
                await self._timed(peer, "plain", peer.gradient()),
                await self._timed(peer, "here", peer.gradient(batch=batch)),
                await self._timed(peer, "away", peer.gradient(weights=away, batch=batch)),
                await self._timed(peer, "clip", peer.gradient(weights=away, clip=0.5)),
                await self._timed(peer, "shard", peer.gradient(batch=peer.shard())),
                await self._timed(peer, "soft", peer.gradient(batch=probe[::2], targets=targets[::2])),
            ]
            for on in ("held-out", "probe"):
                score = await self._timed(peer, on, peer.evaluate(weights=away, on=on))
                peer.notes |= {f"{peer.step} {on} loss": score.loss, f"{peer.step} {on} accuracy": score.accuracy}
            counts = await self._timed(peer, "histogram", peer.work("histogram", classes=10))
            parts.append(np.resize(counts, peer.size) / np.float32(1e4))
            peer.apply(np.sum(parts, axis=0, dtype=np.float32) / np.float32(10))

    async def _timed(self, peer: Peer, name: str, work: Any) -> Any:
        began_ns = peer.now_ns
        answer = await work
        peer.notes[f"{peer.step} {name} ns"] = peer.now_ns - began_ns
        return answer


def everything(**changes: Any) -> Experiment:
    return asked(3, task=Counting(batch_size=8), strategy=Everything(), stop=Stop(steps=3), **changes)


def test_work_takes_its_cost_in_samples_of_the_devices_time(tmp_path: Path) -> None:
    peers, _ = carried_out(tmp_path, everything())
    problem = build(everything()).problem
    for peer in peers:
        own, kept = problem.samples[peer.id], problem.held_out[peer.id]
        costs = {"predict": 9, "plain": 8, "here": 12, "away": 12, "clip": 14, "shard": own, "soft": 13, "probe": 9}
        costs |= {"held-out": -(-kept // 3), "histogram": -(-own // 10)}
        for step in range(3):
            assert {name: peer.notes[f"{step} {name} ns"] for name in costs} == {
                name: cost * STEP_NS for name, cost in costs.items()
            }
        assert peer.samples == 3 * (8 + 12 + 8 + own)  # fresh minibatches, and what was given at its own weights


@pytest.mark.live
@pytest.mark.slow
def test_the_worlds_agree_on_work_of_every_kind(tmp_path: Path) -> None:
    """One live run: each peer trains alone, so that both worlds walk the same way but for rounding."""
    fast = UniformDevices(speed="20000 samples/s")
    weights = [
        run(everything(devices=fast, world=world), tmp_path / str(place)).weights
        for place, world in enumerate((Virtual(), Processes()))
    ]
    np.testing.assert_allclose(weights[1], weights[0], rtol=1e-4, atol=1e-5)
    assert np.abs(weights[0] - build(everything()).problem.initial).max() > 0.01


def test_virtual_work_is_the_same_to_the_last_bit_each_time(tmp_path: Path) -> None:
    first, again = (carried_out(tmp_path, everything())[0] for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert one.weights.tobytes() == other.weights.tobytes()
        assert one.notes == other.notes


class Svrg(Strategy, frozen=True, tag="svrg"):
    """x <- x - eta (g_B(x) - g_B(z) + g(z)) with the same batch B twice and z the start (Johnson and Zhang 2013)."""

    async def run(self, peer: Peer) -> None:
        start = peer.weights.copy()
        whole = await peer.gradient(weights=start, batch=peer.shard())
        while peer.running:
            batch = peer.batch()
            there = await peer.gradient(weights=start, batch=batch)
            peer.apply(await peer.gradient(batch=batch) - there + whole)


def test_a_batch_that_is_used_twice_takes_its_noise_out(tmp_path: Path) -> None:
    """On a quadratic g_B(x) - g_B(z) is x - z exactly, so the walk is that of plain gradient descent."""
    experiment = asked(4, task=Quadratic(targets=(1.0, 2.0, 3.0, 4.0), dimension=5, noise=2.0), strategy=Svrg())
    for peer in carried_out(tmp_path, experiment)[0]:
        np.testing.assert_allclose(peer.weights, (peer.id + 1) * (1 - 0.9**30), rtol=1e-5)


class Admm(Strategy, frozen=True, tag="admm"):
    """Decentralized consensus ADMM (Shi et al. 2014, equation 9): solves locally, then sums what the neighbours differ."""

    asks: ClassVar[tuple[str, ...]] = ("solve",)
    rho: float = 1.0

    async def run(self, peer: Peer) -> None:
        from grapevine import Dense

        degree, dual = len(peer.neighbours), np.zeros(peer.size, np.float32)
        around = degree * peer.weights
        while peer.running:
            towards = (self.rho * (degree * peer.weights + around) - dual) / (2 * self.rho * degree)
            peer.weights[:] = await peer.work("solve", towards=towards, rho=2 * self.rho * degree)
            peer.step += 1
            await peer.broadcast(Dense(peer.weights))
            around = np.sum([message.payload.values for message in await peer.gather(step=peer.step)], axis=0)
            dual += self.rho * (degree * peer.weights - around)


def test_local_solves_lead_to_the_exact_optimum(tmp_path: Path) -> None:
    experiment = asked(6, task=Quadratic(targets=(3.0, -1.0, 4.0, 1.0, -5.0, 9.0), dimension=2), strategy=Admm(rho=0.2))
    for peer in carried_out(tmp_path, experiment.replace(stop=Stop(steps=80)))[0]:
        np.testing.assert_allclose(peer.weights, 11 / 6, atol=1e-4)


@pytest.mark.parametrize(
    ("task", "missing"),
    [
        (Quadratic(), '"histogram", "predict", "probe", "targets"'),
        (Digits(), '"histogram"'),
        (LeastSquares(), '"histogram", "predict", "targets"'),
    ],
)
def test_what_a_task_does_not_offer_is_refused_before_anything_starts(task: Task, missing: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build(asked(3, task=task, strategy=Everything()))
    words = str(refused.value)
    assert f"asks its task for {missing}, which" in words
    assert words.partition("offers ")[2].startswith("gradient, ")


class Letters(Everything, frozen=True, tag="letters"):
    asks: ClassVar[tuple[str, ...]] = "predict"  # type: ignore[assignment]


def test_asks_that_are_a_text_are_refused() -> None:
    with pytest.raises(ConfigError, match=r'write asks = \("predict",\)'):
        build(asked(3, task=Digits(), strategy=Letters()))


class Silent(Strategy, frozen=True, tag="silent"):
    """Asks for what it has not declared."""

    async def run(self, peer: Peer) -> None:
        await peer.gradient()
        await peer.predict(peer.batch(2))


class Careless(Strategy, frozen=True, tag="careless"):
    """Asks its task for a piece that fails; the first time it goes on."""

    asks: ClassVar[tuple[str, ...]] = ("solve",)

    async def run(self, peer: Peer) -> None:
        began_ns = peer.now_ns
        try:
            await peer.work("solve", towards=peer.weights, rho=-1.0)
        except ValueError:
            peer.notes["failed after ns"] = peer.now_ns - began_ns
        await peer.gradient()
        await peer.work("solve", rho=1.0)


@pytest.mark.parametrize(
    ("strategy", "words", "function"),
    [(Silent(), 'asks = ("predict",)', "test_work.py"), (Careless(), "towards", "test_work.py")],
)
@pytest.mark.parametrize("world", [Virtual(), pytest.param(Processes(), marks=[pytest.mark.live, pytest.mark.slow])])
def test_both_worlds_say_in_which_line_work_was_refused(
    tmp_path: Path, world: Any, strategy: Strategy, words: str, function: str
) -> None:
    result = run(asked(2, strategy=strategy, world=world, devices=UniformDevices(speed="1000 samples/s")), tmp_path / "run")
    reason = result.summary["reason"]
    assert not result.summary["completed"]
    assert words in reason
    assert function in reason
    assert "in run)" in reason


def test_what_a_piece_raises_comes_when_it_would_have_answered(tmp_path: Path) -> None:
    world = make_world(tmp_path, asked(2, strategy=Careless()))
    world.run()
    assert [member.peer.notes["failed after ns"] for member in world.members] == [STEP_NS] * 2


class Picky(Quadratic, frozen=True, tag="picky"):
    def problem(self, *given: Any) -> Any:
        return PickyProblem(np.arange(4.0)[:, None], np.zeros(1), 0.0)


class PickyProblem(QuadraticProblem):
    def gradients(self, weights: np.ndarray, batches: Any) -> tuple[np.ndarray, np.ndarray]:
        if any(batch.peer == 2 for batch in batches):
            raise ArithmeticError("not for peer 2")
        return super().gradients(weights, batches)


def test_a_gradient_that_raises_ends_its_own_peer_alone(tmp_path: Path) -> None:
    """Although many are computed in one call."""
    from grapevine.peer.strategies import Solo

    world = make_world(tmp_path, asked(4, task=Picky(), strategy=Solo(), stop=Stop(steps=2)))
    outcome = world.run()
    assert "ArithmeticError: not for peer 2" in outcome.reason
    assert [member.peer.step for member in world.members] == [2, 2, 0, 2]


def test_a_task_of_ones_own_offers_what_follows_from_its_gradient() -> None:
    problem = build(asked(4, task=LeastSquares())).problem
    problem.take_probe(8, 0)
    problem.hold_out(0.5, 0)
    assert list(problem.offers()) == ["gradient", "clip", "held-out", "probe"]
    assert [tensor.name for tensor in problem.layout] == ["weights"]
    assert sum(problem.samples) + sum(problem.held_out) + problem.probe == 120
    batch = problem.sampler(1, np.random.default_rng(0)).draw(7)
    weights = np.array([[1, 2, 3], [0, 0, 0]], np.float32)
    _, found = problem.clipped_gradients(weights, [batch, batch], [0.5, 1e9])
    rows = [problem.gradient(weights[0], batch.part(np.array([i])))[1] for i in range(7)]
    wanted = np.mean([row * min(1, 0.5 / np.linalg.norm(row)) for row in rows], axis=0)
    np.testing.assert_allclose(found[0], wanted, rtol=1e-4)
    np.testing.assert_allclose(found[1], problem.gradient(weights[1], batch)[1], rtol=1e-4)


class Unfit(LeastSquares, frozen=True, tag="unfit"):
    """What may be wrong with a task of one's own."""

    fault: str = ""

    def problem(self, peers: int, partition: Partition, seed: int) -> Any:
        if self.fault == "nothing":
            return None
        problem: Any = super().problem(peers + (self.fault == "peers"), partition, seed)
        faults: dict[str, Any] = {
            "shape": lambda weights, batch: (0.0, np.zeros(2)),
            "loss": lambda weights, batch: (np.zeros(3), np.zeros(3)),
            "nan": lambda weights, batch: (0.0, np.full(3, np.nan)),
            "raises": lambda weights, batch: 1 / 0,
        }
        if self.fault in faults:
            problem.gradient = faults[self.fault]
        if self.fault == "scores":
            problem.evaluate = lambda weights, data: (0.5, float("nan"))
        if self.fault == "accuracy":
            problem.evaluate = lambda weights, data: (np.array([0.5]), np.array([77.0]))
        if self.fault == "optimum":
            problem.optimum = lambda: np.zeros(2)
        return problem


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("nothing", "returned NoneType: it must return an instance of your subclass of Problem"),
        ("peers", "shards for 4 peers, and there are 3"),
        ("shape", r"returned a gradient of shape \[2\]: expected \[3\]"),
        ("loss", r"returned a loss of shape \[3\]: expected \[\]"),
        ("nan", "nan or infinity at the initial weights"),
        ("raises", "ZeroDivisionError"),
        ("optimum", r"optimum returned weights of shape \[2\]: expected \[3\]"),
        ("accuracy", r"returned an accuracy of 77: expected a share from 0 to 1, or nan"),
        ("scores", r"returned losses of shape \[\]: expected \[1\]"),
    ],
)
def test_a_task_of_ones_own_that_cannot_work_is_refused_in_words(fault: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(asked(3, task=Unfit(fault=fault)))


def test_arrays_and_weights_that_cannot_be_are_refused() -> None:
    shards = [np.arange(3)]
    for arrays in ({"initial": np.zeros(1)}, {"a/b": np.zeros(1)}):
        with pytest.raises(ValueError, match="an array cannot be named"):
            Problem(np.zeros(2), shards, arrays)
    for initial in (np.zeros((2, 2)), np.zeros(0), np.array([np.nan])):
        with pytest.raises(ValueError, match="flat vector of finite numbers"):
            Problem(initial, shards)
