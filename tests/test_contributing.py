"""The parts in CONTRIBUTING.md are whole ones: they are taken from there and run; and its tables name everything."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import networkx as nx
import numpy as np
import pytest

from grapevine import (
    DPSGD,
    Adam,
    Experiment,
    Quadratic,
    Scale,
    Slices,
    Solo,
    Stop,
    Strategy,
    Uniform,
    UniformDevices,
    Virtual,
    run,
)  # fmt: skip
from grapevine.experiments.config.menus import LISTS, MENUS, options, summary
from tests.experiments.own_modules import forgotten

PAGE = Path(__file__).parent.parent / "CONTRIBUTING.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
BLOCK = BLOCKS[0]
RECIPES = {block.split()[1].removesuffix(".py"): block for block in BLOCKS[1:]}
"""By the name of the module that the first line of each block gives."""
FAMILIES = {**MENUS, **LISTS}
TARGETS = [0.0, 1.0, 2.0, 3.0, 4.0, 10.0]


@pytest.fixture
def strategy() -> Iterator[Any]:
    """The class of the page, in a module of its own as if it lay in a file."""
    module = ModuleType("strategy_of_the_page")
    sys.modules[module.__name__] = module
    exec(compile(BLOCK, str(PAGE), "exec"), module.__dict__)
    yield module.__dict__["LocalSGD"]
    del sys.modules[module.__name__]


def final_weights(folder: Path, strategy: Any, steps: int) -> np.ndarray:
    """Of six peers on a ring with unequal targets, in virtual time."""
    experiment = Experiment(
        peers=len(TARGETS),
        world=Virtual(),
        task=Quadratic(targets=TARGETS),
        network=Uniform(rate="1 Mbit/s", delay="30 ms"),
        devices=UniformDevices(speed="1000 samples/s"),
        strategy=strategy,
        stop=Stop(steps=steps),
    )
    result = run(experiment, out=folder)
    assert result.summary["reason"] == f"{steps} steps done"
    return result.weights[:, 0]


def test_the_example_has_about_30_lines() -> None:
    assert len(BLOCK.splitlines()) <= 32


@pytest.mark.parametrize("period", [1, 5])
def test_the_mean_walks_as_gradient_descent_does(tmp_path: Path, strategy: Any, period: int) -> None:
    weights = final_weights(tmp_path / "run", strategy(period=period), steps=20)
    exact = np.mean(TARGETS) * (1 - 0.9**20)  # learning rate 0.1, from 0 towards the mean target
    assert weights.mean() == pytest.approx(exact, abs=1e-5)


def test_the_rarer_the_averaging_the_further_apart(tmp_path: Path, strategy: Any) -> None:
    spreads = [np.ptp(final_weights(tmp_path / str(period), strategy(period=period), steps=41)) for period in (1, 5, 20)]
    assert spreads[0] < spreads[1] < spreads[2]
    assert spreads[2] < max(TARGETS) - min(TARGETS)


# -- the other families


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with every recipe in a file of its own, as the page says."""
    folder = tmp_path_factory.mktemp("recipes")
    for name, text in RECIPES.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    with forgotten():
        sys.path.append(str(folder))
        yield folder
        for name in RECIPES:
            sys.modules.pop(name, None)


def part(name: str, **fields: Any) -> Any:
    """The one part that a recipe's module defines."""
    module = importlib.import_module(name)
    (cls,) = (value for value in vars(module).values() if hasattr(value, "__struct_config__") and value.__module__ == name)
    return cls(**fields)


def test_every_family_has_a_recipe_of_less_than_30_lines(recipes: Path) -> None:
    families = [menu.key for name in RECIPES for menu in FAMILIES.values() if isinstance(part(name), menu.bases)]
    assert {*families, "strategy"} == {menu.key for menu in FAMILIES.values() if menu.own}
    for name, text in RECIPES.items():
        lines = text.splitlines()
        assert len(lines[lines.index("") :]) < 40, name
        assert sum(bool(line.strip()) for line in lines) < 30, name


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_part_that_an_experiment_takes_and_a_file_can_hold(recipes: Path, name: str) -> None:
    one = part(name)
    (key,) = (key for key, menu in FAMILIES.items() if isinstance(one, menu.bases))
    experiment = Experiment(**{key: [one] if key in LISTS else one})
    assert experiment.here_alone() == []
    assert Experiment.parse(experiment.to_toml()) == experiment
    assert summary(type(one))
    assert all(option.meaning for option in options(type(one)))


def test_all_recipes_run_together_from_a_file(recipes: Path, tmp_path: Path) -> None:
    names = {key: name for name in RECIPES for key, menu in FAMILIES.items() if isinstance(part(name), menu.bases)}
    heads = {key: f"[[{key}]]" if key in LISTS else f"[{key}]" for key in names}
    tables = [f'{heads[key]}\nname = "{name}:{type(part(name)).__name__}"' for key, name in names.items()]
    text = "\n".join(['peers = 6\n[world]\nname = "virtual"', *tables, '[stop]\ntime = "1500 ms"\n[record]\nreport = false'])
    (recipes / "all.toml").write_text(text)
    result = run(Experiment.read(recipes / "all.toml"), out=tmp_path / "out")
    assert result.summary["reason"] == "1500 ms of emulated time over"
    assert [event["peer"] for event in result.events if event["kind"] == "join"] == [3, 4, 5]
    assert result.summary["peers_lost"] == []


def test_the_wheel_and_the_clusters_are_as_drawn(recipes: Path) -> None:
    graph = part("wheel_graph").build(6)
    assert sorted(degree for _, degree in graph.degree) == [3, 3, 3, 3, 3, 5]
    plan = part("two_clusters").plan(nx.complete_graph(4), 0)
    assert plan.links[0, 1].rate_bytes_per_s == plan.links[3, 2].rate_bytes_per_s == 12.5e6
    assert {plan.links[pair].rate_bytes_per_s for pair in ((0, 2), (3, 1))} == {0.625e6}
    assert (plan.links[0, 1].delay_ns, plan.links[0, 2].delay_ns) == (0, 40_000_000)


def test_speeds_and_labels_are_spread_as_the_page_says(recipes: Path) -> None:
    speeds = np.array([device.samples_per_s for device in part("log_normal").plan(4000, 1)])
    assert np.median(speeds) == pytest.approx(1000, rel=0.05)
    assert np.log(speeds).std() == pytest.approx(0.5, rel=0.05)
    labels = np.arange(100) * 7 % 10
    shares = part("sorted_labels").split(labels, 5, 0)
    assert sorted(np.concatenate(shares).tolist()) == list(range(100))
    assert [sorted(set(labels[share].tolist())) for share in shares] == [[2 * k, 2 * k + 1] for k in range(5)]


def test_signs_keep_the_mean_size_and_what_they_lose_is_not_lost(recipes: Path, tmp_path: Path) -> None:
    values = np.array([1.0, -2.0, 3.0], np.float32)
    body, read = part("signs").encode(values, np.random.default_rng(0))
    assert (len(body), read.tolist()) == (5, [2.0, -2.0, 2.0])
    weights = fleet_weights(tmp_path / "run", codec=part("signs"))
    assert weights.mean() == pytest.approx(np.mean(TARGETS) * (1 - 0.9**20), abs=1e-4)  # the fleet's mean, by `mix`


def test_clipping_moves_by_no_more_than_the_radius(recipes: Path) -> None:
    rows = [np.array(row, np.float32) for row in ([0, 0], [3, 4], [0.3, 0.4])]
    out = np.empty(2, np.float32)
    part("clipping").combine(rows, [0.5, 0.25, 0.25], out)
    assert out == pytest.approx(0.25 * np.array([0.6, 0.8]) + 0.25 * np.array([0.3, 0.4]))
    part("clipping", radius=9.0).combine(rows, [0.5, 0.25, 0.25], out)
    assert out == pytest.approx(0.25 * (rows[1] + rows[2]))


def test_steps_along_signs_are_of_one_size(recipes: Path, tmp_path: Path) -> None:
    weights = fleet_weights(tmp_path / "run", optimizer=part("sign_sgd", learning_rate=0.25), strategy=Solo())
    assert weights.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]  # 20 steps of 0.25 towards 10 end at 5


def test_flipping_is_scaling_by_minus_one(recipes: Path, tmp_path: Path) -> None:
    for strategy in (DPSGD(), Slices()):
        folder = tmp_path / type(strategy).__name__
        flipped = fleet_weights(folder / "flipped", strategy=strategy, wrappers=[part("flipping", peers=(1,))])
        scaled = fleet_weights(folder / "scaled", strategy=strategy, wrappers=[Scale(factor=-1.0, peers=(1,))])
        assert np.array_equal(flipped, scaled)


@pytest.mark.slow
def test_the_spirals_are_learnt(recipes: Path, tmp_path: Path) -> None:
    experiment = Experiment(
        peers=3, world=Virtual(), task=part("spirals"), optimizer=Adam(learning_rate=0.02), stop=Stop(steps=300)
    )
    assert run(experiment, out=tmp_path / "run").summary["accuracy_mean"] > 0.9


def fleet_weights(folder: Path, **parts: Any) -> np.ndarray:
    """The final weights of six peers after 20 steps in virtual time."""
    experiment = Experiment(peers=len(TARGETS), world=Virtual(), task=Quadratic(targets=TARGETS), stop=Stop(steps=20))
    return run(experiment.replace(**parts), out=folder).weights[:, 0]


# -- the tables


def names_for_strategies() -> list[str]:
    """The public methods and properties of `Peer` and of its parts, without those that only a world calls."""
    names = set()
    for module, of in [("peer", "Peer"), ("work", "Worker"), ("neighbourhood", "Neighbourhood"), ("calls", "Calls")]:
        source = (Path(__file__).parent.parent / "peer" / f"{module}.py").read_text(encoding="utf-8")
        lines = source.splitlines()
        last = next((number for number, text in enumerate(lines) if "what a world does" in text), len(lines))
        (part,) = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == of]
        names |= {
            node.name for node in part.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.lineno < last
        }
    return sorted(name for name in names if not name.startswith("_"))


@pytest.mark.parametrize("name", names_for_strategies())
def test_every_verb_of_a_peer_is_in_the_table(name: str) -> None:
    assert re.search(rf"^\|.*`(?:peer)?\.{name}\b.*\|", TEXT, re.M)


DECLARED = {"expects": None, "spaces": (), "step_bytes": None}
"""What the methods of a strategy answer that says nothing."""


def test_everything_that_a_strategy_says_of_itself_is_in_the_table_with_its_default() -> None:
    fields = [name for name in vars(Strategy) if not name.startswith("_") and name not in ("run", "asked")]
    assert len(fields) > 10
    for name in fields:
        row = re.search(rf"^\|[^|]*`{name}(?:\([\w, ]+\))?`[^|]*\| `(.+?)` \|", TEXT, re.M)
        assert row, name
        value = vars(Strategy)[name]
        default = value.fget(Solo()) if isinstance(value, property) else DECLARED[name] if callable(value) else value
        assert ast.literal_eval(row.group(1)) == default
    for name in ("Dense", "Sparse", "Marks", "Next", "Largest", "Above", "All", "Chosen"):
        assert f"`{name}(" in TEXT
