"""How true emulated links are: goodput and one-way delay, asked against got, by the peers' own sockets and threads."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments import Experiment
from experiments.probe import probe

PAIR = """
name = "links"
peers = 2
[topology]
name = "path"
[network]
name = "uniform"
rate = "{rate}"
delay = "{delay}"
"""


def link_truth(rate: str, delay: str) -> dict[str, Any]:
    """Worst relative rate error, median and 99th percentile of the delay error (ms), over both directions of one link."""
    rows = probe(Experiment.parse(PAIR.format(rate=rate, delay=delay)))
    return {
        "rate_error": max((row["rate_error"] for row in rows), key=abs),
        "delay_error_ms": float(np.median([row["delay_error_s"] for row in rows])) * 1e3,
        "delay_error_p99_ms": max(row["delay_got_p99_s"] - row["delay_asked_s"] for row in rows) * 1e3,
    }
