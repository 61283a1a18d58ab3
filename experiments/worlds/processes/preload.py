"""What the fork server holds before it forks: imported once, shared by every peer's process.

Objects that exist now are frozen out of the garbage collector, whose visits would copy their pages in every child.
"""

import gc

import numpy

import grapevine.experiments.tasks
import grapevine.experiments.worlds.processes.child  # noqa: F401
from grapevine.peer.aggregators import add_scaled

add_scaled(numpy.zeros(4, numpy.float32), numpy.zeros(4, numpy.float32), 1.0)  # loads what is loaded on first use
numpy.zeros((4, 4), numpy.float32) @ numpy.zeros((4, 4), numpy.float32)  # wakes the linear algebra library
gc.collect()
gc.freeze()
