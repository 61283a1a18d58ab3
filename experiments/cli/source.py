"""The experiment of a command: the arguments that name it, and errors that name their file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grapevine.experiments.config.errors import ConfigError
from grapevine.experiments.config.overrides import SOURCE, concerns, parse_settings

if TYPE_CHECKING:
    from grapevine.experiments.config.experiment import Experiment

Commands = Any
"""The type of `add_subparsers(...)`, which argparse does not publish."""


def add_command(
    commands: Commands, name: str, execute: Callable[[argparse.Namespace], int], summary: str, examples: str
) -> argparse.ArgumentParser:
    """Add a command and return its parser, with examples below its help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog="examples:\n" + examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(execute=execute)
    return parser


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """Add the arguments FILE.toml, --set and --world."""
    parser.add_argument("file", metavar="FILE.toml", help="the experiment")
    parser.add_argument(
        "--set",
        metavar="TABLE.KEY=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="change one key of the file, such as network.rate='5 Mbit/s'; an empty value removes the key; may be repeated",
    )
    parser.add_argument("--world", metavar="NAME", help="the same as --set world.name=NAME: virtual or processes")


def place(text: str) -> Path:
    """Return a path of the command line; raise argparse's error for an empty one, such as from an unset shell variable."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty: expected the name of a file or folder")
    return Path(text)


def settings_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of --set and --world."""
    settings = parse_settings(arguments.settings)
    return settings | ({"world.name": arguments.world} if arguments.world else {})


def read_experiment(arguments: argparse.Namespace) -> Experiment:
    """Return the experiment that the arguments name; raise ConfigError if it is not valid."""
    from grapevine.experiments.config.experiment import Experiment

    return Experiment.read(arguments.file, settings_of(arguments))


@contextmanager
def errors_from(arguments: argparse.Namespace) -> Iterator[None]:
    """Add the file, or the setting, to ConfigErrors of the code inside, which builds the experiment's fleet."""
    try:
        yield
    except ConfigError as error:
        raise error.at(SOURCE if concerns(settings_of(arguments), error.key) else str(Path(arguments.file))) from None
