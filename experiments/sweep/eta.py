"""How long a sweep still takes, as far as the runs so far tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence


def left_s(
    done: Iterable[tuple[int, float]], waiting: Sequence[int], running: Iterable[tuple[int, float]], jobs: int
) -> float | None:
    """Real seconds until all runs are over; None before the first has ended.

    `done` are the peers and the real seconds of runs that ended, `waiting` the peers of those that have not begun, `running`
    the peers and the seconds so far of those that go, `jobs` at a time. A run takes as long as those with as many peers did in
    the mean; where there is none, as much longer than those with the nearest number as it has more peers.
    """
    known: dict[int, list[float]] = defaultdict(list)
    for peers, wall_s in done:
        known[peers].append(wall_s)
    if not known:
        return None
    means = {peers: sum(times) / len(times) for peers, times in known.items()}

    def expected_s(peers: int) -> float:
        nearest = min(means, key=lambda other: (abs(other - peers), other))
        return means[nearest] * peers / nearest

    ahead_s = [max(0.0, expected_s(peers) - age_s) for peers, age_s in running]
    whole_s = sum(map(expected_s, waiting)) + sum(ahead_s)
    # the last runs may leave places empty: it takes at least as long as the longest of what is left
    return max([whole_s / jobs, *ahead_s, *map(expected_s, set(waiting))])


def show_left(seconds: float) -> str:
    """For people: "45 s", "12 min", "2 h 10 min"."""
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
