"""The command line: exit statuses, one message for every error, and what each command prints."""

from __future__ import annotations

import json
import math
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from grapevine.experiments import run
from grapevine.experiments.cli import run as run_command
from grapevine.experiments.cli.main import main
from grapevine.experiments.config import bounds
from grapevine.experiments.config.experiment import ConfigError, Experiment
from grapevine.experiments.probe import probe
from grapevine.peer.strategies import Ako
from tests.experiments.config.wrong import WRONG

RING = """
name = "ring"
peers = 4
[topology]
name = "ring"
[network]
name = "uniform"
rate = "20 Mbit/s"
delay = "5 ms"
[stop]
steps = 5
"""

AT_BUILD: list[tuple[str, str, str, str]] = [
    ("peers = 2", "topology", "ring needs at least 3 peers, not 2", "raise peers"),
    ('peers = 7\n[topology]\nname = "torus"', "topology", "torus needs at least 9 peers", "raise peers"),
    (
        'peers = 5\n[topology]\nname = "random-regular"\ndegree = 3',
        "topology",
        "5 peers x degree 3 is odd",
        "set degree to 2 or 4",
    ),
    ('[topology]\nname = "file"\npath = "no.graphml"', "topology", "no.graphml", "check the name"),
    (
        '[topology]\nname = "file"\npath = "cut.edges"\nformat = "edge-list"',
        "topology",
        "cut.edges: the graph is not connected",
        "add edges",
    ),
    ('[topology]\nname = "file"\npath = "bad.graphml"', "topology", "bad.graphml", ""),
    (
        'peers = 5\n[topology]\nname = "file"\npath = "two.edges"\nformat = "edge-list"',
        "topology",
        "has 2 nodes",
        "set peers = 2",
    ),
    ('[strategy]\nname = "ako"', "strategy.name", '"ako" shares gradients', 'use topology.name = "complete"'),
    ('[strategy]\nname = "full"', "strategy.name", '"full" shares gradients', '"slices"'),
    (
        '[strategy]\nname = "slices"\n[aggregator]\nname = "median"',
        "aggregator.name",
        "nothing to aggregate",
        'aggregator.name = "mean"',
    ),
    ('[network]\nname = "edges"', "network", "no edge of the graph has a rate", '"unshaped"'),
    ('peers = 5\n[task]\nname = "quadratic"\ntargets = [1, 2]', "targets", "2 entries for 5 peers", "one for each peer"),
    ("peers = 2000", "partition", "2000 peers cannot share 1437 training samples", "at most 1437 peers"),
]
"""What shows only when an experiment is put together: (text, key, what the message says, what to do)."""


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An experiment file in the working directory, and graphs beside it."""
    monkeypatch.chdir(tmp_path)
    Path("ring.toml").write_text(RING)
    Path("cut.edges").write_text("0 1\n2 3\n4 5\n6 7\n")
    Path("two.edges").write_text("0 1\n")
    Path("bad.graphml").write_text("<graphml><no")
    return "ring.toml"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one message of a command that must refuse."""
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.endswith("\n")
    assert "Traceback" not in printed.err
    return printed.err


# -- errors


@pytest.mark.parametrize(
    ("text", "key", "problem", "cure"), WRONG, ids=[f"{number}-{row[1]}" for number, row in enumerate(WRONG)]
)
def test_every_error_of_a_file_is_one_message_and_status_2(
    text: str, key: str, problem: str, cure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    message = refused(capsys, "run", str(file), "--json")
    assert message.startswith(f"{file}: {key}")
    assert problem in message
    assert cure in message


@pytest.mark.parametrize(
    ("text", "key", "problem", "cure"), AT_BUILD, ids=[f"{number}-{row[1]}" for number, row in enumerate(AT_BUILD)]
)
def test_what_does_not_fit_together_is_refused_before_anything_starts(
    text: str, key: str, problem: str, cure: str, ring: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("wrong.toml").write_text(text)
    for command in (["check", "wrong.toml"], ["run", "wrong.toml", "--out", "run", "--quiet"]):
        message = refused(capsys, *command)
        assert message.startswith("wrong.toml: ")
        assert key in message
        assert problem in message
        assert cure in message
    assert not Path("run").exists()


def test_a_port_in_use_is_refused(ring: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        settings = ["--set", "world.transport=tcp", "--set", f"world.port={port}"]
        message = refused(capsys, "check", ring, *settings)
    assert message.startswith(f"--set: world.port: port {port} cannot be used")
    assert "0 for any free ones" in message


def test_errors_of_settings_begin_with_set(ring: str, capsys: pytest.CaptureFixture[str]) -> None:
    for settings, message in [
        (["--set", "strategy.fil=3"], "--set: strategy.fil: no such field; d-psgd has: order"),
        (["--set", "network.rate=20"], '--set: network.rate: 20 has no unit; write for example "20 Mbit/s"'),
        (["--world", "virtul"], '--set: world.name: there is no world "virtul"; did you mean virtual?'),
        (["--set", "topology.name=torus"], "--set: topology: torus needs at least 9 peers, not 4"),
        (["--set", "strategy.name=ako"], '--set: strategy.name: "ako" shares gradients'),
        (["--set", "peers"], "--set: 'peers' does not have the form key=value; write table.key=value"),
        (["--set", "=3"], "--set: '=3' does not have the form key=value"),
        (["--set", f"seed={'[' * 400}{']' * 400}"], "--set: seed: is nested too deeply, in more than 32 levels"),
        (["--set", f"seed=0x{'f' * 400}"], "--set: seed: a whole number has more than 64 bits"),
    ]:
        assert refused(capsys, "check", ring, *settings).startswith(message)


def test_what_the_command_line_itself_gets_wrong(ring: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in [
        (["run"], "grapevine run: the following arguments are required: FILE.toml; see grapevine run --help"),
        (["rnu"], "grapevine: argument COMMAND: invalid choice: 'rnu'"),
        (["run", ring, "--jsn"], "grapevine: unrecognized arguments: --jsn"),
        (["run", "no.toml"], "no.toml: cannot be read: no such file or directory"),
        (["run", "."], ".: cannot be read: is a directory"),
        (["sweep", ring], "ring.toml: sweep: is missing or empty; add [sweep]"),
        (["sweep", ring, "--jobs", "0"], "grapevine sweep: argument --jobs: '0' is not a number of runs"),
        (["topology", "ring", "-n", "x"], "grapevine topology: argument -n: 'x' is not a whole"),
        (
            ["topology", "ring", "-n", "9" * 5000],
            "grapevine topology: argument -n: '9999999999999999999' is not a whole number",
        ),
        (["topology", "ring", "-n", "1000000000"], "-n: 1000000000 is not valid; expected a whole number"),
        (["topology", "base", "-n", "100001"], "-n: 100001 is not valid; expected a whole number"),
        (["topology", "ring", "--seed", "9" * 19], "--seed: 9999999999999999999 is not valid; expected a whole number"),
        (["topology", "rng"], 'topology.name: there is no topology "rng"; did you mean ring?'),
        (["topology", "ring", "-n", "2"], "topology: ring needs at least 3 peers, not 2"),
        (["topology", "ring", "--set", "degree=3"], "topology.degree: no such field; ring has: mixing"),
        (["topology", "ring", "--mixing", "fair"], 'topology.mixing: "fair" is not valid; expected one of'),
        (["topology", "base", "--set", "n=5"], "--set: n = 5: is no option of a graph; write -n 5"),
        (["topology", "base", "--set", "seed=5"], "--set: seed = 5: is no option of a graph; write --seed 5"),
        (["topology", "ring", "--set", "name=torus"], '--set: name = "torus": is no option of a graph'),
        (["topology", "base", "--mixing", "lazy"], "topology.mixing: no such field; base has: k"),
        (["poke", ".", "kill", f"peer=0x{'f' * 400}"], "grapevine poke: peer: a whole number has more than 64 bits"),
        (["poke", ".", "kill", f"peer={'9' * 5000},1"], 'grapevine poke: event.peer: "999'),
        (["report", ".", "--out", ""], "grapevine report: argument --out: the path is empty: expected the name of a file"),
        (["sweep", ring, "--out", ""], "grapevine sweep: argument --out: the path is empty"),
        (["topology", "ring", "--html", ""], "grapevine topology: argument --html: the path is empty"),
        (["report", "nowhere"], "nowhere: is not a run folder, because it does not exist"),
        (["probe", ring, "--world", "virtual"], "--set: world.name"),
        (
            ["topology", "file"],
            "topology.path: is missing, since the graph comes from a file; give the file: --set path=graph.graphml",
        ),
        (["run", ring, "--out", ring, "--quiet"], "--out: ring.toml: is a file, and a run needs a folder; give another --out"),
        (["run", ring, "--out", "/dev/null/run", "--quiet"], "--out: /dev/null/run: cannot be used for a run"),
    ]:
        assert refused(capsys, *arguments).startswith(message)


@pytest.mark.slow
def test_bad_input_in_a_process_of_its_own(ring: str) -> None:
    for arguments, message in [
        (["run", ring, "--set", "peers=0", "--json"], "--set: peers: 0"),
        (["check", "no.toml"], "no.toml: "),
    ]:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "grapevine", *arguments], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(message)
        assert done.stderr.count("\n") == 1


# -- what is printed


@pytest.mark.parametrize("command", ["", "run", "sweep", "report", "topology", "probe", "check", "list"])
def test_every_command_has_help_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: grapevine {command}".strip() in text
    assert "examples:" in text
    assert f"  grapevine {command}" in text.partition("examples:")[2]


def test_without_a_command_there_is_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "usage: grapevine" in printed.err
    assert "examples:" in printed.err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from grapevine.experiments.cli.main import main; main(['run', '--help']); "
        "print(list(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for module in ("numpy", "networkx", "torch", "msgspec"):
        assert f"'{module}'" not in done.stderr


def test_run_hands_over_what_it_was_given(
    ring: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[Any] = []

    def run_experiment(experiment: Experiment, out: Path | None, quiet: bool) -> tuple[Any, int]:
        told.append((experiment, out, quiet))
        return SimpleNamespace(summary={"name": experiment.name, "accuracy_mean": None}, folder=out), 1

    monkeypatch.setattr(run, "run_experiment", run_experiment)
    settings = ["--set", "network.rate=5 Mbit/s", "--set", "topology.name=complete", "--set", "strategy.name=ako"]
    assert main(["run", ring, *settings, "--world", "virtual", "--out", "here", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"name": "ring", "accuracy_mean": None}
    experiment, out, quiet = told[0]
    assert experiment == Experiment.parse(RING + '[strategy]\nname = "ako"\n[world]\nname = "virtual"').replace(
        topology=experiment.topology, network=experiment.network
    )
    assert experiment.network.rate == "5 Mbit/s"
    assert experiment.network.delay == "5 ms"
    assert experiment.strategy == Ako()
    assert (out, quiet) == (Path("here"), True)


def test_an_unforeseen_error_is_one_sentence_and_a_file(
    ring: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("operands could not be broadcast together\x1b[31m")

    monkeypatch.setattr(run, "run_experiment", broken)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(["run", ring]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "ValueError: operands could not be broadcast together\\x1b[31m" in told
    written = re.search(r"its traceback is in (\S+):", told)
    assert written is not None
    assert "in broken" in Path(written[1]).read_text()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert main(["run", ring]) == 1
    assert "its traceback could not be written (No such file or directory)" in capsys.readouterr().err


def test_an_interrupt_before_the_run_has_its_status(
    ring: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_command, "read_experiment", interrupted)
    assert main(["run", ring]) == 130
    assert capsys.readouterr().err == "grapevine: interrupted\n"


def test_probe_prints_a_line_a_link(ring: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"source": 0, "target": 1, "rate_asked_bytes_per_s": 2.5e6, "rate_got_bytes_per_s": 2.475e6, "rate_error": -0.01,
         "delay_asked_s": 0.005, "delay_got_s": 0.0052, "delay_got_p99_s": 0.006, "delay_error_s": 0.0002},
        {"source": 1, "target": 0, "rate_asked_bytes_per_s": math.inf, "rate_got_bytes_per_s": 1e9, "rate_error": math.nan,
         "delay_asked_s": 0.0, "delay_got_s": 0.0001, "delay_got_p99_s": math.nan, "delay_error_s": 0.0001},
    ]  # fmt: skip
    monkeypatch.setattr(probe, "probe", lambda experiment: rows)
    assert main(["probe", ring]) == 0
    *_, units, _, first, second, told = capsys.readouterr().out.splitlines()
    assert told == "At worst off by: rate 1.0 %."
    assert units.split() == ["link", "Mbit/s", "Mbit/s", "%", "ms", "ms", "ms", "ms"]
    assert first.split() == ["0", "->", "1", "20", "19.8", "-1.00", "5", "5.2", "6", "+0.20"]
    assert second.split() == ["1", "->", "0", "none", "8,000", "-", "0", "0.1", "-", "+0.10"]
    assert main(["probe", ring, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed[0] == rows[0]
    assert printed[1]["rate_asked_bytes_per_s"] is None


@pytest.mark.slow
def test_topology_prints_figures_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topology", "ring", "-n", "8", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["name"], figures["nodes"], figures["edges"], figures["diameter"]) == ("ring", 8, 8, 4)
    assert figures["slem"] == pytest.approx((1 + 2 * 2**-0.5) / 3)  # W = (1, 1, 1)/3 around the ring
    page = tmp_path / "deep" / "graph.html"
    assert main(["topology", "random-regular", "-n", "8", "--set", "degree=4", "--mixing", "lazy", "--html", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "max degree" in printed
    figures = {line[:22].strip(): line[22:].split(maxsplit=1) for line in printed.splitlines()}
    assert figures["mixing"] == ["lazy"]
    assert figures["mixing time"][1].strip() == "rounds until disagreement is 1/1000"
    assert figures["adjacency eigenvalue"][1].strip() == "smallest; gradients unstable below -1"
    assert str(page) in "".join(printed.split())
    text = page.read_text()
    assert "random-regular, 8 peers" in text
    assert text.count('<div class="plot"') == 3  # the graph, its spectrum, the decay of disagreement
    assert 'src="http' not in text


def test_topology_knows_schedules_and_directed_graphs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "rounds.html"
    assert main(["topology", "one-peer-exponential", "-n", "8"]) == 0
    assert "one-peer-exponential" in capsys.readouterr().out  # in full, however narrow the terminal
    assert main(["topology", "one-peer-exponential", "-n", "8", "--json", "--html", str(page)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["period"], figures["finite_time"]) == (3, 3)  # log2 n rounds to exact agreement
    assert "one-peer-exponential, 8 peers" in page.read_text()
    assert main(["topology", "exponential", "-n", "8", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["slem"] == pytest.approx(0.5)  # (tau - 1) / (tau + 1) with tau = log2 8
    assert figures["finite_time"] is None


def test_topology_refuses_rounds_that_do_not_fit_the_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bounds, "free_memory_bytes", lambda: 10**9)
    told = refused(capsys, "topology", "matcha", "-n", "10000")
    assert told.startswith("-n = 10000: the rounds of a schedule of 10,000 peers need at least 4.8 GB of memory, and 1 GB are")


def test_topology_reads_a_graph_file(ring: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topology", "file", "-n", "2", "--set", "path=two.edges", "--set", "format=edge-list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["edges"] == 1


def test_config_errors_know_their_file_wherever_they_come_up(ring: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def refuse(*_: Any) -> None:
        raise ConfigError(key="network.rate", value="1 bit/s", problem="is too slow", cure="take more")

    monkeypatch.setattr(run, "run_experiment", refuse)
    assert refused(capsys, "run", ring) == 'ring.toml: network.rate = "1 bit/s": is too slow; take more\n'
    assert refused(capsys, "run", ring, "--set", "network.rate=1 bit/s").startswith("--set: network.rate")
