"""MATCHA: a graph split into matchings, each used at random, more often if the whole graph's agreement depends on it.

Wang, Sahu, Yang, Joshi and Kar, "MATCHA: Speeding up decentralized SGD via matching decomposition sampling"
(arXiv 1905.09435), sections 3 and 4. Matchings by Misra and Gries (1992), "A constructive proof of Vizing's theorem".
"""

from __future__ import annotations

from typing import NamedTuple

import networkx as nx
import numpy as np

MOST_CUTS = 400  # the most linear programs solved; a few dozen are enough for graphs of ten matchings
PRECISE = 1e-6  # relative error of the algebraic connectivity; smaller errors show in no figure


class Plan(NamedTuple):
    """The matchings, probabilities and weight from which MATCHA draws its rounds."""

    matchings: list[list[tuple[int, int]]]
    """Sets of edges without a common peer; their number is at most the largest degree + 1."""
    chances: np.ndarray
    """The probability that each matching is used in a round, float64 [matchings]."""
    weight: float
    """The weight that two matched peers give each other's model."""
    contraction: float
    """The norm of E[W'W] - J: the largest factor by which a round multiplies the expected squared disagreement."""


def plan(graph: nx.Graph, budget: float) -> Plan:
    """Return matchings, chances and weight for a connected graph on 0..n-1; a round uses the share `budget` on average.

    The chances maximise the second eigenvalue of the expected Laplacian; the weight minimises the contraction.
    """
    matchings = edge_colouring(graph)
    laplacians = np.array([_laplacian(len(graph), matching) for matching in matchings])
    chances = activation(laplacians, budget)
    weight, contraction = best_weight(laplacians, chances)
    return Plan(matchings, chances, weight, contraction)


def activation(laplacians: np.ndarray, budget: float) -> np.ndarray:
    """Return the probabilities p of the matchings, float64 [m], that maximise the second eigenvalue of sum p_j L_j.

    The constraint is sum p <= budget m; `laplacians` is float64 [m, n, n]. The function is concave, and every vector v gives
    a plane above it, v'(sum p_j L_j)v. The largest value below all planes so far is a linear program (scipy's HiGHS); its
    solution gives new planes (Kelley's cutting planes), until the bound equals the best value found.
    """
    from scipy.optimize import linprog

    m = len(laplacians)
    best = np.full(m, float(budget))
    found, cuts = _second(laplacians, best)
    planes = [cuts]
    for _ in range(MOST_CUTS if budget < 1.0 else 0):
        above = np.vstack(planes) / found  # scaled to 1: otherwise the solver's tolerances are too coarse for rings
        answer = linprog(
            np.r_[np.zeros(m), -1.0],
            A_ub=np.vstack([np.c_[-above, np.ones(len(above))], np.r_[np.ones(m), 0.0]]),
            b_ub=np.r_[np.zeros(len(above)), budget * m],
            bounds=[(0.0, 1.0)] * m + [(None, None)],
            method="highs",
        )
        if answer.x is None or answer.x[-1] <= 1.0 + PRECISE:
            break
        # also half way to the best point so far: the solution of a linear program is a corner, where planes are less useful
        for share in (0.5, 1.0):
            trial = best + share * (np.clip(answer.x[:m], 0.0, 1.0) - best)
            value, cuts = _second(laplacians, trial)
            planes.append(cuts)
            if value > found:
                found, best = value, trial
    probabilities: np.ndarray = np.clip(best, 0.0, 1.0)
    return probabilities


def best_weight(laplacians: np.ndarray, chances: np.ndarray) -> tuple[float, float]:
    """Return the weight a that minimises |E[W'W] - J| for W = I - a sum_j B_j L_j, B_j = 1 with chance p_j; and the norm.

    The expectation is I - 2a L + a^2 (L^2 + 2V) with L = sum p_j L_j and V = sum p_j (1 - p_j) L_j, since L_j^2 = 2 L_j for
    a matching; its norm is convex in a.
    """
    from scipy.optimize import minimize_scalar

    n = laplacians.shape[1]
    mean = np.tensordot(chances, laplacians, axes=1)
    square = mean @ mean + 2.0 * np.tensordot(chances * (1.0 - chances), laplacians, axes=1)
    apart = np.eye(n) - 1.0 / n

    def norm(weight: float) -> float:
        return float(np.linalg.eigvalsh(apart - 2.0 * weight * mean + weight**2 * square)[-1])

    most = 2.0 / float(np.linalg.eigvalsh(mean)[-1])  # above this weight one component of the disagreement grows
    answer = minimize_scalar(norm, bounds=(0.0, most), method="bounded", options={"xatol": 1e-12 * most})
    return float(answer.x), float(answer.fun)


def edge_colouring(graph: nx.Graph) -> list[list[tuple[int, int]]]:
    """Split the edges of a graph into matchings, at most one more than the largest degree (Misra and Gries)."""
    colours = max((degree for _, degree in graph.degree), default=0) + 1
    at: dict[int, dict[int, int]] = {node: {} for node in graph}  # node -> colour -> neighbour
    of: dict[frozenset[int], int] = {}

    def free(node: int) -> int:
        return next(colour for colour in range(colours) if colour not in at[node])

    def paint(u: int, v: int, colour: int) -> None:
        of[frozenset((u, v))] = colour
        at[u][colour], at[v][colour] = v, u

    def wipe(u: int, v: int) -> None:
        colour = of.pop(frozenset((u, v)))
        del at[u][colour], at[v][colour]

    def fan(u: int, v: int) -> list[int]:
        leaves = [v]
        while True:
            following = next((w for colour, w in at[u].items() if colour not in at[leaves[-1]] and w not in leaves), None)
            if following is None:
                return leaves
            leaves.append(following)

    def turn_path(u: int, c: int, d: int) -> None:
        """Exchange the colours c and d along the path of these colours that begins at u; u itself has no edge of colour c."""
        path, node, colour = [], u, d
        while colour in at[node]:
            path.append((node, at[node][colour], colour))
            node, colour = at[node][colour], c if colour == d else d
        for a, b, _ in path:
            wipe(a, b)
        for a, b, colour in path:
            paint(a, b, c if colour == d else d)

    for u, v in sorted((min(edge), max(edge)) for edge in graph.edges):
        leaves = fan(u, v)
        c, d = free(u), free(leaves[-1])
        if c != d:
            turn_path(u, c, d)
        last = _end_of_fan(u, leaves, d, at, of)
        for i in range(last):
            colour = of[frozenset((u, leaves[i + 1]))]
            wipe(u, leaves[i + 1])
            paint(u, leaves[i], colour)
        paint(u, leaves[last], d)
    matchings: list[list[tuple[int, int]]] = [[] for _ in range(colours)]
    for edge, colour in of.items():
        i, j = sorted(edge)
        matchings[colour].append((i, j))
    return [sorted(matching) for matching in matchings if matching]


def _end_of_fan(u: int, leaves: list[int], d: int, at: dict[int, dict[int, int]], of: dict[frozenset[int], int]) -> int:
    """Return the first leaf without an edge of colour d, if the leaves before it still form a fan after the exchange."""
    for i, leaf in enumerate(leaves):
        if i and of[frozenset((u, leaf))] in at[leaves[i - 1]]:
            break
        if d not in at[leaf]:
            return i
    raise AssertionError("Misra and Gries: some part of the fan ends in a leaf with the colour free")


def _laplacian(n: int, matching: list[tuple[int, int]]) -> np.ndarray:
    laplacian = np.zeros((n, n))
    for i, j in matching:
        laplacian[i, i] += 1.0
        laplacian[j, j] += 1.0
        laplacian[i, j] = laplacian[j, i] = -1.0
    return laplacian


def _second(laplacians: np.ndarray, chances: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the second eigenvalue of the mean Laplacian, and the planes of it and the next few: float64 [planes, m]."""
    values, vectors = np.linalg.eigh(np.tensordot(chances, laplacians, axes=1))
    near = vectors[:, 1 : 1 + max(1, min(8, len(values) - 1))]
    near = near - near.mean(axis=0)  # in a disconnected graph the constant vector may be part of these
    near = near / np.maximum(np.linalg.norm(near, axis=0), 1e-9)
    planes = np.einsum("av,mab,bv->vm", near, laplacians, near, optimize=True)
    return float(values[1]), planes
