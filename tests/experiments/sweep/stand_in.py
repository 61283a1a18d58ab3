"""A program that stands in for `grapevine run`, and what its fleets reach."""

from __future__ import annotations

from pathlib import Path

import pandas
import pyarrow.parquet

from grapevine.experiments.results.result import METRIC_COLUMNS, schema

STAND_IN = """
import json, os, pathlib, shutil, signal, sys, tomllib
file, folder = map(pathlib.Path, sys.argv[1:3])
experiment = tomllib.loads(file.read_text())
print("training", experiment["seed"], flush=True)
if experiment["seed"] == 13:
    print("ring.toml: peers: bad luck", file=sys.stderr)
    sys.exit(2)
if experiment["seed"] in (9, 40):
    os.kill(os.getpid(), experiment["seed"])
folder.mkdir(exist_ok=True)
shutil.copy(file, folder / "experiment.toml")
(folder / "manifest.json").write_text(json.dumps({"run_folder": 1}))
done = experiment["seed"] != 5
stopped = []
if experiment["seed"] == 77:
    signal.signal(signal.SIGINT, lambda *_: stopped.append(1))
    (folder / "up").write_text("")
    while not stopped:
        signal.pause()
    done = False
summary = {"name": experiment["name"], "completed": done, "reason": "50 steps" if done else "out of luck", "wall_s": 2.0,
           "accuracy_mean": experiment["seed"] / 10, "peers_lost": [1], "digest": None, "time_to_accuracy_s": {"0.5": 1.5},
           "warnings": ["x"], "seed": experiment["seed"], "validation_accuracy_mean": experiment["seed"] / 10,
           "peers_lost_unasked": [1] if experiment["seed"] == 4 and not (file.parent / "well").exists() else [],
           "lateness_p99_ms": 3.5, "records_unscored": 2}
(folder / "summary.json").write_text(json.dumps(summary))
rate = experiment.get("optimizer", {}).get("learning_rate")
found = [place for place in (pathlib.Path(sys.argv[3]) / f"{rate}.parquet", pathlib.Path(sys.argv[3]) / "0.1.parquet")]
shutil.copy(next(place for place in found if place.exists()), folder / "metrics.parquet")
shutil.copy(pathlib.Path(sys.argv[3]) / "links.parquet", folder / "links.parquet")
(folder / "events.jsonl").write_text(json.dumps({"time_s": 1.5, "kind": "lost", "peer": 1, "text": "ended by SIGKILL"}) + "\\n")
sys.exit(130 if stopped else 3 if summary["peers_lost_unasked"] else 0 if done else 1)
"""


def measured(folder: Path, learning_rate: float, accuracies: list[float]) -> None:
    """What a stand-in's fleet is said to reach with a learning rate: a mean accuracy at 1 s, 2 s, ..."""
    names = ("accuracy_mean", "validation_accuracy_mean")
    rows = [(float(at), -1, at, name, value) for at, value in enumerate(accuracies, start=1) for name in names]
    pandas.DataFrame(rows, columns=list(METRIC_COLUMNS)).to_parquet(folder / f"{learning_rate}.parquet")
    pyarrow.parquet.write_table(schema("links.parquet").empty_table(), folder / "links.parquet")
