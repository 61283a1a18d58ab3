"""Transfers over shared lines, worked out by the book: what the emulator is held against."""

import math

from grapevine.netem.shaping.max_min import max_min


def leave_ns(plan, transfers):
    """When the last bit of each (asked_ns, source, target, bytes) has left, by progressive filling at every change.

    Links are first in, first out; their own rates and the lines' limits are constant.
    """
    shared, pairs = plan.shared(), list(plan.links)
    routes = [shared.routes.get(pair, ()) for pair in pairs]
    caps = [plan.links[pair].effective_rate_bytes_per_s for pair in pairs]
    queues = [[] for _ in pairs]
    left = [size for *_, size in transfers]
    waiting = sorted((at_ns, place) for place, (at_ns, *_) in enumerate(transfers))
    found, now_ns = {}, 0.0
    while waiting or any(queues):
        rates = max_min(shared.limits, routes, [cap if queue else 0 for cap, queue in zip(caps, queues, strict=True)])
        ends = [now_ns + left[q[0]] / rate * 1e9 if q else math.inf for q, rate in zip(queues, rates, strict=True)]
        then_ns = min([*ends, *(at_ns for at_ns, _ in waiting[:1])])
        for queue, rate, end_ns in zip(queues, rates, ends, strict=True):
            if queue:
                left[queue[0]] -= rate * (then_ns - now_ns) / 1e9
                if end_ns <= then_ns + 1e-3:
                    found[queue.pop(0)] = end_ns
        now_ns = then_ns
        while waiting and waiting[0][0] <= now_ns:
            _, place = waiting.pop(0)
            queues[pairs.index(transfers[place][1:3])].append(place)
    return [found[place] for place in range(len(transfers))]
