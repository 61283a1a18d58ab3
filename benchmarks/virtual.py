"""The speed of virtual time, and the growth of its time and memory from a hundred to ten thousand peers.

In the same run, for comparison: a plain torch loop over the same gradients, and the batched gradient alone (the bound).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ASKED = """
name = "virtual"
seed = 1
peers = {peers}
[world]
name = "virtual"
[topology]
name = "random-regular"
degree = 4
[network]
{network}
[devices]
name = "mixed"
speeds = {speeds}
[partition]
name = "bootstrap"
[strategy]
name = "{strategy}"
[stop]
steps = {steps}
[record]
every = "1000 s"
"""
_UNIFORM, _MIXED = '["2000 samples/s"]', '["4000 samples/s", "2000 samples/s", "1000 samples/s"]'

_ALONE = """
import json, sys, tempfile
from grapevine.experiments.fleet import build
from grapevine.experiments.config.experiment import Experiment
from grapevine.experiments.worlds.interrupt import Interrupt
from grapevine.experiments.results.recorder import Recorder
from grapevine.experiments.worlds.collector import Collector
from grapevine.experiments.worlds.virtual.world import VirtualWorld
import time
from pathlib import Path
fleet = build(Experiment.parse(sys.argv[1]))
with tempfile.TemporaryDirectory() as folder:
    recorder = Recorder(Path(folder) / "run", "", {})
    world = VirtualWorld(fleet, Collector(fleet, recorder, lambda status: None), Interrupt())
    started_s = time.monotonic()
    world.train(records=False)
    seconds = time.monotonic() - started_s
steps = sum(member.peer.step for member in world.members)
peak_mb = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1000
print(json.dumps({"steps_per_s": steps / seconds, "peak_mb": peak_mb}))
"""


def engine(strategy: str, peers: int, steps: int, shaped: bool = False, mixed: bool = False) -> dict[str, Any]:
    """Return the peer-steps per second of the virtual world and its peak memory, measured in a new process.

    `shaped`: over links between 11 regions instead of an unshaped network; `mixed`: on devices that differ fourfold.
    """
    network = 'name = "regions"\nrate_factor = 0.1' if shaped else 'name = "unshaped"'
    speeds = _MIXED if mixed else _UNIFORM
    text = ASKED.format(peers=peers, strategy=strategy, steps=steps, speeds=speeds, network=network)
    done = subprocess.run([sys.executable, "-c", _ALONE, text], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def batched_gradients_per_s(peers: int) -> float:
    """Return the bound: the rate of all peers' gradients in batched calls alone."""
    from grapevine.experiments.tasks import Bootstrap, Digits

    problem = Digits().problem(peers, Bootstrap(), 0)
    weights = np.tile(problem.initial, (peers, 1))
    samplers = [problem.sampler(peer, np.random.default_rng([0, peer])) for peer in range(peers)]
    batches = [sampler.draw(32) for sampler in samplers]
    problem.gradients(weights, batches)
    rounds, started_s = max(1, 10_000 // peers), time.monotonic()
    for _ in range(rounds):
        problem.gradients(weights, batches)
    return rounds * peers / (time.monotonic() - started_s)


def loop_steps_per_s(steps: int = 3_000) -> float:
    """Return the steps per second of a plain torch loop over the peers' steps, one after the other, in one process."""
    from benchmarks.bare import torch_loop_steps_per_s

    return torch_loop_steps_per_s(1, [64], steps)


def draw(curve: list[tuple[int, float, float]]) -> Path:
    """Draw time per peer-step and memory against the number of peers on a page; return its path."""
    import plotly.graph_objects as go

    peers, microseconds, megabytes = zip(*curve, strict=True)
    figure = go.Figure(
        [
            go.Scatter(x=peers, y=microseconds, name="us per peer-step", mode="lines+markers"),
            go.Scatter(x=peers, y=megabytes, name="peak memory, MB", mode="lines+markers", yaxis="y2"),
        ]
    )
    figure.update_layout(
        title="Virtual world: time and memory against the number of peers",
        xaxis={"type": "log", "title": "peers"},
        yaxis={"title": "us per peer-step", "rangemode": "tozero"},
        yaxis2={"title": "peak memory, MB", "overlaying": "y", "side": "right", "rangemode": "tozero"},
    )
    out = Path("runs") / "benchmarks" / "virtual.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(out, include_plotlyjs=True)
    return out
