"""How many files a fleet of processes holds open, and how many this machine permits."""

from __future__ import annotations

import resource

FILES = 65_536
FILES_AT_LEAST, FILES_A_CHILD, FILES_A_NEIGHBOUR = 32, 4, 3


def files_needed(peers: int, most_neighbours: int) -> int:
    """How many files the launcher of so many peers, and a peer of so many neighbours, may have to hold open at a time."""
    return FILES_AT_LEAST + max(FILES_A_CHILD * (peers + 1), FILES_A_NEIGHBOUR * most_neighbours)


def files_allowed() -> float:
    """How many files a process may hold open here, once it has asked for as many as it may."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return float("inf") if hard == resource.RLIM_INFINITY else hard


def allow_files() -> None:
    """A peer has two sockets a neighbour, and zmq aborts a process that may not open one: ask for as many as is permitted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
