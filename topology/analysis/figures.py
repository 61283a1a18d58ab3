"""The figures of a graph and of its mixing matrix: how fast news travels, and how much may break."""

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

NEVER_FINITE = 0.1  # exact agreement needs all other eigenvalues to be 0; those of a defective matrix round off to far more
FINITE = 1e-9  # a power of W this close to J is J
MOST_ROUNDS = 64
ROUND_OFF = 1e-12  # an eigenvalue this close to 1 or 0 is 1 or 0; the slowest graph that fits in memory is far from it


@overload
def analyse(graph_or_matrix: Schedule, rule: str = "metropolis") -> ScheduleFigures: ...
@overload
def analyse(graph_or_matrix: nx.Graph | np.ndarray, rule: str = "metropolis") -> Figures: ...
def analyse(graph_or_matrix: nx.Graph | np.ndarray | Schedule, rule: str = "metropolis") -> Figures | ScheduleFigures:
    """The figures of a graph under a mixing rule, of a mixing matrix [n, n] alone, or of a schedule.

    Nothing is computed before it is asked for. From a matrix there is no graph, so `edges`, the degrees, distances,
    connectivities and Laplacian figures are None; a graph that is not connected has infinite distances, a Kirchhoff
    index of infinity and a gap of 0. A directed graph has no Laplacian figures, and its degrees are out-degrees.

    Above 1500 peers only what matters of the spectrum is computed, in seconds for 10,000: `effective_neighbours` and
    `kirchhoff` are then estimates, right to a few percent and always the same, and connectivities above 2 are None.

    Raises ValueError for an unknown rule, a directed graph under a rule that is not for those, an empty or multigraph,
    and a matrix that is not square and finite.
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
    """What `analyse` answers: each figure is an attribute, computed when first read."""

    def __init__(self, graph: nx.Graph | None = None, matrix: np.ndarray | None = None, rule: str = "") -> None:
        self.rule = rule or None
        super().__init__(graph)
        if matrix is not None:
            self.matrix = matrix

    @property
    def nodes(self) -> int:
        """How many peers."""
        return len(self.matrix) if self._links is None else self._links.shape[0]

    @cached_property
    def matrix(self) -> np.ndarray:
        """W, float64 [n, n]: x <- W x is one round of averaging."""
        dense: np.ndarray = self._mix.toarray()
        return dense

    @cached_property
    def spectrum(self) -> np.ndarray:
        """The eigenvalues of W: float64 [n], largest first; complex by falling modulus where W is not symmetrizable.

        All of them, however many: minutes for 10,000 peers, where `slem` takes seconds.
        """
        twin = self._twin
        if twin is not None:
            return np.linalg.eigvalsh(twin.toarray())[::-1]
        values = np.linalg.eigvals(self.matrix)
        return values[np.argsort(-np.abs(values), kind="stable")]

    @cached_property
    def slem(self) -> float:
        """The second largest modulus of W's eigenvalues: in the long run disagreement shrinks by this factor a round."""
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
        """The spectral gap 1 - SLEM: 1 is instant agreement, 0 never."""
        return 1.0 - self.slem

    @cached_property
    def doubly_stochastic(self) -> bool:
        """Whether W has no negative entry and all rows and columns sum to 1."""
        return bool(self._mix.min() >= -ROUND_OFF and self._sums_to_one(axis=1) and self.mean_preserved)

    @cached_property
    def mean_preserved(self) -> bool:
        """Whether all columns of W sum to 1, so that averaging leaves the fleet's mean where it is."""
        return self._sums_to_one(axis=0)

    @cached_property
    def finite_time(self) -> int | None:
        """After how many rounds all agree exactly, whatever they started from; None for never (or after more than 64)."""
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
        """How the eigenvalues of W are spread, estimated in seconds however many they are: bins' ends [81] and shares [80].

        None where W is not symmetrizable.
        """
        return None if self._twin is None else density(self._twin)

    @property
    def messages_per_round(self) -> int:
        """Messages that all peers send in a round: one for each that hears one."""
        return int(np.count_nonzero(self._mix.data) - np.count_nonzero(self._mix.diagonal()))

    def as_dict(self, eps: float = 1e-3, decay: float = 0.9) -> dict[str, Any]:
        """Every figure by name, ready for JSON: infinity and what makes no sense are None."""
        figures = {name: getattr(self, name) for name in FIGURES}
        figures["mixing_time"] = self.mixing_time(eps)
        figures["effective_neighbours"] = self.effective_neighbours(decay)
        return {name: None if value is None or value == math.inf else value for name, value in figures.items()}

    # -- what several figures share

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
        """A symmetric array with the eigenvalues of W; None where there is none at hand."""
        if self._symmetric:
            return self._mix
        own = self._mix.diagonal()
        if own.min() <= 0.0:
            return None
        # Shares that are equal in each row, as those of "uniform", make D W symmetric for D = 1 / W_ii. Then W is
        # similar to D^1/2 W D^-1/2, symmetric too: the same eigenvalues, real, and quicker to find.
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
