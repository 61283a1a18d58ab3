"""`make bench`: every figure with a target, measured side by side in one run.

Timings are noisy: each pair of figures is measured alternately several times and the medians are shown with their ratio.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable
from contextlib import nullcontext

from rich.console import Console
from rich.table import Table

from benchmarks.bare import torch_loop_steps_per_s
from benchmarks.fleet import fleet_steps_per_s, start
from benchmarks.links import busy_cores, link_truth
from benchmarks.virtual import batched_gradients_per_s, draw, engine, loop_steps_per_s
from benchmarks.wire import wire_bytes_per_s
from benchmarks.worlds import differences
from grapevine.experiments.worlds.processes.realtime import may_run_realtime

TURNS = 3


def medians(*measures: Callable[[], float]) -> list[float]:
    """Return the median of each measure; the measures alternate."""
    rows = [[measure() for measure in measures] for _ in range(TURNS)]
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def steps(console: Console) -> None:
    """Print the peer-steps per second of 8 peers on a ring over an unshaped network."""
    table = Table(title="peer-steps per second, 8 processes, batch 32 (ring, unshaped network)")
    for column in ("model", "bare torch loop", "solo", "d-psgd", "d-psgd / bare", "target"):
        table.add_column(column, justify="right")
    for name, hidden, count, target in (("4,810 parameters", [64], 600, 1_000), ("994,570 parameters", [960, 960], 60, 120)):
        bare, solo, gossip = medians(
            lambda hidden=hidden, count=count: torch_loop_steps_per_s(8, hidden, count),  # type: ignore[misc]
            lambda hidden=hidden, count=count: fleet_steps_per_s("solo", 8, hidden, 3 * count),  # type: ignore[misc]
            lambda hidden=hidden, count=count: fleet_steps_per_s("d-psgd", 8, hidden, count),  # type: ignore[misc]
        )
        table.add_row(name, f"{bare:,.0f}", f"{solo:,.0f}", f"{gossip:,.0f}", f"{gossip / bare:.2f}", f">= {target:,}")
    console.print(table)


def starting(console: Console) -> None:
    """Print the start-up time of 32 peers, and their memory."""
    found = [start(32) for _ in range(TURNS)]
    seconds = statistics.median(each["first_step_s"] for each in found)
    pss = max(each["pss_mb_max"] for each in found)
    console.print(f"32 peers: first step of every peer {seconds:.1f} s after the command (target 6 s)")
    console.print(f"32 peers: at most {pss:.1f} MB proportional memory a peer (target 40 MB)")


def links(console: Console) -> None:
    """Print goodput and delay of emulated links and of an unshaped one, on free and on busy cores."""
    may = may_run_realtime()
    table = Table(title=f"emulated links, errors of measured rates and delays (delay 20 ms, load {os.getloadavg()[0]:.1f})")
    for column in ("cores", "rate asked", "goodput error", "target", "delay error, median", "target", "p99", "target"):
        table.add_column(column, justify="right")
    for busy in (False, True):
        with busy_cores() if busy else nullcontext():
            for rate in (None, "1 Mbit/s", "10 Mbit/s", "100 Mbit/s", "500 Mbit/s"):
                got = link_truth(rate, "20 ms")
                goodput = (f"{got['rate_error']:+.2%}", "1 %") if rate else ("-", "")
                targets = ("" if busy else "0.3 ms", ("1 ms" if may else "10 ms") if busy else "2 ms") if rate else ("", "")
                late = f"{got['delay_error_ms']:.3f} ms", targets[0], f"{got['delay_error_p99_ms']:.3f} ms", targets[1]
                table.add_row("busy" if busy else "free", rate or "unshaped", *goodput, *late)
    console.print(table)
    console.print(f"SCHED_FIFO is {'' if may else 'not '}permitted on this machine")


def wires(console: Console) -> None:
    """Print the throughput of the wire between two processes."""
    for size in (65_536, 1 << 20, 1 << 22):
        (rate,) = medians(lambda size=size: wire_bytes_per_s(size, 1 << 30))  # type: ignore[misc]
        console.print(f"wire: {rate / 1e9:.2f} GB/s in messages of {size:,} bytes (target 1 GB/s at 1 MB)")


def virtual(console: Console) -> None:
    """Print virtual time's peer-steps per second and memory against the number of peers, and draw the curve."""
    loop, bound = medians(loop_steps_per_s, lambda: batched_gradients_per_s(1000))
    table = Table(title="virtual world: digits MLP of 4,810 parameters, batch 32, 4-regular graph")
    for column in ("peers", "strategy", "links", "peer-steps/s", "us a peer-step", "peak memory", "KB a peer", "target"):
        table.add_column(column, justify="right")
    curve = []
    for peers, strategy, count, shaped, target in (
        (100, "d-psgd", 400, False, "6,000"), (300, "d-psgd", 150, False, ""), (1_000, "d-psgd", 60, False, "10,000"),
        (3_000, "d-psgd", 20, False, ""), (10_000, "d-psgd", 8, False, "8 GiB"), (1_000, "d-psgd", 60, True, ""),
        (1_000, "slices", 40, True, "5,000"),
    ):  # fmt: skip
        turns = TURNS if peers < 3_000 else 1
        found = [engine(strategy, peers, count, shaped, strategy == "slices") for _ in range(turns)]
        speed, peak_mb = statistics.median(each["steps_per_s"] for each in found), max(each["peak_mb"] for each in found)
        memory = f"{peak_mb:,.0f} MB", f"{1e3 * peak_mb / peers:.0f}"
        links = "11 regions" if shaped else "unshaped"
        table.add_row(f"{peers:,}", strategy, links, f"{speed:,.0f}", f"{1e6 / speed:.0f}", *memory, target)
        if not shaped:
            curve.append((peers, 1e6 / speed, peak_mb))
    console.print(table)
    console.print(f"plain torch loop {loop:,.0f} steps/s; batched gradient alone {bound:,.0f}/s (the bound)")
    console.print(f"the curve: {draw(curve)}")


def agreement(console: Console) -> None:
    """Print the differences between real and virtual time."""
    table = Table(title="processes world against virtual world, 6 peers (aim: 3 %, 3 %, 2 points)")
    for column in ("strategy", "steps", "bytes", "final accuracy, points", "lateness p99"):
        table.add_column(column, justify="right")
    for row in differences():
        table.add_row(
            row["strategy"],
            f"{row['steps']:+.2%}",
            f"{row['bytes']:+.2%}",
            f"{row['accuracy_points']:+.2f}",
            f"{row['lateness_p99_ms']:.2f} ms",
        )
    console.print(table)


def sharing(console: Console) -> None:
    """Print the differences of 200 random transfers over a random shared network between both worlds."""
    from benchmarks.sharing import agreement

    table = Table(title="shared segments, processes against virtual time: 200 transfers, 10 peers (target: within 2 % or 2 ms)")
    for column in ("network", "apart by more", "median", "p99", "worst", "lateness p99"):
        table.add_column(column, justify="right")
    for seed in (1, 2, 3):
        got = agreement(seed)
        apart = (f"{got[name]:.2f} ms" for name in ("median_ms", "p99_ms", "worst_ms", "lateness_p99_ms"))
        table.add_row(str(seed), f"{got['outside']:.1%}", *apart)
    console.print(table)


SECTIONS = {
    "steps": steps, "start": starting, "links": links, "wire": wires, "virtual": virtual, "worlds": agreement,
    "sharing": sharing,
}  # fmt: skip


def main() -> None:
    """Run the sections named on the command line, or all of them."""
    console = Console(width=120)
    for name in sys.argv[1:] or SECTIONS:
        SECTIONS[name](console)


if __name__ == "__main__":
    main()
