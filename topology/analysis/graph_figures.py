"""Figures of a graph without its weights: degrees, distances, and how many links or peers can fail."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import networkx as nx
import numpy as np

from grapevine.topology.analysis.distances import hops
from grapevine.topology.analysis.spectra import DENSE, extreme_laplacian_eigenvalues, inverse_trace, laplacian, smallest
from grapevine.topology.graphs.given import links

STABLE_DOWN_TO = -1.0
"""The smallest eigenvalue of a complete graph's adjacency matrix."""
_ROUND_OFF = 1e-6


class GraphFigures:
    """The figures of a graph; each is an attribute, computed when first read, and None if there is no graph."""

    def __init__(self, graph: nx.Graph | None) -> None:
        self.directed = None if graph is None else graph.is_directed()
        self._links = None if graph is None else links(graph)

    @property
    def nodes(self) -> int:
        """Number of peers."""
        return 0 if self._links is None else int(self._links.shape[0])

    @property
    def edges(self) -> int | None:
        """Number of pairs of neighbours; in a directed graph the number of links."""
        return None if self._links is None else self._links.nnz // (1 if self.directed else 2)

    @property
    def max_degree(self) -> int | None:
        """The largest number of neighbours of a peer."""
        return None if self._links is None else int(self._links.sum(axis=1).max())

    @property
    def min_degree(self) -> int | None:
        """The smallest number of neighbours of a peer."""
        return None if self._links is None else int(self._links.sum(axis=1).min())

    @property
    def mean_degree(self) -> float | None:
        """Mean number of neighbours of a peer."""
        return None if self._links is None else float(self._links.nnz / self.nodes)

    @cached_property
    def connected(self) -> bool | None:
        """Whether every peer can reach every other."""
        if self._links is None:
            return None
        from scipy.sparse.csgraph import connected_components

        return bool(connected_components(self._links, connection="strong", return_labels=False) == 1)

    @cached_property
    def diameter(self) -> float | None:
        """Hops between the two peers farthest apart: an int, or infinity if the graph is not connected."""
        if self._hops is None:
            return None
        farthest, _ = self._hops
        return int(farthest) if math.isfinite(farthest) else math.inf

    @cached_property
    def average_shortest_path(self) -> float | None:
        """Mean number of hops between two peers, over all pairs; infinity if the graph is not connected."""
        if self._hops is None:
            return None
        return self._hops[1] / (self.nodes * (self.nodes - 1)) if self.nodes > 1 else 0.0

    @cached_property
    def algebraic_connectivity(self) -> float | None:
        """The second smallest eigenvalue of the Laplacian (each edge has weight 1): 0 if the graph is not connected."""
        if self._links is None or self.directed:
            return None
        return extreme_laplacian_eigenvalues(self._links)[0] if self.connected and self.nodes > 1 else 0.0

    @cached_property
    def kirchhoff(self) -> float | None:
        """The Kirchhoff index, n * sum(1 / l_k) over the Laplacian's non-zero eigenvalues: lower is better connected."""
        if self._links is None or self.directed:
            return None
        if not self.connected:
            return math.inf
        if self._large:
            return self.nodes * inverse_trace(laplacian(self._links))
        return float(self.nodes * np.sum(1.0 / np.linalg.eigvalsh(laplacian(self._links).toarray())[1:]))

    @cached_property
    def node_connectivity(self) -> int | None:
        """The smallest number of peers whose loss disconnects the others."""
        if self._plain is None:
            return None
        least = self._certain_connectivity(lambda graph: any(True for _ in nx.articulation_points(graph)))
        return int(nx.node_connectivity(self._plain)) if least is None and not self._large else least

    @cached_property
    def edge_connectivity(self) -> int | None:
        """The smallest number of links whose loss disconnects the fleet."""
        if self._plain is None:
            return None
        least = self._certain_connectivity(nx.has_bridges)
        if least is None and not self.directed and self._hops is not None and self._hops[0] <= 2:
            return self.min_degree  # Plesnik 1975: true for every graph of diameter 2
        return int(nx.edge_connectivity(self._plain)) if least is None and not self._large else least

    @cached_property
    def gradient_gossip_eigenvalue(self) -> float | None:
        """The smallest eigenvalue of the adjacency matrix; gossip of gradients is unstable where it is below -1.

        If every peer applies its own gradient and its neighbours' with equal weight, the distances between models change by
        -(I + A): they shrink only if A has no eigenvalue below -1. Among connected graphs this holds for the complete graph
        only. Rounded to nine decimals, so that -1 can be compared exactly.
        """
        if self._links is None or self.directed:
            return None
        if self._large:
            return round(float(smallest(self._links, 1)[0]), 9)
        return round(float(np.linalg.eigvalsh(self._links.toarray())[0]), 9)

    @property
    def _large(self) -> bool:
        return self.nodes > DENSE

    @cached_property
    def _plain(self) -> nx.Graph | None:
        """The graph on 0..n-1 without attributes."""
        if self._links is None:
            return None
        return nx.from_scipy_sparse_array(self._links, create_using=nx.DiGraph if self.directed else nx.Graph)

    def _certain_connectivity(self, one_is_enough: Callable[[nx.Graph], bool]) -> int | None:
        """Return the connectivity if it is known without a search (0, 1, 2, or n - 1), else None."""
        if self.nodes == 1 or not self.connected:
            return 0
        if self.min_degree == self.nodes - 1:
            return self.nodes - 1
        if self.directed:
            return None
        if self.min_degree == 1 or one_is_enough(self._plain):
            return 1
        return 2 if self.min_degree == 2 else None

    @cached_property
    def _hops(self) -> tuple[float, float] | None:
        return None if self._links is None else hops(self._links)


def stable_for_gradients(eigenvalue: float) -> bool:
    """Return whether gossip of gradients is stable on a graph whose adjacency matrix has this smallest eigenvalue."""
    return eigenvalue >= STABLE_DOWN_TO - _ROUND_OFF
