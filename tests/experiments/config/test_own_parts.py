"""Parts of a user's own, named by module and class: found, checked as built-in ones are, written and read again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import networkx as nx
import pytest

from grapevine import (
    Dense,
    Experiment,
    LinkSpec,
    Network,
    NetworkPlan,
    Peer,
    Quadratic,
    Slices,
    Stop,
    Strategy,
    Uniform,
    plan_links,
    run,
)  # fmt: skip
from grapevine.experiments.cli.main import main
from grapevine.experiments.config.errors import ConfigError
from grapevine.experiments.config.own_parts import code_digest, folder_of, reference_of
from grapevine.experiments.sweep.runs import is_complete
from tests.experiments.own_modules import STRATEGY, forgotten, write

RING = """
peers = 4
[world]
name = "virtual"
[task]
name = "quadratic"
[strategy]
name = "mine_own:Averaging"
gamma = 0.25
[stop]
steps = 4
[record]
report = false
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An experiment file that names a class of the module beside it."""
    (tmp_path / "ring.toml").write_text(RING)
    write(tmp_path, "mine_own")
    with forgotten():
        yield tmp_path


def refused(folder: Path, name: str, rest: str = "") -> str:
    """The message for a file whose strategy has that name."""
    file = folder / "wrong.toml"
    file.write_text(f'[strategy]\nname = "{name}"\n{rest}')
    with pytest.raises(ConfigError) as caught:
        Experiment.read(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: strategy")
    assert "\n" not in message
    return message.removeprefix(f"{file}: ")


# -- found


def test_a_class_is_found_beside_the_file_and_reads_back_equal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = Experiment.read(folder / "ring.toml")
    assert type(experiment.strategy).__name__ == "Averaging"
    assert experiment.strategy.gamma == 0.25  # type: ignore[attr-defined]
    text = experiment.to_toml()
    assert f'[strategy]\nname = "mine_own:Averaging"\nfrom = "{folder}"\ngamma = 0.25' in text
    assert Experiment.parse(text) == experiment
    assert experiment.here_alone() == []
    monkeypatch.chdir("/")
    assert experiment.set("strategy.gamma", "0.75").strategy.gamma == 0.75  # type: ignore[attr-defined]
    assert experiment.set("strategy.name", "solo").set("strategy.name", "mine_own:Averaging").strategy.gamma == 0.5  # type: ignore[attr-defined]


def test_the_interpreters_path_comes_first_and_the_folder_after_all_others(folder: Path) -> None:
    first = folder / "first"
    write(first, "mine_own", STRATEGY.replace("= 0.5", "= 0.125"))
    sys.path.insert(0, str(first))
    assert Experiment.read(folder / "ring.toml", {"strategy.gamma": ""}).strategy.gamma == 0.125  # type: ignore[attr-defined]
    assert sys.path[-1] == str(folder)


def test_the_folder_may_be_named_relative_to_the_file(folder: Path) -> None:
    write(folder / "parts", "other_own")
    text = '[strategy]\nname = "other_own:Averaging"\nfrom = "parts"\n'
    (folder / "apart.toml").write_text(text)
    assert Experiment.read(folder / "apart.toml").strategy.gamma == 0.5  # type: ignore[attr-defined]


def test_two_modules_of_one_name_are_kept_apart(folder: Path) -> None:
    Experiment.read(folder / "ring.toml")
    write(folder / "other", "mine_own")
    (folder / "other" / "ring.toml").write_text(RING)
    with pytest.raises(ConfigError, match=rf"mine_own is already loaded from {folder}/mine_own.py, and .*rename one"):
        Experiment.read(folder / "other" / "ring.toml")


def test_a_package_that_hides_a_folder_is_named_with_the_cure(folder: Path) -> None:
    write(folder / "first" / "kit_own", "__init__", "")
    write(folder / "kit_own", "late", STRATEGY)
    sys.path.insert(0, str(folder / "first"))
    assert refused(folder, "kit_own.late:Averaging") == (
        'strategy.name = "kit_own.late:Averaging": there is no module kit_own.late: Python found kit_own first in '
        f"{folder}/first/kit_own/__init__.py, and that has no late; rename your folder kit_own, or write "
        'name = "late:Averaging" and from = "kit_own"'
    )
    (folder / "wrong.toml").write_text('[strategy]\nname = "late:Averaging"\nfrom = "kit_own"\n')
    assert type(Experiment.read(folder / "wrong.toml").strategy).__name__ == "Averaging"
    sys.modules.pop("late")


def test_a_package_is_found_as_a_module_is(folder: Path) -> None:
    write(folder / "kit_own", "__init__", "")
    write(folder / "kit_own", "late", STRATEGY)
    (folder / "ring.toml").write_text(RING.replace("mine_own", "kit_own.late"))
    experiment = Experiment.read(folder / "ring.toml")
    assert f'name = "kit_own.late:Averaging"\nfrom = "{folder}"' in experiment.to_toml()


# -- checked


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere_own:Averaging", 'strategy.name = "nowhere_own:Averaging": there is no module nowhere_own, neither on the'),
        ("mine_own.deep:Averaging", "there is no module mine_own.deep"),
        ("mine_own:Averagin", "has no class Averagin; did you mean Averaging? the module has: Averaging"),
        ("mine_own:helper", "cannot be used as strategy; name a class that is derived from grapevine.Strategy"),
        ("mine_own:Strategy", "is the base class itself"),
        ("mine_own:msgspec.Struct", "cannot be used as strategy"),
        (
            "mine_own:",
            '"mine_own:" does not have the form module:Class; write the module, a colon and the class',
        ),
        ("../mine_own:Averaging", "does not have the form module:Class"),
        ("broken_own:Averaging", "importing broken_own raised ZeroDivisionError: division by zero ("),
        ("unparsed_own:Averaging", "importing unparsed_own raised SyntaxError"),
        ("needing_own:Averaging", "importing needing_own raised ModuleNotFoundError: No module named 'lacking_own'"),
        ("leaving_own:Averaging", "importing leaving_own raised SystemExit: 3"),
        ("random:Averaging", "rename {folder}/random.py: another module with this name comes first"),
        ("__main__:Averaging", "another program cannot import it from there; move it to a module, such as mine.py"),
    ],
)
def test_an_error_has_its_cure(folder: Path, name: str, message: str) -> None:
    write(folder, "broken_own", "a = 1\nb = a / 0\n")
    write(folder, "unparsed_own", "a = (\n")
    write(folder, "needing_own", "import lacking_own\n")
    write(folder, "leaving_own", "import sys\nsys.exit(3)\n")
    write(folder, "random", STRATEGY)
    assert message.replace("{folder}", str(folder)) in refused(folder, name)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gamma = 3.0", "strategy.gamma: 3.0 is not valid; expected a number above 0 and at most 1"),
        ('order = "middle"', 'strategy.order: "middle" is not valid; expected one of "first", "last"'),
        ("gama = 0.5", "strategy.gama: no such field; mine_own:Averaging has: gamma, order, cap; did you mean gamma?"),
        ("from = 3", "strategy.from = 3: is not a folder"),
    ],
)
def test_fields_are_checked_as_those_of_a_built_in_part(folder: Path, line: str, message: str) -> None:
    assert refused(folder, "mine_own:Averaging", line).startswith(message)


def test_a_world_and_an_event_are_always_built_in() -> None:
    with pytest.raises(ConfigError, match='there is no world "mine:World"'):
        Experiment.parse('[world]\nname = "mine:World"')
    with pytest.raises(ConfigError, match='there is no event "mine:Event"'):
        Experiment.parse('[[events]]\nat = "1 s"\ndo = "mine:Event"')


class Wide(Network, frozen=True, tag="wide"):
    """A network whose fields are checked by its annotations alone."""

    hops: tuple[int, ...] = ()
    factor: float = 1.0

    def plan(self, graph: nx.Graph, seed: int) -> NetworkPlan:
        return plan_links(graph, seed, lambda source, target: LinkSpec())


class Nested(Strategy, frozen=True, tag="nested"):
    """A strategy around another."""

    inner: Strategy

    async def run(self, peer: Peer) -> None:
        return


def test_every_family_from_python_is_checked_with_the_exact_key() -> None:
    for part, message in [
        (Wide(hops=(1, "x")), 'network.hops[1]: "x" is not valid; expected a whole number'),  # type: ignore[arg-type]
        (Wide(factor=float("inf")), "network.factor: inf is not a finite number"),
        (Uniform(rate="1 Mbit/s", duplicate=1.0), "network.duplicate: 1.0 is not valid; expected a number of at least 0"),
        (Uniform(rate="1 Mbit/s", tcp="reno"), 'network.tcp: "reno" is not valid; expected one of "bbr", "cubic", "none"'),  # type: ignore[arg-type]
        (Uniform(jitter_law="gamma"), 'network.jitter_law: "gamma" is not valid'),  # type: ignore[arg-type]
    ]:  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            Experiment(network=part)
        assert str(caught.value).startswith(message)
    with pytest.raises(ConfigError, match=r"^strategy\.inner\.fill: 3 is not valid"):
        Experiment(strategy=Nested(inner=Slices(fill=3)))


def test_lists_become_tuples_and_none_stays_none(folder: Path) -> None:
    network = Experiment(network=Wide(hops=[1, 2])).network  # type: ignore[arg-type]
    assert isinstance(network, Wide)
    assert network.hops == (1, 2)
    strategy = type(Experiment.read(folder / "ring.toml").strategy)(cap=None)  # type: ignore[call-arg]
    experiment = Experiment(strategy=strategy)
    assert experiment.strategy.cap is None  # type: ignore[attr-defined]
    assert experiment.here_alone() == ["strategy"]  # a file has no word for None, and the default is another


class Pair(NamedTuple):
    """A value that a file would hold as a bare list."""

    low: float
    high: float


class Loose(Network, frozen=True, tag="loose"):
    """A network whose annotation does not say what its values are."""

    bounds: tuple[Any, ...] = ()

    def plan(self, graph: nx.Graph, seed: int) -> NetworkPlan:
        return plan_links(graph, seed, lambda source, target: LinkSpec())


def test_values_keep_their_types() -> None:
    network = Experiment(network=Loose(bounds=(Pair(0.0, 1.0),))).network
    assert isinstance(network, Loose)
    assert isinstance(network.bounds[0], Pair)
    assert Experiment(network=network).here_alone() == ["network"]
    assert Experiment(network=Loose(bounds=(1, [2.0, "x"]))).here_alone() == []


def test_what_another_process_cannot_read_is_known() -> None:
    class Local(Slices, frozen=True, tag="local"):
        pass

    assert Experiment(strategy=Local()).here_alone() == ["strategy"]
    assert reference_of(Local) is None
    assert Experiment(strategy=Nested(inner=Slices())).here_alone() == ["strategy"]
    assert Experiment(network=Wide()).here_alone() == []
    assert reference_of(Wide) == f"{__name__}:Wide"
    assert folder_of(Wide) == Path(__file__).parents[3]
    assert folder_of(msgspec.Struct) is None


def test_the_digest_of_a_class_is_that_of_its_source(folder: Path) -> None:
    before = Experiment.read(folder / "ring.toml").code()["strategy"]
    assert before == code_digest(type(Experiment.read(folder / "ring.toml").strategy))
    assert Experiment().code() == {}
    write(folder, "mine_own", STRATEGY.replace("More words.", "Other words."))
    assert Experiment.read(folder / "ring.toml").code()["strategy"] != before


# -- used


def test_it_runs_reads_and_is_reported_and_only_running_again_needs_the_module(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "out"
    assert main(["run", str(folder / "ring.toml"), "--out", str(out), "--quiet"]) == 0
    assert main(["run", str(out / "experiment.toml"), "--out", str(folder / "again"), "--quiet"]) == 0
    assert main(["check", str(folder / "ring.toml")]) == 0
    (folder / "mine_own.py").unlink()
    del sys.modules["mine_own"]
    assert main(["report", str(out), "--out", str(folder / "page.html")]) == 0
    capsys.readouterr()
    assert main(["run", str(out / "experiment.toml"), "--out", str(folder / "third"), "--quiet"]) == 2
    assert f"there is no module mine_own, neither on the interpreter's path nor in {folder}" in capsys.readouterr().err


def test_the_command_line_can_set_it_and_list_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (folder / "solo.toml").write_text(RING.replace("mine_own:Averaging", "solo").replace("gamma = 0.25", ""))
    arguments = ["--set", "strategy.name=mine_own:Averaging", "--set", "strategy.gamma=1"]
    assert main(["run", "solo.toml", *arguments, "--out", "out", "--quiet", "--json"]) == 0
    assert '"strategy": "averaging"' in capsys.readouterr().out
    assert main(["run", "solo.toml", *arguments, "--set", "strategy.gamma=2", "--quiet"]) == 2
    assert capsys.readouterr().err.startswith("--set: strategy.gamma: 2 is not valid")
    assert main(["list", "mine_own:Averaging"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith('strategy (name = "mine_own:Averaging" in [strategy] of the file) mine_own:Averaging Averages whole')
    assert "gamma = 0.5 How far a peer moves" in told
    assert main(["list", "mine_own:helper"]) == 2
    assert capsys.readouterr().err.startswith("grapevine list: ")


@pytest.mark.slow
def test_a_sweep_takes_it_as_a_value_of_an_axis(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = RING.replace('[strategy]\nname = "mine_own:Averaging"\ngamma = 0.25\n', "")
    (folder / "sweep.toml").write_text(text + '[sweep]\n"strategy.name" = ["d-psgd", "mine_own:Averaging"]\n')
    command = ["sweep", str(folder / "sweep.toml"), "--out", str(folder / "out"), "--quiet"]
    assert main(command) == 0
    assert "mine_own:Averaging" in capsys.readouterr().out
    assert (folder / "out" / "strategy.name=mine_own-Averaging" / "summary.json").is_file()
    assert main(command) == 0
    assert capsys.readouterr().out.count("skipped") == 2
    write(folder, "mine_own", STRATEGY.replace("More words.", "Changed."))  # a part whose source changed is run again
    assert main(command) == 0
    assert capsys.readouterr().out.count("skipped") == 1


def test_a_folder_of_unknown_origin_imports_nothing(folder: Path) -> None:
    write(folder, "foreign_own", "raise AssertionError('imported')\n")
    experiment = Experiment.read(folder / "ring.toml")
    run(experiment, out=folder / "out")
    assert is_complete(folder / "out", experiment)
    text = (folder / "out" / "experiment.toml").read_text()
    (folder / "out" / "experiment.toml").write_text(text.replace("mine_own:Averaging", "foreign_own:Averaging"))
    assert not is_complete(folder / "out", experiment)
    assert not is_complete(folder / "out", experiment.set("strategy.name", "solo"))
    assert "foreign_own" not in sys.modules
    (folder / "out" / "experiment.toml").write_text(text.replace(f'from = "{folder}"', 'from = "/elsewhere"'))
    assert is_complete(folder / "out", experiment)  # the module may be moved


WRAPPER = '''
from grapevine import Wrapper


class Silent(Wrapper, frozen=True, tag="silent"):
    """Nothing leaves after some steps."""

    limit: int = 3

    def sending(self, station, message):
        return (message,) if message.step < self.limit else ()
'''


def test_wrappers_of_ones_own_are_named_in_their_list(folder: Path) -> None:
    write(folder, "walls_own", WRAPPER)
    tables = '[[wrappers]]\nname = "walls_own:Silent"\npeers = [0]\nlimit = {}\n[[wrappers]]\nname = "drop"\nshare = 0.0\n'
    (folder / "walled.toml").write_text(RING + tables.format(9))
    experiment = Experiment.read(folder / "walled.toml")
    assert [type(wrapper).__name__ for wrapper in experiment.wrappers] == ["Silent", "Drop"]
    assert f'name = "walls_own:Silent"\nfrom = "{folder}"' in experiment.to_toml()
    assert Experiment.parse(experiment.to_toml()) == experiment
    assert experiment.here_alone() == []
    assert list(experiment.code()) == ["strategy", "wrappers walls_own:Silent"]
    run(experiment, out=folder / "out")
    assert is_complete(folder / "out", experiment)
    assert not is_complete(folder / "out", experiment.replace(wrappers=experiment.wrappers[:1]))
    (folder / "walled.toml").write_text(RING + tables.format('"x"'))
    with pytest.raises(ConfigError, match=r'wrappers\[0\]\.limit: "x" is not valid'):
        Experiment.read(folder / "walled.toml")


def test_a_users_graph_is_shown_as_a_built_in_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "kinds_own", LIVE)
    monkeypatch.chdir(folder)
    assert main(["topology", "kinds_own:Wheel", "-n", "6", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["edges"] == 10


LIVE = '''
from typing import ClassVar
import numpy as np
from grapevine import Aggregator, Codec, Float16, Mean, Network, Quadratic, Topology, Uniform

class Wheel(Topology, frozen=True, tag="wheel"):
    """A ring around a hub."""
    def edges(self, n, seed):
        return [(0, i) for i in range(1, n)] + [(i, i % (n - 1) + 1) for i in range(1, n)]

class Half(Float16, frozen=True, tag="half"):
    """Half precision under a number of one's own."""
    number: ClassVar[int] = 200

class Plain(Mean, frozen=True, tag="plain"):
    """The mean."""

class Slow(Uniform, frozen=True, tag="slow"):
    """Every link alike."""

class Pulls(Quadratic, frozen=True, tag="pulls"):
    """Targets."""
'''


@pytest.mark.live
def test_every_family_reaches_the_peers_processes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "kinds_own", LIVE)
    text = RING.replace('"virtual"', '"processes"').replace('"quadratic"', '"kinds_own:Pulls"')
    text += '[topology]\nname = "kinds_own:Wheel"\n[codec]\nname = "kinds_own:Half"\n[aggregator]\nname = "kinds_own:Plain"\n'
    text += '[network]\nname = "kinds_own:Slow"\nrate = "8 Mbit/s"\n'
    (folder / "all.toml").write_text(text)
    child = [sys.executable, "-P", "-m", "grapevine", "run", str(folder / "all.toml"), "--out", str(folder / "out"), "--json"]
    done = subprocess.run(child, capture_output=True, text=True, check=False, cwd="/", env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert '"reason": "4 steps done"' in done.stdout
    warnings = json.loads(done.stdout)["warnings"]
    assert [warning for warning in warnings if "fell behind the emulated clock" not in warning] == []


class Told(Strategy, frozen=True, tag="told"):
    """Sends one message a step."""

    async def run(self, peer: Peer) -> None:
        while peer.running:
            peer.apply(await peer.gradient())
            await peer.broadcast(Dense(peer.weights))


def test_a_run_from_python_names_the_class(tmp_path: Path) -> None:
    experiment = Experiment.parse('[world]\nname = "virtual"').replace(
        peers=3, strategy=Told(), task=Quadratic(), stop=Stop(steps=2)
    )
    result = run(experiment, out=tmp_path / "out")
    assert f'name = "{__name__}:Told"' in result.experiment_toml
    assert list(result.manifest["code"]) == ["strategy"]


class Unfinished(Strategy, frozen=True, tag="unfinished"):
    """A strategy without a `run`."""


def test_a_class_that_lacks_a_method_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match="the class Unfinished does not define run; write it"):
        Experiment(strategy=Unfinished())
