"""The plan of the house: who may import whom, and that no import is hidden."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import networkx as nx
import pytest

ROOT = Path(__file__).parent.parent
TRUNKS = ("peer", "topology", "netem")
CONFIG = {"tasks", "terminal"}
FLEET = {"compatibility", "config", "faults", "fleet", "graph", "kernel", "membership", "open_files", "scenario", "tasks"}
RESULTS = {"config", "results", "terminal"}
ROOMS: dict[str, set[str]] = {
    "tasks": set(),
    "terminal": set(),
    "exit_status": set(),
    "open_files": set(),
    "config": CONFIG,
    "kernel": {"config"},
    "scenario": {"config"},
    "membership": {"config", "scenario"},
    "graph": CONFIG | {"config"},
    "faults": CONFIG | {"config"},
    "compatibility": CONFIG | {"config", "faults", "graph", "open_files"},
    "fleet": FLEET,
    "forecast": {"config", "fleet", "results"},
    "results": RESULTS,
    "live_view": {"results", "terminal"},
    "worlds": FLEET | {"results"},
    "worlds.virtual": FLEET | {"results", "worlds"},
    "worlds.processes": FLEET | {"results", "worlds"},
    "report": {"results"},
    "run": FLEET
    | {"exit_status", "forecast", "live_view", "report", "results", "worlds", "worlds.virtual", "worlds.processes"},
    "sweep": FLEET | {"exit_status", "forecast", "report", "results", "run", "worlds", "worlds.virtual"},
    "study": FLEET | {"exit_status", "report", "results", "sweep"},
    "probe": FLEET | {"report", "results", "worlds", "worlds.virtual", "worlds.processes"},
}
"""Which rooms of `experiments` each of them may import; `cli`, the face of all, may import every one."""

HEAVY = {"pandas", "plotly", "pyarrow", "rich", "scipy", "sklearn", "torch", "tomlkit"}
"""Libraries that take long to import, so that a function may import them when it needs them."""
LATE = {"cli", "run", "probe", "sweep.forecast", "sweep.table", "tasks.cnn", "tasks.module", "config.toml"}
"""Rooms and modules that import our own heavy modules when they need them: a command's help must come at once."""


class Import(NamedTuple):
    """What a module imports, ours as a dotted name without `grapevine`; `late` = in a function."""

    module: str
    target: str
    own: bool
    late: bool


def _modules() -> dict[str, Path]:
    found = {}
    for trunk in (*TRUNKS, "experiments"):
        for path in (ROOT / trunk).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def _imports(module: str, node: ast.AST, late: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield _import(module, alias.name, late)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{module}: imports are absolute"
            for alias in child.names:
                deep = f"{child.module}.{alias.name}"
                yield _import(module, deep if deep.removeprefix("grapevine.") in MODULES else str(child.module), late)
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from _imports(module, child, late or inside)


def _import(module: str, target: str, late: bool) -> Import:
    own = target.split(".")[0] == "grapevine"
    return Import(module, target.removeprefix("grapevine."), own, late)


IMPORTS = [found for module, path in MODULES.items() for found in _imports(module, ast.parse(path.read_text()))]
OWN = [found for found in IMPORTS if found.own]


def _room(module: str) -> str:
    """The room of `experiments` that a module belongs to: the longest name in ROOMS that its own begins with."""
    inside = module.removeprefix("experiments.")
    rooms = [room for room in (*ROOMS, "cli") if inside == room or inside.startswith(f"{room}.")]
    return max(rooms, key=len) if rooms else inside


def test_every_import_was_found() -> None:
    assert len(OWN) > 500
    assert {found.target.split(".")[0] for found in OWN} >= {*TRUNKS, "experiments"}


@pytest.mark.parametrize("trunk", TRUNKS)
def test_the_trunks_never_meet(trunk: str) -> None:
    met = [found for found in OWN if found.module.split(".")[0] == trunk and found.target.split(".")[0] != trunk]
    assert met == []


def test_there_is_no_circle() -> None:
    """Not even of imports in functions or for type checkers."""
    graph = nx.DiGraph((found.module, found.target) for found in OWN if found.module != found.target)
    assert [sorted(circle) for circle in nx.strongly_connected_components(graph) if len(circle) > 1] == []


def test_rooms_import_only_those_below_them() -> None:
    inside = [found for found in OWN if found.module.startswith("experiments.") and found.target.startswith("experiments.")]
    wrong = []
    for found in inside:
        room, target = _room(found.module), _room(found.target)
        if room not in ("cli", target) and target not in ROOMS.get(room, set()):
            wrong.append(f"{found.module} imports {found.target}")
    assert wrong == []


def test_the_rooms_stand_in_order() -> None:
    assert nx.is_directed_acyclic_graph(nx.DiGraph((a, b) for a, below in ROOMS.items() for b in below if a != b))
    assert {_room(module) for module in MODULES if module.startswith("experiments.")} <= {*ROOMS, "cli"}


def test_imports_in_functions_are_of_what_is_heavy() -> None:
    hidden = []
    for found in (found for found in IMPORTS if found.late):
        allowed = any(found.module.removeprefix("experiments.").startswith(name) for name in LATE)
        if not (allowed or (not found.own and found.target.split(".")[0] in HEAVY)):
            hidden.append(f"{found.module} imports {found.target} in a function")
    assert hidden == []


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("torch", ("experiments.tasks.",)),
        ("sklearn", ("experiments.tasks.",)),
        ("zmq", ("peer.sockets",)),
        ("plotly", ("experiments.report.",)),
        ("pandas", ("experiments.",)),
        ("networkx", ("topology", "netem", "experiments.")),
        ("pickle", ()),
        ("asyncio", ()),
    ],
)
def test_a_library_is_used_where_it_belongs(library: str, homes: tuple[str, ...]) -> None:
    users = [found.module for found in IMPORTS if not found.own and found.target.split(".")[0] == library]
    assert [user for user in users if not user.startswith(homes)] == []


def test_nothing_of_ours_goes_by_a_bare_name() -> None:
    """`import experiments` would find the user's own folder of that name."""
    bare = [found for found in IMPORTS if not found.own and found.target.split(".")[0] in (*TRUNKS, "experiments", "tests")]
    assert bare == []


@pytest.mark.slow
def test_no_room_knows_a_strategy_by_its_class() -> None:
    """What a strategy is stands on its class: only the default of an experiment, and of the probe's, are named."""
    named = set()
    for module, path in MODULES.items():
        if not module.startswith("experiments."):
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"getattr\((?:\w+\.)*strategy\b", text), module
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("grapevine.peer.strategies"):
                named |= {(module, alias.name) for alias in node.names if alias.name not in ("Strategy", "AnyStrategy")}
    assert named <= {("experiments.config.experiment", "DPSGD"), ("experiments.probe.probe", "Solo")}
