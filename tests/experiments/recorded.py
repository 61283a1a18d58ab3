"""A recorded run, made up: small, complete, and the same every time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from grapevine.experiments.config.experiment import Experiment
from grapevine.experiments.report.page import write_report
from grapevine.experiments.results.outcome import Outcome
from grapevine.experiments.results.recorder import Recorder
from grapevine.experiments.results.summary import summarise

TOML = """\
name = "{name}"
seed = 3
peers = {peers}

[world]
name = "processes"

[topology]
name = "ring"
mixing = "metropolis"

[network]
name = "uniform"
rate = "8 Mbit/s"

[task]
name = "digits"

[strategy]
name = "{strategy}"
"""
MANIFEST = {"command": "grapevine run ring.toml", "machine": {"host": "lab", "cores": 2, "versions": {"numpy": "2.4.6"}}}


def record_run(
    folder: Path,
    name: str = "made up",
    peers: int = 4,
    strategy: str = "d-psgd",
    times: tuple[float, ...] = (1.0, 2.0, 3.0),
    rate: float = 1e6,
    lost: tuple[int, ...] = (),
    places: list[str] | None = None,
) -> dict[str, object]:
    """Record a ring of peers that get better by the second; returns the summary."""
    toml = TOML.format(name=name.replace('"', '\\"'), peers=peers, strategy=strategy)
    history, outcome_links = [], []
    with Recorder(folder, toml, {**MANIFEST, "places": places}, write_report) as recorder:
        recorder.event(0.0, "start", peers=peers)
        for time_s in times:
            for peer in range(peers):
                for metric, value in _of_peer(peer, time_s).items():
                    recorder.metric(time_s, peer, int(10 * time_s), metric, value)
                for target in ((peer + 1) % peers, (peer - 1) % peers):
                    measured = (0.98 * min(rate, 5e7), 0.0401) if time_s > 1 else (math.nan, math.nan)
                    recorder.link(time_s, peer, target, 1000 * (peer + 1), 2, rate, measured[0], 0.04, measured[1], 1.0)
            history.append((time_s, time_s / 4))
            fleet = {"accuracy_mean": time_s / 4, "loss_mean": 2 / time_s, "consensus_distance": math.exp(-time_s)}
            for metric, value in {**fleet, "bytes_sent": 1e4 * time_s}.items():
                recorder.metric(time_s, -1, int(10 * time_s), metric, value)
            recorder.flush()
        for peer in lost:
            recorder.event(2.0, "lost", peer=peer, text="its process was killed")
        outcome_links = recorder.link_figures()
        outcome = Outcome(
            completed=True, reason="3 s are over", emulated_s=3.0, wall_s=3.5, steps=[30] * peers, bytes_sent=60_000,
            messages_sent=48, weights=np.ones((peers, 6), np.float32), accuracy=[0.75] * peers, loss=[0.6] * peers,
            accuracy_of_mean=0.8, accuracy_history=history, staleness_steps_mean=1.0, lateness_ms=[0.2, 0.4], peers_lost=lost,
            links=outcome_links,
        )  # fmt: skip
        summary = summarise(outcome, Experiment.parse(toml), spectral_gap=0.5)
        recorder.finish(summary, outcome.weights)
    return summary


def _of_peer(peer: int, time_s: float) -> dict[str, float]:
    return {
        "train_loss": 2 / time_s + 0.01 * peer,
        "loss": 2 / time_s,
        "accuracy": time_s / 4 + 0.01 * peer,
        "staleness_steps": 1.0 + peer,
        "step_ms": 5.0,
        "lateness_ms": 0.3,
        "bytes_sent": 1000.0,
    }
