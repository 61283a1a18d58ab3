"""Who talks to whom: graphs and schedules by name, from files or from networkx, their mixing matrices and their figures."""

from __future__ import annotations

from grapevine.topology.analysis.figures import Figures, analyse
from grapevine.topology.analysis.graph_figures import stable_for_gradients
from grapevine.topology.analysis.heterogeneity import neighbourhood_heterogeneity
from grapevine.topology.analysis.schedule_figures import ScheduleFigures, measured_contraction
from grapevine.topology.analysis.timing import cycle_time, link_delays
from grapevine.topology.graphs.base import Topology
from grapevine.topology.graphs.files import read_graph
from grapevine.topology.graphs.given import from_graph
from grapevine.topology.graphs.menu import AnyTopology
from grapevine.topology.graphs.names import build, menu
from grapevine.topology.mixing.matrix import RULES, mixing_matrix, sparse_mixing
from grapevine.topology.schedules.menu import TimeVarying
from grapevine.topology.schedules.names import AnySchedule, schedule, schedule_menu
from grapevine.topology.schedules.rounds import Schedule, still

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
    "schedule_menu",
    "sparse_mixing",
    "stable_for_gradients",
    "still",
]
