"""The speed of a fleet of processes, its start-up time, and its memory at the start."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from grapevine import Experiment, run

RING = """
name = "benchmark"
peers = {peers}
[world]
name = "processes"
[topology]
name = "ring"
[network]
name = "unshaped"
[task]
name = "digits"
hidden = {hidden}
[strategy]
name = "{strategy}"
[stop]
steps = {steps}
[record]
every = "600 s"
"""


def fleet_steps_per_s(strategy: str, peers: int, hidden: list[int], steps: int) -> float:
    """Return the peer-steps per second of all peers together, on a ring over an unshaped network."""
    experiment = Experiment.parse(RING.format(peers=peers, hidden=hidden, strategy=strategy, steps=steps))
    with tempfile.TemporaryDirectory() as folder:
        return float(run(experiment, Path(folder) / "run").summary["steps_per_wall_s"])


def start(peers: int) -> dict[str, Any]:
    """Return the seconds from the command to the first step of all peers, and each peer's memory (PSS) then, MB."""
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "start.toml", Path(folder) / "run"
        text = RING.format(peers=peers, hidden=[64], strategy="d-psgd", steps=10_000_000).replace('"600 s"', '"0.05 s"')
        file.write_text(text)
        began_s = time.monotonic()
        command = [sys.executable, "-P", "-m", "grapevine", "run", str(file), "--out", str(out), "--quiet"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        events = out / "events.jsonl"
        try:
            while not (events.exists() and '"kind":"first_step"' in events.read_text()):
                if process.poll() is not None or time.monotonic() - began_s > 120:
                    raise RuntimeError("the fleet made no step")
                time.sleep(0.02)
            started_s = time.monotonic() - began_s
            time.sleep(1.0)
            sizes = sorted(_pss_mb(child) for child in _peers_of(process.pid))
        finally:
            process.terminate()
            process.wait()
    return {
        "first_step_s": started_s,
        "pss_mb_max": sizes[-1],
        "pss_mb_median": sizes[len(sizes) // 2],
        "processes": len(sizes),
    }


def _peers_of(launcher: int) -> list[int]:
    """Return the processes forked from the launcher's fork server."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    children = [pid for pid, parent in parents.items() if parent == launcher]
    return [pid for pid, parent in parents.items() if parent in children]


def _pss_mb(pid: int) -> float:
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    return int(found.group(1)) / 1000 if found else 0.0
