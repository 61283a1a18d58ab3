"""The limits of memory and of the clock: experiments beyond them are refused before they use memory or time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from grapevine.experiments.config.errors import ConfigError
from grapevine.experiments.config.experiment import Experiment, Processes
from grapevine.netem import Device, NetworkPlan
from grapevine.netem.units import duration_ns, show_bytes
from grapevine.topology import TimeVarying

MOST_RECORDS = 1_000_000
LONGEST_NS = duration_ns("315576000 s")  # ten years
SLOWEST_BYTES_PER_S = 1 / 8
PROCESS_BYTES, MEMBER_BYTES = 5_000_000, 10_000  # memory of a peer without its model: a process, in virtual time
MATRICES = 6  # matrices [peers, peers] of a schedule in memory: the rounds that are kept, and those used while one is drawn
COPIES_VIRTUAL, COPIES_LIVE = 2, 4
"""The least number of copies of all models in memory: the peers' and the outcome's; live also gradients and snapshots."""


def refuse_too_many(experiment: Experiment) -> None:
    """Raise ConfigError for too many records, or too many peers for the memory; called before any graph is built."""
    stop, every = experiment.stop, experiment.record.every
    if stop.time is not None and duration_ns(stop.time) > MOST_RECORDS * duration_ns(every):
        least_s = duration_ns(stop.time) / MOST_RECORDS / 1e9
        problem = f"{every} until {stop.time} makes {duration_ns(stop.time) // duration_ns(every):,} records"
        cure = f"write {least_s:.4g} s or more, so that there are at most {MOST_RECORDS:,}"
        raise ConfigError(key="record.every", value=every, problem=problem, cure=cure)
    refuse_memory(experiment, 1, "the smallest model")
    if isinstance(experiment.topology, TimeVarying):
        refuse_matrices(experiment.peers, "peers")


def refuse_matrices(peers: int, key: str) -> None:
    """Raise ConfigError if the rounds of a schedule, matrices [peers, peers], do not fit the free memory."""
    needed, free = MATRICES * 8 * peers**2, free_memory_bytes()
    if needed > free:
        problem = f"the rounds of a schedule of {peers:,} peers need at least {show_bytes(needed)} of memory"
        problem += f", and {show_bytes(free)} are free"
        raise ConfigError(key=key, value=peers, problem=problem, cure="use fewer peers, or a fixed graph, such as ring")


def refuse_beyond(experiment: Experiment, plan: NetworkPlan, devices: Sequence[Device]) -> None:
    """Raise ConfigError for links below 1 bit/s or steps above ten years, to which a factor may have led."""
    for (source, target), link in plan.links.items():
        slowest = min(link.rate_bytes_per_s, plan.uplinks[source], plan.downlinks[target])
        if slowest < SLOWEST_BYTES_PER_S:
            problem = f"link {source} -> {target} would carry {slowest * 8:.3g} bit/s"
            raise ConfigError(key="network", problem=problem, cure="raise its rate, or the factor, to 1 bit/s or more")
    for peer, device in enumerate(devices):
        if device.step_ns(experiment.task.batch_size) > LONGEST_NS:
            problem = f"a step of peer {peer} would take more than ten years"
            raise ConfigError(key="devices", problem=problem, cure="raise its speed, or lower task.batch_size")


def refuse_too_large(experiment: Experiment, size: int) -> None:
    """Raise ConfigError if the peers' models, `size` parameters each, do not fit the free memory."""
    refuse_memory(experiment, size, f"{size:,} parameters each")


def refuse_memory(experiment: Experiment, size: int, model_text: str) -> None:
    """Raise ConfigError if the models of all peers do not fit the free memory; `model_text` describes a model of `size`."""
    live = isinstance(experiment.world, Processes)
    copies, more_bytes = (COPIES_LIVE, PROCESS_BYTES) if live else (COPIES_VIRTUAL, MEMBER_BYTES)
    needed = experiment.peers * (size * 4 * copies + more_bytes)
    free = free_memory_bytes()
    if needed > free:
        fleet = f"{experiment.peers:,} peers ({model_text}{', one process each' if live else ''})"
        problem = f"{fleet} need at least {show_bytes(needed)} of memory, and {show_bytes(free)} are free"
        raise ConfigError(key="peers", value=experiment.peers, problem=problem, cure="use fewer peers or a smaller model")


def free_memory_bytes() -> int:
    """Return the memory that processes can still use, by the kernel's estimate."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
