"""`grapevine poke`: do to a running fleet what its script might have done."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from grapevine.experiments.cli.source import Commands, add_command, place
from grapevine.experiments.config.errors import ConfigError
from grapevine.experiments.terminal import printable

EXAMPLES = """\
  grapevine poke runs/ring rate link=0,1 factor=0.1     link 0-1 to a tenth of its rate, both ways
  grapevine poke runs/ring rate peer=3 way=out 'to=500 kbit/s'
  grapevine poke runs/ring delay 'add=200 ms'           all links
  grapevine poke runs/ring partition 'groups=[[0, 1, 2], [3, 4]]'
  grapevine poke runs/ring heal                         whatever was cut
  grapevine poke runs/ring pause peer=2 'length=5 s'
  grapevine poke runs/ring kill peer=4

what can be done, and with which keys: grapevine list events

It happens at once, to a fleet in the world of processes (in virtual time put it into the file, as [[events]]), and holds for
what is not on the wire yet. A chunk that is keeps its time, as does the step that is being computed.
"""
SOURCE = "grapevine poke"


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "poke", execute, "change a running fleet: its links, its devices, its peers", EXAMPLES)
    parser.add_argument("run", metavar="RUN", type=place, help="the run folder of a fleet that is running")
    parser.add_argument("do", metavar="DO", help="what happens: rate, cut, heal, ... (see grapevine list events)")
    parser.add_argument("keys", metavar="KEY=VALUE", nargs="*", help="as an experiment file has them under [[events]]")
    parser.add_argument("--json", action="store_true", help="print what was done, and when, as JSON")


def execute(arguments: argparse.Namespace) -> int:
    """Ask the fleet, and print its answer; ConfigError where it refuses or is not there."""
    from grapevine.experiments.config.menus import EVENTS
    from grapevine.experiments.worlds.processes.poke_socket import ask

    event = {"do": arguments.do, **_keys(arguments.keys)}
    try:
        EVENTS.read({**event, "at": "0 s"})  # what is wrong with it can be told without any fleet
    except ConfigError as error:
        raise error.at(SOURCE) from None
    try:
        answer = ask(arguments.run, {"event": event})
    except ConnectionError as error:
        raise ConfigError(SOURCE, problem=f"{arguments.run}: {error}", cure=_why(arguments.run)) from None
    if "refused" in answer:
        raise ConfigError(SOURCE, problem=str(answer["refused"]))
    print(json.dumps(answer) if arguments.json else printable(f"at {answer['time_s']:.3f} s: {answer['done']}"))
    return 0


def _keys(texts: list[str]) -> dict[str, Any]:
    """What key=value says; numbers with commas between them are a list."""
    from grapevine.experiments.config.overrides import parse_settings

    try:
        keys = parse_settings(texts)
    except ConfigError as error:
        cure = error.cure if error.key else "write key=value, such as link=0,1"
        raise ConfigError(SOURCE, error.key, error.value, error.problem, cure) from None
    if "at" in keys:
        raise ConfigError(SOURCE, "at", keys["at"], "a poke happens at once", "leave at out")
    return {key: _numbers(value) for key, value in keys.items()}


def _numbers(value: Any) -> Any:
    listed = isinstance(value, str) and re.fullmatch(r"\s*\d{1,9}\s*(,\s*\d{1,9}\s*)+", value)
    return [int(part) for part in value.split(",")] if listed else value


def _why(folder: Path) -> str:
    """Why nobody answers, as far as the folder tells."""
    from grapevine.experiments.results.result import Result

    try:
        summary = Result.read(folder).summary
    except ValueError:
        return "give the run folder of a fleet that is running, as `grapevine run --out` has it"
    if summary.get("reason") != "running":
        return f"its run is over ({summary.get('reason')})"
    if summary.get("world") == "virtual":
        return "it runs in virtual time, where there is nobody to ask: put [[events]] into its file"
    return "it has not begun to train yet, or was killed: try again in a second"
