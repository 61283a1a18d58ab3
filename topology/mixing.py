"""How much each neighbour's model counts: the mixing matrix W of x_i <- sum_j W_ij x_j."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Literal

import networkx as nx
import numpy as np

from topology.given import adjacency, check_simple

Rule = Literal["metropolis", "max-degree", "lazy", "uniform", "best-constant"]


def mixing_matrix(graph: nx.Graph, rule: str = "metropolis") -> np.ndarray:
    """The weights with which every peer averages itself and its neighbours, as float64 [n, n].

    Row i holds the weights peer i uses; every row sums to 1, and W_ij is 0 where i and j are not neighbours. Edge
    attributes and self loops play no part. Rows follow `topology.given.peer_order`: for nodes 0..n-1, their numbers.

    - `metropolis`: 1 / (1 + max(d_i, d_j)); symmetric, and safe for any degrees (Metropolis-Hastings; Xiao, Boyd and
      Kim 2007, section 3).
    - `max-degree`: 1 / (1 + largest degree) on every edge; symmetric.
    - `lazy`: half metropolis, half one's own model; no negative eigenvalues.
    - `uniform`: 1 / (1 + d_i) for oneself and every neighbour; rows sum to 1 but columns do not unless all degrees are
      equal, so that the fleet's mean drifts towards well-connected peers.
    - `best-constant`: the one weight on all edges that mixes fastest, 2 / (l_2 + l_n) with l the eigenvalues of the
      Laplacian (Xiao and Boyd 2004, section 4.1); a peer's weight on itself may be negative (on a star, say).

    Raises ValueError for an unknown rule, for a directed, empty or multigraph, and for `best-constant` on a graph that
    is not connected; the message names the cure.
    """
    check_rule(rule)
    check_simple(graph)
    if graph.is_directed():
        raise ValueError(
            f"the mixing rule {rule!r} needs an undirected graph and this one is directed; "
            "give graph.to_undirected() if every edge may be used both ways"
        )
    return _own_share(RULES[rule](adjacency(graph)))


def check_rule(rule: object) -> None:
    """Raise ValueError, naming the known rules and the nearest of them, unless this is the name of a mixing rule."""
    if isinstance(rule, str) and rule in RULES:
        return
    near = difflib.get_close_matches(str(rule), RULES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"mixing: no rule {rule!r}; known are {', '.join(RULES)}{hint}")


def _metropolis(beside: np.ndarray) -> np.ndarray:
    degree = beside.sum(axis=1)
    return beside / (1.0 + np.maximum.outer(degree, degree))


def _max_degree(beside: np.ndarray) -> np.ndarray:
    return beside / (1.0 + beside.sum(axis=1).max())


def _lazy(beside: np.ndarray) -> np.ndarray:
    return _metropolis(beside) / 2.0


def _uniform(beside: np.ndarray) -> np.ndarray:
    return beside / (1.0 + beside.sum(axis=1, keepdims=True))


def _best_constant(beside: np.ndarray) -> np.ndarray:
    if len(beside) == 1:
        return beside
    eigenvalues = np.linalg.eigvalsh(np.diag(beside.sum(axis=1)) - beside)
    if eigenvalues[1] <= 1e-12 * len(beside):
        raise ValueError("the mixing rule 'best-constant' needs a connected graph; add edges, or choose 'metropolis'")
    return beside * (2.0 / (eigenvalues[1] + eigenvalues[-1]))


def _own_share(shares: np.ndarray) -> np.ndarray:
    """Neighbours' weights, completed by what is left for oneself."""
    np.fill_diagonal(shares, 1.0 - shares.sum(axis=1))
    return shares


RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "metropolis": _metropolis,
    "max-degree": _max_degree,
    "lazy": _lazy,
    "uniform": _uniform,
    "best-constant": _best_constant,
}
