"""The experiment that a command is about: the arguments that name it, and errors that say which file they are in."""

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
"""What `add_subparsers` gives: argparse keeps its type to itself."""


def add_command(
    commands: Commands, name: str, execute: Callable[[argparse.Namespace], int], summary: str, examples: str
) -> argparse.ArgumentParser:
    """A command's own parser, with examples under its help."""
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
    """FILE.toml, --set and --world."""
    parser.add_argument("file", metavar="FILE.toml", help="the experiment")
    parser.add_argument(
        "--set",
        metavar="TABLE.KEY=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="change one key of the file, such as network.rate='5 Mbit/s'; an empty value takes the key away; may be repeated",
    )
    parser.add_argument("--world", metavar="NAME", help="the same as --set world.name=NAME: virtual or processes")


def place(text: str) -> Path:
    """A path of the command line; argparse's error for an empty one, as a variable that is not set makes it."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty: expected the name of a file or folder")
    return Path(text)


def settings_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What --set and --world lay over the file."""
    settings = parse_settings(arguments.settings)
    return settings | ({"world.name": arguments.world} if arguments.world else {})


def read_experiment(arguments: argparse.Namespace) -> Experiment:
    """The experiment that the arguments name; ConfigError where it is none."""
    from grapevine.experiments.config.experiment import Experiment

    return Experiment.read(arguments.file, settings_of(arguments))


@contextmanager
def errors_from(arguments: argparse.Namespace) -> Iterator[None]:
    """Errors that come up only when the experiment is put together are told with the file, or the setting, at fault."""
    try:
        yield
    except ConfigError as error:
        raise error.at(SOURCE if concerns(settings_of(arguments), error.key) else str(Path(arguments.file))) from None
