"""Errors of TCP models against observed transfers: `python -m benchmarks.tcp_model`.

Each condition's messages are replayed in order, with the pauses between them, many times if packets are lost; the error is
that of the mean transfer time of each size of 64 KB and more. The observations are real Linux TCP over packet-level emulated
links; the files in tests/netem/data describe the method. Those of tcp_observations.json (made by benchmarks.tcp_observe) hold
every pause, and a part of them was held out when the model was made. Those of tcp_transfers.json do not hold the single
pauses, only their range of 0.6 to 1.05 s, at round trips of 20 to 200 ms: the replay spreads them over the round trips;
`--pause uniform` draws them instead.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from grapevine.netem.links.losses import Losses
from grapevine.netem.links.profile import Steady
from grapevine.netem.links.tcp import Tcp
from grapevine.netem.networks.plan import LinkSpec

DATA = Path(__file__).parents[1] / "tests" / "netem" / "data"
SETS: dict[str, tuple[str, bool | None]] = {
    "transfers": ("tcp_transfers.json", None),
    "seen": ("tcp_observations.json", False),
    "held out": ("tcp_observations.json", True),
}
"""The sets of observations: name -> file, and whether to take its held-out conditions, the others, or (None) all."""
LEAST_BYTES = 64_000
REPLAYS = 40

Pause = Callable[[float, np.random.Generator], float]


class Error(NamedTuple):
    """The error of one size under one condition."""

    control: str
    loss: float
    rtt_s: float
    rate_bit_per_s: float
    size_bytes: int
    observed_s: float
    modelled_s: float

    @property
    def relative(self) -> float:
        return self.modelled_s / self.observed_s - 1


def spread_pause(rtt_s: float, rng: np.random.Generator) -> float:
    """Return a pause from 0.6 s at a round trip of 20 ms to 1.05 s at 200 ms."""
    return 0.55 + 2.5 * rtt_s


def uniform_pause(rtt_s: float, rng: np.random.Generator) -> float:
    """Return a random pause from 0.6 to 1.05 s."""
    return float(rng.uniform(0.6, 1.05))


def rounds(condition: dict[str, Any], rng: np.random.Generator, pause: Pause) -> list[float]:
    """Return the transfer times by the model of netem.links.tcp, s."""
    delay_ns = round(condition["rtt"] * 5e8)
    line = Steady(condition["rate"] / 8, delay_ns, condition["loss"])
    losses = Losses(condition["loss"], rng) if condition["loss"] else None
    tcp = Tcp(condition["cc"], 2 * delay_ns, losses)
    now_ns, took_s = 0.0, []
    for size_bytes, _, *before_s in condition["obs"]:
        now_ns += before_s[0] * 1e9 if before_s else 0
        in_ns = tcp.send(line, now_ns, size_bytes).done_ns + delay_ns
        took_s.append((in_ns - now_ns) / 1e9)
        now_ns = in_ns if before_s else in_ns + pause(condition["rtt"], rng) * 1e9
    return took_s


def plain(condition: dict[str, Any], rng: np.random.Generator, pause: Pause) -> list[float]:
    """Return the transfer times by delay + size / rate, s."""
    return [condition["rtt"] / 2 + size * 8 / condition["rate"] for size, *_ in condition["obs"]]


def mathis(condition: dict[str, Any], rng: np.random.Generator, pause: Pause) -> list[float]:
    """Return the transfer times by delay + size / rate, capped by Mathis' formula: a network without `tcp`."""
    spec = LinkSpec(condition["rate"] / 8, round(condition["rtt"] * 5e8), 0, condition["loss"])
    return [condition["rtt"] / 2 + size / spec.effective_rate_bytes_per_s for size, *_ in condition["obs"]]


MODELS = {"rounds (netem.links.tcp)": rounds, "delay + size / rate": plain, "the same, Mathis cap": mathis}
GROUPS: dict[str, Callable[[Error], bool]] = {
    "all": lambda error: True,
    "cubic, no loss": lambda error: error.control == "cubic" and error.loss == 0,
    "cubic, 0.1 %": lambda error: error.control == "cubic" and error.loss == 0.001,
    "cubic, 0.5 %": lambda error: error.control == "cubic" and error.loss == 0.005,
    "cubic, 1 %": lambda error: error.control == "cubic" and error.loss == 0.01,
    "bbr, no loss": lambda error: error.control == "bbr" and error.loss == 0,
    "bbr, 0.1 %": lambda error: error.control == "bbr" and error.loss == 0.001,
    "bbr, 0.5 %": lambda error: error.control == "bbr" and error.loss == 0.005,
    "bbr, 1 %": lambda error: error.control == "bbr" and error.loss == 0.01,
}


def observations(name: str) -> list[dict[str, Any]]:
    """Return the conditions of a set, each with `obs`: [bytes, seconds] or [bytes, seconds, seconds of pause before]."""
    file, held_out = SETS[name]
    conditions: list[dict[str, Any]] = json.loads((DATA / file).read_text())["conditions"]
    for condition in conditions:
        if "sizes" in condition:
            turns = zip(itertools.cycle(condition["sizes"]), condition["took_ms"], condition["pause_ms"], strict=False)
            condition["obs"] = [[size, took_ms / 1e3, pause_ms / 1e3] for size, took_ms, pause_ms in turns]
    return [condition for condition in conditions if held_out is None or condition["held_out"] == held_out]


def errors(
    model: Callable[..., list[float]], name: str = "transfers", pause: Pause = spread_pause, replays: int = REPLAYS
) -> list[Error]:
    """Return the errors of a model on a set of observations, one for each condition and size."""
    found = []
    for number, condition in enumerate(observations(name)):
        times = replays if model is rounds else 1
        took_s = np.mean([model(condition, np.random.default_rng([seed, number]), pause) for seed in range(times)], axis=0)
        observed: dict[int, list[float]] = defaultdict(list)
        modelled: dict[int, list[float]] = defaultdict(list)
        for (size, seconds, *_), expected in zip(condition["obs"], took_s, strict=True):
            observed[size].append(seconds)
            modelled[size].append(float(expected))
        kind = condition["cc"], condition["loss"], condition["rtt"], condition["rate"]
        found += [
            Error(*kind, size, float(np.mean(observed[size])), float(np.mean(modelled[size])))
            for size in sorted(observed)
            if size >= LEAST_BYTES
        ]
    return found


def figures(found: list[Error], group: str) -> tuple[float, float]:
    """Return median and 90th percentile of the absolute relative error in a group."""
    sizes = [abs(error.relative) for error in found if GROUPS[group](error)]
    return (float(np.median(sizes)), float(np.quantile(sizes, 0.9))) if sizes else (math.nan, math.nan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pause", choices=("spread", "uniform"), default="spread")
    parser.add_argument("--each", action="store_true", help="print every condition and size")
    options = parser.parse_args()
    pause = spread_pause if options.pause == "spread" else uniform_pause
    table = Table(title="relative error of the mean transfer time, messages of 64 KB and more: median / 90th percentile")
    for column in ("model", "observations", *GROUPS):
        table.add_column(column, justify="right")
    for name, model in MODELS.items():
        for chosen in SETS:
            found = errors(model, chosen, pause)
            shown = (figures(found, group) for group in GROUPS)
            cells = ("-" if math.isnan(median) else f"{median:.1%} / {tail:.0%}" for median, tail in shown)
            table.add_row(name, chosen, *cells)
            for error in found if options.each and model is rounds else ():
                print(f"{chosen}: {error.control} {error.loss:g} {error.rtt_s:g} s {error.rate_bit_per_s / 1e6:g} Mbit/s "
                      f"{error.size_bytes} B: {error.observed_s:.3f} s, {error.relative:+.1%}")  # fmt: skip
    Console(width=190).print(table)


if __name__ == "__main__":
    main()
