"""`grapevine list`: all menus with their parts, and all options with their defaults."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from grapevine.experiments.cli.source import Commands, add_command
from grapevine.experiments.config.errors import ConfigError, unknown_name
from grapevine.experiments.config.overrides import is_reference

if TYPE_CHECKING:
    from rich.console import Console

    from grapevine.experiments.config.menus import Menu, Option

EXAMPLES = """\
  grapevine list                  all menus
  grapevine list strategies       one menu
  grapevine list experiment       the keys outside the menus: name, seed, peers, [stop], [record]
  grapevine list mine:ChocoSGD    a part of your own, from mine.py in this folder or on PYTHONPATH
"""


def add(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "list", execute, "list the parts of experiments, with all options", EXAMPLES)
    menus = "strategies, topologies, networks, ..., or module:Class of a part of your own (default: all menus)"
    parser.add_argument("menu", metavar="MENU", nargs="?", help=menus)


def execute(arguments: argparse.Namespace) -> int:
    """Print the menus."""
    from rich.console import Console

    from grapevine.experiments.config.menus import LISTS, MENUS

    if is_reference(arguments.menu):
        _print_own(Console(highlight=False), arguments.menu)
        return 0
    menus = [*MENUS.values(), *LISTS.values()]
    by_name = {menu.plural: menu for menu in menus}
    wanted = by_name.get(arguments.menu) or MENUS.get(arguments.menu)
    if arguments.menu not in (None, "experiment") and wanted is None:
        raise unknown_name("grapevine list", arguments.menu, "menu", [*by_name, "experiment"])
    console = Console(highlight=False)
    if wanted is None:
        _print_experiment(console)
    for menu in menus:
        if arguments.menu is None or menu is wanted:
            _print_menu(console, menu)
    return 0


def _print_experiment(console: Console) -> None:
    """Print the keys outside the menus."""
    from grapevine.experiments.config.experiment import PLAIN_TABLES, Experiment
    from grapevine.experiments.config.menus import LISTS, MENUS, options, summary

    _title(console, "experiment", "at the top of the file, above the first [table]")
    _rows(console, 4, _described(options(Experiment, without={*MENUS, *PLAIN_TABLES, *LISTS})))
    for key, table in PLAIN_TABLES.items():
        _rows(console, 2, [(Text(f"[{key}]", "bold"), Text(summary(table)))])
        _rows(console, 4, _described(options(table)))
    console.print()


def _print_own(console: Console, reference: str) -> None:
    """Print the description and the options of a user's own part."""
    from grapevine.experiments.config.menus import LISTS, MENUS
    from grapevine.experiments.config.own_parts import load

    menus = [menu for menu in (*MENUS.values(), *LISTS.values()) if menu.own]
    bases = [base for menu in menus for base in menu.bases]
    try:
        part = load(reference, Path.cwd(), "", "part of an experiment", bases)
    except ConfigError as error:
        raise error.at("grapevine list") from None
    menu = next(menu for menu in menus if issubclass(part, menu.bases))
    table = f"[[{menu.plural}]]" if menu.plural in LISTS else f"[{menu.key}]"
    _title(console, menu.key, f'name = "{reference}" in {table} of the file')
    _print_parts(console, {reference: part})


def _print_menu(console: Console, menu: Menu) -> None:
    """Print all parts of a menu, family by family."""
    from grapevine.experiments.config.menus import LISTS, home_of_class, summary

    table = f"[[{menu.plural}]]" if menu.plural in LISTS else f"[{menu.key}]"
    home = home_of_class(next(iter(menu.members.values())))
    _title(console, menu.plural, f"{table} in the file; in Python the class in brackets, from {home}")
    for base in menu.bases:
        if len(menu.bases) > 1:
            _rows(console, 1, [(Text(""), Text(summary(base), "italic"))])
        _print_parts(console, {name: part for name, part in menu.members.items() if issubclass(part, base)})
    console.print()


def _print_parts(console: Console, parts: dict[str, Any]) -> None:
    """Print the parts of one family, each with its Python class; options that more than half of them share come first."""
    from grapevine.experiments.config.menus import options, summary

    each = {name: list(options(part)) for name, part in parts.items()}
    found = [option for one in each.values() for option in one]
    shared = set.intersection(*({option.name for option in one} for one in each.values())) if len(each) > 1 else set()
    common = [option for option in dict.fromkeys(found) if option.name in shared and found.count(option) > len(each) / 2]
    varied = any(option not in one for option in common for one in each.values())
    if common:
        heading = "options of each, unless listed differently below:" if varied else "options of each:"
        _rows(console, 2, [(Text("all", "bold"), Text(heading))])
        _rows(console, 4, _described(common))
    for name, part in parts.items():
        shown = Text.assemble((name, "bold"), "" if is_reference(name) else f" ({part.__name__})")
        _rows(console, 2, [(shown, Text(summary(part)))])
        _rows(console, 4, _described(option for option in each[name] if option not in common))


def _title(console: Console, title: str, where: str) -> None:
    console.print(Text.assemble((title, "bold underline"), f"  ({where})"))


def _described(options: Iterable[Option]) -> Iterator[tuple[Text, Text]]:
    """Yield name and default of each option, and its meaning; with the values that it takes, if these do not show them."""
    for option in options:
        default = " (needed)" if option.default is None else f" = {option.default}" if option.default else ""
        choices = option.takes.removeprefix("one of ").split(", ") if option.takes.startswith("one of ") else []
        shown = all(choice.strip('"') in option.meaning for choice in choices) if choices else bool(option.default)
        takes = "" if shown or option.takes in option.meaning else f"; {option.takes}"
        yield Text(option.name + default), Text.assemble(option.meaning.rstrip("."), (takes, "dim"))


def _rows(console: Console, indent: int, rows: Iterable[tuple[Text, Text]]) -> None:
    """Print names on the left and their text on the right, in columns of the same width for all menus."""
    table = Table.grid(padding=(0, 2))
    table.add_column(width=34 - indent, overflow="fold")
    table.add_column(ratio=1)
    for row in rows:
        table.add_row(*row)
    if table.row_count:
        console.print(Padding(table, (0, 0, 0, indent)))
