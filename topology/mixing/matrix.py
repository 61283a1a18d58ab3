"""The mixing matrix W of x_i <- sum_j W_ij x_j: the weight of each neighbour's model."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import networkx as nx
import numpy as np

from grapevine.topology.analysis.spectra import extreme_laplacian_eigenvalues
from grapevine.topology.graphs.given import check_simple, links
from grapevine.topology.mixing.fastest import fastest_weights

if TYPE_CHECKING:  # importing scipy takes longer than many commands need to run
    from scipy.sparse import csr_array

Rule = Literal["metropolis", "max-degree", "lazy", "uniform", "best-constant", "fastest", "push-sum", "sinkhorn"]

DIRECTED = ("uniform", "push-sum", "sinkhorn")
SETTLED = 1e-13  # the scaling ends when all row and column sums are this close to 1
MOST_SWEEPS = 100_000


def mixing_matrix(graph: nx.Graph, rule: str = "metropolis", rates: np.ndarray | None = None) -> np.ndarray:
    """Return the mixing matrix, float64 [n, n]: the weights with which every peer averages itself and its neighbours.

    Row i holds the weights that peer i uses; every row sums to 1 (except with `push-sum`); W_ij is 0 if j sends nothing
    to i. Edge attributes and self loops are ignored. Rows follow `graphs.given.peer_order`: for nodes 0..n-1, their numbers.

    - `metropolis`: 1 / (1 + max(d_i, d_j)); symmetric, and safe for any degrees (Metropolis-Hastings; Xiao, Boyd and
      Kim 2007, section 3).
    - `max-degree`: 1 / (1 + largest degree) on every edge; symmetric.
    - `lazy`: half metropolis, half the peer's own model; no negative eigenvalues.
    - `uniform`: 1 / (1 + d_i) for the peer's own model and each one received; rows sum to 1. Columns do so only if all
      degrees are equal; otherwise the fleet's mean drifts towards well-connected peers.
    - `best-constant`: the one weight on all edges that mixes fastest, 2 / (l_2 + l_n) with l the eigenvalues of the
      Laplacian (Xiao and Boyd 2004, section 4.1); a peer's weight on itself may be negative (for example on a star).
    - `fastest`: a weight for each edge, together the symmetric matrix that mixes fastest (Xiao and Boyd 2004, section
      4.2); weights may be negative. For graphs of at most 1500 edges.
    - `push-sum`: 1 / (1 + out-degree of the sender): columns sum to 1, rows do not. For directed graphs, and for
      strategies that carry a weight along with the model (x <- W x, w <- W w, the model being x / w; Kempe, Dobra and
      Gehrke 2003; Assran et al. 2019).
    - `sinkhorn`: weights by `rates`, the rates of the links from peer i to peer j, [n, n] in any unit, positive on
      links; a peer's own model counts as one received over its fastest link. Rows and columns are scaled in turn until
      both sum to 1 (Sinkhorn and Knopp 1967): fast links get more weight, and the fleet's mean does not change.

    On a directed graph an edge i -> j means that i sends to j; only `uniform`, `push-sum` and `sinkhorn` accept these.

    Raises ValueError for an unknown rule, for an empty or multigraph, for a directed graph under the other rules, for
    `best-constant` and `fastest` on a graph that is not connected or too large, and for rates that are missing, given
    to another rule, or not positive; the message names the cure.
    """
    dense: np.ndarray = sparse_mixing(graph, rule, rates).toarray()
    return dense


def sparse_mixing(graph: nx.Graph, rule: str = "metropolis", rates: np.ndarray | None = None) -> csr_array:
    """Return the matrix of `mixing_matrix` as a sparse array: for fleets of thousands."""
    from scipy.sparse import csr_array, diags_array

    check_rule(rule)
    check_simple(graph)
    if graph.is_directed() and rule not in DIRECTED:
        raise ValueError(
            f"the mixing rule {rule!r} needs an undirected graph and this one is directed; give graph.to_undirected() "
            f"if every edge may be used in both directions, or choose one of {', '.join(DIRECTED)}"
        )
    heard = csr_array(links(graph).T)  # row i: the peers that peer i receives from
    if rule == "sinkhorn":
        return csr_array(_sinkhorn(heard, rates))
    if rates is not None:
        raise ValueError(f"the mixing rule {rule!r} uses no rates; leave them out, or choose 'sinkhorn'")
    shares = RULES[rule](heard)
    shares.eliminate_zeros()
    own = 1.0 - shares.sum(axis=0 if rule == "push-sum" else 1)
    return csr_array(shares + diags_array(own))


def check_rule(rule: object) -> None:
    """Raise ValueError unless this is the name of a mixing rule; the message lists the rules and the most similar one."""
    if isinstance(rule, str) and rule in RULES:
        return
    near = difflib.get_close_matches(str(rule), RULES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"mixing: no rule {rule!r}; known are {', '.join(RULES)}{hint}")


def _metropolis(heard: csr_array) -> csr_array:
    degree = heard.sum(axis=1)
    receiver, sender = heard.nonzero()
    return _with(heard, 1.0 / (1.0 + np.maximum(degree[receiver], degree[sender])))


def _max_degree(heard: csr_array) -> csr_array:
    return heard / (1.0 + heard.sum(axis=1).max())


def _lazy(heard: csr_array) -> csr_array:
    return _metropolis(heard) / 2.0


def _uniform(heard: csr_array) -> csr_array:
    return _with(heard, 1.0 / (1.0 + heard.sum(axis=1))[heard.nonzero()[0]])


def _best_constant(heard: csr_array) -> csr_array:
    if heard.shape[0] == 1:
        return heard
    second, last = extreme_laplacian_eigenvalues(heard)
    if second <= 1e-12 * heard.shape[0]:
        raise ValueError("the mixing rule 'best-constant' needs a connected graph; add edges, or choose 'metropolis'")
    return heard * (2.0 / (second + last))


def _fastest(heard: csr_array) -> csr_array:
    if not heard.nnz and heard.shape[0] == 1:
        return heard
    from scipy.sparse import csr_array

    receiver, sender = heard.nonzero()
    above = receiver < sender
    weights = fastest_weights(heard.shape[0], receiver[above], sender[above])
    shares = csr_array((weights, (receiver[above], sender[above])), shape=heard.shape)
    return csr_array(shares + shares.T)


def _push_sum(heard: csr_array) -> csr_array:
    return _with(heard, 1.0 / (1.0 + heard.sum(axis=0))[heard.nonzero()[1]])


def _sinkhorn(heard: csr_array, rates: np.ndarray | None = None) -> np.ndarray:
    """Return a doubly stochastic matrix on the links; its positive diagonal makes the scaling converge."""
    if rates is None:
        raise ValueError("the mixing rule 'sinkhorn' needs rates=[n, n], those of the links from peer i to peer j")
    given = np.asarray(rates, dtype=np.float64)
    if given.shape != heard.shape:
        raise ValueError(f"rates are of shape {given.shape} for {heard.shape[0]} peers; give one for each pair: [n, n]")
    beside = heard.toarray() != 0.0
    matrix = np.where(beside, given.T, 0.0)
    if not (np.isfinite(matrix[beside]).all() and (matrix[beside] > 0.0).all()):
        receiver, sender = np.argwhere(beside & ~(np.isfinite(matrix) & (matrix > 0.0)))[0]
        raise ValueError(
            f"the rate from {sender} to {receiver} is {matrix[receiver, sender]}; give a positive, finite number for every "
            "link (a large one if it has no limit)"
        )
    np.fill_diagonal(matrix, np.where(beside.any(axis=1), matrix.max(axis=1), 1.0))
    for _ in range(MOST_SWEEPS):
        matrix /= matrix.sum(axis=1, keepdims=True)
        columns = matrix.sum(axis=0)
        if np.abs(columns - 1.0).max() < SETTLED:
            return matrix
        matrix /= columns
    raise ValueError("the rates differ too much for rows and columns that sum to 1; give rates that differ less")


def _with(heard: csr_array, values: np.ndarray) -> csr_array:
    """Return a sparse array with these weights at the places of the links."""
    from scipy.sparse import csr_array

    return csr_array((values, heard.nonzero()), shape=heard.shape)


RULES: dict[str, Callable[[csr_array], csr_array]] = {
    "metropolis": _metropolis,
    "max-degree": _max_degree,
    "lazy": _lazy,
    "uniform": _uniform,
    "best-constant": _best_constant,
    "fastest": _fastest,
    "push-sum": _push_sum,
    "sinkhorn": _sinkhorn,
}
