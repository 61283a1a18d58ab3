"""A schedule made concrete: the pairs of peers that average in round t, and their weights."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import networkx as nx
import numpy as np

from grapevine.topology.graphs.base import check_links
from grapevine.topology.mixing.matrix import mixing_matrix
from grapevine.topology.schedules.finite import Round

KEPT = 4  # rounds whose matrices are kept in memory: a matrix is large and usually read once
KEPT_WEIGHTS = 4_000_000  # weights kept in memory: asynchronous peers can be hundreds of rounds apart
ROUND_OFF = 1e-15


class _Weights(NamedTuple):
    """The non-zero weights of one round, without the diagonal, sorted by receiver and by sender."""

    heard_from: np.ndarray  # receiver i: senders and weights at the places starts[i] to starts[i + 1]
    heard_weights: np.ndarray
    heard_starts: np.ndarray
    sent_to: np.ndarray
    sent_starts: np.ndarray


class Schedule:
    """A graph that changes from round to round; `topology.schedule` makes one.

    Round t depends on the schedule, the seed and t only: rounds may be read in any order and repeatedly.

    - `name`, `n`, `seed`: name, number of peers and seed of the schedule.
    - `period`: the rounds t and t + period are equal; None if rounds never repeat.
    - `directed`: whether some round has a link that goes one way only; matrices are then not symmetric.
    - `max_degree`: the largest number of peers that one peer sends to in a round (a peer may receive from more if directed).
    - `contraction`: the largest factor by which one round multiplies the expected squared disagreement, over all starts;
      exact, by a formula from the literature; None if no formula is known or nothing is random.
    - `recipe`: a function and its arguments that make the same schedule in another process; None if there is none.
    """

    def __init__(  # noqa: PLR0913 - the attributes of a schedule
        self,
        name: str,
        n: int,
        draw: Callable[[int], np.ndarray],
        *,
        seed: int = 0,
        period: int | None = None,
        directed: bool = False,
        max_degree: int,
        contraction: float | None = None,
        reach: Callable[[], nx.Graph] | None = None,
        recipe: tuple[Callable[..., Schedule], tuple[Any, ...]] | None = None,
    ) -> None:
        self.name = name
        self.n = n
        self.seed = seed
        self.period = period
        self.directed = directed
        self.max_degree = max_degree
        self.contraction = contraction
        self._draw = draw
        self._reach = reach
        self.recipe = recipe
        self._kept: dict[int, np.ndarray] = {}
        self._weights: dict[int, _Weights] = {}
        self._weights_kept = 0

    def matrix(self, t: int) -> np.ndarray:
        """Return W of round t, float64 [n, n], read-only: x <- W x, row i holds the weights that peer i uses.

        Raises ValueError unless t is a whole number, 0 or more.
        """
        t = self._turn(t)
        if t not in self._kept:
            if len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            matrix = self._draw(t)
            matrix.flags.writeable = False
            self._kept[t] = matrix
        return self._kept[t]

    def graph(self, t: int) -> nx.Graph:
        """Return the links of round t: a Graph, or, if the schedule is directed, a DiGraph with edges sender -> receiver.

        Each non-zero weight is an edge with the attribute `weight`; a peer may have no edge.
        """
        matrix = self.matrix(t)
        graph = self._empty()
        receivers, senders = np.nonzero(matrix)
        for receiver, sender in zip(receivers.tolist(), senders.tolist(), strict=True):
            if receiver != sender and (self.directed or sender < receiver):
                graph.add_edge(sender, receiver, weight=float(matrix[receiver, sender]))
        return graph

    def weights(self, t: int, peer: int) -> dict[int, float]:
        """Return the weights that a peer gives to the models it receives in round t: sender -> weight, senders ascending."""
        of = self._weights_of(t)
        part = slice(of.heard_starts[peer], of.heard_starts[peer + 1])
        return dict(zip(of.heard_from[part].tolist(), of.heard_weights[part].tolist(), strict=True))

    def targets(self, t: int, peer: int) -> list[int]:
        """Return the peers that a peer sends to in round t, ascending."""
        of = self._weights_of(t)
        targets: list[int] = of.sent_to[of.sent_starts[peer] : of.sent_starts[peer + 1]].tolist()
        return targets

    @cached_property
    def reach(self) -> nx.Graph:
        """The graph of all links that some round uses or, if rounds are random, may use: the links that need a network."""
        if self._reach is not None:
            return self._reach()
        graph = self._empty()
        if self.period is None:
            check_links(self.n * (self.n - 1) / 2, "a schedule whose rounds may use any link", self.n)
            complete = nx.complete_graph(self.n)
            graph.add_edges_from(complete.to_directed().edges if self.directed else complete.edges)
        else:
            for t in range(self.period):
                graph.add_edges_from(self.graph(t).edges)
        return graph

    def _weights_of(self, t: int) -> _Weights:
        t = self._turn(t)
        found = self._weights.get(t)
        if found is None:
            off = self.matrix(t).copy()
            np.fill_diagonal(off, 0.0)
            receivers, heard_from = np.nonzero(off)
            senders, sent_to = np.nonzero(off.T)
            peers = np.arange(self.n + 1)
            found = _Weights(
                heard_from,
                off[receivers, heard_from],
                np.searchsorted(receivers, peers),
                sent_to,
                np.searchsorted(senders, peers),
            )
            self._weights[t] = found
            self._weights_kept += len(heard_from)
            while self._weights_kept > KEPT_WEIGHTS and len(self._weights) > 1:
                self._weights_kept -= len(self._weights.pop(next(iter(self._weights))).heard_from)
        return found

    def __reduce__(self) -> tuple[Callable[..., Schedule], tuple[Any, ...]]:
        if self.recipe is None:
            raise TypeError(
                f"{self!r} was made from a function and cannot be sent to another process; give it a recipe, or make it by name"
            )
        return self.recipe

    def _turn(self, t: int) -> int:
        try:
            t = operator.index(t)
        except TypeError:
            raise ValueError(f"round {t!r} is not a whole number; rounds are counted from 0") from None
        if t < 0:
            raise ValueError(f"there is no round {t}; rounds are counted from 0")
        return t if self.period is None else t % self.period

    def _empty(self) -> nx.Graph:
        graph = nx.DiGraph(name=self.name) if self.directed else nx.Graph(name=self.name)
        graph.add_nodes_from(range(self.n))
        return graph

    def __repr__(self) -> str:
        rounds = "endless" if self.period is None else f"period {self.period}"
        return f"<Schedule {self.name} of {self.n} peers, {rounds}>"


def still(graph: nx.Graph, rule: str = "metropolis", rates: np.ndarray | None = None) -> Schedule:
    """Return a fixed graph as a schedule of period 1; raises ValueError as `mixing_matrix` does."""
    graph = graph.copy()
    matrix = mixing_matrix(graph, rule, rates)
    off = (matrix != 0.0) & ~np.eye(len(matrix), dtype=bool)
    return Schedule(
        str(graph.name or "graph"),
        len(matrix),
        lambda t: matrix.copy(),
        period=1,
        directed=graph.is_directed(),
        max_degree=int(off.sum(axis=0).max()),
        reach=graph.copy,
        recipe=(still, (graph, rule, rates)),
    )


def of_pairs(name: str, n: int, rounds: Sequence[Round], seed: int = 0) -> Schedule:
    """Return a schedule that repeats these undirected rounds, each given by its pairs and their weights."""
    rounds = rounds or [{}]  # a single peer has no partner
    degree = max(max(Counter(peer for pair in one for peer in pair).values(), default=0) for one in rounds)
    return Schedule(name, n, lambda t: _symmetric(n, rounds[t]), seed=seed, period=len(rounds), max_degree=degree)


def grouped(n: int, groups: Iterable[Sequence[int] | np.ndarray]) -> np.ndarray:
    """Return the matrix of averaging within groups, float64 [n, n]; a peer in no group keeps its model."""
    matrix = np.eye(n)
    for group in groups:
        place = np.asarray(group)
        matrix[np.ix_(place, place)] = 1.0 / len(place)
    return matrix


def _symmetric(n: int, pairs: Round) -> np.ndarray:
    matrix = np.zeros((n, n))
    for (i, j), weight in pairs.items():
        matrix[i, j] = matrix[j, i] = weight
    own = 1.0 - matrix.sum(axis=1)
    own[np.abs(own) < ROUND_OFF] = 0.0  # round-off: exactly 0 means no weight on the own model
    np.fill_diagonal(matrix, own)
    return matrix
