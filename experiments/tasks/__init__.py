"""Tasks, which fleets learn, and partitions, which split their data among the peers.

`AnyTask` and `AnyPartition` are the two menus. A task is a small frozen value; `task.problem(peers, partition, seed)`
makes it concrete: initial weights, samples, gradients and other work, a test score.
"""

from grapevine.experiments.tasks.base import Problem, Task
from grapevine.experiments.tasks.digits import Digits
from grapevine.experiments.tasks.learning import LearningProblem
from grapevine.experiments.tasks.module import Module
from grapevine.experiments.tasks.partitions import AnyPartition, Bootstrap, Dirichlet, Iid, Partition, Shards, Skew, skew
from grapevine.experiments.tasks.quadratic import Quadratic, QuadraticProblem
from grapevine.experiments.tasks.sampling import Batch, Sampler

AnyTask = Digits | Quadratic | Module

__all__ = [
    "AnyPartition",
    "AnyTask",
    "Batch",
    "Bootstrap",
    "Digits",
    "Dirichlet",
    "Iid",
    "LearningProblem",
    "Module",
    "Partition",
    "Problem",
    "Quadratic",
    "QuadraticProblem",
    "Sampler",
    "Shards",
    "Skew",
    "Task",
    "skew",
]
