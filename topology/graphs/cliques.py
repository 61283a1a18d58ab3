"""Graphs made of cliques: D-Cliques, each with balanced labels, and micro-clouds, each of peers near each other."""

from __future__ import annotations

from itertools import combinations
from typing import ClassVar, Literal, get_args

import networkx as nx
import numpy as np

from grapevine.topology.graphs.base import Laid, require

Between = Literal["ring", "full", "fractal", "small-world"]
CLOSER = 1e-12  # a swap counts if it lowers the skew by more than round-off
MOST_PASSES = 100


class DCliques(Laid, frozen=True, kw_only=True, tag="d-cliques"):
    """Cliques, joined by a few links; the labels in each clique are spread about as in the whole fleet.

    Bellet, Kermarrec and Lavoie 2022 (arXiv 2104.07365). Departures: all pairs of cliques are tried, in random order, until
    no swap of two peers lowers the skew; the paper tries a fixed number of random pairs. Clique sizes differ by at most 1.
    """

    size: int = 10
    """Largest number of peers in a clique: 2 or more; the number of labels is a good choice."""

    between: Between = "full"
    """How cliques are joined: ring, full (a link for each pair), fractal (groups of groups), small-world (ring and chords)."""

    laid_after: ClassVar[Literal["nothing", "data", "network"]] = "data"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.size >= 2, "size", self.size, "2 or more")
        require(self.between in get_args(Between), "between", self.between, f"one of {', '.join(get_args(Between))}")

    def lay(self, graph: nx.Graph, seed: int, label_counts: np.ndarray | None, delays: np.ndarray | None) -> None:
        if label_counts is None:
            raise ValueError(
                "d-cliques depends on the labels that each peer holds; give label_counts=[peers, classes], or choose "
                "micro-clouds, which needs none"
            )
        counts = checked_counts(label_counts, len(graph))
        _lay_cliques(graph, balanced_cliques(counts, self.size, seed), self.between, "clique")


class MicroClouds(Laid, frozen=True, kw_only=True, tag="micro-clouds"):
    """Sites whose peers are all linked to each other, with one wide-area link between two sites (DLion's micro-clouds).

    Hong and Chandra 2021 (HPDC). Peers 0 to size - 1 are the first site, and so on; the links between sites are spread
    evenly over the peers of a site. Node attribute: `cloud`, the site's number; edge attribute: `wide_area`, true or false.
    """

    size: int = 4
    """Largest number of peers at a site: 1 or more; site sizes differ by at most 1."""

    between: Between = "full"
    """How sites are joined: ring, full (a link for each pair), fractal (groups of groups), small-world (ring and chords)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.size >= 1, "size", self.size, "1 or more")
        require(self.between in get_args(Between), "between", self.between, f"one of {', '.join(get_args(Between))}")

    def lay(self, graph: nx.Graph, seed: int, label_counts: np.ndarray | None, delays: np.ndarray | None) -> None:
        sites = np.array_split(np.arange(len(graph)), -(-len(graph) // self.size))
        _lay_cliques(graph, [site.tolist() for site in sites], self.between, "cloud")


def balanced_cliques(counts: np.ndarray, size: int, seed: int) -> list[list[int]]:
    """Return cliques of at most `size` peers, swapped until no swap of two peers lowers the sum of the cliques' skews.

    `counts` is float64 [n, classes], the samples of each label that each peer holds; the same seed gives the same cliques.
    """
    rng = np.random.default_rng([seed, 6])
    cliques = np.array_split(rng.permutation(len(counts)), -(-len(counts) // size))
    pairs = list(combinations(range(len(cliques)), 2))
    for _ in range(MOST_PASSES):
        swaps = 0
        for place in rng.permutation(len(pairs)):
            a, b = pairs[place]
            swaps += _swap(counts, cliques[a], cliques[b])
        if not swaps:
            break
    return [sorted(clique.tolist()) for clique in cliques]


def skew(counts: np.ndarray, clique: list[int] | np.ndarray) -> float:
    """Return the sum over the labels of |share in the clique - share in the fleet|, from 0 to 2."""
    return float(_skews(counts[clique].sum(axis=0), counts.sum(axis=0)))


def checked_counts(label_counts: np.ndarray, n: int) -> np.ndarray:
    """Return label counts as float64 [n, classes].

    Raises ValueError for another shape, a negative number, and a peer without samples.
    """
    counts = np.asarray(label_counts, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != n or not counts.shape[1]:
        raise ValueError(f"label_counts are of shape {counts.shape}; expected [{n}, classes], a row for each peer")
    if not np.isfinite(counts).all() or counts.min() < 0.0 or not counts.sum(axis=1).all():
        raise ValueError("label_counts hold a negative number, or a peer without samples; give each peer some")
    return counts


def _swap(counts: np.ndarray, a: np.ndarray, b: np.ndarray) -> bool:
    """Exchange the pair of peers of two cliques that lowers their skews the most; return False if none lowers them."""
    total = counts.sum(axis=0)
    moved = counts[b][None, :, :] - counts[a][:, None, :]
    first, second = counts[a].sum(axis=0), counts[b].sum(axis=0)
    after = _skews(first + moved, total) + _skews(second - moved, total)
    i, j = np.unravel_index(int(np.argmin(after)), after.shape)
    if after[i, j] >= _skews(first, total) + _skews(second, total) - CLOSER:
        return False
    a[i], b[j] = b[j], a[i]
    return True


def _skews(sums: np.ndarray, total: np.ndarray) -> np.ndarray:
    distances: np.ndarray = np.abs(sums / sums.sum(axis=-1, keepdims=True) - total / total.sum()).sum(axis=-1)
    return distances


def _lay_cliques(graph: nx.Graph, cliques: list[list[int]], between: str, word: str) -> None:
    for number, clique in enumerate(cliques):
        for peer in clique:
            graph.nodes[peer][word] = number
    joins = JOINS[between](cliques)
    inside = [pair for clique in cliques for pair in combinations(clique, 2)]
    edges = [(min(pair), max(pair), wide) for pairs, wide in ((inside, False), (joins, True)) for pair in pairs]
    graph.add_edges_from((i, j, {"wide_area": wide}) for i, j, wide in sorted(edges))


def _ring(cliques: list[list[int]]) -> list[tuple[int, int]]:
    count = len(cliques)
    return _joined(cliques, {(min(c, (c + 1) % count), max(c, (c + 1) % count)) for c in range(count) if count > 1})


def _full(cliques: list[list[int]]) -> list[tuple[int, int]]:
    return _joined(cliques, set(combinations(range(len(cliques)), 2)))


def _small_world(cliques: list[list[int]]) -> list[tuple[int, int]]:
    """Cliques on a ring, each joined on both sides to the nearest two at distances 2^x to 2^(x+1) - 1, for every x."""
    count = len(cliques)
    pairs = set()
    for clique in range(count):
        reach = 1
        while reach <= count // 2:
            for distance in range(reach, min(reach + 2, 2 * reach)):
                other = (clique + distance) % count
                if other != clique:
                    pairs.add((min(clique, other), max(clique, other)))
            reach *= 2
    return _joined(cliques, pairs)


def _fractal(cliques: list[list[int]]) -> list[tuple[int, int]]:
    """Groups of `size` cliques (size: peers of the largest), a link for each pair; groups form larger groups in turn."""
    size = max(2, *(len(clique) for clique in cliques))
    load: dict[int, int] = {}
    joins: list[tuple[int, int]] = []
    units = cliques
    while len(units) > 1:
        groups = [units[i : i + size] for i in range(0, len(units), size)]
        for group in groups:
            joins += _joined(group, set(combinations(range(len(group)), 2)), load)
        units = [[peer for unit in group for peer in unit] for group in groups]
    return joins


def _joined(cliques: list[list[int]], pairs: set[tuple[int, int]], load: dict[int, int] | None = None) -> list[tuple[int, int]]:
    """Return a link for each pair of cliques, between the peers that have the fewest such links so far."""
    load = {} if load is None else load
    joins = []
    for pair in sorted(pairs):
        i, j = (min(cliques[clique], key=lambda peer: (load.get(peer, 0), peer)) for clique in pair)
        load[i], load[j] = load.get(i, 0) + 1, load.get(j, 0) + 1
        joins.append((i, j))
    return joins


JOINS = {"ring": _ring, "full": _full, "fractal": _fractal, "small-world": _small_world}
