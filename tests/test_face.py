"""What a user imports from `grapevine`, and that it works beside folders of any name."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import grapevine
from grapevine import topology
from grapevine.experiments.config.menus import LISTS, MENUS

FACE = Path(grapevine.__file__)
ROOT = Path(__file__).parent.parent
NAMES = ("experiments", "peer", "topology", "netem", "tests")


def typed_names() -> dict[str, str]:
    """Of the TYPE_CHECKING block: name -> module."""
    (block,) = [node for node in ast.parse(FACE.read_text()).body if isinstance(node, ast.If)]
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name  # so that type checkers take it to be exported
            found[alias.name] = str(node.module).removeprefix("grapevine.")
    return found


@pytest.mark.parametrize("name", grapevine.__all__)
def test_every_name_can_be_imported(name: str) -> None:
    assert getattr(grapevine, name) is not None


def test_the_types_and_the_table_agree() -> None:
    assert typed_names() == {**grapevine._HOMES, "topology": "grapevine"}
    assert sorted(typed_names()) == grapevine.__all__
    assert set(grapevine.__all__) <= set(dir(grapevine))
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = grapevine.Nothing


@pytest.mark.parametrize("menu", [*MENUS.values(), *LISTS.values()], ids=lambda menu: menu.plural)
def test_every_part_and_every_base_class_can_be_imported(menu) -> None:
    home = topology if menu.key == "topology" else grapevine
    for part in menu.members.values():
        assert getattr(home, part.__name__) is part
    for base in menu.bases:
        assert getattr(grapevine, base.__name__) is base


def test_the_package_alone_imports_nothing_heavy() -> None:
    heavy = ("numpy", "torch", "msgspec", "networkx", "pandas", "scipy", "zmq", "rich")
    code = f"import sys, grapevine; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


STRATEGY = """
from grapevine import Dense, Peer, Strategy

class Gossip(Strategy, frozen=True, tag="gossip"):
    '''Averages with whoever was heard.'''

    async def run(self, peer: Peer) -> None:
        while peer.running:
            peer.apply(await peer.gradient())
            own = await peer.broadcast(Dense(peer.weights))
            peer.mix(await peer.gather(step=peer.step), own)
"""
SCRIPT = """
import sys
import zipfile
from grapevine import Experiment, Processes, Quadratic, Record, Stop, Virtual, run, topology
from models.gossip import Gossip

if __name__ == "__main__":
    for world in (Virtual(), Processes()):
        experiment = Experiment(peers=2, world=world, topology=topology.Complete(), task=Quadratic(), strategy=Gossip(),
                                stop=Stop(steps=3), record=Record(report=False))
        print(run(experiment, out=f"runs/{experiment.world.__class__.__name__}").summary["reason"])
"""
FILE = """
peers = 2
[topology]
name = "complete"
[task]
name = "quadratic"
[strategy]
name = "models.gossip:Gossip"
[stop]
steps = 3
[record]
report = false
[sweep]
"world.name" = ["virtual", "processes"]
"""


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.parametrize("installed", [False, True], ids=["folders", "packages-beside-the-installed-one"])
def test_it_works_beside_folders_and_packages_of_the_same_names(tmp_path: Path, installed: bool) -> None:
    """A script, the command line, a sweep's child processes and the peers' processes, all started in the user's project.

    Once beside plain folders with a wheel that is built for it; once beside packages with whatever is installed here, which is
    usually this repository itself (editable).
    """
    for name in NAMES:
        (tmp_path / name).mkdir()
        for file in ("notes.py", "__init__.py") if installed else ("notes.py",):
            (tmp_path / name / file).write_text("raise AssertionError('not meant')\n")
    for file, text in {"models/gossip.py": STRATEGY, "script.py": SCRIPT, "sweep.toml": FILE}.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if not installed:
        environment["PYTHONPATH"] = str(unpacked_wheel(tmp_path / "wheel"))
    elif not installed_here(environment, tmp_path):
        pytest.skip("another grapevine than this one is installed, or none")
    for command in (["script.py"], ["-m", "grapevine", "sweep", "sweep.toml", "--out", "runs/sweep", "--quiet"]):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("3 steps done") == 2 or done.stdout.count("completed") == 2, done.stdout
        assert done.stderr == ""


def unpacked_wheel(folder: Path) -> Path:
    """A folder for PYTHONPATH that holds what a wheel of this repository would install."""
    pytest.importorskip("setuptools")
    source = folder / "source"
    for name in ("grapevine", "experiments", "peer", "topology", "netem"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*build, str(source)], check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def installed_here(environment: dict[str, str], folder: Path) -> bool:
    """Whether an interpreter that is started elsewhere finds this very package."""
    code = [sys.executable, "-c", "import grapevine; print(grapevine.__file__)"]
    found = subprocess.run(code, cwd=folder, env=environment, capture_output=True, text=True, check=False).stdout.strip()
    return bool(found) and FACE.samefile(found)
