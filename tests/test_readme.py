"""What README.md shows is true: its files are read, its program is run, its names are in the menus."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from grapevine import Experiment, Result, run
from grapevine.experiments.config import toml
from grapevine.experiments.config.menus import MENUS
from grapevine.experiments.sweep.plan import read_sweep

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("studies/*.md"))]
README = PAGES[0].read_text(encoding="utf-8")
FAMILIES = {"Strategies": "strategy", "Topologies": "topology", "Networks": "network", "Worlds": "world"}


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def experiment_files() -> list[tuple[str, str]]:
    """Every block of TOML in the documentation that is a whole experiment or a part of one."""
    return [(page.name, text) for page in PAGES for text in blocks(page.read_text(encoding="utf-8"), "toml")]


@pytest.mark.parametrize(("page", "text"), experiment_files())
def test_files_are_accepted(page: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = blocks(PAGES[1].read_text(encoding="utf-8"), "python")[0]
    (tmp_path / "localsgd.py").write_text(strategy)  # the part of one's own that the pages name
    monkeypatch.syspath_prepend(tmp_path)
    document = tomllib.loads(text)
    assert document
    whole = tomllib.loads(blocks(README, "toml")[0])
    if not document.keys() & {"sweep", "tune"}:
        Experiment.from_document({**whole, **document}, page, ROOT)
        return
    file = tmp_path / "study.toml"
    parts = {key: value for key, value in whole.items() if key not in document}
    file.write_text(toml.dump(parts) + "\n" + text + ("" if "sweep" in document else "\n[sweep]\nseed = [1, 2]\n"))
    assert len(read_sweep(file).points) > 1


def test_first_experiment_does_what_is_said(tmp_path: Path) -> None:
    experiment = Experiment.parse(blocks(README, "toml")[0]).set("world.name", "virtual")
    result = run(experiment, tmp_path / "run")
    said = re.search(r"each peer makes 98 steps in 10 s, all together (\d+), and ([\d.]+) % mean accuracy", README)
    assert said is not None
    assert result.summary["steps_total"] == int(said.group(1))
    assert 100 * result.summary["accuracy_mean"] == pytest.approx(float(said.group(2)), abs=0.5)


@pytest.mark.slow
def test_python_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = blocks(README, "python")
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "README.md", "exec"), {"__name__": "__main__"})
    result = Result.read("runs/karate-club")
    assert result.summary["completed"]
    assert result.weights.shape == (34, 4810)
    assert "(34, 4810)" in capsys.readouterr().out


@pytest.mark.slow
def test_a_study_from_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = blocks((DOCS / "studies.md").read_text(encoding="utf-8"), "python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("grapevine.experiments.sweep.sweep._here", lambda sweep, jobs: True)  # so that runs need no processes
    exec(compile(program, "studies.md", "exec"), {"__name__": "__main__"})
    assert (tmp_path / "runs" / "three" / "report.html").is_file()
    assert capsys.readouterr().out.count("d-psgd") == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_every_name_that_is_shown_exists(family: str) -> None:
    """New members may come before they are told of here; none may be told of that does not exist."""
    part = README.split(f"**{family}**")[1].split("\n**")[0]
    first_cells = " ".join(re.findall(r"^\| (`[^|]+) \|", part, re.M))
    shown = re.findall(r"`([\w-]+)`", first_cells or part.split("Each takes")[0])
    assert len(shown) >= 2
    assert set(shown) <= set(MENUS[FAMILIES[family]].members)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target
