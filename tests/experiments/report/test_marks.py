"""Events that changed the fleet are marked in the curves of a page, and listed."""

from __future__ import annotations

import json
from pathlib import Path

from grapevine.experiments.report.page import write_report
from tests.experiments.recorded import record_run
from tests.experiments.report.pages import Page


def _scripted(folder: Path, *marks: tuple[float, str, str]) -> Page:
    record_run(folder)
    with open(folder / "events.jsonl", "a") as file:
        file.writelines(json.dumps({"time_s": time_s, "kind": kind, "text": text}) + "\n" for time_s, kind, text in marks)
    write_report([folder], folder / "report.html")
    return Page(folder / "report.html")


def test_events_are_marked_in_the_curves_and_listed(tmp_path: Path, page: Page) -> None:
    done = (1.5, "script", "link 0-1 is cut"), (1.5, "script", "peer 2: speed x 0.5"), (2.5, "poke", "all links <are> healed")
    scripted = _scripted(tmp_path, *done)
    layout = scripted.figure("test accuracy")["layout"]
    assert [shape["x0"] for shape in layout["shapes"]] == [1.5, 2.5]
    assert [(name["x"], name["text"]) for name in layout["annotations"]] == [
        (1.5, "link 0-1 is cut; peer 2: speed x …"),
        (2.5, "all links &lt;are&gt; healed"),
    ]
    assert "Vertical dashed lines: events that changed the fleet" in scripted.text
    story = "During the run, 2 events of its file and 1 poke changed the fleet, from 1.5 s (link 0-1 is cut) to 2.5 s"
    assert story in " ".join(scripted.text.split())
    assert scripted.text.count("link 0-1 is cut") == 2  # in the story and among the events
    assert "changed the fleet" not in page.text
    assert page.figure("test accuracy")["layout"]["annotations"] == []


def test_many_marks_are_drawn_without_text(tmp_path: Path) -> None:
    layout = _scripted(tmp_path, *((0.1 * at, "script", f"event {at}") for at in range(20))).figure("test loss")["layout"]
    assert (len(layout["shapes"]), layout["annotations"]) == (20, [])


def test_of_several_runs_only_common_events_are_marked(tmp_path: Path) -> None:
    for name, extra in (("a", (1.0, "poke", "only here")), ("b", (2.0, "poke", "only there"))):
        _scripted(tmp_path / name, (1.5, "script", "link 0-1 is cut"), extra)
    write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "both.html")
    layout = Page(tmp_path / "both.html").figure("test accuracy")["layout"]
    assert [name["text"] for name in layout["annotations"]] == ["link 0-1 is cut"]


def test_the_script_is_part_of_the_configuration(tmp_path: Path) -> None:
    record_run(tmp_path)
    with open(tmp_path / "experiment.toml", "a") as file:
        file.write('[[events]]\nat = "1 s"\ndo = "cut"\nlink = [0, 1]\n[[events]]\nat = "2 s"\ndo = "heal"\n')
    write_report([tmp_path], tmp_path / "report.html")
    text = " ".join(Page(tmp_path / "report.html").text.split())
    assert "events 1 at 1 s, do cut, link 0, 1 2 at 2 s, do heal" in text
