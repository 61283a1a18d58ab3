"""The kernel backend of a network: a check whether the kernel of this machine can carry it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grapevine.experiments.config.errors import ConfigError
from grapevine.experiments.config.sections import Processes
from grapevine.netem import NetworkPlan
from grapevine.netem.kernel.namespaces import missing
from grapevine.netem.kernel.plan import carried_by_kernel

if TYPE_CHECKING:
    from grapevine.experiments.config.experiment import Experiment

KEY = "network.backend"


def carried(experiment: Experiment, plan: NetworkPlan) -> NetworkPlan:
    """Return the plan, with its links left to the kernel if the experiment asks for that backend.

    Raises ConfigError if the experiment uses the kernel backend and the world, the links or this machine do not support it;
    the machine is tested by trying the commands.
    """
    if getattr(experiment.network, "backend", "userspace") != "kernel":
        return plan
    if not isinstance(experiment.world, Processes):
        raise _refusal("the kernel does not run in virtual time", 'use world.name = "processes", or backend = "userspace"')
    try:
        plan = carried_by_kernel(plan)
    except ValueError as error:
        problem, _, cure = str(error).partition("; ")
        raise _refusal(problem, cure) from None
    if lack := missing(plan):
        raise _refusal(*lack)
    return plan


def _refusal(problem: str, cure: str) -> ConfigError:
    return ConfigError(key=KEY, value="kernel", problem=f'"kernel" cannot be used: {problem}', cure=cure)
