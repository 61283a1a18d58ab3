"""The estimated time until a sweep ends, from the runs so far."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence


def left_s(
    done: Iterable[tuple[int, float]], waiting: Sequence[int], running: Iterable[tuple[int, float]], jobs: int
) -> float | None:
    """Return the real seconds until all runs have ended; None before the first has ended.

    `done` holds the peers and the real seconds of ended runs, `waiting` the peers of runs that have not begun, `running` the
    peers and the seconds so far of running ones, `jobs` at a time. A run is expected to take the mean time of ended runs with
    the same number of peers; if there is none, that of the nearest number, in proportion to the number of peers.
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
    # at the end fewer runs than `jobs` run: the time left is at least that of the longest run left
    return max([whole_s / jobs, *ahead_s, *map(expected_s, set(waiting))])


def show_left(seconds: float) -> str:
    """Return a time as text: "45 s", "12 min", "2 h 10 min"."""
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
