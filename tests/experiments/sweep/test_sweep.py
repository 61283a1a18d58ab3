"""A sweep: which runs a file stands for, and what becomes of them - with a stand-in for `grapevine run`."""

from __future__ import annotations

import csv
import errno
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest

from grapevine.experiments.cli.main import main
from grapevine.experiments.cli.sweep import _columns
from grapevine.experiments.config.experiment import ConfigError, Experiment
from grapevine.experiments.sweep import runs, sweep
from grapevine.experiments.sweep import table as table_module
from grapevine.experiments.sweep.plan import Point, read_sweep
from grapevine.experiments.sweep.sweep import Attempt, SweepProgress, is_complete, run_sweep
from grapevine.experiments.sweep.table import rows_of, write_comparison, write_table
from grapevine.netem import Uniform
from grapevine.peer.strategies import DPSGD, Ako, Slices

FILE = """
name = "sweep"
peers = 4
[topology]
name = "complete"
[sweep]
"strategy.name" = ["ako", "slices"]
"network.name" = ["uniform"]
"network.rate" = ["5 Mbit/s", "1 Gbit/s"]
seed = [0, 1]
"""


def points_of(*seeds: int) -> list[Point]:
    """One point a seed."""
    return [Point(f"seed={seed}", {"seed": seed}, Experiment(seed=seed)) for seed in seeds]


def states(attempts: list[Attempt]) -> list[str]:
    return [attempt.state for attempt in attempts]


def test_the_product_of_the_lists(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text(FILE)
    points = read_sweep(tmp_path / "sweep.toml").points
    assert len(points) == 8
    assert [point.experiment.seed for point in points] == [0, 1] * 4
    assert [type(point.experiment.strategy) for point in points] == [Ako] * 4 + [Slices] * 4
    assert [point.experiment.network for point in points[:4]] == [
        Uniform(rate=r) for r in ("5 Mbit/s",) * 2 + ("1 Gbit/s",) * 2
    ]
    assert all(point.experiment.peers == 4 for point in points)
    assert points[3].name == "strategy.name=ako,network.name=uniform,network.rate=1Gbit-s,seed=1"
    assert points[3].values == {"strategy.name": "ako", "network.name": "uniform", "network.rate": "1 Gbit/s", "seed": 1}


def test_tables_in_the_sweep_are_dotted_keys_and_tables_in_a_list_are_values(tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text('[sweep.strategy]\nfill = [0.5]\nname = ["ako", "slices"]')
    assert [point.experiment.strategy for point in read_sweep(file).points] == [Ako(fill=0.5), Slices(fill=0.5)]
    file.write_text('[sweep]\nstrategy = [{name = "ako", fill = 0.5}, {name = "d-psgd"}]')
    points = read_sweep(file).points
    assert [point.experiment.strategy for point in points] == [Ako(fill=0.5), DPSGD()]
    assert [point.name for point in points] == ["strategy=ako_0.5", "strategy=d-psgd"]


def test_settings_lie_under_the_swept_values(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text("[sweep]\nseed = [4]")
    (point,) = read_sweep(tmp_path / "sweep.toml", {"peers": 5, "seed": 9}).points
    assert (point.experiment.peers, point.experiment.seed) == (5, 4)


def test_names_are_stable_and_never_the_same(tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text('[sweep]\nname = ["a b", "ab", "../x", "é", "A b", ""]\nseed = [0]')
    with pytest.raises(ConfigError, match="name"):  # "" takes the name away, which leaves the default: fine; but see below
        _ = [Experiment.parse('name = ""')]
    names = [point.name for point in read_sweep(file).points]
    assert len({name.lower() for name in names}) == 6
    assert all("/" not in name and " " not in name for name in names)
    assert names == [point.name for point in read_sweep(file).points]
    file.write_text(f'[sweep]\nname = ["{"x" * 199}", "{"x" * 200}"]')
    names = [point.name for point in read_sweep(file).points]
    assert len(set(names)) == 2
    assert all(len(name) < 120 for name in names)


def test_swept_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text('[topology]\nname = "file"\npath = "x"\n[sweep]\n"topology.path" = ["a.gml", "b.gml"]')
    paths = [point.experiment.topology.path for point in read_sweep(tmp_path / "sweep.toml").points]  # type: ignore[union-attr]
    assert paths == [str(tmp_path / "a.gml"), str(tmp_path / "b.gml")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = 1", "sweep.toml: sweep: is missing or empty; add [sweep]"),
        ("[sweep]", "sweep.toml: sweep: is missing or empty"),
        (
            "[sweep]\nseed = 3",
            "sweep.toml: sweep.seed: 3 is not a list; write a list of one value or more, such as",
        ),
        ("[sweep]\nseed = []", "sweep.toml: sweep.seed = []: the list is empty"),
        ("[sweep]\nseed = [1, 1]", "sweep.toml: sweep: the same run comes twice: {seed = 1}; write each value once"),
        ("[sweep]\nsed = [1]", "sweep.toml: [sweep]: sed: no such field"),
        ('[sweep]\n"strategy.fil" = [1]', "sweep.toml: [sweep]: strategy.fil: no such field; d-psgd has: order"),
        ('[sweep]\n"network.name" = ["uniform"]\n"network.rate" = [5]', "sweep.toml: [sweep]: network.rate: 5 has no unit"),
        (
            '[sweep]\nstrategy = ["ako", "solo"]',
            'sweep.toml: sweep.strategy: "ako" is not a table; write "strategy.name" = ["ako", "solo"]',
        ),
        (
            '[sweep]\nstrategy = ["ako", {name = "solo"}]',
            'sweep.toml: sweep.strategy: "ako" is not a table; write {name = "..."} in place of a name alone',
        ),
        ("peers = 0\n[sweep]\nseed = [1]", "sweep.toml: peers: 0 is not valid"),
        ("[sweep]\nseed = [" + "1," * 101 + "]\npeers = [" + "1," * 100 + "]", "sweep.toml: sweep: the lists give 10,100 runs"),
    ],
)
def test_what_cannot_be_swept_is_refused(text: str, message: str, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sweep.toml").write_text(text)
    assert main(["sweep", "sweep.toml", "--out", "out"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(message)
    assert printed.out == ""
    assert not Path("out").exists()


def test_all_runs_leave_folders_a_table_and_their_inputs(tmp_path: Path, command: Any) -> None:
    out, points = tmp_path / "out", points_of(1, 2, 3)
    seen: list[SweepProgress] = []
    attempts, status = run_sweep(points, out, jobs=2, command=command, watch=seen.append)
    assert (states(attempts), status) == (["completed"] * 3, 0)
    assert max(len(progress.running) for progress in seen) == 2
    assert (seen[-1].runs, len(seen[-1].attempts), seen[-1].running) == (3, 3, ())
    assert seen[-1].left_s == 0
    for point in points:
        assert is_complete(out / point.name, point.experiment)
        assert Experiment.read(out / "inputs" / f"{point.name}.toml") == point.experiment
        assert (out / "logs" / f"{point.name}.log").read_text() == f"training {point.values['seed']}\n"


@pytest.mark.slow
def test_what_is_complete_is_not_run_again(tmp_path: Path, command: Any) -> None:
    out = tmp_path / "out"
    run_sweep(points_of(1, 5), out, command=command)
    before = (out / "seed=1" / "summary.json").stat().st_mtime_ns
    attempts, status = run_sweep(points_of(1, 5, 2), out, command=command)
    assert (states(attempts), status) == (["skipped", "failed", "completed"], 1)
    assert (out / "seed=1" / "summary.json").stat().st_mtime_ns == before
    changed = [Point("seed=1", {"seed": 1}, Experiment(seed=1, peers=5))]
    assert states(run_sweep(changed, out, command=command)[0]) == ["completed"]


@pytest.mark.slow
def test_a_failed_run_is_reported_and_the_others_go_on(tmp_path: Path, command: Any) -> None:
    attempts, status = run_sweep(points_of(13, 9, 5, 40, 1), tmp_path / "out", command=command)
    assert status == 1
    assert states(attempts) == ["failed", "failed", "failed", "failed", "completed"]
    reasons = [attempt.reason for attempt in attempts]
    assert reasons[0] == "exit status 2: ring.toml: peers: bad luck"
    assert reasons[1].startswith("ended by SIGKILL: ")
    assert reasons[2] == "out of luck"
    assert reasons[3].startswith("ended by signal 40: ")  # one without a name


def test_an_interrupt_ends_what_runs_and_keeps_what_is_done(tmp_path: Path, command: Any) -> None:
    out = tmp_path / "out"

    def watch(progress: SweepProgress) -> None:
        if progress.running and (out / "seed=77" / "up").exists():
            signal.raise_signal(signal.SIGINT)

    attempts, status = run_sweep(points_of(1, 77, 2), out, command=command, watch=watch)
    assert status == 130
    assert states(attempts) == ["completed", "interrupted", "not run"]
    assert json.loads((out / "seed=77" / "summary.json").read_text())["completed"] is False


def test_a_run_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    deaf = "import signal, pathlib, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    deaf += "pathlib.Path(sys.argv[1]).touch(); signal.pause()"
    up = tmp_path / "up"
    monkeypatch.setattr(runs, "PATIENCE_S", 0.1)

    def watch(progress: SweepProgress) -> None:
        if progress.running and up.exists():
            signal.raise_signal(signal.SIGINT)

    attempts, status = run_sweep(
        points_of(1), out, command=lambda file, folder: [sys.executable, "-S", "-c", deaf, str(up)], watch=watch
    )
    assert (states(attempts), status) == (["interrupted"], 130)


def test_the_folder_of_a_run_is_no_place_for_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match="is the folder of a single run; give another --out"):
        run_sweep(points_of(1), tmp_path)
    with pytest.raises(ConfigError, match="cannot be used for a sweep"):
        run_sweep(points_of(1), Path("/dev/null/out"))


@pytest.mark.slow
def test_the_table_has_a_row_a_run(tmp_path: Path, command: Any) -> None:
    points = [*points_of(1, 13), Point("mixed", {"seed": "two", "strategy": {"name": "ako"}}, Experiment(seed=2))]
    attempts, _ = run_sweep(points, tmp_path / "out", command=command)
    rows = rows_of(attempts, tmp_path / "out")
    assert [row["state"] for row in rows] == ["completed", "failed", "completed"]
    assert [row["accuracy_mean"] for row in rows] == [0.1, None, 0.2]
    assert rows[0]["time_to_accuracy_s.0.5"] == 1.5
    assert rows[0]["peers_lost"] == 1
    assert rows[2]["strategy"] == '{name = "ako"}'
    assert [rows[0][key] for key in ("warnings", "peers_lost_unasked", "lateness_p99_ms", "records_unscored")] == [1, 0, 3.5, 2]
    files = write_table(rows, tmp_path / "out")
    assert [file.name for file in files] == ["table.csv", "table.parquet"]
    with open(files[0], newline="") as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["1", "13", "two"]
    table = pandas.read_parquet(files[1])
    assert list(table["run"]) == ["seed=1", "seed=13", "mixed"]
    assert list(table["seed"]) == ["1", "13", "two"]
    assert table["accuracy_mean"][0] == 0.1
    assert pandas.isna(table["accuracy_mean"][1])


def test_the_table_on_a_terminal_has_one_unit_a_column() -> None:
    figures = {"accuracy_mean": 0.8187, "loss_mean": 1.313, "wall_s": 1.034, "consensus_distance": 1.787e-5}
    rows = [
        {"strategy.fill": 0.5, "network.rate": "5 Mbit/s", "state": "completed", "bytes_sent": 47_713_123, **figures},
        {"strategy.fill": 0.9, "network.rate": "50 Mbit/s", "state": "failed"},
    ]
    titles, lines = _columns(["strategy.fill", "network.rate"], rows)
    assert [title.replace("\n", " ") for title in titles] == [
        "fill", "rate", "state", "accuracy %", "loss", "sent MB", "real s", "consensus distance",
    ]  # fmt: skip
    assert lines == [
        ["0.5", "5 Mbit/s", "completed", "81.9", "1.313", "47.71", "1.03", "1.8e-05"],
        ["0.9", "50 Mbit/s", "failed", *["-"] * 5],
    ]
    assert _columns(["seed"], [{"seed": 1, "state": "failed"}]) == (["seed", "state"], [["1", "failed"]])


@pytest.mark.slow
def test_the_comparison_is_over_all_complete_runs(tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from grapevine.experiments.report import page as page_module

    told: list[Any] = []
    monkeypatch.setattr(page_module, "write_report", lambda folders, page: told.append(([f.name for f in folders], page)))
    attempts, _ = run_sweep(points_of(1, 13, 2), tmp_path, command=command)
    assert write_comparison(attempts, tmp_path) == tmp_path / "report.html"
    assert told == [(["seed=1", "seed=2"], tmp_path / "report.html")]
    assert write_comparison(attempts[1:2], tmp_path) is None


def test_the_command_tells_the_state_of_each_run(tmp_path: Path, command: Any, monkeypatch: Any, capsys: Any) -> None:
    from grapevine.experiments.report import page as page_module

    monkeypatch.setattr(page_module, "write_report", lambda folders, page: page.write_text("page"))
    monkeypatch.setattr(sweep.carry_out, "__defaults__", (1, command, lambda progress: None))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "sweep.toml").write_text("[sweep]\nseed = [1, 13]")
    out = tmp_path / "out"
    assert main(["sweep", str(tmp_path / "sweep.toml"), "--out", str(out), "--jobs", "2"]) == 1
    printed = capsys.readouterr()
    assert "seed=13: failed (exit status 2: ring.toml: peers: bad luck)" in printed.err
    assert "failed: seed=13: exit status 2: ring.toml: peers: bad luck" in printed.out
    for name in ("table.csv", "table.parquet", "report.html"):
        assert (out / name).is_file()
        assert str(out / name) in printed.out


def test_a_sweep_whose_disk_is_full_tells_what_came_of_it(tmp_path: Path, command: Any, monkeypatch: Any, capsys: Any) -> None:
    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(table_module, "write_table", full)
    monkeypatch.setattr(sweep.carry_out, "__defaults__", (1, command, lambda progress: None))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "sweep.toml").write_text("[sweep]\nseed = [1, 2]")
    out = tmp_path / "out"
    assert main(["sweep", str(tmp_path / "sweep.toml"), "--out", str(out), "--quiet"]) == 1
    printed = capsys.readouterr()
    problem = "tables and report could not be written: No space left on device"
    assert printed.err == f"grapevine sweep: {out}: {problem}; free some space, then repeat the command\n"
    assert printed.out.count("completed") == 2


def test_a_run_that_cannot_even_be_started_stops_no_other(tmp_path: Path, command: Any, monkeypatch: Any) -> None:
    start = runs.Floor._start

    def full(floor: Any, point: Point) -> None:
        if point.values["seed"] == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        start(floor, point)

    monkeypatch.setattr(runs.Floor, "_start", full)
    attempts, status = run_sweep(points_of(1, 2), tmp_path / "out", command=command)
    assert (states(attempts), status) == (["failed", "completed"], 1)
    assert attempts[0].reason == f"{tmp_path / 'out'}: No space left on device"


@pytest.mark.live
def test_a_real_sweep_of_real_runs(tmp_path: Path, capsys: Any) -> None:
    file, out = tmp_path / "sweep.toml", tmp_path / "out"
    file.write_text(
        'peers = 2\n[topology]\nname = "complete"\n[task]\nname = "quadratic"\n[stop]\nsteps = 5\n'
        '[sweep]\n"strategy.name" = ["d-psgd", "solo"]'
    )
    assert main(["sweep", str(file), "--out", str(out), "--jobs", "2", "--quiet"]) == 0
    table = pandas.read_parquet(out / "table.parquet")
    assert list(table["strategy.name"]) == ["d-psgd", "solo"]
    assert table["completed"].all()
    assert table["bytes_sent"][1] == 0 < table["bytes_sent"][0]
    assert "strategy.name=solo" in (out / "report.html").read_text()
    assert main(["sweep", str(file), "--out", str(out), "--quiet"]) == 0
    assert list(pandas.read_parquet(out / "table.parquet")["state"]) == ["skipped", "skipped"]
