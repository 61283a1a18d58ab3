"""`grapevine poke`: send an event to a running fleet."""

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
  grapevine poke runs/ring heal                         all links that were cut
  grapevine poke runs/ring pause peer=2 'length=5 s'
  grapevine poke runs/ring kill peer=4

all events and their keys: grapevine list events

The event happens at once, in a fleet in the world "processes" (for virtual time write [[events]] into the file). Chunks that
are already on the wire, and steps that are already being computed, keep their times.
"""
SOURCE = "grapevine poke"


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "poke", execute, "change a running fleet: its links, its devices, its peers", EXAMPLES)
    parser.add_argument("run", metavar="RUN", type=place, help="the run folder of a fleet that is running")
    parser.add_argument("do", metavar="DO", help="the event: rate, cut, heal, ... (see grapevine list events)")
    parser.add_argument("keys", metavar="KEY=VALUE", nargs="*", help="the event's keys, as under [[events]] in a file")
    parser.add_argument("--json", action="store_true", help="print the event and its time as JSON")


def execute(arguments: argparse.Namespace) -> int:
    """Send the event and print the fleet's answer; raise ConfigError if the fleet refuses it or does not answer."""
    from grapevine.experiments.config.menus import EVENTS
    from grapevine.experiments.worlds.processes.poke_socket import ask

    event = {"do": arguments.do, **_keys(arguments.keys)}
    try:
        EVENTS.read({**event, "at": "0 s"})  # a wrong event is refused here, without a fleet
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
    """Return the keys and values of key=value; numbers separated by commas are a list."""
    from grapevine.experiments.config.overrides import parse_settings

    try:
        keys = parse_settings(texts)
    except ConfigError as error:
        cure = error.cure if error.key else "write key=value, such as link=0,1"
        raise ConfigError(SOURCE, error.key, error.value, error.problem, cure) from None
    if "at" in keys:
        raise ConfigError(SOURCE, "at", keys["at"], "a poke always happens at once", "leave at out")
    return {key: _numbers(value) for key, value in keys.items()}


def _numbers(value: Any) -> Any:
    listed = isinstance(value, str) and re.fullmatch(r"\s*\d{1,9}\s*(,\s*\d{1,9}\s*)+", value)
    return [int(part) for part in value.split(",")] if listed else value


def _why(folder: Path) -> str:
    """Return what to do if no fleet answers, by what the folder shows."""
    from grapevine.experiments.results.result import Result

    try:
        summary = Result.read(folder).summary
    except ValueError:
        return "give the run folder of a running fleet: the --out of its `grapevine run`"
    if summary.get("reason") != "running":
        return f"its run is over ({summary.get('reason')})"
    if summary.get("world") == "virtual":
        return "it runs in virtual time, which cannot be poked: write [[events]] into its file"
    return "it has not begun to train yet, or was killed: try again in a second"
