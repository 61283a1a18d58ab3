"""`grapevine probe`: the emulated network without any training, asked against got."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.commands.source import Commands, add_command, add_experiment, errors_from, read_experiment

EXAMPLES = """\
  grapevine probe ring.toml
  grapevine probe ring.toml --set network.name=regions --json
"""


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(
        commands, "probe", execute, "measure the emulated network, without training: asked against got", EXAMPLES
    )
    add_experiment(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a link")


def execute(arguments: argparse.Namespace) -> int:
    """Measure every link and print it."""
    experiment = read_experiment(arguments)
    with errors_from(arguments):
        from experiments.probe import probe

        rows = probe(experiment)
    from experiments.summary import clean

    if arguments.json:
        print(json.dumps(clean(rows), indent=2))
        return 0
    from rich.console import Console

    from experiments.terminal_table import print_columns

    print_columns(Console(highlight=False), *_columns(rows))
    return 0


RATES = (("kbit/s", 125.0), ("Mbit/s", 125e3), ("Gbit/s", 125e6))
DELAYS = (("us", 1e-6), ("ms", 1e-3), ("s", 1.0))


def _columns(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Titles, and a line for each directed link; rates have one unit and delays have one."""
    from experiments.terminal_table import in_unit, one_unit

    rate, rate_scale = one_unit([row["rate_got_bytes_per_s"] for row in rows], RATES)
    delay, delay_scale = one_unit(
        [max((row["delay_got_s"] for row in rows if not _unknown(row["delay_got_s"])), default=0.0)], DELAYS
    )
    titles = ["link", f"rate asked\n{rate}", f"got\n{rate}", "off\n%", f"delay asked\n{delay}", f"got\n{delay}"]
    titles += [f"p99\n{delay}", f"off\n{delay}"]
    lines = []
    for row in rows:
        rates = (in_unit(row[f"rate_{name}_bytes_per_s"], rate_scale) for name in ("asked", "got"))
        delays = (in_unit(row[f"delay_{name}_s"], delay_scale) for name in ("asked", "got", "got_p99"))
        off = _signed(row["rate_error"], 0.01), _signed(row["delay_error_s"], delay_scale)
        lines.append([f"{row['source']} -> {row['target']}", *rates, off[0], *delays, off[1]])
    return titles, lines


def _signed(value: float | None, scale: float) -> str:
    if value is None or _unknown(value):
        return "-"
    text = f"{value / scale:+.2f}"
    return text[1:] if text in ("+0.00", "-0.00") else text


def _unknown(value: float | None) -> bool:
    return value is None or math.isnan(value)
