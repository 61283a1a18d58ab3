"""Expander graphs from number theory: not random, and about as fast to mix as random graphs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

from grapevine.topology.graphs.base import Edges, Topology, check_links


class Paley(Topology, frozen=True, kw_only=True, tag="paley"):
    """Peers are linked if their numbers differ by a square modulo n: half of all pairs, spread evenly.

    For a prime n = 4 k + 1; the adjacency matrix has the eigenvalues (n - 1) / 2 and (-1 +- sqrt(n)) / 2.
    """

    smallest: ClassVar[int] = 5

    def edges(self, n: int, seed: int) -> Edges:
        _check(self.name, n, lambda m: is_prime(m) and m % 4 == 1, "a prime number of peers, one more than a multiple of 4")
        check_links(n * (n - 1) / 4, self.name, n)
        squares = {i * i % n for i in range(1, n)}
        return [(i, j) for i in range(n) for j in range(i + 1, n) if (j - i) % n in squares]


class ChordalCycle(Topology, frozen=True, kw_only=True, tag="chordal-cycle"):
    """A ring with a chord from each peer to its inverse modulo n: up to three neighbours, short paths; n is a prime.

    Lubotzky 1994, theorem 4.4.2. Peers 0, 1 and n - 1 are their own inverses and have no chord.
    """

    smallest: ClassVar[int] = 5

    def edges(self, n: int, seed: int) -> Edges:
        _check(self.name, n, is_prime, "a prime number of peers")
        chords = ((i, pow(i, -1, n)) for i in range(1, n))
        return {(min(i, j), max(i, j)) for i, j in [*((i, (i + 1) % n) for i in range(n)), *chords] if i != j}


class MargulisGabberGalil(Topology, frozen=True, kw_only=True, tag="margulis-gabber-galil"):
    """Peers on a square grid, linked by shear maps of their coordinates: up to eight neighbours, an expander for any side.

    Gabber and Galil 1981; n is a square. Links that coincide count once: some peers have fewer than eight neighbours.
    """

    smallest: ClassVar[int] = 9

    def edges(self, n: int, seed: int) -> Edges:
        _check(self.name, n, lambda m: math.isqrt(m) ** 2 == m, "a square number of peers")
        side = math.isqrt(n)
        found = set()
        for x in range(side):
            for y in range(side):
                for u, v in ((x + 2 * y, y), (x + 2 * y + 1, y), (x, y + 2 * x), (x, y + 2 * x + 1)):
                    here, there = x * side + y, u % side * side + v % side
                    if here != there:
                        found.add((min(here, there), max(here, there)))
        return found


def is_prime(n: int) -> bool:
    """Return whether n is a prime number."""
    return n > 1 and all(n % divisor for divisor in range(2, math.isqrt(n) + 1))


def _check(name: str, n: int, holds: Callable[[int], bool], needed: str) -> None:
    if holds(n):
        return
    below = next((str(m) for m in range(n, 4, -1) if holds(m)), None)
    above = next(str(m) for m in range(n, 4 * n + 9) if holds(m))
    raise ValueError(f"{name} needs {needed}, not {n}; set peers to {' or '.join(filter(None, (below, above)))}")
