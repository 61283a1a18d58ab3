"""`grapevine probe`: measure the emulated network without training, and compare planned and measured figures."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from grapevine.experiments.cli.source import Commands, add_command, add_experiment, errors_from, place, read_experiment
from grapevine.experiments.config.errors import ConfigError

EXAMPLES = """\
  grapevine probe ring.toml
  grapevine probe ring.toml --set network.name=regions --json
  grapevine probe ring.toml --html links.html
"""


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(
        commands, "probe", execute, "measure the emulated network without training: asked against got", EXAMPLES
    )
    add_experiment(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object for each link")
    parser.add_argument("--html", metavar="FILE", type=place, help="write a page with pictures")


def execute(arguments: argparse.Namespace) -> int:
    """Measure every link and print the figures."""
    experiment = read_experiment(arguments)
    with errors_from(arguments):
        from grapevine.experiments.probe.probe import probe

        rows = probe(experiment)
    if arguments.html is not None:
        from grapevine.experiments.probe.page import write_probe

        try:
            write_probe(experiment.name, rows, arguments.html)
        except ValueError as error:
            raise ConfigError(source="--html", problem=str(error)) from None
    from grapevine.experiments.results.summary import clean

    if arguments.json:
        print(json.dumps(clean(rows), indent=2))
        return 0
    from grapevine.experiments.probe.page import verdict
    from grapevine.experiments.report.text_table import print_columns
    from grapevine.experiments.terminal import open_console

    console = open_console()
    hidden = print_columns(console, *_columns(rows))
    if hidden:
        console.print(f"{hidden} more column{'s do' if hidden > 1 else ' does'} not fit this terminal: use --json or --html")
    console.print(verdict(rows), markup=False)
    if arguments.html is not None:
        console.print(str(arguments.html), markup=False)
    return 0


RATES = (("kbit/s", 125.0), ("Mbit/s", 125e3), ("Gbit/s", 125e6))
DELAYS = (("us", 1e-6), ("ms", 1e-3), ("s", 1.0))


def _columns(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the titles, and a row for each directed link; all rates have one unit, and all delays have one."""
    from grapevine.experiments.report.text_table import in_unit, one_unit

    rate, rate_scale = one_unit([row["rate_got_bytes_per_s"] for row in rows], RATES)
    delay, delay_scale = one_unit(
        [max((row["delay_got_s"] for row in rows if not _unknown(row["delay_got_s"])), default=0.0)], DELAYS
    )
    titles = ["link", f"rate asked\n{rate}", f"got\n{rate}", "off\n%", f"delay asked\n{delay}", f"got\n{delay}"]
    titles += [f"p99\n{delay}", f"off\n{delay}"]
    more = [column for column in _further(rows) if any(cell != "-" for cell in column[1:])]
    titles += [title for title, *_ in more]
    lines = []
    for at, row in enumerate(rows, start=1):
        rates = (in_unit(row[f"rate_{name}_bytes_per_s"], rate_scale) for name in ("asked", "got"))
        delays = (in_unit(row[f"delay_{name}_s"], delay_scale) for name in ("asked", "got", "got_p99"))
        off = _signed(row["rate_error"], 0.01), _signed(row["delay_error_s"], delay_scale)
        lines.append([f"{row['source']} -> {row['target']}", *rates, off[0], *delays, off[1]])
        lines[-1] += [column[at] for column in more]
    return titles, lines


def _further(rows: Sequence[Mapping[str, Any]]) -> Iterable[list[str]]:
    """Yield the columns for some links only, each with its title first: jitter, sharing, single messages."""
    from grapevine.experiments.report.text_table import in_unit, one_unit

    def column(title: str, key: str, units: Any, like: str) -> list[str]:
        unit, scale = one_unit([row.get(like) for row in rows], units)
        return [f"{title}\n{unit}", *(in_unit(row.get(key), scale) for row in rows)]

    def off(key: str) -> list[str]:
        return ["off\n%", *(_signed(row.get(key), 0.01) for row in rows)]

    if any(row.get("jitter_asked_s") for row in rows):
        for share, name in (("5 %", "p05"), ("95 %", "p95")):
            yield column(f"{share} below, asked", f"delay_model_{name}_s", DELAYS, "delay_got_s")
            yield column("got", f"delay_got_{name}_s", DELAYS, "delay_got_s")
    yield column("all at once, asked", "share_asked_bytes_per_s", RATES, "share_got_bytes_per_s")
    yield column("got", "share_got_bytes_per_s", RATES, "share_got_bytes_per_s")
    yield off("share_error")
    yield column("64 KiB, asked", "transfer_model_s", DELAYS, "transfer_got_s")
    yield column("got", "transfer_got_s", DELAYS, "transfer_got_s")
    yield off("transfer_error")


def _signed(value: float | None, scale: float) -> str:
    if value is None or _unknown(value):
        return "-"
    text = f"{value / scale:+.2f}"
    return text[1:] if text in ("+0.00", "-0.00") else text


def _unknown(value: float | None) -> bool:
    return value is None or math.isnan(value)
