"""`grapevine probe`: the emulated network without any training, asked against got."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.commands.source import Commands, add_command, add_experiment, errors_from, read_experiment

if TYPE_CHECKING:
    from rich.table import Table

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

    Console(highlight=False).print(_table(rows))
    return 0


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each directed link."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("link")
    for column in ("rate asked", "got", "off by", "delay asked", "got", "p99", "off by"):
        table.add_column(column, justify="right")
    for row in rows:
        rates = _rate(row["rate_asked_bytes_per_s"]), _rate(row["rate_got_bytes_per_s"]), _share(row["rate_error"])
        delays = (_delay(row[f"delay_{name}_s"]) for name in ("asked", "got", "got_p99", "error"))
        table.add_row(f"{row['source']} -> {row['target']}", *rates, *delays)
    return table


def _rate(rate_bytes_per_s: float | None) -> str:
    from netem.units import show_rate

    return "-" if _unknown(rate_bytes_per_s) else show_rate(float(rate_bytes_per_s or 0.0))


def _delay(delay_s: float | None) -> str:
    from netem.units import show_duration

    return "-" if _unknown(delay_s) else show_duration(float(delay_s or 0.0) * 1e9)


def _share(share: float | None) -> str:
    return "-" if _unknown(share) else f"{100 * float(share or 0.0):+.2f} %"


def _unknown(value: float | None) -> bool:
    return value is None or math.isnan(value)
