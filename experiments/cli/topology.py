"""`grapevine topology`: the figures and the picture of a graph, or of a schedule of graphs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grapevine.experiments.cli.source import Commands, add_command, place
from grapevine.experiments.config.errors import ConfigError, config_error
from grapevine.experiments.config.overrides import SOURCE, look_beside, parse_settings

if TYPE_CHECKING:
    from grapevine.topology import TimeVarying, Topology

EXAMPLES = """\
  grapevine topology ring -n 16
  grapevine topology random-regular -n 64 --set degree=6 --html graph.html
  grapevine topology one-peer-exponential -n 16 --html rounds.html
  grapevine topology file -n 12 --set path=graph.graphml --mixing lazy --json
"""
ELSEWHERE = {
    "name": "write it after the command: grapevine topology {}",
    "n": "write -n {}",
    "seed": "write --seed {}",
}
"""The keys that --set does not set, and the argument for each."""
MOST_DIGITS = 19


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "topology", execute, "a graph's or schedule's figures and picture", EXAMPLES)
    names = "one of `grapevine list topologies`, or a schedule such as one-peer-exponential"
    parser.add_argument("name", metavar="NAME", help=names)
    parser.add_argument("-n", metavar="PEERS", type=_whole, default=16, help="number of peers (default 16)")
    parser.add_argument("--seed", metavar="SEED", type=_whole, default=0, help="seed of random graphs (default 0)")
    parser.add_argument("--mixing", metavar="RULE", help="rule of the mixing weights (default metropolis)")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="an option of the graph, such as degree=4",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--html", metavar="FILE", type=place, help="write the picture and the figures on a page")


def execute(arguments: argparse.Namespace) -> int:
    """Print the figures, and write the page if --html is given."""
    options = parse_settings(arguments.settings)
    options = {key.removeprefix("topology."): value for key, value in options.items()}
    if arguments.mixing is not None:
        options["mixing"] = arguments.mixing
    for key, cure in ELSEWHERE.items():
        if key in options:
            raise ConfigError(SOURCE, key, options[key], problem="is no option of a graph", cure=cure.format(options[key]))
    _refuse_beyond(arguments.n, arguments.seed)
    if arguments.name == "file" and not options.get("path"):
        cure = "give the file: --set path=graph.graphml"
        raise ConfigError(key="topology.path", problem="is missing, since the graph comes from a file", cure=cure)
    from grapevine.experiments.config.menus import MENUS
    from grapevine.topology import TimeVarying

    named = look_beside({"topology": {"name": arguments.name, **options}}, Path())
    chosen = MENUS["topology"].read(named["topology"])
    try:
        if isinstance(chosen, TimeVarying):
            figures, page = _schedule(chosen, arguments.n, arguments.seed)
        else:
            figures, page = _graph(chosen, arguments.n, arguments.seed, "mixing" in options)
        figures = {"name": arguments.name, **figures}
        if arguments.html is not None:
            arguments.html.parent.mkdir(parents=True, exist_ok=True)
            arguments.html.write_text(page(f"{arguments.name}, {arguments.n} peers"), encoding="utf-8")
    except ValueError as error:
        raise config_error(error, key="topology") from None
    except OSError as error:
        raise ConfigError(source="--html", problem=f"{arguments.html}: cannot be written: {error.strerror}") from None
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return 0
    _print(figures, arguments.html)
    return 0


def _refuse_beyond(peers: int, seed: int) -> None:
    """Raise ConfigError for numbers that an experiment file may not have."""
    from grapevine.experiments.config.experiment import Experiment
    from grapevine.experiments.config.fields import fields_of, read_field

    types = {field.name: field.type for field in fields_of(Experiment)}
    read_field(types["peers"], peers, "-n")
    read_field(types["seed"], seed, "--seed")


def _graph(chosen: Topology, peers: int, seed: int, mixed: bool) -> tuple[dict[str, Any], Callable[[str], str]]:
    """Return a graph's figures, and a function that draws its page; a directed graph mixes uniformly unless a rule is given."""
    from grapevine.experiments.report.topology_page import topology_page
    from grapevine.topology import analyse

    graph = chosen.build(peers, seed, directed=True)
    rule = "uniform" if graph.is_directed() and not mixed else chosen.mixing
    return analyse(graph, rule).as_dict(), lambda title: topology_page(title, graph, rule)


def _schedule(chosen: TimeVarying, peers: int, seed: int) -> tuple[dict[str, Any], Callable[[str], str]]:
    """Return a schedule's figures, and a function that draws its page."""
    from grapevine.experiments.config.bounds import refuse_matrices
    from grapevine.experiments.report.schedule_page import schedule_page
    from grapevine.topology import analyse

    refuse_matrices(peers, "-n")
    schedule = chosen.plan(peers, seed)
    return analyse(schedule).as_dict(), lambda title: schedule_page(title, schedule)


def _print(figures: dict[str, Any], page: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from grapevine.experiments.report.graph_words import label, meaning, shown

    table = Table.grid(padding=(0, 2))
    for column in range(3):
        table.add_column(no_wrap=column < 2, style="dim" if column == 2 else "")
    for name, value in figures.items():
        table.add_row(label(name), shown(value), meaning(name, value))
    console = Console(highlight=False)
    console.print(table)
    if page is not None:
        console.print(str(page), markup=False)


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"{text[:MOST_DIGITS]!r} is not a whole number: expected 0 to 9223372036854775807")
    return int(text)
