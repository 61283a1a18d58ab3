"""Which peers exchange models: graphs and schedules by name, from files or networkx; their mixing matrices and figures."""

from __future__ import annotations

from grapevine.topology.analysis.figures import Figures, analyse
from grapevine.topology.analysis.graph_figures import stable_for_gradients
from grapevine.topology.analysis.heterogeneity import neighbourhood_heterogeneity
from grapevine.topology.analysis.schedule_figures import ScheduleFigures, measured_contraction
from grapevine.topology.analysis.timing import cycle_time, link_delays
from grapevine.topology.graphs.base import Laid, Topology
from grapevine.topology.graphs.circulants import EquiStatic, Exponential
from grapevine.topology.graphs.cliques import DCliques, MicroClouds
from grapevine.topology.graphs.expanders import ChordalCycle, MargulisGabberGalil, Paley
from grapevine.topology.graphs.files import read_graph
from grapevine.topology.graphs.given import from_graph
from grapevine.topology.graphs.menu import (
    AnyTopology,
    BarabasiAlbert,
    Barbell,
    BinaryTree,
    Complete,
    ErdosRenyi,
    File,
    Hypercube,
    Path,
    RandomRegular,
    Ring,
    Star,
    Torus,
    WattsStrogatz,
)
from grapevine.topology.graphs.names import build, menu
from grapevine.topology.graphs.overlays import Overlay
from grapevine.topology.graphs.places import Geographic
from grapevine.topology.mixing.matrix import RULES, mixing_matrix, sparse_mixing
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
from grapevine.topology.schedules.names import AnySchedule, schedule, schedule_menu
from grapevine.topology.schedules.rounds import Schedule, still
from grapevine.topology.schedules.switching import Laplacian, Matcha, RandomEdge, Teleportation

__all__ = [
    "RULES",
    "AnySchedule",
    "AnyTopology",
    "BarabasiAlbert",
    "Barbell",
    "Base",
    "BinaryTree",
    "ChordalCycle",
    "Complete",
    "DCliques",
    "EpidemicLocal",
    "EpidemicOracle",
    "EquiDynamic",
    "EquiStatic",
    "ErdosRenyi",
    "Exponential",
    "Figures",
    "File",
    "Geographic",
    "HyperHypercube",
    "Hypercube",
    "KPeerExponential",
    "Laid",
    "Laplacian",
    "MargulisGabberGalil",
    "Matcha",
    "MicroClouds",
    "Moshpit",
    "OnePeerExponential",
    "OnePeerHypercube",
    "Overlay",
    "Paley",
    "Path",
    "RandomEdge",
    "RandomMatching",
    "RandomRegular",
    "Ring",
    "Schedule",
    "ScheduleFigures",
    "SimpleBase",
    "Star",
    "Teleportation",
    "TimeVarying",
    "Topology",
    "Torus",
    "WattsStrogatz",
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
