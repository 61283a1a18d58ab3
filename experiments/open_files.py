"""The number of open files that a fleet of processes needs, and the number that this machine permits."""

from __future__ import annotations

import resource

FILES = 65_536
FILES_AT_LEAST, FILES_A_CHILD, FILES_A_NEIGHBOUR = 32, 4, 3


def files_needed(peers: int, most_neighbours: int) -> int:
    """Return how many open files the launcher of `peers` peers, or a peer with `most_neighbours` neighbours, may need."""
    return FILES_AT_LEAST + max(FILES_A_CHILD * (peers + 1), FILES_A_NEIGHBOUR * most_neighbours)


def files_allowed() -> float:
    """Return the hard limit of open files of a process, to which `allow_files` may raise the soft limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return float("inf") if hard == resource.RLIM_INFINITY else hard


def allow_files() -> None:
    """Raise this process's limit of open files: a peer has two sockets a neighbour, and zmq aborts if it cannot open one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
