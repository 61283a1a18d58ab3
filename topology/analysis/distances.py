"""Hops between peers: the largest number and the sum over all pairs, also for thousands of peers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SMALL = 1500  # peers up to which scipy's search from every peer is fast enough
FAR = 400  # hops above which a hop reaches few new peers, so that lists of pairs are faster than tables of bits
BLOCK = 1024


def hops(beside: csr_array) -> tuple[float, float]:
    """Return the largest number of hops between two peers and the sum over all ordered pairs; infinity if not connected.

    `beside` is a sparse array [n, n] of links, row sender, column receiver.
    """
    from scipy.sparse.csgraph import connected_components, shortest_path

    n = beside.shape[0]
    if n <= SMALL:
        found = shortest_path(beside, method="D", unweighted=True)
        return float(found.max()), float(found.sum())
    if connected_components(beside, directed=True, connection="strong", return_labels=False) > 1:
        return math.inf, math.inf
    search = _lists if len(_levels(beside, 0)) > FAR else _bits
    farthest, total = 0, 0.0
    for start in range(0, n, BLOCK):
        reached = search(beside, np.arange(start, min(n, start + BLOCK)))
        farthest = max(farthest, len(reached))
        total += float(sum(hop * count for hop, count in enumerate(reached, start=1)))
    return float(farthest), total


def _levels(beside: csr_array, source: int) -> list[int]:
    return _lists(beside, np.array([source]))


def _bits(beside: csr_array, sources: np.ndarray) -> list[int]:
    """Count the pairs that are 1, 2, ... hops apart: all sources at once, one bit per source at every peer."""
    # row i of the transpose: the peers with a link to peer i
    before = beside.T.tocsr()
    words = -(-len(sources) // 64)
    fresh = np.zeros((beside.shape[0], words), dtype=np.uint64)
    places = np.arange(len(sources))
    fresh[sources, places // 64] |= np.uint64(1) << (places % 64).astype(np.uint64)
    seen = fresh.copy()
    counts: list[int] = []
    while True:
        fresh = np.bitwise_or.reduceat(fresh[before.indices], before.indptr[:-1], axis=0) & ~seen
        count = int(np.bitwise_count(fresh).sum())
        if not count:
            return counts
        counts.append(count)
        seen |= fresh


def _lists(beside: csr_array, sources: np.ndarray) -> list[int]:
    """Count the pairs that are 1, 2, ... hops apart, with a list of the pairs (source, peer) that the last hop reached."""
    n = beside.shape[0]
    seen = np.zeros(len(sources) * n, dtype=bool)
    mark = np.zeros(len(sources) * n, dtype=np.int32)
    pairs = np.arange(len(sources)) * n + sources
    seen[pairs] = True
    counts: list[int] = []
    while True:
        peers = pairs % n
        degrees = beside.indptr[peers + 1] - beside.indptr[peers]
        first = np.repeat(beside.indptr[peers] - np.r_[0, np.cumsum(degrees)[:-1]], degrees)
        found = np.repeat(pairs - peers, degrees) + beside.indices[first + np.arange(len(first))]
        found = found[~seen[found]]
        mark[found] = np.arange(len(found))  # if a pair is found twice, the last one is kept
        pairs = found[mark[found] == np.arange(len(found))]
        if not len(pairs):
            return counts
        counts.append(len(pairs))
        seen[pairs] = True
