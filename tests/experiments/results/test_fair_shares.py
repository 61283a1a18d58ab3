"""Fair shares: the range of a link's correct rates, and a report without errors for links that share a segment."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from grapevine import Experiment, Result, run
from grapevine.experiments.report.figures import rates, shares_lines
from grapevine.experiments.report.runs import Run
from grapevine.experiments.results.fair_shares import Share, SharedSegments
from grapevine.experiments.results.result import LinkFigures
from grapevine.netem import Cable


def link(source: int, target: int, asked: float = 10.0, messages: int = 1) -> LinkFigures:
    return LinkFigures(source, target, 100 * messages, messages, asked, math.nan, 0.0, math.nan)


def test_a_fair_share_is_the_least_equal_part_of_a_segment_among_the_links_that_carried_messages() -> None:
    links = [link(0, 1), link(0, 2), link(0, 3, messages=0), link(1, 2), link(3, 2)]
    segments = SharedSegments(uplinks=[8.0, None, None, None], downlinks=[None, None, 9.0, None])
    shares = segments.shares(links)
    assert shares[0, 1] == shares[0, 3] == Share(4.0, 8.0)  # of two that sent
    assert shares[0, 2] == Share(3.0, 8.0)  # of three that were received
    assert shares[1, 2] == Share(3.0, 9.0)
    cables = SharedSegments(cables=[Cable(6.0, ((1, 2), (3, 2), (0, 3)))]).shares(links)
    assert cables[1, 2] == Share(3.0, 6.0)
    assert cables[0, 1] == Share(10.0, 10.0)


def test_a_link_without_a_known_rate_has_no_share_and_an_unlimited_link_has_its_segments_share() -> None:
    shares = SharedSegments(uplinks=[8.0, None]).shares([link(0, 1, math.nan), link(0, 2, math.inf), link(1, 2, math.inf)])
    assert all(map(math.isnan, shares[0, 1]))
    assert shares[0, 2] == Share(4.0, 8.0)
    assert shares[1, 2] == Share(math.inf, math.inf)


UPLINK = """
name = "uplink"
peers = 5
world = {name = "virtual"}
topology = {name = "complete"}
network = {name = "uniform", rate = "8 Mbit/s", delay = "20 ms", uplink = "8 Mbit/s"}
task = {name = "quadratic", dimension = 20000}
strategy = {name = "d-psgd"}
devices = {name = "uniform", speed = "2000 samples/s"}
stop = {steps = 20}
record = {every = "1 s"}
"""


def test_links_of_a_shared_uplink_are_drawn_at_their_share_with_a_bar_up_to_their_rate_alone(tmp_path: Path) -> None:
    run(Experiment.parse(UPLINK), out=tmp_path)
    read = Run.read(Result.read(tmp_path), "uplink", "#2c6fbb")
    assert shares_lines([read])
    figure = rates([read])
    assert figure is not None
    dots = figure["data"][1]
    assert dots["x"] == pytest.approx([2.0] * 20)  # a quarter of the uplink, and of the 8 Mbit/s asked
    bars = [at + bar for at, bar in zip(dots["x"], dots["error_x"]["array"], strict=True)]
    assert bars == pytest.approx([8.0] * 20)
    assert all(0.99 * least <= got <= 1.01 * most for least, got, most in zip(dots["x"], dots["y"], bars, strict=True))
    assert "(a fair share) to 8 Mbit/s (alone) asked" in (tmp_path / "report.html").read_text()


def test_a_manifest_without_shared_segments_has_no_segments_and_a_damaged_one_is_refused() -> None:
    assert SharedSegments.read({}) == SharedSegments()
    segments = SharedSegments([8.0, None], (), (Cable(6.0, ((1, 2),)),))
    manifest = {"shared_segments": json.loads('{"uplinks": [8.0, null], "cables": []}')}
    assert SharedSegments.read(manifest).uplinks == segments.uplinks
    with pytest.raises(ValueError, match=r"manifest\.json: shared_segments are damaged"):
        SharedSegments.read({"shared_segments": {"uplinks": ["fast"]}})
