"""The command line: `grapevine run`, `poke`, `sweep`, `report`, `topology`, `probe`, `check`, `list`, `cleanup`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import NoReturn

from experiments.commands import check, cleanup, list, poke, probe, report, run, sweep, topology
from experiments.config_errors import ConfigError
from experiments.exit_status import TOLD, ExitStatus

EXAMPLES = f"""\
examples:
  grapevine run ring.toml                                   one experiment, with live progress
  grapevine run ring.toml --set strategy.name=ako --json    another strategy, the summary alone as JSON
  grapevine check ring.toml                                 what would happen, without running it
  grapevine list strategies                                 what can be chosen, with every option

exit status (a sweep has the worst of its runs):
{TOLD}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command and give its exit status; bad input is one message on stderr and status 2."""
    try:
        if not (sys.argv[1:] if argv is None else argv):
            _parser().print_help(sys.stderr)
            return ExitStatus.BAD_INPUT
        arguments = _parser().parse_args(argv)
        return arguments.execute(arguments)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return ExitStatus.BAD_INPUT
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:  # whoever read our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.DONE
    except SystemExit as ending:  # --help and --version
        return int(ending.code or 0)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(self.prog, problem=message, cure=f"see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="grapevine",
        description="Decentralized training over emulated wide-area networks.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"grapevine {metadata.version('grapevine')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (run, poke, sweep, report, topology, probe, check, list, cleanup):
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
