"""`grapevine run`: one experiment, from its file to its run folder."""

from __future__ import annotations

import argparse
import json

from grapevine.experiments.cli.source import Commands, add_command, add_experiment, errors_from, place, read_experiment

EXAMPLES = """\
  grapevine run ring.toml --out runs/ring
  grapevine run ring.toml --set strategy.name=slices --set 'network.rate=5 Mbit/s'
  grapevine run ring.toml --set stop.steps=50 --quiet --json | jq .accuracy_mean
"""


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "run", execute, "run one experiment, write its run folder, print its summary", EXAMPLES)
    add_experiment(parser)
    folder = "the run folder; an earlier run there is replaced (default: runs/NAME-TIME)"
    parser.add_argument("--out", metavar="DIR", type=place, help=folder)
    parser.add_argument("--json", action="store_true", help="print only the summary, as JSON, and no progress")
    parser.add_argument("--quiet", action="store_true", help="no live progress")


def execute(arguments: argparse.Namespace) -> int:
    """Run the experiment, print its summary and return the run's exit status."""
    experiment = read_experiment(arguments)
    with errors_from(arguments):
        from grapevine.experiments.run import run_experiment

        result, status = run_experiment(experiment, arguments.out, arguments.quiet or arguments.json)
    if arguments.json:
        print(json.dumps(result.summary, indent=2))
        return status
    from grapevine.experiments.report.summary_text import describe
    from grapevine.experiments.terminal import open_console

    page = result.folder / "report.html"
    open_console().print(describe(result.summary, page if page.exists() else None))
    return status
