"""Exact laws of gaia, through the whole stack in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine.experiments.config.experiment import Stop
from grapevine.experiments.tasks import Quadratic
from grapevine.netem import MixedDevices, Uniform, UniformDevices
from grapevine.peer.ledger import Ledger
from grapevine.peer.message import Message
from grapevine.peer.payloads import Dense, Marks, Sparse
from grapevine.peer.peer import Peer
from grapevine.peer.strategies import gaia
from grapevine.peer.strategies.gaia import Gaia
from tests.experiments.strategies.fleets import (
    RATE,
    WIDE,
    asked,
    carried_out,
    gradients,
    listen,
    normal_targets,
    unread,
)

VECTORS = normal_targets(8, 240)


@pytest.mark.parametrize("network", [Uniform(rate="100 Mbit/s", delay="1 ms"), Uniform(rate="200 kbit/s", delay="10 ms")])
@pytest.mark.parametrize("barrier", [True, False])
def test_gaia_keeps_what_it_does_not_send(tmp_path: Path, network: Any, barrier: bool) -> None:
    """x_i = what i has made + what others have paid to it, less what it has not read; residual + sent = total."""
    task = Quadratic(targets=VECTORS[:4], start=1.0, dimension=240)
    strategy = Gaia(threshold=0.05, barrier=barrier)
    found, _ = carried_out(tmp_path, asked(4, task=task, strategy=strategy, network=network))
    for peer in found:
        assert peer.ledger is not None
        paid = sum(other.ledger.paid[peer.id] for other in found if other is not peer and other.ledger is not None)
        moved = peer.weights.astype(float) - 1.0
        np.testing.assert_allclose(moved + unread(peer), peer.ledger.total + paid, atol=1e-4)


@pytest.mark.parametrize("decay", [True, False])
def test_gaia_sends_only_what_is_significant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decay: bool) -> None:
    """|update| > threshold |weight| for every value, and nothing significant stays behind where there is room."""
    said: list[float] = []
    pay = Peer.pay
    kept: list[int] = []

    async def checked(peer: Peer, neighbour: int, pick: Any, scalars: tuple[float, ...] = ()) -> Any:
        threshold = 0.3 / (np.sqrt(peer.step) if decay else 1.0)
        weights = peer.weights.copy()
        payload = await pay(peer, neighbour, pick, scalars)
        assert peer.ledger is not None
        said.extend(np.abs(payload.values) - threshold * np.abs(weights[payload.where()]))
        kept.append(int((np.abs(peer.ledger.owed(neighbour)) > 1.001 * threshold * np.abs(weights)).sum()))
        return payload

    monkeypatch.setattr(Peer, "pay", checked)
    task = Quadratic(targets=VECTORS[:4], start=1.0, dimension=240)
    strategy = Gaia(threshold=0.3, adapt=0.0, decay=decay)
    carried_out(tmp_path, asked(4, task=task, strategy=strategy, network=Uniform(rate="100 Mbit/s"), stop=Stop(steps=12)))
    assert len(said) > 500
    assert len(said) < 4 * 3 * 12 * 240 / 2
    assert min(said) > -1e-6
    assert max(kept) == 0


@pytest.mark.slow
@pytest.mark.parametrize("barrier", [True, False])
def test_gaia_lets_no_element_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, barrier: bool) -> None:
    """Over a thin link more is significant than fits at every step: all tenths of the vector go equally often."""
    said = listen(monkeypatch)
    strategy = Gaia(slack=100, adapt=0.0, threshold=0.0, barrier=barrier)
    carried_out(
        tmp_path,
        asked(3, task=Quadratic(targets=WIDE[:3], noise=3.0), strategy=strategy,
              network=Uniform(rate="300 kbit/s", delay="5 ms"), devices=UniformDevices(speed="20 samples/s"),
              stop=Stop(time="20 s")),
    )  # fmt: skip
    values, marks = ([m.payload.where() for m in said if isinstance(m.payload, kind)] for kind in (Sparse, Marks))
    for sent in (values, marks) if barrier else (values,):
        tenths = np.histogram(np.concatenate(sent), bins=10, range=(0, 20_000))[0]
        assert tenths.sum() > 20_000
        assert tenths.max() < 1.15 * tenths.min()


def test_gaia_divides_by_the_living(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, added = gradients(monkeypatch), []
    add = Ledger.add
    monkeypatch.setattr(Ledger, "add", lambda ledger, update: (added.append((ledger, update.copy())), add(ledger, update))[1])
    task = Quadratic(targets=VECTORS[:4])
    found, _ = carried_out(tmp_path, asked(4, task=task, strategy=Gaia()), [(105_000_000, 2)])
    mine = [update for ledger, update in added if ledger is found[0].ledger]
    assert len(mine) == 30
    living = [-RATE * gradient.mean() / update.mean() for gradient, update in zip(made[0], mine, strict=True)]
    np.testing.assert_allclose(living, sorted(np.rint(living), reverse=True), rtol=1e-4)
    assert set(np.rint(living)) == {4, 3}


@pytest.mark.parametrize("slack", [0, 1, 3])
@pytest.mark.parametrize("barrier", [True, False])
def test_gaia_keeps_the_clocks_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slack: int, barrier: bool) -> None:
    """Nobody begins a step more than `slack` steps ahead of anybody, and the fast ones do get that far."""
    steps, gaps = dict.fromkeys(range(4), 0), []
    gradient = Peer.gradient

    async def checked(peer: Peer) -> np.ndarray:
        gaps.append(peer.step - min(steps.values()))
        found = await gradient(peer)
        steps[peer.id] = peer.step + 1
        return found

    monkeypatch.setattr(Peer, "gradient", checked)
    devices = MixedDevices(speeds=("100 samples/s", "30 samples/s", "500 samples/s"))
    network = Uniform(rate="1 Mbit/s", delay="5 ms", jitter="5 ms")
    strategy = Gaia(slack=slack, barrier=barrier)
    carried_out(tmp_path, asked(4, task=Quadratic(targets=VECTORS[:4]), strategy=strategy, devices=devices, network=network))
    assert max(gaps) == slack


def test_gaia_announces_only_what_has_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that is announced says that its value stays behind: that follows, but never in the same instant."""
    said = listen(monkeypatch)
    found, _ = carried_out(
        tmp_path,
        asked(4, task=Quadratic(targets=WIDE), strategy=Gaia(barrier=True), network=Uniform(rate="2 Mbit/s", delay="5 ms"),
              stop=Stop(steps=12)),
    )  # fmt: skip
    assert any(isinstance(message.payload, Marks) for message in said)
    for source in range(4):
        for target in set(range(4)) - {source}:
            announced_ns: dict[int, int] = {}
            for message in said:
                if (message.source, message.target) == (source, target):
                    for index in message.payload.where().tolist():
                        if isinstance(message.payload, Marks):
                            assert index not in announced_ns
                            announced_ns[index] = message.now_ns
                        else:
                            assert announced_ns.pop(index, -1) < message.now_ns
            assert not announced_ns
    assert {peer.step for peer in found} == {12}


@pytest.mark.parametrize("barrier", [True, False])
def test_gaia_fills_no_more_of_a_link_than_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, barrier: bool) -> None:
    """Also with what was announced before: every look at a link's room is for the share `fill` of it."""
    fills: list[float] = []
    room = Peer.room

    def looked_at(peer: Peer, neighbour: int, fill: float = 1.0, **options: Any) -> int:
        fills.append(fill)
        return room(peer, neighbour, fill, **options)

    monkeypatch.setattr(Peer, "room", looked_at)
    network, strategy = Uniform(rate="2 Mbit/s", delay="5 ms"), Gaia(barrier=barrier, fill=0.6, slack=100)
    carried_out(tmp_path, asked(4, task=Quadratic(targets=WIDE), strategy=strategy, network=network, stop=Stop(steps=12)))
    assert set(fills) == {0.6}
    assert (len(fills) > 4 * 3 * 12) == barrier  # promises are kept between the steps too


def test_gaia_waits_from_an_announcement_to_later_values() -> None:
    """Not to earlier ones that came late, nor for values that were not finite and so never left, nor after them."""
    where = np.array([2, 5], np.uint32)
    marks, values, nothing = Marks(where), Sparse(where, np.ones(2, np.float32)), Dense(np.zeros(0, np.float32))

    def awaits(*messages: tuple[int, Any, int]) -> bool:
        mirror = gaia._Mirror(8)
        for number, payload, count in messages:
            mirror.came(Message(1, 0, payload, (float(number), float(count)), 0))
        return mirror.awaits

    assert not awaits((1, values, 2))
    assert awaits((1, marks, 2))
    assert not awaits((1, marks, 2), (2, values, 2))
    assert not awaits((2, values, 2), (1, marks, 2))
    assert awaits((2, marks, 2), (1, values, 2))
    assert awaits((1, marks, 2), (2, nothing, 0))  # a clock alone
    assert not awaits((1, marks, 2), (2, nothing, 2))


@pytest.mark.slow
@pytest.mark.parametrize("reorder", [False, True])
def test_gaia_begins_no_step_while_announced_values_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reorder: bool
) -> None:
    """In whatever order announcements and values arrive; what is announced after its values have come is not waited for."""
    announced, paid = np.zeros((4, 4, 20_000)), np.zeros((4, 4, 20_000))  # the newest message's number, by element
    waits = late = 0
    take_in, gradient, receive = gaia._take_in, Peer.gradient, Peer.receive

    def taken_in(peer: Peer, mirrors: Any, message: Any) -> None:
        nonlocal late
        where, number = message.payload.where(), message.scalars[0]
        newest = (announced if isinstance(message.payload, Marks) else paid)[peer.id, message.source]
        newest[where] = np.maximum(newest[where], number)
        late += isinstance(message.payload, Marks) and bool((paid[peer.id, message.source][where] > number).any())
        take_in(peer, mirrors, message)

    async def begun(peer: Peer) -> np.ndarray:
        assert not (announced[peer.id] > paid[peer.id]).any()
        return await gradient(peer)

    async def waited(peer: Peer, deadline_ns: int | None = None) -> Any:
        nonlocal waits
        waits += int((announced[peer.id] > paid[peer.id]).any())
        return await receive(peer, deadline_ns)

    monkeypatch.setattr(gaia, "_take_in", taken_in)
    monkeypatch.setattr(Peer, "gradient", begun)
    monkeypatch.setattr(Peer, "receive", waited)
    slow = Uniform(rate="2 Mbit/s", delay="30 ms", jitter="25 ms", reorder=reorder)
    strategy = Gaia(slack=100, barrier=True)  # so that nobody waits for clocks
    found, _ = carried_out(
        tmp_path, asked(4, task=Quadratic(targets=WIDE, noise=3.0), strategy=strategy, network=slow, stop=Stop(steps=40))
    )
    assert {peer.step for peer in found} == {40}
    assert waits > 20
    assert bool(late) == reorder
