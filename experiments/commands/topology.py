"""`grapevine topology`: the figures and the picture of a graph."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from experiments.commands.source import Commands, add_command
from experiments.config_errors import ConfigError, config_error
from experiments.settings import parse_settings

EXAMPLES = """\
  grapevine topology ring -n 16
  grapevine topology random-regular -n 64 --set degree=6 --html graph.html
  grapevine topology file -n 12 --set path=graph.graphml --mixing lazy --json
"""


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "topology", execute, "a graph's figures and picture", EXAMPLES)
    parser.add_argument("name", metavar="NAME", help="one of `grapevine list topologies`")
    parser.add_argument("-n", metavar="PEERS", type=_whole, default=16, help="how many peers (default 16)")
    parser.add_argument("--seed", metavar="SEED", type=_whole, default=0, help="for random graphs (default 0)")
    parser.add_argument("--mixing", metavar="RULE", help="how much each neighbour counts (default metropolis)")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="an option of the graph, such as degree=4",
    )
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write the picture and the figures on a page")


def execute(arguments: argparse.Namespace) -> int:
    """Print the figures, and draw the picture where it is asked for."""
    options = parse_settings(arguments.settings)
    options = {key.removeprefix("topology."): value for key, value in options.items()}
    if arguments.mixing is not None:
        options["mixing"] = arguments.mixing
    if arguments.name == "file" and not options.get("path"):
        cure = "say which: --set path=graph.graphml"
        raise ConfigError(key="topology.path", problem="is missing, since the graph comes from a file", cure=cure)
    from experiments.menus import MENUS

    chosen: Any = MENUS["topology"].read({**options, "name": arguments.name})
    import topology

    try:
        graph = chosen.build(arguments.n, arguments.seed)
        figures = {"name": arguments.name, **topology.analyse(graph, chosen.mixing).as_dict()}
        if arguments.html is not None:
            from experiments.topology_page import write_page

            write_page(f"{arguments.name}, {arguments.n} peers", graph, figures, arguments.html)
    except ValueError as error:
        raise config_error(error, key="topology") from None
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return 0
    _print(figures, arguments.html)
    return 0


def _print(figures: dict[str, Any], page: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from experiments.topology_page import label, meaning, shown

    table = Table.grid(padding=(0, 2))
    for column in range(3):
        table.add_column(no_wrap=True, style="dim" if column == 2 else "")
    for name, value in figures.items():
        table.add_row(label(name), shown(value), meaning(name, value))
    console = Console(highlight=False)
    console.print(table)
    if page is not None:
        console.print(str(page), markup=False)


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number: expected 0 or more")
    return int(text)
