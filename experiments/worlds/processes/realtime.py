"""Whether the peers' processes ask for real-time priority, and why not."""

from __future__ import annotations

import os
from math import isfinite

from grapevine.experiments.config.experiment import Processes
from grapevine.netem import NetworkPlan


def needs_realtime(plan: NetworkPlan) -> bool:
    """Whether a network delays or limits messages, so that peers must release them in time."""
    links = any(spec.delay_ns or isfinite(spec.rate_bytes_per_s) for spec in plan.links.values())
    return links or bool(plan.cables) or any(isfinite(rate) for rate in (*plan.uplinks, *plan.downlinks))


def why_not_realtime(world: Processes) -> str:
    """Return why the peers ask for no real-time priority; "" if they ask for it."""
    if not world.realtime:
        return "world.realtime is false"
    if (niceness := os.getpriority(os.PRIO_PROCESS, 0)) > 0:
        return f"the launcher is to be nice ({niceness})"
    return "" if may_run_realtime() else "SCHED_FIFO is not permitted here"


def may_run_realtime() -> bool:
    """Whether SCHED_FIFO is permitted, by a short trial: root in a container often may not use it, and zmq aborts the process
    if its thread may not."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        return False
    os.sched_setscheduler(0, policy, parameters)
    return True
