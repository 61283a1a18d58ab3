"""The command line: `grapevine run`, `poke`, `sweep`, `report`, `topology`, `probe`, `check`, `list`, `cleanup`."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NoReturn

from grapevine.experiments.config.errors import ConfigError
from grapevine.experiments.exit_status import STATUS_TEXT, ExitStatus
from grapevine.experiments.terminal import Outlet, printable

READER_GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
"""The errors of a write after the reader of the output, or the terminal, has gone."""

EXAMPLES = f"""\
examples:
  grapevine run ring.toml                                   one experiment, with live progress
  grapevine run ring.toml --set strategy.name=ako --json    another strategy, only the summary, as JSON
  grapevine check ring.toml                                 validate it and estimate its times, without running it
  grapevine list strategies                                 all strategies, with every option

exit status (a sweep has the worst of its runs):
{STATUS_TEXT}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command and return its exit status; bad input is one message on stderr and status 2.

    An unexpected error is one message too, with the file that holds its traceback, and status 1. A reader that closes the
    output does not change the status; output that cannot be written, as on a full disk, changes 0 to 1.
    """
    out, err = Outlet(sys.stdout), Outlet(sys.stderr)
    to_out: Any = redirect_stdout(out)
    to_err: Any = redirect_stderr(err)
    with to_out, to_err:
        status = _carry_out(argv)
        out.flush()
        if isinstance(out.error, OSError) and out.error.errno not in READER_GONE:
            print(f"grapevine: the output could not be written: {out.error.strerror}", file=sys.stderr)
            status = status or ExitStatus.INCOMPLETE
        err.flush()
    out.close_the_broken()
    err.close_the_broken()
    return status


def _carry_out(argv: Sequence[str] | None) -> int:
    try:
        if not (sys.argv[1:] if argv is None else argv):
            _parser().print_help(sys.stderr)
            return ExitStatus.BAD_INPUT
        arguments = _parser().parse_args(argv)
        return int(arguments.execute(arguments))
    except ConfigError as error:
        print(printable(str(error)), file=sys.stderr)
        return ExitStatus.BAD_INPUT
    except KeyboardInterrupt:
        print("grapevine: interrupted", file=sys.stderr)
        return ExitStatus.INTERRUPTED
    except MemoryError as error:
        details = " ".join(str(error).split()) or "the system has no more"
        print(printable(f"grapevine: out of memory ({details}); use fewer peers or a smaller model"), file=sys.stderr)
        return ExitStatus.INCOMPLETE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(printable(f"grapevine: {where}{error.strerror or error}"), file=sys.stderr)
        return ExitStatus.INCOMPLETE
    except SystemExit as ending:  # --help and --version
        return int(ending.code or 0)
    except Exception as error:  # noqa: BLE001 - the last clause: users never see a traceback
        print(printable(f"grapevine: {_last_words(error)}"), file=sys.stderr)
        return ExitStatus.INCOMPLETE


def _last_words(error: Exception) -> str:
    """Return one sentence on an unexpected error, with the file that holds its traceback."""
    import tempfile
    import traceback

    text = " ".join(f"{type(error).__name__}: {error}".split())
    text = f"unexpected error ({text if len(text) <= 200 else f'{text[:197]}...'})"
    try:
        with tempfile.NamedTemporaryFile("w", -1, "utf-8", prefix="grapevine-error-", suffix=".txt", delete=False) as file:
            file.write("".join(traceback.format_exception(error)).encode("utf-8", "replace").decode("utf-8"))
    except OSError as trouble:
        return f"{text}; its traceback could not be written ({trouble.strerror})"
    return f"{text}; its traceback is in {file.name}: please report the error with that file"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(self.prog, problem=message, cure=f"see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    from importlib import metadata  # imported here, where `main` handles an interrupt, like the commands

    from grapevine.experiments.cli import check, cleanup, list, poke, probe, report, run, sweep, topology

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
