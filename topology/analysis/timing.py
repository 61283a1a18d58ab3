"""The time of a round over a network: delays of links, and the cycle time when peers wait only for their neighbours."""

from __future__ import annotations

import networkx as nx
import numpy as np

from grapevine.topology.graphs.given import links


def cycle_time(graph: nx.Graph, delays: np.ndarray) -> float:
    """Return the mean time between two rounds in the long run, if every peer waits for all its senders; unit of `delays`.

    `delays` is [n, n]: the time from the start of a round at peer i until peer j has i's model; on the diagonal, until i
    itself is ready for its next round. Round k + 1 starts at j when all models of round k have arrived: a linear system in
    the max-plus algebra, whose period is the largest mean delay of a circuit (Baccelli et al. 1992), found by Karp's
    algorithm (1978) in n |E| steps. On a directed ring it is the mean delay; on an undirected graph it is at least the mean
    of both directions of the slowest link.

    Raises ValueError for delays of another shape, or one that is negative, nan or infinite on a link.
    """
    n = len(graph)
    given = np.asarray(delays, dtype=np.float64)
    if given.shape != (n, n):
        raise ValueError(f"delays are of shape {given.shape} for {n} peers; give one for each pair: [n, n]")
    used = links(graph).toarray() + np.eye(n)
    senders, receivers = np.nonzero(used)
    waits = given[senders, receivers]
    if not (np.isfinite(waits).all() and waits.min() >= 0.0):
        raise ValueError(
            "a link has a delay that is negative or not finite; give the delay of every link, and of each peer itself"
        )
    order = np.argsort(receivers, kind="stable")
    senders, waits = senders[order], waits[order]
    starts = np.searchsorted(receivers[order], np.arange(n))
    # longest[k, j]: the largest total delay of a walk of k links that ends in j; every circuit lies on such a walk
    longest = np.zeros((n + 1, n))
    for k in range(n):
        longest[k + 1] = np.maximum.reduceat(longest[k][senders] + waits, starts)
    means = (longest[n] - longest[:n]) / np.arange(n, 0, -1)[:, None]
    return float(means.min(axis=0).max())


def link_delays(
    graph: nx.Graph,
    payload_bytes: float,
    latency_s: np.ndarray,
    rates_bytes_per_s: np.ndarray | float = np.inf,
    uplinks_bytes_per_s: np.ndarray | float = np.inf,
    downlinks_bytes_per_s: np.ndarray | float = np.inf,
    compute_s: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Return delays for `cycle_time`, in seconds, float64 [n, n], if a peer sends `payload_bytes` to each neighbour.

    d(i, j) = compute_i + latency_ij + max(M / rate_ij, out-degree_i M / uplink_i, in-degree_j M / downlink_j), and compute_i
    on the diagonal (Marfoq et al. 2020, arXiv 2010.12229, equation 3); infinite if there is no link. Latencies and rates
    are [n, n] from i to j or one number for all, the others [n] or one number for all.

    Raises ValueError for a payload, latency or compute time below 0, and a rate that is not positive.
    """
    n = len(graph)
    used = links(graph).toarray() > 0.0
    rates = np.broadcast_to(np.asarray(rates_bytes_per_s, dtype=np.float64), (n, n))
    up = np.broadcast_to(np.asarray(uplinks_bytes_per_s, dtype=np.float64), (n,))
    down = np.broadcast_to(np.asarray(downlinks_bytes_per_s, dtype=np.float64), (n,))
    latency = np.broadcast_to(np.asarray(latency_s, dtype=np.float64), (n, n))
    own = np.broadcast_to(np.asarray(compute_s, dtype=np.float64), (n,))
    if payload_bytes < 0.0 or latency[used].min(initial=0.0) < 0.0 or own.min() < 0.0:
        raise ValueError("the payload, the latency and the compute time are 0 or more; check their signs")
    if not (rates[used].min(initial=1.0) > 0.0 and up.min() > 0.0 and down.min() > 0.0):
        raise ValueError("rates are above 0; leave a rate out if it has no limit")
    sent, heard = used.sum(axis=1), used.sum(axis=0)
    shared = np.maximum((sent * payload_bytes / up)[:, None], (heard * payload_bytes / down)[None, :])
    with np.errstate(divide="ignore", invalid="ignore"):
        busy = np.maximum(np.where(used, payload_bytes / rates, 0.0), shared)
    delays = np.where(used, own[:, None] + latency + busy, np.inf)
    np.fill_diagonal(delays, own)
    return delays
