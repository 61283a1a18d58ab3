"""The errors of emulated links: goodput and one-way delay, measured by the peers' own sockets and threads."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from grapevine import Experiment
from grapevine.experiments.probe.probe import probe

PAIR = """
name = "links"
peers = 2
[topology]
name = "path"
[network]
{network}
"""


def link_truth(rate: str | None, delay: str = "") -> dict[str, Any]:
    """Return over both directions of one link: worst relative rate error, median and 99th percentile of the delay error (ms).

    Without a rate the link is unshaped: then the delay error is the delay of this machine's sockets and threads.
    """
    network = f'name = "uniform"\nrate = "{rate}"\ndelay = "{delay}"' if rate else 'name = "unshaped"'
    rows = probe(Experiment.parse(PAIR.format(network=network)))
    errors = [row["rate_error"] for row in rows]
    return {
        "rate_error": max(errors, key=abs) if rate else math.nan,
        "delay_error_ms": float(np.median([row["delay_error_s"] for row in rows])) * 1e3,
        "delay_error_p99_ms": max(row["delay_got_p99_s"] - row["delay_asked_s"] for row in rows) * 1e3,
    }


@contextmanager
def busy_cores() -> Iterator[int]:
    """Keep every core of this machine busy inside this context, at the usual priority; give the number of cores."""
    cores = len(os.sched_getaffinity(0))
    burners = [multiprocessing.get_context("spawn").Process(target=_burn, daemon=True) for _ in range(cores)]
    for burner in burners:
        burner.start()
    try:
        yield cores
    finally:
        for burner in burners:
            burner.kill()
            burner.join()


def _burn() -> None:
    while True:
        pass
