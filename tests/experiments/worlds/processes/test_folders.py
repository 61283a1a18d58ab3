"""Folders outside the run folder: whose they are, and that what a killed launcher left can be told from what is in use."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from grapevine.experiments.cli.main import main
from grapevine.experiments.worlds.processes import folders
from grapevine.experiments.worlds.processes.folders import left_folders, make_folder, remove_folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folders, "places", lambda: [tmp_path])
    return tmp_path


def left_by(place: Path, process: int, start: str, namespace: int | None = None) -> Path:
    """A folder as some launcher makes it."""
    own = Path("/proc/self/ns/pid").stat().st_ino
    folder = place / f"grapevine-{own if namespace is None else namespace}-{process}-{start}-abc_12"
    folder.mkdir()
    (folder / "snapshots").write_bytes(b"x")
    return folder


def test_other_users_may_not_enter_a_folder(place: Path) -> None:
    folder = make_folder(place)
    assert folder.stat().st_mode & 0o777 == 0o700
    remove_folder(folder)
    assert not list(place.iterdir())


@pytest.mark.slow
def test_only_what_dead_launchers_of_this_user_left_is_removed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = make_folder(place)
    dead = left_by(place, 2**22 + 1, "77")  # no process has such a number
    again = left_by(place, os.getpid(), "1")  # the number is another process's by now
    foreign = left_by(place, 2**22 + 1, "78", namespace=5)  # nobody here can tell whether it runs
    (place / "grapevine-notes").mkdir()
    (place / dead.name.replace("abc", "link")).symlink_to(own)
    assert left_folders() == sorted([again, dead])
    assert main(["cleanup", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["removed"]) >= {str(again), str(dead)}
    assert not dead.exists()
    assert not again.exists()
    assert own.exists()
    assert foreign.exists()
    assert (place / "grapevine-notes").exists()
    assert left_folders() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_what_another_user_left_stays(place: Path) -> None:
    folder = left_by(place, 2**22 + 1, "77")
    os.chown(folder, 65534, 65534)
    assert left_folders() == []
