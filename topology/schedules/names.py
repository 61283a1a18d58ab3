"""Make schedules by name: the menu of all schedules, the check of the options, and `schedule`."""

from __future__ import annotations

from typing import Any, get_args

import networkx as nx

from grapevine.topology.graphs.names import part_named
from grapevine.topology.schedules.menu import (
    Base,
    EpidemicLocal,
    EpidemicOracle,
    EquiDynamic,
    HyperHypercube,
    KPeerExponential,
    Moshpit,
    OnePeerExponential,
    OnePeerHypercube,
    RandomMatching,
    SimpleBase,
    TimeVarying,
)
from grapevine.topology.schedules.rounds import Schedule
from grapevine.topology.schedules.switching import Laplacian, Matcha, OverGraph, RandomEdge, Teleportation

AnySchedule = (
    OnePeerExponential
    | KPeerExponential
    | OnePeerHypercube
    | HyperHypercube
    | SimpleBase
    | Base
    | EquiDynamic
    | EpidemicOracle
    | EpidemicLocal
    | RandomMatching
    | RandomEdge
    | Moshpit
    | Matcha
    | Laplacian
    | Teleportation
)


def schedule(name: str, n: int, seed: int = 0, **options: Any) -> Schedule:
    """Return the schedule of this name for n peers: `schedule("one-peer-exponential", 16)`, `schedule("base", 25, k=2)`.

    The result has `.period` (None if endless), `.matrix(t)` and `.graph(t)` for every round t from 0 on, `.max_degree`
    and `.directed`: see `topology.schedules.rounds.Schedule`. `schedule_menu()` holds the names and their options. The
    option `graph` is the name of a topology or any connected networkx graph on n nodes.

    Raises ValueError for an unknown name or option, for an option out of range, and if no such schedule exists for n
    peers; each message names a choice that works.
    """
    given = options.get("graph")
    kind = schedule_menu().get(name)
    if not isinstance(given, nx.Graph) or kind is None or not issubclass(kind, OverGraph):
        planned: Schedule = part_named("schedule", schedule_menu(), AnySchedule, name, options).plan(n, seed)
    else:
        rest = {key: value for key, value in options.items() if key != "graph"}
        planned = part_named("schedule", schedule_menu(), AnySchedule, name, rest).plan(n, seed, given)
    return planned


def schedule_menu() -> dict[str, type[TimeVarying]]:
    """Return all schedule classes by name, in the order of the menu."""
    return {str(kind.__struct_config__.tag): kind for kind in get_args(AnySchedule)}
