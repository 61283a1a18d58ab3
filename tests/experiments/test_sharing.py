"""Shared lines in both worlds: by the book in virtual time, and alike in real time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.sharing import arrivals_s, random_network, random_transfers
from experiments.config import Processes, Virtual
from experiments.worlds.lines import Line
from experiments.worlds.sharing import SharedLine
from netem import Edges
from peer.wire import HEADER_BYTES
from tests.netem.fluid import leave_ns


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_virtual_transfers_arrive_by_the_book(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message's last bit leaves when progressive filling says, and arrives a delay later."""
    graph = random_network(seed, 8)
    listed = random_transfers(graph, seed, 120, 2.0)
    sizes: dict[tuple[int, int], list[int]] = {}
    pack = Line.pack

    def packing(self: Line, parcel: object, now_ns: int, horizon_ns: float) -> tuple[int, int]:
        packed = pack(self, parcel, now_ns, horizon_ns)  # type: ignore[arg-type]
        debt_bytes = self._debt_bytes if not isinstance(self, SharedLine) else 0
        sizes.setdefault((self.source.peer.id, self.target.peer.id), []).append(packed[0] + debt_bytes)
        return packed

    monkeypatch.setattr(Line, "pack", packing)
    monkeypatch.setattr("experiments.worlds.lines.Line.answer", lambda self, facts: None)  # acknowledgements take bytes too
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


def test_both_worlds_share_alike(tmp_path: Path) -> None:
    """What the stamps of the emulator say, not what this machine's timers do; a host too slow for real time says so."""
    graph = random_network(5, 6)
    listed = random_transfers(graph, 5, 60, 1.5)
    virtual_s, _ = arrivals_s(graph, listed, Virtual(), 4.0)
    live_s, late_ms = arrivals_s(graph, listed, Processes(), 4.0)
    asked_s = np.array([at_ns / 1e9 for at_ns, *_ in listed])
    known = np.isfinite(virtual_s)
    assert known.mean() > 0.9
    if late_ms > 5:
        pytest.skip("this machine is too busy for real time just now, and the run says so itself")
    apart_s = np.abs(live_s - virtual_s)[known]
    near = (apart_s <= 0.002) | (apart_s <= 0.02 * (virtual_s - asked_s)[known])
    assert near.mean() >= 0.95
    assert np.median(apart_s) < 0.0005
