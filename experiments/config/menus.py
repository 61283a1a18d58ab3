"""All menus of an experiment file, and the descriptions of their parts and options."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Container, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec

import grapevine
from grapevine import topology
from grapevine.experiments.config.errors import ConfigError, show_value, unknown_name
from grapevine.experiments.config.events import AnyEvent
from grapevine.experiments.config.fields import check_struct, expectation, read_struct
from grapevine.experiments.config.membership import AnyMembership
from grapevine.experiments.config.overrides import FROM, anchor_table, is_reference
from grapevine.experiments.config.own_parts import folder_of, load, reference_of, refuse_unwritten, travels
from grapevine.experiments.config.sections import AnyWorld
from grapevine.experiments.config.wrappers import AnyWrapper
from grapevine.experiments.tasks import AnyTask
from grapevine.experiments.tasks.partitions import AnyPartition
from grapevine.netem.devices.menu import AnyDevices
from grapevine.netem.networks.menu import AnyNetwork
from grapevine.peer.aggregators import AnyAggregator
from grapevine.peer.codecs import AnyCodec
from grapevine.peer.optimizers import AnyOptimizer
from grapevine.peer.strategies import AnyStrategy
from grapevine.topology import AnySchedule, AnyTopology


class Option(NamedTuple):
    """One field of a part."""

    name: str
    takes: str
    """The values that the field takes, in words."""
    default: str | None
    """The default as a file would write it; "" = left out, None = there is none: the field must be given."""
    meaning: str


class Menu:
    """The parts that one table of an experiment file can name, by its key `name` (or another key, `chooser`).

    If `own` is set, the table may also name a user's own part, as "module:Class".
    """

    def __init__(self, key: str, plural: str, union: Any, chooser: str = "name", own: bool = True) -> None:
        self.key = key
        self.plural = plural
        self.chooser = chooser
        self.own = own
        classes = get_args(union) or (union,)
        self.members: dict[str, type[msgspec.Struct]] = {name_of(cls): cls for cls in classes}
        self.bases = tuple(dict.fromkeys(_base(cls) for cls in classes))

    def read(self, table: Any, key: str = "") -> Any:
        """Return the part that `table`, as TOML gave it, describes; raise ConfigError. `key`: its place, if not the menu's.

        A part as a value, as in a sweep from Python, is checked and returned.
        """
        key, chooser = key or self.key, self.chooser
        if isinstance(table, self.bases):
            return self.check(table, key)
        if not isinstance(table, Mapping):
            guess = table if isinstance(table, str) and table in self.members else next(iter(self.members))
            cure = f'write {key}.{chooser} = "{guess}"'
            raise ConfigError(key=key, value=table, problem=f"{show_value(table)} is not a table", cure=cure)
        rest = dict(table)
        name = rest.pop(chooser, None)
        if name is None:
            raise ConfigError(key=f"{key}.{chooser}", problem="is missing", cure=f"known: {', '.join(sorted(self.members))}")
        if name == FROM_PYTHON:
            cure = f"give {key}=... in Python again, or choose one of: {', '.join(sorted(self.members))}"
            problem = f"this {key} was given from Python ({rest.get('type', 'unknown')}), and a file cannot hold it"
            raise ConfigError(key=key, problem=problem, cure=cure)
        if self.own and is_reference(name):
            folder = rest.pop(FROM, None)
            if folder is not None and not isinstance(folder, str):
                raise ConfigError(
                    key=f"{key}.{FROM}", value=folder, problem="is not a folder", cure='write text, such as "parts"'
                )
            cls = load(name, None if folder is None else Path(folder), f"{key}.{chooser}", self.key, self.bases)
            refuse_unwritten(cls, key, name)
            return read_struct(cls, rest, key, name, self._home, cls in self.members.values())
        if not isinstance(name, str) or name not in self.members:
            raise unknown_name(f"{key}.{chooser}", name, self.key, self.members)
        return read_struct(self.members[name], rest, key, name, self._home)

    def check(self, part: Any, key: str = "") -> Any:
        """Return the part in the form that a file would give it (lists, paths), so that equal parts compare equal.

        A part that a file cannot hold is returned unchanged. `key` is as for `read`. Raises ConfigError for a value that is not
        of this menu, and for fields out of range.
        """
        if not isinstance(part, self.bases):
            raise self._foreign(part)
        fields = self._fields(part)
        refuse_unwritten(type(part), key or self.key, self.called(part))
        if fields is None or not self.holds(part):
            check_struct(part, key or self.key)
        if fields is None:
            return part
        table, limits = anchor_table(fields, Path()), self.holds(part)
        return read_struct(type(part), table, key or self.key, self.called(part), self._home, limits)

    def holds(self, part: Any) -> bool:
        """Return whether a part is a built-in one, of this menu, and not a user's own."""
        return type(part) in self.members.values()

    def called(self, part: Any) -> str:
        """Return a part's name in a file: its name in the menu, a user's "module:Class", or else the name of its class."""
        return name_of(part) if self.holds(part) else reference_of(type(part)) or type(part).__name__

    def table(self, part: Any) -> dict[str, Any] | None:
        """Return a part as a file would write it; None for one that a file cannot hold."""
        fields = self._fields(part)
        if fields is None:
            return None
        if self.holds(part):
            return {self.chooser: name_of(part), **fields}
        name = reference_of(type(part)) if self.own and isinstance(part, self.bases) else None
        folder = folder_of(type(part))
        return None if name is None else {self.chooser: name, **({FROM: str(folder)} if folder else {}), **fields}

    def travels(self, part: Any) -> bool:
        """Return whether another process can read the part from a file: not for values that only Python can hold, nor for a
        class that is defined in a script or notebook."""
        table = self.table(part)
        return table is not None and (self.holds(part) or travels(table[self.chooser]))

    def _fields(self, part: Any) -> dict[str, Any] | None:
        """Return a part's fields as a file would hold them, without those that are None; None if a file cannot hold them."""
        if not isinstance(part, msgspec.Struct):
            return None
        try:
            whole: dict[str, Any] = msgspec.to_builtins(part)
            tag = part.__struct_config__.tag_field
            fields = {name: value for name, value in whole.items() if value is not None and name != tag}
            if self.holds(part):
                return fields
            again = read_struct(type(part), fields, self.key, "", limits=False)
        except (TypeError, ValueError, NameError):  # a field has a value that only Python can hold
            return None
        return fields if _alike(again, part) else None

    def _foreign(self, part: Any) -> ConfigError:
        """Return the error for a value that is not of this menu, with the cure."""
        if isinstance(part, type):
            return ConfigError(
                key=self.key, problem=f"{part.__name__} is a class, not a value", cure=f"write {self.key}={part.__name__}(...)"
            )
        member = self.members.get(part) if isinstance(part, str) else None
        others = ", a schedule or a networkx graph" if self.key == "topology" else ""
        cure = f"give a {self.bases[0].__name__}{others}"
        if member:
            cure = f"write {self.key}={member.__name__}() (from {home_of_class(member)} import {member.__name__})"
        return ConfigError(key=self.key, problem=f"a value of type {type(part).__name__} is not valid here", cure=cure)

    def _home(self, field: str) -> str:
        """Return a hint to the part or table to which a key belongs that this part lacks; "" = none."""
        owners = [name for name, cls in self.members.items() if field in cls.__struct_fields__]
        return f"{field} belongs to {', '.join(owners)}" if owners else home_of(field)


def _alike(read: Any, given: Any) -> bool:
    """Return whether two values are equal in value and type; a list counts as a tuple, and a whole number as a float."""
    if isinstance(given, msgspec.Struct):
        names = given.__struct_fields__
        return type(read) is type(given) and all(_alike(getattr(read, name), getattr(given, name)) for name in names)
    if type(given) in (list, tuple):
        return type(read) in (list, tuple) and len(read) == len(given) and all(map(_alike, read, given))
    if type(given) is dict:
        return type(read) is dict and read.keys() == given.keys() and all(_alike(read[key], given[key]) for key in given)
    return (type(read) is type(given) or {type(read), type(given)} == {int, float}) and bool(read == given)


FROM_PYTHON = "from-python"
"""The `name` of a table that replaces a part which a file cannot hold."""


def name_of(part: Any) -> str:
    """Return the name of a part (or its class) in its menu; for a user's own part its tag, or the name of its class."""
    cls = part if isinstance(part, type) else type(part)
    config = getattr(cls, "__struct_config__", None)
    return str(config.tag) if config is not None and config.tag is not None else cls.__name__


def home_of_class(cls: type) -> str:
    """Return the package from which users import the class of a part: "grapevine", or "grapevine.topology"."""
    homes = [home.__name__ for home in (grapevine, topology) if getattr(home, cls.__name__, None) is cls]
    return homes[0] if homes else cls.__module__


def home_of(field: str) -> str:
    """Return a hint to the table of a file to which a key belongs; "" if there is no such table, or several."""
    if field in ("seed", "peers"):
        return f"write {field} at the top of the file, above the first [table]"
    tables = [menu.key for menu in MENUS.values() if any(field in cls.__struct_fields__ for cls in menu.members.values())]
    return f"{field} belongs to [{tables[0]}]" if len(tables) == 1 else ""


def summary(cls: type) -> str:
    """Return the one-line description: the first line of the class's docstring."""
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def options(cls: type[msgspec.Struct], without: Container[str] = ()) -> Iterator[Option]:
    """Yield the fields of a part, in order."""
    meanings = field_docs(cls)
    for field in msgspec.structs.fields(cls):
        if field.name in without:
            continue
        default: str | None = None
        if not field.required:
            value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
            default = "" if value is None else show_value(msgspec.to_builtins(value))
        yield Option(field.encode_name, expectation(field.type), default, meanings.get(field.name, ""))


@cache
def field_docs(cls: type) -> dict[str, str]:
    """Return the docstring below each field of a class and of its base classes, each on one line."""
    docs: dict[str, str] = {}
    for ancestor in reversed(cls.__mro__):
        if ancestor in (object, msgspec.Struct) or not issubclass(ancestor, msgspec.Struct):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(ancestor))).body[0]
        except (OSError, TypeError, SyntaxError):  # a class that was typed at a prompt has no source
            continue
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for field, below in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                if isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
                    docs[field.target.id] = " ".join(below.value.value.split())
    return docs


def _base(cls: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return the base class of all parts of a menu: the oldest ancestor that is a msgspec.Struct."""
    return [kin for kin in cls.__mro__ if issubclass(kin, msgspec.Struct) and kin is not msgspec.Struct][-1]


MENUS: dict[str, Menu] = {
    menu.key: menu
    for menu in (
        Menu("world", "worlds", AnyWorld, own=False),
        Menu("topology", "topologies", AnyTopology | AnySchedule),
        Menu("network", "networks", AnyNetwork),
        Menu("devices", "devices", AnyDevices),
        Menu("task", "tasks", AnyTask),
        Menu("partition", "partitions", AnyPartition),
        Menu("strategy", "strategies", AnyStrategy),
        Menu("codec", "codecs", AnyCodec),
        Menu("aggregator", "aggregators", AnyAggregator),
        Menu("optimizer", "optimizers", AnyOptimizer),
        Menu("membership", "memberships", AnyMembership),
    )
}
"""Table of the file -> its menu."""

EVENTS = Menu("event", "events", AnyEvent, "do", own=False)
"""The menu of the tables [[events]], by `do`."""

WRAPPERS = Menu("wrapper", "wrappers", AnyWrapper)
"""The menu of the tables [[wrappers]]."""

LISTS: dict[str, Menu] = {menu.plural: menu for menu in (EVENTS, WRAPPERS)}
"""List of tables, [[events]] or [[wrappers]] -> the menu of its entries."""
