"""`grapevine report`: one self-contained page for a run, or one that compares several."""

from __future__ import annotations

import argparse
from pathlib import Path

from grapevine.experiments.cli.source import Commands, add_command, place
from grapevine.experiments.config.errors import config_error

EXAMPLES = """\
  grapevine report runs/ring                        writes runs/ring/report.html
  grapevine report runs/ring runs/torus             compares both in comparison.html
  grapevine report runs/sweep/* --out sweep.html
"""


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "report", execute, "write one HTML page on a run, or comparing several", EXAMPLES)
    parser.add_argument("folders", metavar="DIR", nargs="+", type=place, help="run folders")
    parser.add_argument("--out", metavar="FILE", type=place, help="the page (default: DIR/report.html, or comparison.html)")


def execute(arguments: argparse.Namespace) -> int:
    """Write the page and print its path."""
    from grapevine.experiments.report.page import write_report

    folders: list[Path] = arguments.folders
    page = arguments.out or (folders[0] / "report.html" if len(folders) == 1 else Path("comparison.html"))
    try:
        write_report(folders, page)
    except ValueError as error:
        raise config_error(error) from None
    print(page)
    return 0
