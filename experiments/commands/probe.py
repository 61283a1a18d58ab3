"""`grapevine probe`: the emulated network without any training, asked against got."""

from __future__ import annotations

import argparse
import json

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
    from rich.table import Table

    table = Table(box=None, padding=(0, 2))
    for column in rows[0] if rows else ():
        table.add_column(column.removesuffix("_bytes_per_s").removesuffix("_s").replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(_cell(column, value) for column, value in row.items()))
    Console().print(table)
    return 0


def _cell(column: str, value: object) -> str:
    """A figure with the unit that its column's name ends in, made readable."""
    from netem.units import show_bytes, show_duration, show_rate

    if not isinstance(value, int | float) or value != value:
        return "-" if value is None or value != value else str(value)
    if column.endswith("_bytes_per_s"):
        return show_rate(float(value))
    if column.endswith("_s"):
        return show_duration(float(value) * 1e9)
    if column.endswith("bytes"):
        return show_bytes(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
