"""The figures of a graph alone, whatever the weights: degrees, distances, and how much may break."""

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
    """Each figure is an attribute, computed when first read, and None where there is no graph."""

    def __init__(self, graph: nx.Graph | None) -> None:
        self.directed = None if graph is None else graph.is_directed()
        self._links = None if graph is None else links(graph)

    @property
    def nodes(self) -> int:
        """How many peers."""
        return 0 if self._links is None else int(self._links.shape[0])

    @property
    def edges(self) -> int | None:
        """How many pairs of neighbours; of a directed graph, how many links."""
        return None if self._links is None else self._links.nnz // (1 if self.directed else 2)

    @property
    def max_degree(self) -> int | None:
        """The most neighbours a peer has."""
        return None if self._links is None else int(self._links.sum(axis=1).max())

    @property
    def min_degree(self) -> int | None:
        """The fewest neighbours a peer has."""
        return None if self._links is None else int(self._links.sum(axis=1).min())

    @property
    def mean_degree(self) -> float | None:
        """Neighbours a peer has in the mean."""
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
        """Hops between the two peers farthest apart: an int, or infinity where the graph is not connected."""
        if self._hops is None:
            return None
        farthest, _ = self._hops
        return int(farthest) if math.isfinite(farthest) else math.inf

    @cached_property
    def average_shortest_path(self) -> float | None:
        """Hops between two peers, in the mean over all pairs; infinity where the graph is not connected."""
        if self._hops is None:
            return None
        return self._hops[1] / (self.nodes * (self.nodes - 1)) if self.nodes > 1 else 0.0

    @cached_property
    def algebraic_connectivity(self) -> float | None:
        """The second smallest eigenvalue of the Laplacian (edges count 1): 0 where the graph is not connected."""
        if self._links is None or self.directed:
            return None
        return extreme_laplacian_eigenvalues(self._links)[0] if self.connected and self.nodes > 1 else 0.0

    @cached_property
    def kirchhoff(self) -> float | None:
        """The Kirchhoff index, n * sum(1 / l_k) over the Laplacian's eigenvalues but the zero: lower is better joined."""
        if self._links is None or self.directed:
            return None
        if not self.connected:
            return math.inf
        if self._large:
            return self.nodes * inverse_trace(laplacian(self._links))
        return float(self.nodes * np.sum(1.0 / np.linalg.eigvalsh(laplacian(self._links).toarray())[1:]))

    @cached_property
    def node_connectivity(self) -> int | None:
        """How many peers must leave before the others fall apart."""
        if self._plain is None:
            return None
        least = self._certain_connectivity(lambda graph: any(True for _ in nx.articulation_points(graph)))
        return int(nx.node_connectivity(self._plain)) if least is None and not self._large else least

    @cached_property
    def edge_connectivity(self) -> int | None:
        """How many links must break before the fleet falls apart."""
        if self._plain is None:
            return None
        least = self._certain_connectivity(nx.has_bridges)
        if least is None and not self.directed and self._hops is not None and self._hops[0] <= 2:
            return self.min_degree  # Plesnik 1975: so it is in every graph of diameter 2
        return int(nx.edge_connectivity(self._plain)) if least is None and not self._large else least

    @cached_property
    def gradient_gossip_eigenvalue(self) -> float | None:
        """The smallest eigenvalue of the adjacency matrix; gossip of gradients is unstable where it is below -1.

        If every peer applies its own gradient and its neighbours' with equal weight, models that drift apart are pulled
        by -(I + A): they come back together only where A has no eigenvalue below -1, which among connected graphs holds
        for the complete graph alone. Rounded to nine decimals, so that -1 is -1 and may be compared.
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
        """The links alone, on 0..n-1."""
        if self._links is None:
            return None
        return nx.from_scipy_sparse_array(self._links, create_using=nx.DiGraph if self.directed else nx.Graph)

    def _certain_connectivity(self, one_is_enough: Callable[[nx.Graph], bool]) -> int | None:
        """How many must go, where that is plain to see: 0, 1, 2 or all; None where it takes a search."""
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
    """Whether gossip of gradients is stable on a graph whose adjacency matrix has this smallest eigenvalue."""
    return eigenvalue >= STABLE_DOWN_TO - _ROUND_OFF
