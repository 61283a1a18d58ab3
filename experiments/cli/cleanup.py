"""`grapevine cleanup`: remove the folders and network namespaces that killed launchers have left."""

from __future__ import annotations

import argparse
import json
import os

from grapevine.experiments.cli.source import Commands, add_command
from grapevine.experiments.config.errors import ConfigError

EXAMPLES = """\
  grapevine cleanup
  grapevine cleanup --json

A run removes its folders in /dev/shm and TMPDIR itself, and with network.backend = "kernel" its namespaces, unless its
launcher is killed (kill -9, out of memory). This command removes the folders and namespaces that such launchers have left.
Those of running fleets and of other users stay, and so do run folders (--out).
"""
SOURCE = "grapevine cleanup"


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "cleanup", execute, "remove the folders and namespaces that killed launchers left", EXAMPLES)
    parser.add_argument("--json", action="store_true", help="print the removed names as JSON")


def execute(arguments: argparse.Namespace) -> int:
    """Remove them and print their names; raise ConfigError if that is not permitted."""
    from grapevine.experiments.worlds.processes.folders import left_folders, remove_folder
    from grapevine.netem.kernel.namespaces import NamespaceError, leftovers, remove

    folders, left = left_folders(), leftovers()
    for folder in folders:
        remove_folder(folder)
    if left and os.geteuid() != 0:
        known = ", ".join(name for names in left.values() for name in names)
        raise ConfigError(SOURCE, problem=f"only root may remove {known}", cure="run it as root (sudo grapevine cleanup)")
    for names in left.values():
        try:
            remove(names)
        except NamespaceError as error:
            raise ConfigError(SOURCE, problem=str(error), cure="`ip netns pids NAME` lists the processes in it") from None
    if arguments.json:
        print(json.dumps({"removed": [*map(str, folders), *(name for names in left.values() for name in names)]}))
        return 0
    for folder in folders:
        print(f"removed {folder}")
    for run, names in left.items():
        print(f"removed {len(names)} namespaces of process {run.split('-')[1]}: {', '.join(names)}")
    if not left and not folders:
        print("nothing to remove")
    return 0
