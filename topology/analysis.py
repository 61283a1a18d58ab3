"""The figures of a graph and of its mixing matrix: how fast news travels, and how much may break."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import networkx as nx
import numpy as np

from topology.given import adjacency, check_simple
from topology.mixing import check_rule, mixing_matrix

ROUND_OFF = 1e-12  # an eigenvalue this close to 1 or 0 is 1 or 0; the slowest graph that fits in memory is far from it


def analyse(graph_or_matrix: nx.Graph | np.ndarray, rule: str = "metropolis") -> Figures:
    """The figures of a graph under a mixing rule, or of a mixing matrix [n, n] alone.

    Nothing is computed before it is asked for. From a matrix there is no graph, so `edges`, the degrees, distances,
    connectivities and Laplacian figures are None; a graph that is not connected has infinite distances, a Kirchhoff
    index of infinity and a gap of 0.

    Raises ValueError for an unknown rule, a directed, empty or multigraph, and a matrix that is not square and finite.
    """
    check_rule(rule)
    if isinstance(graph_or_matrix, nx.Graph):
        check_simple(graph_or_matrix)
        if graph_or_matrix.is_directed():
            raise ValueError(
                "the graph is directed and these mixing rules need an undirected one; give graph.to_undirected(), "
                "or analyse its mixing matrix"
            )
        return Figures(graph=graph_or_matrix, rule=rule)
    try:
        matrix = np.array(graph_or_matrix, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"expected a networkx graph or a matrix of numbers, not {type(graph_or_matrix).__name__}") from None
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix) or not np.isfinite(matrix).all():
        raise ValueError(f"expected a graph or a square matrix of finite numbers, not an array of shape {matrix.shape}")
    return Figures(matrix=matrix)


class Figures:
    """What `analyse` answers: each figure is an attribute, computed when first read."""

    def __init__(self, graph: nx.Graph | None = None, matrix: np.ndarray | None = None, rule: str = "") -> None:
        self.rule = rule or None
        if matrix is not None:
            self.matrix = matrix
        self._beside = None if graph is None else adjacency(graph)
        self._plain = None if self._beside is None else nx.from_numpy_array(self._beside)

    # -- the mixing matrix

    @cached_property
    def matrix(self) -> np.ndarray:
        """W, float64 [n, n]: x <- W x is one round of averaging."""
        return mixing_matrix(self._plain, self.rule or "metropolis")

    @cached_property
    def spectrum(self) -> np.ndarray:
        """The eigenvalues of W: float64 [n], largest first; complex by falling modulus where W is not symmetrizable."""
        if self._symmetric:
            return np.linalg.eigvalsh(self.matrix)[::-1]
        own = np.diag(self.matrix)
        if own.min() > 0.0:
            # Shares that are equal in each row, as those of "uniform", make D W symmetric for D = 1 / W_ii. Then W is
            # similar to D^1/2 W D^-1/2, symmetric too: the same eigenvalues, real, and quicker to find.
            twin = self.matrix / np.sqrt(own)[:, None] * np.sqrt(own)
            if np.allclose(twin, twin.T, rtol=0.0, atol=ROUND_OFF):
                return np.linalg.eigvalsh(twin)[::-1]
        values = np.linalg.eigvals(self.matrix)
        return values[np.argsort(-np.abs(values), kind="stable")]

    @cached_property
    def slem(self) -> float:
        """The second largest modulus of W's eigenvalues: in the long run disagreement shrinks by this factor a round."""
        if self.nodes == 1:
            return 0.0
        others = np.delete(self.spectrum, np.argmin(np.abs(self.spectrum - 1.0)))
        slem = float(np.abs(others).max())
        return 1.0 if abs(slem - 1.0) < ROUND_OFF else 0.0 if slem < ROUND_OFF else slem

    @property
    def gap(self) -> float:
        """The spectral gap 1 - SLEM: 1 is instant agreement, 0 never."""
        return 1.0 - self.slem

    @cached_property
    def doubly_stochastic(self) -> bool:
        """Whether W has no negative entry and all rows and columns sum to 1."""
        return bool(self.matrix.min() >= -ROUND_OFF and self._sums_to_one(axis=1) and self.mean_preserved)

    @cached_property
    def mean_preserved(self) -> bool:
        """Whether all columns of W sum to 1, so that averaging leaves the fleet's mean where it is."""
        return self._sums_to_one(axis=0)

    def mixing_time(self, eps: float = 1e-3) -> float:
        """Rounds until disagreement has shrunk to `eps` of what it was: ceil(ln(1/eps) / -ln SLEM); infinity for SLEM 1.

        Raises ValueError unless 0 < eps < 1.
        """
        if not 0.0 < eps < 1.0:
            raise ValueError(f"eps is the share of the disagreement that is left, between 0 and 1, not {eps}")
        if self.slem >= 1.0:
            return math.inf
        if self.slem == 0.0:
            return 1 if self.nodes > 1 else 0
        return math.ceil(math.log(1.0 / eps) / -math.log(self.slem))

    def effective_neighbours(self, decay: float = 0.9) -> float:
        """With how many peers one peer effectively averages, between 1 (alone) and n (the complete graph).

        n_W(decay) = 1/(1-decay) / mean_k(l_k^2 / (1 - decay l_k^2)): the variance reduction of the random walk
        x <- W (sqrt(decay) x + noise), for the eigenvalues l_k of W (Vogels, Hendrikx and Jaggi 2022, arXiv 2206.03093).
        A matrix that is not symmetric is taken by the walk itself, through its covariance. `decay` near 0 looks one
        round back; near 1 forever.

        Raises ValueError unless 0 <= decay < 1, or where W's eigenvalues make the walk grow without end.
        """
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay is at least 0 and below 1 (the limit at 1 is n on a connected graph), not {decay}")
        if decay * float(np.abs(self.spectrum).max()) ** 2 >= 1.0:
            raise ValueError("the walk grows without end: the matrix has an eigenvalue above 1; scale its rows to sum to 1")
        if self._symmetric:
            squares = self.spectrum**2
            variance = float(np.mean(squares / (1.0 - decay * squares)))
        else:
            from scipy.linalg import solve_discrete_lyapunov

            covariance = solve_discrete_lyapunov(math.sqrt(decay) * self.matrix, self.matrix @ self.matrix.T)
            variance = float(np.trace(covariance)) / self.nodes
        return 1.0 / (1.0 - decay) / variance

    # -- the graph

    @property
    def nodes(self) -> int:
        """How many peers."""
        return len(self.matrix if self._beside is None else self._beside)

    @property
    def edges(self) -> int | None:
        """How many pairs of neighbours."""
        return None if self._plain is None else self._plain.number_of_edges()

    @property
    def max_degree(self) -> int | None:
        """The most neighbours a peer has."""
        return None if self._beside is None else int(self._beside.sum(axis=1).max())

    @property
    def min_degree(self) -> int | None:
        """The fewest neighbours a peer has."""
        return None if self._beside is None else int(self._beside.sum(axis=1).min())

    @property
    def mean_degree(self) -> float | None:
        """Neighbours a peer has in the mean."""
        return None if self._beside is None else float(self._beside.sum() / self.nodes)

    @cached_property
    def connected(self) -> bool | None:
        """Whether every peer can reach every other."""
        return None if self._plain is None else bool(nx.is_connected(self._plain))

    @cached_property
    def diameter(self) -> float | None:
        """Hops between the two peers farthest apart: an int, or infinity where the graph is not connected."""
        if self._distances is None:
            return None
        farthest = float(self._distances.max())
        return int(farthest) if math.isfinite(farthest) else math.inf

    @cached_property
    def average_shortest_path(self) -> float | None:
        """Hops between two peers, in the mean over all pairs; infinity where the graph is not connected."""
        if self._distances is None:
            return None
        return float(self._distances.sum() / (self.nodes * (self.nodes - 1))) if self.nodes > 1 else 0.0

    @cached_property
    def algebraic_connectivity(self) -> float | None:
        """The second smallest eigenvalue of the Laplacian (edges count 1): 0 where the graph is not connected."""
        if self._laplacian_spectrum is None:
            return None
        return float(self._laplacian_spectrum[1]) if self.connected and self.nodes > 1 else 0.0

    @cached_property
    def kirchhoff(self) -> float | None:
        """The Kirchhoff index, n * sum(1 / l_k) over the Laplacian's eigenvalues but the zero: lower is better joined."""
        if self._laplacian_spectrum is None:
            return None
        return float(self.nodes * np.sum(1.0 / self._laplacian_spectrum[1:])) if self.connected else math.inf

    @cached_property
    def node_connectivity(self) -> int | None:
        """How many peers must leave before the others fall apart."""
        return None if self._plain is None else int(nx.node_connectivity(self._plain))

    @cached_property
    def edge_connectivity(self) -> int | None:
        """How many links must break before the fleet falls apart."""
        if self._plain is None:
            return None
        return int(nx.edge_connectivity(self._plain)) if self.nodes > 1 else 0

    @cached_property
    def gradient_gossip_eigenvalue(self) -> float | None:
        """The smallest eigenvalue of the adjacency matrix; gossip of gradients is unstable where it is below -1.

        If every peer applies its own gradient and its neighbours' with equal weight, models that drift apart are pulled
        by -(I + A): they come back together only where A has no eigenvalue below -1, which among connected graphs holds
        for the complete graph alone. Rounded to nine decimals, so that -1 is -1 and may be compared.
        """
        return None if self._beside is None else round(float(np.linalg.eigvalsh(self._beside)[0]), 9)

    def as_dict(self, eps: float = 1e-3, decay: float = 0.9) -> dict[str, Any]:
        """Every figure by name, ready for JSON: infinity and what makes no sense are None."""
        figures = {name: getattr(self, name) for name in FIGURES}
        figures["mixing_time"] = self.mixing_time(eps)
        figures["effective_neighbours"] = self.effective_neighbours(decay)
        return {name: None if value is None or value == math.inf else value for name, value in figures.items()}

    # -- what several figures share

    @cached_property
    def _symmetric(self) -> bool:
        return bool(np.allclose(self.matrix, self.matrix.T, rtol=0.0, atol=ROUND_OFF))

    def _sums_to_one(self, axis: int) -> bool:
        return bool(np.allclose(self.matrix.sum(axis=axis), 1.0, rtol=0.0, atol=1e-9))

    @cached_property
    def _distances(self) -> np.ndarray | None:
        if self._beside is None:
            return None
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import shortest_path

        return shortest_path(csr_array(self._beside), method="D", unweighted=True)

    @cached_property
    def _laplacian_spectrum(self) -> np.ndarray | None:
        if self._beside is None:
            return None
        return np.linalg.eigvalsh(np.diag(self._beside.sum(axis=1)) - self._beside)


FIGURES = (
    "rule",
    "nodes",
    "edges",
    "connected",
    "min_degree",
    "mean_degree",
    "max_degree",
    "diameter",
    "average_shortest_path",
    "node_connectivity",
    "edge_connectivity",
    "algebraic_connectivity",
    "kirchhoff",
    "slem",
    "gap",
    "doubly_stochastic",
    "mean_preserved",
    "gradient_gossip_eigenvalue",
)
