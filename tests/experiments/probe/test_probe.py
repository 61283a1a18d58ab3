"""The probe: its messages, its asked rates, its rows and its page; the fleets run in virtual time, where links are exact."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from grapevine import Experiment
from grapevine.experiments.fleet import Fleet, build
from grapevine.experiments.probe import probe
from grapevine.experiments.probe.page import verdict, write_probe

RING = """
name = "ring"
peers = 4
[topology]
name = "ring"
[network]
name = "uniform"
rate = "10 Mbit/s"
delay = "20 ms"
"""


def rows_of(text: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the probe's rows with every run in virtual time, where no message is late."""
    measure = probe._measure
    monkeypatch.setattr(probe, "_measure", lambda fleet, strategy, real=True: measure(fleet, strategy, real=False))
    return probe.probe(Experiment.parse(text))


@pytest.mark.slow
def test_exact_links_are_found_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(RING + 'uplink = "12 Mbit/s"\n', monkeypatch)
    assert [(row["source"], row["target"]) for row in rows] == [(0, 1), (0, 3), (1, 0), (1, 2), (2, 1), (2, 3), (3, 0), (3, 2)]
    for row in rows:
        assert row["rate_asked_bytes_per_s"] == pytest.approx(1.25e6)
        assert row["rate_error"] == pytest.approx(0, abs=0.002)
        assert row["delay_got_s"] == pytest.approx(0.02, abs=1e-6)
        assert row["share_asked_bytes_per_s"] == pytest.approx(0.75e6)
        assert row["share_error"] == pytest.approx(0, abs=0.02)
        assert math.isnan(row["transfer_got_s"])


SHARED = """
name = "shared"
peers = 6
[topology]
name = "complete"
[network]
name = "uniform"
rate = "20 Mbit/s"
delay = "20 ms"
uplink = "12 Mbit/s"
downlink = "8 Mbit/s"
bottlenecks = [{rate = "5 Mbit/s", here = [0, 1]}]
"""


@pytest.mark.slow
def test_a_link_is_measured_alone_behind_uplinks_downlinks_and_cables(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in rows_of(SHARED, monkeypatch):
        crosses = (row["source"] in (0, 1)) != (row["target"] in (0, 1))
        assert row["rate_asked_bytes_per_s"] == pytest.approx(0.625e6 if crosses else 1e6)
        assert row["rate_error"] == pytest.approx(0, abs=0.005)
        assert row["delay_error_s"] == pytest.approx(0, abs=0.0005)
        assert row["share_error"] == pytest.approx(0, abs=0.05)


def test_a_turn_has_no_peer_and_no_cable_twice() -> None:
    fleet = build(Experiment.parse(SHARED))
    turns = probe._turns(fleet)
    assert sorted(link for turn in turns for link in turn) == sorted(fleet.plan.links)
    for turn in turns:
        assert len({peer for link in turn for peer in link}) == 2 * len(turn)
        for cable in fleet.plan.cables:
            assert len(set(turn) & set(cable.links)) <= 1


@pytest.mark.slow
def test_of_many_links_some_are_measured_alone_and_the_verdict_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "ALONE_AT_MOST_S", 10.0)
    rows = rows_of(SHARED, monkeypatch)
    measured = [row for row in rows if math.isfinite(row["rate_got_bytes_per_s"])]
    assert 5 <= len(measured) < len(rows) == 30
    assert all(math.isfinite(row["delay_got_s"]) == math.isfinite(row["rate_got_bytes_per_s"]) for row in rows)
    assert all(math.isfinite(row["share_got_bytes_per_s"]) for row in rows)
    assert f"{len(measured)} of the 30 links, evenly chosen, were measured alone" in verdict(rows)


@pytest.mark.slow
def test_without_shared_segments_the_shares_are_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(math.isnan(row["share_asked_bytes_per_s"]) for row in rows_of(RING, monkeypatch))


@pytest.mark.slow
def test_jitter_loss_and_tcp_are_compared_with_their_model(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(RING + 'jitter = "4 ms"\nloss = 0.001\ntcp = "cubic"\n', monkeypatch)
    for row in rows:
        assert row["jitter_asked_s"] == 0.004
        assert 0.0155 <= row["delay_got_p05_s"] <= 0.019
        assert row["delay_got_p95_s"] >= 0.021
        assert row["rate_model_bytes_per_s"] < row["rate_asked_bytes_per_s"]
        assert row["transfer_got_s"] > 65_536 / 1.25e6 + 0.02
        for key in ("rate_error", "transfer_error", "delay_error_s"):
            assert row[key] == 0


@pytest.mark.slow
def test_messages_go_one_by_one_and_the_run_outlasts_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Fleet, probe.Probing]] = []
    measure = probe._measure

    def spy(fleet: Fleet, strategy: probe.Probing, real: bool = True) -> probe.Measured:
        seen.append((fleet, strategy))
        return measure(fleet, strategy, real=False)

    monkeypatch.setattr(probe, "_measure", spy)
    probe.probe(Experiment.parse(RING + "loss = 0.001\n"))
    for fleet, strategy in seen:
        for peer, sendings in strategy.sendings.items():
            times = [sending.at_ns for sending in sendings]
            assert times == sorted(times)
            assert times[-1] < strategy.end_ns
            assert {sending.target for sending in sendings} == set(fleet.graph.neighbors(peer))
    pings, *_, transfers = [strategy for _, strategy in seen]
    assert set(Counter(sending.target for sending in pings.sendings[0]).values()) == {probe.PINGS}
    assert set(Counter(sending.target for sending in transfers.sendings[0]).values()) == {probe.TRANSFERS}


def row(**more: float) -> dict[str, Any]:
    """Return a row without errors, except for `more`."""
    names = (
        "rate_model_bytes_per_s", "rate_got_bytes_per_s", "share_asked_bytes_per_s", "share_got_bytes_per_s",
        "transfer_model_s", "transfer_got_s", "delay_model_s", "delay_got_s", "delay_model_p05_s", "delay_got_p05_s",
        "delay_model_p95_s", "delay_got_p95_s",
    )  # fmt: skip
    errors = {"rate_error": 0.0, "share_error": math.nan, "transfer_error": math.nan, "delay_late_p99_s": 0.0}
    return {"source": 0, "target": 1, **dict.fromkeys(names, 1e6), **errors} | more


def test_the_verdict_names_the_worst_and_the_cure() -> None:
    assert verdict([row(), row(rate_error=-0.031)]).startswith("At worst off by: rate 3.1 %.")
    assert "dilation" not in verdict([row(delay_late_p99_s=0.004)])
    assert "was up to 14.00 ms late. This machine is too slow or too busy: raise world.dilation" in verdict(
        [row(delay_late_p99_s=0.014)]
    )


def test_the_page_draws_what_was_measured(tmp_path: Path) -> None:
    page = tmp_path / "deep" / "probe.html"
    write_probe("a <b>", [row(), row(transfer_got_s=math.nan, share_got_bytes_per_s=math.nan)], page)
    text = page.read_text()
    assert "a &lt;b&gt;: probe" in text
    assert 'id="delays"' in text
    assert 'id="rates"' in text
    write_probe("none", [row(share_got_bytes_per_s=math.nan)], page)
    assert 'id="shares"' not in page.read_text()
