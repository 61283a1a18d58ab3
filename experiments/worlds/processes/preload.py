"""The modules that the fork server imports once, so that every peer's process shares their memory.

The objects that exist now are frozen out of the garbage collector, which would copy their pages in every child.
"""

import gc

import numpy

import grapevine.experiments.tasks
import grapevine.experiments.worlds.processes.child  # noqa: F401
from grapevine.peer.blas import add_scaled

add_scaled(numpy.zeros(4, numpy.float32), numpy.zeros(4, numpy.float32), 1.0)  # loads libraries that are loaded on first use
numpy.zeros((4, 4), numpy.float32) @ numpy.zeros((4, 4), numpy.float32)  # starts the linear algebra library
gc.collect()
gc.freeze()
