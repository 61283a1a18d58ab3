"""Live fleets under test: started from the command line, watched through their run folder, always with a deadline."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

IMPATIENT = """
import sys
from grapevine.experiments.cli.main import main
from grapevine.experiments.worlds.processes import launcher as processes
processes.SILENCE_S = 4.0
processes.KILLED_S = 1.0
sys.exit(main(sys.argv[1:]))
"""

SMALL = """
name = "small"
seed = 3
peers = 4
[world]
name = "processes"
[topology]
name = "ring"
[network]
name = "uniform"
rate = "20 Mbit/s"
delay = "10 ms"
[devices]
name = "uniform"
speed = "2000 samples/s"
[strategy]
name = "d-psgd"
[stop]
{stop}
[record]
every = "200 ms"
"""


def until(look: Callable[[], T | None], what: str, deadline_s: float = 30.0) -> T:
    """Look again and again until there is something to see; the test fails after the deadline."""
    end_s = time.monotonic() + deadline_s
    while time.monotonic() < end_s:
        seen = look()
        if seen:
            return seen
        os.sched_yield()
        time.sleep(0.01)  # between two looks at the outside world, not for emulated time
    raise AssertionError(f"{what}: not within {deadline_s} s")


class LiveFleet:
    """One `grapevine run` in a session of its own; `environment` changes what it is started in.

    An `impatient` one takes a process that says nothing for lost, and waits for a fork server, less long than a user's does.
    """

    def __init__(
        self, folder: Path, stop: str, *arguments: str, environment: dict[str, str] | None = None, impatient: bool = False
    ) -> None:
        self.out = folder / "run"
        file = folder / "small.toml"
        file.write_text(SMALL.format(stop=stop))
        program = ["-c", IMPATIENT] if impatient else ["-P", "-m", "grapevine"]
        command = [sys.executable, *program, "run", str(file), "--out", str(self.out), "--quiet", *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """The events written so far."""
        file = self.out / "events.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("}")]
        return [event for event in events if not kind or event["kind"] == kind]

    def training(self) -> list[int]:
        """Wait until every peer has made its first step; the process numbers of the peers."""
        until(lambda: self.events("first_step") or self.process.poll() is not None, "the first step", deadline_s=80.0)
        assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()
        return self.events("start")[0]["pids"]

    def wait(self, deadline_s: float = 60.0) -> int:
        """The exit status."""
        return self.process.wait(deadline_s)

    def interrupt(self) -> None:
        """Ctrl-C, as a terminal sends it: to the launcher's whole group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def summary(self) -> dict[str, Any]:
        return json.loads((self.out / "summary.json").read_text())

    def survivors(self) -> list[int]:
        """Processes of the session that still run (zombies do not count)."""
        running = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self.process.pid and fields[0] != "Z":
                running.append(int(stat.parent.name))
        return running

    def close(self) -> None:
        """Nothing outlives a test."""
        for pid in self.survivors():
            os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
