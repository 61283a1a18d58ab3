"""The report: one self-contained page that shows the data of a run and states what is missing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from grapevine.experiments.report.page import write_report
from grapevine.experiments.results.recorder import Recorder
from grapevine.experiments.results.summary import unfinished
from tests.experiments.recorded import MANIFEST, TOML, record_run
from tests.experiments.report.pages import Page, texts

CURVES = ["Accuracy", "Test loss", "Training loss", "Consensus distance", "Bytes sent", "Staleness"]
SECTIONS = [*CURVES, "Link rates", "Link delays"]


def test_the_page_needs_no_network(run: Path, page: Page) -> None:
    assert page.fetched == []
    source = (run / "report.html").read_text()
    assert "@import" not in source[: source.index("</style>")]
    assert "default-src 'none'" in source
    assert source.count("plotly.js v") == 1  # inlined, once


def test_every_section_is_there_with_its_picture(page: Page) -> None:
    assert page.titles == [*SECTIONS, "Bytes on each link", "Events", "Configuration", "Machine"]
    assert len(page.figures) == len(SECTIONS) + 1
    assert page.tags.count("h1") == 1


def test_the_page_states_what_happened(page: Page) -> None:
    for said in (
        "4 peers, one process each, trained on digits with the strategy d-psgd",
        "The run is complete: 3 s are over.",
        "3 s of emulated time (3.5 s on the wall clock)",
        "75.0 % of the test set",
        "Peer 3 was lost during the run",
        "its process was killed",
        "metropolis",
        "2.4.6",
    ):
        assert said in page.text, said


def test_every_peer_is_thin_and_the_mean_is_thick(page: Page) -> None:
    lines = page.figure("test accuracy")["data"]
    thin = [line for line in lines if line["line"]["width"] == 1 and line["name"].startswith("peer ")]
    (thick,) = [line for line in lines if line["line"]["width"] > 2]
    assert [line["name"] for line in thin] == ["peer 0, Tokyo", "peer 1, Tokyo", "peer 2, Sao Paulo", "peer 3, Sao Paulo"]
    assert thin[2]["y"] == pytest.approx([0.27, 0.52, 0.77])
    assert (thick["x"], thick["y"]) == ([1, 2, 3], [0.25, 0.5, 0.75])


def test_a_mean_that_was_not_recorded_is_taken_over_the_peers(page: Page) -> None:
    (mean,) = [line for line in page.figure("training loss")["data"] if line["line"]["width"] > 2]
    assert mean["y"] == pytest.approx([2.015, 1.015, 2 / 3 + 0.015], rel=1e-4)


def test_a_lost_peer_is_marked(page: Page) -> None:
    assert [shape["x0"] for shape in page.figure("test accuracy")["layout"]["shapes"]] == [2]
    graph = page.figures["figure8"]
    assert [part["text"] for part in graph["data"] if part.get("name") == "lost"] == [["3"]]


def test_consensus_is_on_a_logarithmic_axis(page: Page) -> None:
    assert page.figure("consensus distance")["layout"]["yaxis"]["type"] == "log"


def test_links_are_drawn_with_what_they_carried(page: Page) -> None:
    graph = page.figures["figure8"]
    told = [text for part in graph["data"] for text in part.get("text", []) if "→" in text]
    assert len(told) == 4  # a ring of four
    (first,) = [text for text in told if "0 → 1" in text]
    assert "3 kB in 6 messages" in first
    assert "1 → 0</b>  6 kB in 6 messages" in first
    assert "rate 7.84 Mbit/s of 8 Mbit/s asked, delay 40.1 ms of 40 ms asked" in first
    widths = [part["line"]["width"] for part in graph["data"] if part["mode"] == "lines"]
    assert widths == sorted(widths)
    assert len(set(widths)) > 1
    assert {"Tokyo", "Sao Paulo"} <= {part.get("name") for part in graph["data"]}


def test_dots_of_measured_against_asked_values_are_close_to_the_diagonal(page: Page) -> None:
    rates, delays = page.figure("measured rate (Mbit/s)"), page.figure("measured one-way delay (ms)")
    assert rates["layout"]["xaxis"]["type"] == rates["layout"]["yaxis"]["type"] == "log"
    diagonal, dots = rates["data"]
    assert diagonal["x"] == diagonal["y"]
    assert (set(dots["x"]), set(dots["y"]), len(dots["x"])) == ({8}, {7.84}, 8)
    assert (set(delays["data"][1]["x"]), set(delays["data"][1]["y"])) == ({40}, {40.1})


def test_unshaped_links_are_described_in_a_sentence(tmp_path: Path) -> None:
    record_run(tmp_path, rate=math.inf)
    page = Page(tmp_path / "report.html")
    assert "8 directed links had no rate limit (unshaped); measured: 392 Mbit/s (median)." in page.text
    assert not any("measured rate" in text for text in texts(page.figures))


def test_several_runs_lie_on_top_of_each_other(run: Path, tmp_path: Path) -> None:
    record_run(tmp_path / "b", strategy="slices", name="the other")
    record_run(tmp_path / "c", strategy="ako")
    write_report([run, tmp_path / "b", tmp_path / "c"], tmp_path / "deep" / "page.html")
    page = Page(tmp_path / "deep" / "page.html")
    assert page.titles[: len(SECTIONS)] == SECTIONS
    assert sum(title.startswith("Bytes on each link: ") for title in page.titles) == 3
    means = [line for line in page.figure("test accuracy")["data"] if line["line"]["width"] > 2]
    assert [line["name"] for line in means] == [f"made up ({run.name})", "the other", "made up (c)"]
    assert len({line["line"]["color"] for line in means}) == 3
    bands = [line for line in page.figure("test accuracy")["data"] if line.get("fill") == "tonexty"]
    assert len(bands) == 3
    assert bands[1]["y"] == pytest.approx([0.28, 0.53, 0.78])
    assert "strategy.name" in page.text  # what differs


def test_the_two_worlds_of_one_experiment_share_a_colour(tmp_path: Path) -> None:
    folders = []
    for strategy in ("slices", "ako"):
        for world in ("processes", "virtual"):
            folders.append(tmp_path / f"{strategy}-{world}")
            summary = record_run(folders[-1], strategy=strategy) | {"world": world}
            (folders[-1] / "summary.json").write_text(json.dumps(summary))
    write_report(folders, tmp_path / "page.html")
    means = [line for line in Page(tmp_path / "page.html").figure("test accuracy")["data"] if line["line"]["width"] > 2]
    colours = [line["line"]["color"] for line in means]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert [line["line"]["dash"] for line in means] == ["solid", "dot", "solid", "dot"]


@pytest.mark.parametrize("peers", [100])
def test_of_very_many_peers_some_are_drawn_and_the_page_says_so(tmp_path: Path, peers: int) -> None:
    record_run(tmp_path, peers=peers)
    page = Page(tmp_path / "report.html")
    lines = [line for line in page.figure("test loss")["data"] if line["name"].startswith("peer ")]
    assert len(lines) == 64
    assert "Of 100 peers 64 are drawn." in page.text


def test_of_a_crowd_the_quantiles_are_drawn_and_no_single_peer(tmp_path: Path) -> None:
    record_run(tmp_path, peers=201)
    page = Page(tmp_path / "report.html")
    lines = page.figure("training loss")["data"]
    assert not any(line["name"].startswith("peer ") for line in lines)
    drawn = {line["name"]: line["y"] for line in lines}
    assert [line["name"] for line in lines if line.get("showlegend")] == [
        "lowest to highest", "5 % to 95 %", "median", "mean of the peers",
    ]  # fmt: skip
    for name, peer in (("lowest", 0), ("5 %", 10), ("median", 100), ("5 % to 95 %", 190), ("lowest to highest", 200)):
        assert drawn[name] == pytest.approx([2 / time_s + 0.01 * peer for time_s in (1.0, 2.0, 3.0)], rel=1e-4), name
    assert "The pale band holds all peers" in page.text


def test_of_a_crowd_the_links_are_counted(tmp_path: Path) -> None:
    record_run(tmp_path, peers=201)
    (bars,) = Page(tmp_path / "report.html").figure("links")["data"]
    assert (bars["type"], sum(bars["y"])) == ("bar", 201)  # a ring


def test_of_a_crowd_in_regions_the_regions_are_drawn(tmp_path: Path) -> None:
    record_run(tmp_path, peers=300, places=["Tokyo"] * 150 + ["<i>"] * 150)
    graph = Page(tmp_path / "report.html").figures["figure8"]
    (dots,) = [part for part in graph["data"] if part.get("text") == ["&lt;i&gt; (150)", "Tokyo (150)"]]
    assert all("298 directed links" in text for text in dots["hovertext"])  # 149 links within each half of the ring
    (told,) = [text for part in graph["data"] for text in texts(part) if "&lt;i&gt; - Tokyo" in text]
    # peers 149 and 150, 299 and 0 are neighbours: 1000 bytes times the peer's number plus 1, in three intervals
    assert "1.806 MB over 4 directed links" in told


@pytest.mark.slow
def test_of_very_many_links_those_with_the_largest_errors_are_drawn(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, TOML.format(name="x", peers=80, strategy="solo"), MANIFEST, write_report)
    for source in range(80):
        for target in range(80):
            delay_s = 0.5 if (source, target) == (3, 17) else 0.04
            recorder.link(1.0, source, target, 1, 1, 1e6, 1e6, 0.04, delay_s, 0.0)
    recorder.flush()
    write_report([tmp_path], tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    dots = page.figure("measured one-way delay (ms)")["data"][1]
    assert len(dots["x"]) == 3000
    assert dots["text"][dots["y"].index(500)] == "3 → 17"
    assert "Of 6,400 links 3,000 are drawn" in page.text


def test_a_last_interval_cut_short_puts_no_hook_on_a_mean_over_intervals(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, TOML.format(name="x", peers=1, strategy="solo"), MANIFEST, write_report)
    for time_s, value in ((1.0, 4.0), (2.0, 3.0), (3.0, 2.0), (3.1, 9.0)):
        for metric in ("train_loss", "staleness_steps", "loss"):
            recorder.metric(time_s, 0, 1, metric, value)
    recorder.flush()
    write_report([tmp_path], tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    for title in ("training loss", "staleness (steps)"):
        assert page.figure(title)["data"][0]["y"] == [4, 3, 2]
    assert page.figure("test loss")["data"][0]["y"] == [4, 3, 2, 9]  # a value of one instant, not of an interval


def test_the_runs_of_a_sweep_are_named_by_the_settings_that_differ(tmp_path: Path) -> None:
    folders = [tmp_path / f"peers={peers},strategy.name={name}" for peers in (4, 5) for name in ("ako", "solo")]
    for folder, (peers, name) in zip(folders, [(4, "ako"), (4, "solo"), (5, "ako"), (5, "solo")], strict=True):
        record_run(folder, peers=peers, strategy=name)
    write_report(folders, tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    means = [line["name"] for line in page.figure("test accuracy")["data"] if line["line"]["width"] > 2]
    assert means == [f"peers {peers}, strategy {name}" for peers in (4, 5) for name in ("ako", "solo")]
    assert "made up: 4 runs compared" in page.text


def test_a_run_that_ended_before_anything_was_measured(tmp_path: Path) -> None:
    toml = TOML.format(name="x", peers=2, strategy="solo")
    Recorder(tmp_path, toml, MANIFEST, write_report).finish(unfinished(toml, "interrupted"))
    page = Page(tmp_path / "report.html")
    assert page.titles == [*SECTIONS, "Bytes on each link", "Events", "Configuration", "Machine"]
    assert page.figures == {}
    assert "The run is incomplete: interrupted." in page.text
    assert "No test loss was measured." in page.text
    assert "None" not in page.text.replace("None.", "")


def test_an_unfinished_run_has_a_report(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, TOML.format(name="x", peers=2, strategy="solo"), MANIFEST, write_report)
    recorder.metric(1.0, 0, 1, "train_loss", 0.5)
    recorder.metric(1.0, 1, 1, "train_loss", math.nan)
    recorder.metric(1.0, -1, 1, "consensus_distance", 0.0)  # 0 cannot be drawn on a logarithmic axis
    recorder.link(1.0, 0, 1, 0, 0, 1e6, math.nan, 0.0, math.nan, math.nan)
    recorder.flush()
    write_report([tmp_path], tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert "had not ended when this page was written" in page.text
    assert page.figure("training loss")["data"][0]["mode"] == "lines+markers"  # a single point is visible
    assert "No rate was measured." in page.text


def test_infinite_losses_leave_a_gap(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, TOML.format(name="x", peers=1, strategy="solo"), MANIFEST, write_report)
    for time_s, loss in ((1.0, 0.5), (2.0, math.inf), (3.0, math.nan), (4.0, 1e30)):
        recorder.metric(time_s, 0, 1, "loss", loss)
    recorder.flush()
    write_report([tmp_path], tmp_path / "page.html")
    figure = Page(tmp_path / "page.html").figure("test loss")
    assert figure["data"][0]["y"] == [0.5, None, None, 1e30]
    assert figure["layout"]["yaxis"]["type"] == "log"


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    evil = '</script><script>alert("x")</script><b>'
    record_run(tmp_path / "a", name=evil, places=[evil] * 4)
    record_run(tmp_path / "b")
    write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "page.html")
    for path in (tmp_path / "a" / "report.html", tmp_path / "page.html"):
        page = Page(path)
        assert page.tags.count("script") == 2
        assert "alert" in page.text
        assert not any("<script" in text for text in texts(page.figures))


def test_no_folder_is_an_error_with_a_cure(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give at least one run folder"):
        write_report([], tmp_path / "page.html")
    with pytest.raises(ValueError, match="grapevine run --out"):
        write_report([tmp_path], tmp_path / "page.html")


@pytest.mark.parametrize("file", ["summary.json", "metrics.parquet", "experiment.toml"])
def test_a_damaged_run_is_an_error_with_a_cure(tmp_path: Path, file: str) -> None:
    record_run(tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(b'{"name": ' + content[: len(content) // 2])
    with pytest.raises(ValueError, match=rf"{file}: .*run it again"):
        write_report([tmp_path], tmp_path / "page.html")


def test_a_summary_that_lacks_something_is_an_error_with_a_cure(tmp_path: Path) -> None:
    record_run(tmp_path)
    (tmp_path / "summary.json").write_text('{"name": "x", "completed": true}')
    with pytest.raises(ValueError, match=r"lacks world, .*run it again"):
        write_report([tmp_path], tmp_path / "page.html")


def test_a_page_that_cannot_be_written_is_an_error_with_a_cure(run: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be written .*give another path"):
        write_report([run], run / "summary.json" / "page.html")


def test_the_same_run_is_drawn_the_same_every_time(run: Path, tmp_path: Path) -> None:
    write_report([run], tmp_path / "a.html")
    write_report([run], tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_peer_that_stops_early_does_not_bend_the_mean(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, TOML.format(name="x", peers=2, strategy="solo"), MANIFEST, write_report)
    for peer, times in ((0, (1.0, 2.0)), (1, (1.0, 2.0, 3.0))):
        for time_s in times:
            recorder.metric(time_s, peer, 1, "train_loss", 1.0 + 2 * peer)
    recorder.flush()
    write_report([tmp_path], tmp_path / "page.html")
    mean = Page(tmp_path / "page.html").figure("training loss")["data"][-1]
    np.testing.assert_allclose(mean["y"], [2.0, 2.0, 2.0])
