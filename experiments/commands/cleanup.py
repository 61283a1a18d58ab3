"""`grapevine cleanup`: remove the network namespaces of launchers that were killed."""

from __future__ import annotations

import argparse
import json
import os

from experiments.commands.source import Commands, add_command
from experiments.config_errors import ConfigError

EXAMPLES = """\
  grapevine cleanup
  grapevine cleanup --json

A run with network.backend = "kernel" takes its namespaces down itself, however it ends, unless its launcher is killed
(kill -9, out of memory). What such a launcher left is removed here, and nothing else: a run that goes on keeps its network.
"""
SOURCE = "grapevine cleanup"


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "cleanup", execute, "remove the namespaces that killed launchers left", EXAMPLES)
    parser.add_argument("--json", action="store_true", help="the names of what was removed, as JSON")


def execute(arguments: argparse.Namespace) -> int:
    """Remove them and print which; ConfigError where that is not permitted."""
    from netem.namespaces import NamespaceError, leftovers, remove

    left = leftovers()
    if left and os.geteuid() != 0:
        known = ", ".join(name for names in left.values() for name in names)
        raise ConfigError(SOURCE, problem=f"only root may remove {known}", cure="run it as root (sudo grapevine cleanup)")
    for names in left.values():
        try:
            remove(names)
        except NamespaceError as error:
            raise ConfigError(SOURCE, problem=str(error), cure="see `ip netns pids NAME` for who is in it") from None
    if arguments.json:
        print(json.dumps({"removed": [name for names in left.values() for name in names]}))
        return 0
    for run, names in left.items():
        print(f"removed {len(names)} namespaces of process {run.split('-')[1]}: {', '.join(names)}")
    if not left:
        print("nothing to remove")
    return 0
