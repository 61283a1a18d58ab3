"""Schedules that use one part of a graph per round (an edge, matchings, an eigenvalue), and teleportation."""

from __future__ import annotations

from abc import abstractmethod

import networkx as nx
import numpy as np

from grapevine.topology.graphs.base import peers_and_seed, require
from grapevine.topology.graphs.given import from_graph
from grapevine.topology.graphs.names import build
from grapevine.topology.mixing.matrix import mixing_matrix
from grapevine.topology.schedules import matcha
from grapevine.topology.schedules.menu import TimeVarying
from grapevine.topology.schedules.rounds import Schedule

NEAR = 1e-9  # Laplacian eigenvalues closer than this, relative to the largest, are the same one


class OverGraph(TimeVarying, frozen=True, kw_only=True):
    """A schedule that uses some links of a graph in each round."""

    graph: str = "ring"
    """The graph whose links are used: the name of a topology; from Python any networkx graph."""

    graph_options: dict[str, bool | int | float | str] = {}
    """Options of that graph, such as degree = 4."""

    def plan(self, n: int, seed: int = 0, graph: nx.Graph | None = None) -> Schedule:
        """Return the schedule for n peers on the named graph, or on `graph`."""
        n, seed = peers_and_seed(self.name, n, seed, 2, "schedule 'base'")
        given = self._given(n, seed, graph)
        schedule = self.checked(self.over(given, seed), n)
        schedule.recipe = self.plan, (n, seed, given)
        return schedule

    def rounds(self, n: int, seed: int) -> Schedule:
        return self.over(self._given(n, seed, None), seed)

    @abstractmethod
    def over(self, graph: nx.Graph, seed: int) -> Schedule:
        """Return the schedule on a connected graph with the nodes 0..n-1."""
        raise NotImplementedError

    def _given(self, n: int, seed: int, graph: nx.Graph | None) -> nx.Graph:
        if graph is None:
            return from_graph(build(self.graph, n, seed, **self.graph_options))
        graph = from_graph(graph)
        if len(graph) != n:
            raise ValueError(f"the graph has {len(graph)} nodes for {n} peers; set peers = {len(graph)}")
        return graph


class RandomEdge(OverGraph, frozen=True, kw_only=True, tag="random-edge"):
    """Each round: the two ends of one random edge of a graph average (pairwise gossip)."""

    graph: str = "complete"
    """The graph whose edges are drawn: the name of a topology; from Python any networkx graph."""

    def over(self, graph: nx.Graph, seed: int) -> Schedule:
        edges = list(graph.edges)

        def draw(t: int) -> np.ndarray:
            pair = list(edges[int(np.random.default_rng([seed, 16, t]).integers(len(edges)))])
            matrix = np.eye(len(graph))
            matrix[np.ix_(pair, pair)] = 0.5
            return matrix

        # Boyd, Ghosh, Prabhakar and Shah 2006: E[W'W] = I - L / (2 |E|)
        slowest = float(_laplacian_spectrum(graph)[1])
        contraction = 1.0 - slowest / (2.0 * len(edges))
        return Schedule(self.name, len(graph), draw, seed=seed, max_degree=1, contraction=contraction, reach=graph.copy)


class Matcha(OverGraph, frozen=True, kw_only=True, tag="matcha"):
    """Random subsets of a graph's links (matchings); links that connect its parts are used most often; less traffic."""

    budget: float = 0.5
    """Mean share of the graph's matchings used in a round: above 0 and at most 1 (all in every round)."""

    def __post_init__(self) -> None:
        require(0.0 < self.budget <= 1.0, "budget", self.budget, "a share above 0 and at most 1")

    def over(self, graph: nx.Graph, seed: int) -> Schedule:
        plan = matcha.plan(graph, self.budget)

        def draw(t: int) -> np.ndarray:
            coins = np.random.default_rng([seed, 17, t]).random(len(plan.matchings))
            matrix = np.zeros((len(graph), len(graph)))
            for matching, coin, chance in zip(plan.matchings, coins, plan.chances, strict=True):
                for i, j in matching if coin < chance else ():
                    matrix[i, j] = matrix[j, i] = plan.weight
            np.fill_diagonal(matrix, 1.0 - matrix.sum(axis=1))
            return matrix

        most = max(degree for _, degree in graph.degree)
        return Schedule(self.name, len(graph), draw, seed=seed, max_degree=most, contraction=plan.contraction, reach=graph.copy)


class Laplacian(OverGraph, frozen=True, kw_only=True, tag="laplacian"):
    """Round k: W = I - L / l_k, for each distinct eigenvalue l_k of the graph's Laplacian; exact after the last, on any graph.

    Weights may be negative. The order of the rounds does not change the product; the order of Leja (each eigenvalue as far
    as possible from those before it) keeps the values between the rounds small.
    """

    def over(self, graph: nx.Graph, seed: int) -> Schedule:
        laplacian = nx.laplacian_matrix(graph, nodelist=range(len(graph)), weight=None).toarray().astype(np.float64)
        order = _leja(_distinct(_laplacian_spectrum(graph)[1:]))
        most = max(degree for _, degree in graph.degree)
        return Schedule(
            self.name,
            len(graph),
            lambda t: np.eye(len(graph)) - laplacian / order[t],
            seed=seed,
            period=len(order),
            max_degree=most,
            reach=graph.copy,
        )


class Teleportation(TimeVarying, frozen=True, kw_only=True, tag="teleportation"):
    """A few random peers are active at a time: each takes over the model of a peer of the previous round, then they average.

    Even rounds 2r: each peer of the r-th active set receives the model of one peer of the set before; odd rounds 2r + 1:
    the active peers average on a small graph. The others keep their models, which no longer take part: only the mean of the
    active peers is preserved. Takezawa and Stich 2025 (arXiv 2501.15259), algorithm 1. Departure: a round of the paper is
    two rounds here, each of them one exchange of messages.
    """

    k: int = 4
    """Number of active peers: 1 to peers."""

    graph: str = "ring"
    """The graph of the active peers, with Metropolis weights: the name of a topology; with k <= 2 it is complete."""

    def __post_init__(self) -> None:
        require(self.k >= 1, "k", self.k, "1 or more")

    def rounds(self, n: int, seed: int) -> Schedule:
        if self.k > n:
            raise ValueError(f"k = {self.k} needs at least {self.k} peers, not {n}; raise peers or lower k")
        among = build(self.graph if self.k > 2 else "complete", self.k, seed)
        small = mixing_matrix(among)

        def draw(t: int) -> np.ndarray:
            matrix = np.eye(n)
            now = active_peers(n, self.k, seed, t // 2)
            if t % 2:
                matrix[np.ix_(now, now)] = small
            elif t:
                before = active_peers(n, self.k, seed, t // 2 - 1)
                matrix[now] = np.eye(n)[before]
            return matrix

        most = max([1, *(degree for _, degree in among.degree)])
        return Schedule(self.name, n, draw, seed=seed, directed=True, max_degree=most)


def active_peers(n: int, k: int, seed: int, r: int) -> np.ndarray:
    """Return the k of n peers that are active in the rounds 2r and 2r + 1 of `teleportation`, in the order of their places."""
    return np.random.default_rng([seed, 18, r]).permutation(n)[:k]


def _laplacian_spectrum(graph: nx.Graph) -> np.ndarray:
    return np.linalg.eigvalsh(nx.laplacian_matrix(graph, nodelist=range(len(graph)), weight=None).toarray().astype(np.float64))


def _distinct(values: np.ndarray) -> np.ndarray:
    """Return ascending values; values that differ only by round-off are replaced by their mean."""
    cuts = np.flatnonzero(np.diff(values) > NEAR * values[-1]) + 1
    return np.array([part.mean() for part in np.split(values, cuts)])


def _leja(values: np.ndarray) -> np.ndarray:
    left = np.ones(len(values), dtype=bool)
    reached = np.log(values)
    order = []
    for _ in values:
        i = int(np.argmax(np.where(left, reached, -np.inf)))
        left[i] = False
        order.append(values[i])
        with np.errstate(divide="ignore"):
            reached = reached + np.log(np.abs(values - values[i]))
    return np.array(order)
