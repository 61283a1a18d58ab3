"""Figures of a graph and its mixing matrix: how fast peers agree, and how many links or peers can fail."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import networkx as nx
import numpy as np

from grapevine.topology.analysis.graph_figures import GraphFigures
from grapevine.topology.analysis.schedule_figures import ScheduleFigures
from grapevine.topology.analysis.spectra import density, largest, mean_share_kept, second_modulus, smallest, walk_variance
from grapevine.topology.graphs.given import check_simple
from grapevine.topology.mixing.matrix import DIRECTED, check_rule, sparse_mixing
from grapevine.topology.schedules.rounds import Schedule

if TYPE_CHECKING:
    from scipy.sparse import csr_array

NEVER_FINITE = 0.1  # SLEM above which agreement is never exact; exact needs 0, but a defective matrix has large round-off
FINITE = 1e-9  # a power of W this close to J counts as J
MOST_ROUNDS = 64
ROUND_OFF = 1e-12  # an eigenvalue this close to 1 or 0 counts as 1 or 0; graphs that fit in memory are far from it


@overload
def analyse(graph_or_matrix: Schedule, rule: str = "metropolis") -> ScheduleFigures: ...
@overload
def analyse(graph_or_matrix: nx.Graph | np.ndarray, rule: str = "metropolis") -> Figures: ...
def analyse(graph_or_matrix: nx.Graph | np.ndarray | Schedule, rule: str = "metropolis") -> Figures | ScheduleFigures:
    """Return the figures of a graph under a mixing rule, of a mixing matrix [n, n], or of a schedule.

    Each figure is computed when it is first read. A matrix alone has no graph: `edges`, the degrees, distances,
    connectivities and Laplacian figures are None. A graph that is not connected has infinite distances, a Kirchhoff
    index of infinity and a gap of 0. A directed graph has no Laplacian figures, and its degrees are out-degrees.

    Above 1500 peers only the extreme eigenvalues are computed, in seconds for 10,000 peers: `effective_neighbours` and
    `kirchhoff` are then reproducible estimates with an error of a few percent, and connectivities above 2 are None.

    Raises ValueError for an unknown rule, a directed graph under a rule for undirected graphs, an empty graph, a
    multigraph, and a matrix that is not square and finite.
    """
    check_rule(rule)
    if isinstance(graph_or_matrix, Schedule):
        return ScheduleFigures(graph_or_matrix)
    if isinstance(graph_or_matrix, nx.Graph):
        check_simple(graph_or_matrix)
        if graph_or_matrix.is_directed() and rule not in DIRECTED:
            raise ValueError(
                f"the graph is directed and the mixing rule {rule!r} needs an undirected one; give graph.to_undirected(), "
                f"or choose one of {', '.join(DIRECTED)}"
            )
        return Figures(graph=graph_or_matrix, rule=rule)
    try:
        matrix = np.array(graph_or_matrix, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"expected a networkx graph or a matrix of numbers, not {type(graph_or_matrix).__name__}") from None
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix) or not np.isfinite(matrix).all():
        raise ValueError(f"expected a graph or a square matrix of finite numbers, not an array of shape {matrix.shape}")
    return Figures(matrix=matrix)


class Figures(GraphFigures):
    """The figures of a graph or matrix, as `analyse` returns them; each is an attribute, computed when first read."""

    def __init__(self, graph: nx.Graph | None = None, matrix: np.ndarray | None = None, rule: str = "") -> None:
        self.rule = rule or None
        super().__init__(graph)
        if matrix is not None:
            self.matrix = matrix

    @property
    def nodes(self) -> int:
        """Number of peers."""
        return len(self.matrix) if self._links is None else self._links.shape[0]

    @cached_property
    def matrix(self) -> np.ndarray:
        """W, float64 [n, n]: x <- W x is one round of averaging."""
        dense: np.ndarray = self._mix.toarray()
        return dense

    @cached_property
    def spectrum(self) -> np.ndarray:
        """The eigenvalues of W: float64 [n], largest first; if W is not symmetrizable complex, by falling modulus.

        All of them are computed: minutes for 10,000 peers, while `slem` takes seconds.
        """
        twin = self._twin
        if twin is not None:
            return np.linalg.eigvalsh(twin.toarray())[::-1]
        values = np.linalg.eigvals(self.matrix)
        return values[np.argsort(-np.abs(values), kind="stable")]

    @cached_property
    def slem(self) -> float:
        """The second largest modulus of W's eigenvalues: the factor that multiplies disagreement per round in the long run."""
        if self.nodes == 1:
            return 0.0
        if self._large and self._twin is not None:
            slem = max(largest(self._twin, 2), -float(smallest(self._twin, 1)[0]))
        elif self._large:
            slem = second_modulus(self._mix)
        else:
            slem = float(np.abs(np.delete(self.spectrum, np.argmin(np.abs(self.spectrum - 1.0)))).max())
        return 1.0 if abs(slem - 1.0) < ROUND_OFF else 0.0 if slem < ROUND_OFF else slem

    @property
    def gap(self) -> float:
        """The spectral gap 1 - SLEM: 1 means agreement in one round, 0 means no agreement ever."""
        return 1.0 - self.slem

    @cached_property
    def doubly_stochastic(self) -> bool:
        """Whether W has no negative entry and all rows and columns sum to 1."""
        return bool(self._mix.min() >= -ROUND_OFF and self._sums_to_one(axis=1) and self.mean_preserved)

    @cached_property
    def mean_preserved(self) -> bool:
        """Whether all columns of W sum to 1: averaging then does not change the fleet's mean."""
        return self._sums_to_one(axis=0)

    @cached_property
    def finite_time(self) -> int | None:
        """Rounds until all peers agree exactly, from any start; None for never (or more than 64 rounds)."""
        if self.nodes == 1:
            return 0
        if self._large or self.slem > (FINITE if self._twin is not None else NEVER_FINITE):
            return None
        power = self.matrix
        for rounds in range(1, 1 + (1 if self._twin is not None else MOST_ROUNDS)):
            if np.abs(power - 1.0 / self.nodes).max() < FINITE:
                return rounds
            power = power @ self.matrix
        return None

    def mixing_time(self, eps: float = 1e-3) -> float:
        """Return the rounds until disagreement falls to the share `eps`: ceil(ln(1/eps) / -ln SLEM); infinity if SLEM is 1.

        Raises ValueError unless 0 < eps < 1.
        """
        if not 0.0 < eps < 1.0:
            raise ValueError(f"eps is the share of the disagreement that is left: give a number between 0 and 1, not {eps}")
        if self.slem >= 1.0:
            return math.inf
        if self.slem == 0.0:
            return 1 if self.nodes > 1 else 0
        return math.ceil(math.log(1.0 / eps) / -math.log(self.slem))

    def effective_neighbours(self, decay: float = 0.9) -> float:
        """Return the number of peers with which one peer effectively averages: 1 (alone) to n (the complete graph).

        n_W(decay) = 1/(1-decay) / mean_k(l_k^2 / (1 - decay l_k^2)): the variance reduction of the random walk
        x <- W (sqrt(decay) x + noise), for the eigenvalues l_k of W (Vogels, Hendrikx and Jaggi 2022, arXiv 2206.03093).
        For a matrix that is not symmetric the covariance of the walk is computed. The walk covers about 1 / (1 - decay) rounds.

        Raises ValueError unless 0 <= decay < 1, and if W's eigenvalues make the walk grow without end.
        """
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay is at least 0 and below 1 (the limit at 1 is n on a connected graph), not {decay}")
        if self._large:
            estimate = mean_share_kept if self._symmetric else walk_variance
            return 1.0 / (1.0 - decay) / estimate(self._mix, decay)
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

    @property
    def sparse_matrix(self) -> csr_array:
        """W as a sparse array, for large graphs."""
        return self._mix

    def spectral_density(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return an estimated histogram of the eigenvalues of W: ends of the bins [81] and shares [80]; takes seconds.

        None if W is not symmetrizable.
        """
        return None if self._twin is None else density(self._twin)

    @property
    def messages_per_round(self) -> int:
        """Messages that all peers together send in a round: one per sender and receiver."""
        return int(np.count_nonzero(self._mix.data) - np.count_nonzero(self._mix.diagonal()))

    def as_dict(self, eps: float = 1e-3, decay: float = 0.9) -> dict[str, Any]:
        """Return every figure by name, ready for JSON; infinite and undefined figures are None."""
        figures = {name: getattr(self, name) for name in FIGURES}
        figures["mixing_time"] = self.mixing_time(eps)
        figures["effective_neighbours"] = self.effective_neighbours(decay)
        return {name: None if value is None or value == math.inf else value for name, value in figures.items()}

    # -- shared by several figures

    @cached_property
    def _mix(self) -> csr_array:
        """W held as a sparse array."""
        if self._links is None:
            from scipy.sparse import csr_array

            return csr_array(self.matrix)
        return sparse_mixing(self._plain, self.rule or "metropolis")

    @cached_property
    def _symmetric(self) -> bool:
        return _alike(self._mix, self._mix.T)

    @cached_property
    def _twin(self) -> csr_array | None:
        """A symmetric array with the eigenvalues of W; None if no simple one exists."""
        if self._symmetric:
            return self._mix
        own = self._mix.diagonal()
        if own.min() <= 0.0:
            return None
        # If the weights in each row are equal, as with "uniform", D W is symmetric for D = 1 / W_ii. W is then similar
        # to the symmetric D^1/2 W D^-1/2: the same eigenvalues, real and faster to compute.
        from scipy.sparse import csr_array, diags_array

        scale = np.sqrt(own)
        twin = csr_array(diags_array(1.0 / scale) @ self._mix @ diags_array(scale))
        return twin if _alike(twin, twin.T) else None

    def _sums_to_one(self, axis: int) -> bool:
        return bool(np.allclose(self._mix.sum(axis=axis), 1.0, rtol=0.0, atol=1e-9))


def _alike(one: csr_array, other: csr_array) -> bool:
    difference = abs(one - other)
    return difference.nnz == 0 or float(difference.max()) <= ROUND_OFF


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
    "finite_time",
    "messages_per_round",
)
