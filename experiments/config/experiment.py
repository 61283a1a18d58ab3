"""An experiment: one frozen value with all settings of a run, from a TOML file or from Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
import networkx as nx

from grapevine.experiments.config import toml
from grapevine.experiments.config.errors import ConfigError, show_value, unknown_key
from grapevine.experiments.config.events import Event
from grapevine.experiments.config.fields import expectation, fields_of, read_field, read_struct
from grapevine.experiments.config.membership import Always, Membership
from grapevine.experiments.config.menus import FROM_PYTHON, LISTS, MENUS, Menu, home_of, name_of
from grapevine.experiments.config.overrides import SOURCE, anchor, anchor_settings, concerns, look_beside, overlay
from grapevine.experiments.config.own_parts import code_digest
from grapevine.experiments.config.sections import AnyWorld, Processes, Record, Stop, Virtual, World
from grapevine.experiments.tasks import Digits, Task
from grapevine.experiments.tasks.partitions import Iid, Partition
from grapevine.netem import Devices, HostDevices, Network, Unshaped
from grapevine.peer.aggregators import Aggregator, Mean
from grapevine.peer.codecs import Codec, Float32
from grapevine.peer.optimizers import Optimizer, Sgd
from grapevine.peer.strategies import DPSGD, Strategy
from grapevine.peer.wrappers import Wrapper
from grapevine.topology import Schedule, TimeVarying
from grapevine.topology.graphs.base import Topology
from grapevine.topology.graphs.menu import Ring

__all__ = ["AnyWorld", "ConfigError", "Experiment", "Processes", "Record", "Stop", "Virtual", "World", "name_of"]

PEERS = 8
_AS_THE_GRAPH = cast(int, None)


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of one run; every part has a default, so that `Experiment()` runs.

    Parts are values: a member of a menu, or an instance of your own subclass of `Strategy`, `Task`, `Topology`, ...; as
    `topology` any networkx graph on the nodes 0 to n-1, or any `topology.schedule(...)`, may be given. Raises ConfigError,
    naming key, value and cure.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = "experiment"
    """Name of the run: up to 200 printable characters."""
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    """The seed of all random numbers; >= 0."""
    peers: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = _AS_THE_GRAPH
    """Number of peers; 1 to 100,000, and as many as fit the memory; left out = 8, or the number of nodes of a graph given
    from Python."""
    world: World = Processes()
    topology: Topology | TimeVarying | nx.Graph | Schedule = Ring()
    network: Network = Unshaped()
    devices: Devices = HostDevices()
    task: Task = Digits()
    partition: Partition = Iid()
    strategy: Strategy = DPSGD()
    codec: Codec = Float32()
    aggregator: Aggregator = Mean()
    optimizer: Optimizer = Sgd()
    membership: Membership = Always()
    stop: Stop = Stop(steps=100)
    record: Record = Record()
    events: tuple[Event, ...] = ()
    """Changes during the run, each a table [[events]] with `at` and `do`; see `grapevine list events`."""
    wrappers: tuple[Wrapper, ...] = ()
    """Faults and attacks between strategies and the world, each a table [[wrappers]]; see `grapevine list wrappers`."""

    def __post_init__(self) -> None:
        peers = _peers_of(self.topology)
        if self.peers is None:
            msgspec.structs.force_setattr(self, "peers", peers or PEERS)
        for field in fields_of(Experiment):
            part = getattr(self, field.name)
            if field.name in MENUS:
                if not (field.name == "topology" and peers is not None):
                    msgspec.structs.force_setattr(self, field.name, MENUS[field.name].check(part))
            elif field.name in LISTS:
                msgspec.structs.force_setattr(self, field.name, _listed(field.name, part))
            elif field.name not in PLAIN_TABLES:
                read_field(field.type, part, field.name)
            elif not isinstance(part, PLAIN_TABLES[field.name]):
                cure = f"expected {expectation(field.type)}: {PLAIN_TABLES[field.name].__name__}(...)"
                raise ConfigError(key=field.name, value=part, problem=f"{part!r} is not valid", cure=cure)
            else:
                read_struct(PLAIN_TABLES[field.name], _given(part), field.name, field.name)
        if not self.name.isprintable():
            problem = "has a character that is not printable and could control a terminal"
            raise ConfigError(key="name", value=self.name, problem=problem, cure="use letters, digits, spaces and punctuation")
        if peers is not None and peers != self.peers:
            problem = f"{self.peers} peers, but the graph given has {peers} nodes"
            cure = f"pass peers={peers}, or leave peers out"
            raise ConfigError(key="peers", value=self.peers, problem=problem, cure=cure)

    @classmethod
    def read(cls, path: str | Path, settings: Mapping[str, Any] | None = None) -> Experiment:
        """Return the experiment in a TOML file; `settings` ("table.key" -> value) replace its keys before it is checked.

        Paths inside the file are relative to the file, those in `settings` to the working directory. Without the key `name`
        the run has the file's name. Raises ConfigError, also for an empty file.
        """
        document = toml.read_document(Path(path), str(path))
        return cls.from_document(document, str(path), Path(path).parent, settings)

    @classmethod
    def parse(
        cls, text: str, source: str = "experiment", folder: Path | None = None, settings: Mapping[str, Any] | None = None
    ) -> Experiment:
        """Return the experiment in a TOML text; `source` names it in errors, its paths are relative to `folder`."""
        return cls.from_document(toml.parse(text, source), source, folder, settings)

    @classmethod
    def from_document(
        cls,
        document: Mapping[str, Any],
        source: str = "experiment",
        folder: Path | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Experiment:
        """Return the experiment that plain dictionaries describe, in the form of a parsed TOML file."""
        settings, folder = anchor_settings(settings or {}, Path()), folder or Path()
        try:
            return cls(**_parts(look_beside(overlay(anchor(document, folder), settings, _defaults()), folder)))
        except ConfigError as error:
            raise error.at(SOURCE if concerns(settings, error.key) else source) from None

    def replace(self, **changes: Any) -> Experiment:
        """Return the same experiment with other parts: `experiment.replace(seed=1, strategy=Ako())`."""
        if "peers" not in changes and (peers := _peers_of(changes.get("topology"))) is not None:
            changes["peers"] = peers
        return msgspec.structs.replace(self, **changes)

    def set(self, key: str, text: str) -> Experiment:
        """Return the same experiment with one key changed as by `--set`: `experiment.set("network.rate", "5 Mbit/s")`.

        The text is read as TOML; text that is not TOML is taken literally, and empty text restores the default. Another
        `table.name` replaces the whole table.
        """
        settings = anchor_settings({key: toml.parse_value(text, key=key)}, Path())
        return Experiment(**_parts(look_beside(overlay(self.settings(), settings, _defaults()), Path())))

    def settings(self) -> dict[str, Any]:
        """Return `document`, with values where a file cannot hold a part; in this process `from_document` restores it."""
        document = self.document()
        for key, menu in MENUS.items():
            document[key] = menu.table(getattr(self, key)) or getattr(self, key)
        for key, menu in LISTS.items():
            if key in document:
                document[key] = [menu.table(part) or part for part in getattr(self, key)]
        return document

    def alike(self, keys: Iterable[str]) -> str:
        """Return a text that is the same for two experiments of this process if all of these keys are equal."""
        return repr([_identity(value) for key, value in self.settings().items() if key in {*keys}])

    def code(self) -> dict[str, str | None]:
        """Return a digest of the source of each part that is a user's own class; None if the source is unknown."""
        own = {}
        for key, menu, part in self._each_part():
            if menu.own and isinstance(part, menu.bases) and type(part) not in menu.members.values():
                own[f"{key} {menu.called(part)}" if key in LISTS else key] = code_digest(type(part))
        return own

    def document(self) -> dict[str, Any]:
        """Return all settings as plain dictionaries, defaults included; a part that a file cannot hold is named by its type."""
        document: dict[str, Any] = {}
        for key in self.__struct_fields__:
            part = getattr(self, key)
            document[key] = _given(part) if key in PLAIN_TABLES else part
            if key in LISTS:
                document[key] = [LISTS[key].table(each) or _marker(each) for each in part]
            if key in MENUS:
                document[key] = MENUS[key].table(part) or _marker(part)
        return {key: part for key, part in document.items() if part or key not in LISTS}

    def to_toml(self) -> str:
        """Return all settings as TOML, defaults included; reading it again gives an equal value.

        A user's own part is named by its module and class, with the folder of the module. A part that no other process can read
        (`here_alone`) is described in a comment.
        """
        comments = {}
        for key in (given := self.here_alone()):
            alone = next(part for name, menu, part in self._each_part() if name == key and not menu.travels(part))
            why = "Given from Python; a file cannot hold it:"
            why = "Defined in a script or notebook:" if (MENUS | LISTS)[key].table(alone) else why
            comments[key] = [why, _on_one_line(alone)]
        if given:
            comments[""] = [f"This file cannot be read again: {', '.join(given)} came from Python."]
        return toml.dump(self.document(), comments)

    def here_alone(self) -> list[str]:
        """Return the keys of the parts that no other process can read: values that only Python can hold, and a user's own
        classes that are defined in a script, in a notebook or inside a function."""
        return list(dict.fromkeys(key for key, menu, part in self._each_part() if not menu.travels(part)))

    def _each_part(self) -> Iterator[tuple[str, Menu, Any]]:
        """Yield every part with its key and menu, also each part of a list."""
        for key, menu in MENUS.items():
            yield key, menu, getattr(self, key)
        for key, menu in LISTS.items():
            for part in getattr(self, key):
                yield key, menu, part


def _identity(value: Any) -> Any:
    """Return a plain value unchanged; for a value that a file cannot hold, the identity of the object."""
    if isinstance(value, list | tuple):
        return [_identity(part) for part in value]
    return value if value is None or isinstance(value, bool | int | float | str | dict) else id(value)


def _marker(part: Any) -> dict[str, str]:
    """Return the table that replaces, in a document, a part that a file cannot hold."""
    return {"name": FROM_PYTHON, "type": f"{type(part).__module__}.{type(part).__qualname__}"}


def _peers_of(given: Any) -> int | None:
    """Return the number of peers of a graph or schedule given from Python; None for a part of the menu: it fits any number."""
    if isinstance(given, Schedule):
        return given.n
    return len(given) if isinstance(given, nx.Graph) else None


PLAIN_TABLES: dict[str, type[msgspec.Struct]] = {"stop": Stop, "record": Record}
"""The tables without a menu."""


def _parts(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of Experiment from a document; raise ConfigError for the first wrong key."""
    fields = {field.name: field for field in fields_of(Experiment)}
    parts: dict[str, Any] = {}
    for key, value in document.items():
        if key in ("sweep", "tune"):
            cure = "run the file with `grapevine sweep`, or take that table out"
            raise ConfigError(key=key, problem="belongs to a sweep of many runs, and this is one run", cure=cure)
        if key not in fields:
            raise unknown_key(key, "an experiment", fields, home_of(key))
        if key == "topology" and _peers_of(value) is not None:
            parts[key] = value
        elif key in MENUS:
            parts[key] = MENUS[key].read(value)
        elif key in LISTS:
            parts[key] = _listed(key, value)
        elif key not in PLAIN_TABLES:
            parts[key] = read_field(fields[key].type, value, key)
        elif isinstance(value, Mapping):
            parts[key] = read_struct(PLAIN_TABLES[key], value, key, key, home_of)
        else:
            cure = f"write [{key}], and below it its keys: {', '.join(PLAIN_TABLES[key].__struct_fields__)}"
            raise ConfigError(key=key, value=value, problem="is not a table", cure=cure)
    return parts


def _listed(key: str, given: Any) -> tuple[Any, ...]:
    """Return the parts of a list, given as tables or as values, in order."""
    menu = LISTS[key]
    if not isinstance(given, list | tuple):
        example = 'at = "30 s", do = "cut"' if menu.chooser == "do" else f'name = "{next(iter(menu.members))}"'
        cure = f"write [[{key}]], and below it {example}, ...; see `grapevine list {key}`"
        raise ConfigError(key=key, value=given, problem=f"{show_value(given)} is not a list of tables", cure=cure)
    parts = []
    for place, part in enumerate(given):
        read = menu.check if isinstance(part, menu.bases) else menu.read
        parts.append(read(part, f"{key}[{place}]"))
    return tuple(parts)


def _defaults() -> dict[str, dict[str, Any]]:
    """Return the tables to which settings are added if the file lacks them; [stop] begins empty."""
    parts = {field.name: field.default for field in fields_of(Experiment) if field.name in MENUS}
    return {key: msgspec.to_builtins(part) for key, part in parts.items()}


def _given(table: msgspec.Struct) -> dict[str, Any]:
    """Return the keys of a plain table without those that are None, which a file cannot hold."""
    return {key: value for key, value in msgspec.to_builtins(table).items() if value is not None}


def _on_one_line(part: Any) -> str:
    described = part.describe() if hasattr(part, "describe") else part  # for example the shape of data
    text = " ".join(repr(described).split())
    return text if len(text) <= 120 else f"{text[:117]}..."
