"""Who talks to whom: graphs and schedules by name, from files or from networkx, their mixing matrices and their figures."""

from __future__ import annotations

from topology.analysis import Figures, analyse
from topology.files import read_graph
from topology.given import from_graph
from topology.graphs import AnyTopology, Topology
from topology.heterogeneity import neighbourhood_heterogeneity
from topology.mixing import RULES, mixing_matrix, sparse_mixing
from topology.names import AnySchedule, build, menu, schedule, schedules
from topology.rounds import Schedule, still
from topology.schedule_figures import ScheduleFigures, measured_contraction
from topology.schedules import TimeVarying
from topology.timing import cycle_time, link_delays

__all__ = [
    "RULES",
    "AnySchedule",
    "AnyTopology",
    "Figures",
    "Schedule",
    "ScheduleFigures",
    "TimeVarying",
    "Topology",
    "analyse",
    "build",
    "cycle_time",
    "from_graph",
    "link_delays",
    "measured_contraction",
    "menu",
    "mixing_matrix",
    "neighbourhood_heterogeneity",
    "read_graph",
    "schedule",
    "schedules",
    "sparse_mixing",
    "still",
]
