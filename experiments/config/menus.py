"""Every menu of an experiment file in one place, and what each of its parts says about itself."""

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

from grapevine.experiments.config.errors import ConfigError, show_value, unknown_name
from grapevine.experiments.config.events import AnyEvent
from grapevine.experiments.config.fields import check_struct, expectation, read_struct
from grapevine.experiments.config.overrides import anchor_table
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
    """What may be given, in words."""
    default: str | None
    """As a file would write it; "" = left out, None = it must be given."""
    meaning: str


class Menu:
    """The parts that one table of an experiment file chooses from, by `name` (or what else `chooser` says)."""

    def __init__(self, key: str, plural: str, union: Any, chooser: str = "name") -> None:
        self.key = key
        self.plural = plural
        self.chooser = chooser
        classes = get_args(union) or (union,)
        self.members: dict[str, type[msgspec.Struct]] = {name_of(cls): cls for cls in classes}
        self.bases = tuple(dict.fromkeys(_base(cls) for cls in classes))

    def read(self, table: Any, key: str = "") -> Any:
        """The part that `table`, as TOML gave it, describes; raises ConfigError.  `key`: its place, if not the menu's."""
        key, chooser = key or self.key, self.chooser
        if not isinstance(table, Mapping):
            meant = table if isinstance(table, str) and table in self.members else next(iter(self.members))
            cure = f'write {key}.{chooser} = "{meant}"'
            raise ConfigError(key=key, value=table, problem=f"{show_value(table)} is no table", cure=cure)
        rest = dict(table)
        name = rest.pop(chooser, None)
        if name is None:
            raise ConfigError(key=f"{key}.{chooser}", problem="is missing", cure=f"known: {', '.join(sorted(self.members))}")
        if name == FROM_PYTHON:
            cure = f"give {key}=... in Python again, or choose one of: {', '.join(sorted(self.members))}"
            problem = f"this {key} was given from Python ({rest.get('type', 'unknown')}) and no file can hold it"
            raise ConfigError(key=key, problem=problem, cure=cure)
        if not isinstance(name, str) or name not in self.members:
            raise unknown_name(f"{key}.{chooser}", name, self.key, self.members)
        return read_struct(self.members[name], rest, key, name, self._home)

    def check(self, part: Any, key: str = "") -> Any:
        """The part as a file would give it (lists, paths), so that equal parts are equal; what no file can hold, as it is.

        `key` is as for `read`.  Raises ConfigError for what is no part of this family, and for fields out of their range.
        """
        if not isinstance(part, self.bases):
            raise self._foreign(part)
        table = self.table(part)
        if table is None:
            check_struct(part, key or self.key)
            return part
        return self.read(anchor_table({name: value for name, value in table.items() if value is not None}, Path()), key)

    def table(self, part: Any) -> dict[str, Any] | None:
        """A part as a file would write it; None for one that no file can hold."""
        if type(part) not in self.members.values():
            return None
        try:
            plain: dict[str, Any] = msgspec.to_builtins(part)
            return plain
        except TypeError:  # it holds something that only Python can
            return None

    def _foreign(self, part: Any) -> ConfigError:
        """The error for what is no part of this family, with the nearest that is."""
        if isinstance(part, type):
            return ConfigError(
                key=self.key, problem=f"{part.__name__} is a class", cure=f"write {self.key}={part.__name__}(...)"
            )
        member = self.members.get(part) if isinstance(part, str) else None
        others = ", a schedule or a networkx graph" if self.key == "topology" else ""
        cure = f"write {self.key}={member.__name__}()" if member else f"give a {self.bases[0].__name__}{others}"
        return ConfigError(key=self.key, problem=f"{type(part).__name__} is no {self.key}", cure=cure)

    def _home(self, field: str) -> str:
        """Where a key that this part lacks does belong: to another of the menu, or elsewhere."""
        owners = [name for name, cls in self.members.items() if field in cls.__struct_fields__]
        return f"{field} belongs to {', '.join(owners)}" if owners else home_of(field)


FROM_PYTHON = "from-python"
"""The `name` of a table that stands for a part which no file can hold."""


def name_of(part: Any) -> str:
    """The name of a part (or its class) in its menu; a part of the user's own: its tag, or the name of its class."""
    cls = part if isinstance(part, type) else type(part)
    config = getattr(cls, "__struct_config__", None)
    return str(config.tag) if config is not None and config.tag is not None else cls.__name__


def home_of(field: str) -> str:
    """Which table of a file a key belongs to, in a hint; "" where that is not clear."""
    if field in ("seed", "peers"):
        return f"{field} stands at the top, above the first [table]"
    tables = [menu.key for menu in MENUS.values() if any(field in cls.__struct_fields__ for cls in menu.members.values())]
    return f"{field} belongs to [{tables[0]}]" if len(tables) == 1 else ""


def summary(cls: type) -> str:
    """The one-line description: the first line of the class's docstring."""
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def options(cls: type[msgspec.Struct], without: Container[str] = ()) -> Iterator[Option]:
    """The fields of a part, in order."""
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
    """What the source says under each field of a class and of those it inherits from: its docstring, on one line."""
    docs: dict[str, str] = {}
    for ancestor in reversed(cls.__mro__):
        if ancestor in (object, msgspec.Struct) or not issubclass(ancestor, msgspec.Struct):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(ancestor))).body[0]
        except (OSError, TypeError, SyntaxError):  # a class typed at a prompt has no source
            continue
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for field, below in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                if isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
                    docs[field.target.id] = " ".join(below.value.value.split())
    return docs


def _base(cls: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """What all parts of a menu derive from: the oldest ancestor that is a configuration."""
    return [kin for kin in cls.__mro__ if issubclass(kin, msgspec.Struct) and kin is not msgspec.Struct][-1]


MENUS: dict[str, Menu] = {
    menu.key: menu
    for menu in (
        Menu("world", "worlds", AnyWorld),
        Menu("topology", "topologies", AnyTopology | AnySchedule),
        Menu("network", "networks", AnyNetwork),
        Menu("devices", "devices", AnyDevices),
        Menu("task", "tasks", AnyTask),
        Menu("partition", "partitions", AnyPartition),
        Menu("strategy", "strategies", AnyStrategy),
        Menu("codec", "codecs", AnyCodec),
        Menu("aggregator", "aggregators", AnyAggregator),
        Menu("optimizer", "optimizers", AnyOptimizer),
    )
}
"""By the table of the file that chooses from it."""

EVENTS = Menu("event", "events", AnyEvent, "do")
"""What the entries of [[events]] choose from, by `do`."""

WRAPPERS = Menu("wrapper", "wrappers", AnyWrapper)
"""What the entries of [[wrappers]] choose from."""

LISTS: dict[str, Menu] = {menu.plural: menu for menu in (EVENTS, WRAPPERS)}
"""By the list of tables, [[events]] or [[wrappers]], each of whose entries chooses from it."""
