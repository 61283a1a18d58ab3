"""The schedules on the menu: graphs that change from round to round, by name and number of peers."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import msgspec
import networkx as nx
import numpy as np

from grapevine.topology.graphs.base import check_degree, peers_and_seed, regular, require
from grapevine.topology.schedules import finite
from grapevine.topology.schedules.rounds import Schedule, grouped, of_pairs


class TimeVarying(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """Configuration of a schedule, a graph that changes from round to round; `plan` makes it for a number of peers."""

    smallest: ClassVar[int] = 1

    @property
    def name(self) -> str:
        """The schedule's name on the menu."""
        return str(self.__struct_config__.tag)

    def plan(self, n: int, seed: int = 0, graph: nx.Graph | None = None) -> Schedule:
        """Return the schedule for n peers, the same for the same seed; `graph` replaces the graph that an option names.

        Raises ValueError if no such schedule exists for n peers; the message names the nearest n or option that works.
        """
        n, seed = peers_and_seed(self.name, n, seed, self.smallest, "schedule 'base'")
        if graph is not None:
            raise ValueError(f"{self.name} makes its own graphs; give a graph to 'random-edge', 'matcha' or 'laplacian'")
        schedule = self.checked(self.rounds(n, seed), n)
        schedule.recipe = self.plan, (n, seed)
        return schedule

    def checked(self, schedule: Schedule, n: int) -> Schedule:
        """Return a schedule that `rounds` has made; raise ValueError if it is none for n peers."""
        if not isinstance(schedule, Schedule) or schedule.n != n:
            given = f"one for {schedule.n}" if isinstance(schedule, Schedule) else type(schedule).__name__
            problem = f"{self.name} returned {given}, not a schedule for {n} peers"
            raise ValueError(f"{problem}; return Schedule(name, {n}, draw, ...)")
        return schedule

    @abstractmethod
    def rounds(self, n: int, seed: int) -> Schedule:
        """Return the schedule for n peers; `plan` has checked n and seed."""
        raise NotImplementedError


class OnePeerExponential(TimeVarying, frozen=True, kw_only=True, tag="one-peer-exponential"):
    """Round t: each peer sends to the peer 2^t places after it, with weight 1/2; the exact mean after m rounds if n = 2^m."""

    smallest: ClassVar[int] = 2

    def rounds(self, n: int, seed: int) -> Schedule:
        return _exponential(self.name, 1, n, seed)


class KPeerExponential(TimeVarying, frozen=True, kw_only=True, tag="k-peer-exponential"):
    """Round t: each peer sends to k peers, j (k+1)^t places after it; exact after log_{k+1}(n) rounds if n = (k+1)^m."""

    k: int = 2
    """Peers that each peer sends to in a round: 1 to peers - 1."""

    smallest: ClassVar[int] = 2

    def __post_init__(self) -> None:
        require(self.k >= 1, "k", self.k, "1 or more")

    def rounds(self, n: int, seed: int) -> Schedule:
        _check_below("k", self.k, n)
        return _exponential(self.name, self.k, n, seed)


class OnePeerHypercube(TimeVarying, frozen=True, kw_only=True, tag="one-peer-hypercube"):
    """Round t: the two peers whose numbers differ in bit t only average; the exact mean after m rounds; n = 2^m."""

    smallest: ClassVar[int] = 2

    def rounds(self, n: int, seed: int) -> Schedule:
        bits = n.bit_length() - 1
        if n != 1 << bits:
            raise ValueError(
                f"one-peer-hypercube needs a power of two, not {n} peers; set peers to {1 << bits} or {2 << bits}, "
                "or choose 'base', which works for any number"
            )
        pairs = [{(i, i | 1 << bit): 0.5 for i in range(n) if not i >> bit & 1} for bit in range(bits)]
        return of_pairs(self.name, n, pairs, seed)


class _UpToK(TimeVarying, frozen=True, kw_only=True):
    k: int = 1
    """Largest number of neighbours of a peer in a round: 1 or more."""

    def __post_init__(self) -> None:
        require(self.k >= 1, "k", self.k, "1 or more")


class HyperHypercube(_UpToK, frozen=True, kw_only=True, tag="hyper-hypercube"):
    """Each round: cliques of up to k + 1 peers along one digit of their numbers; n has no prime factor above k + 1; exact."""

    def rounds(self, n: int, seed: int) -> Schedule:
        return of_pairs(self.name, n, finite.hyper_hypercube(min(self.k, n), range(n)), seed)


class SimpleBase(_UpToK, frozen=True, kw_only=True, tag="simple-base"):
    """Simple Base-(k+1): exact for any number of peers after about 2 log_{k+1}(n) rounds with k neighbours."""

    def rounds(self, n: int, seed: int) -> Schedule:
        return of_pairs(self.name, n, finite.simple_base(min(self.k, n), range(n)), seed)


class Base(_UpToK, frozen=True, kw_only=True, tag="base"):
    """Base-(k+1): like simple-base and never longer; shorter if n has small prime factors."""

    def rounds(self, n: int, seed: int) -> Schedule:
        return of_pairs(self.name, n, finite.base(min(self.k, n), n), seed)


class EquiDynamic(TimeVarying, frozen=True, kw_only=True, tag="equi-dynamic"):
    """Each round: peers average at one random distance, the same for all; about halves disagreement for any n."""

    directed: bool = False
    """true: each peer sends to one peer and receives from another; false: peers average in pairs, and some may have none."""

    eta: float = 0.5
    """How far a peer moves towards the other's model: above 0 and at most 1; at 1 it drops its own model and hardly mixes."""

    smallest: ClassVar[int] = 2

    def __post_init__(self) -> None:
        require(0.0 < self.eta <= 1.0, "eta", self.eta, "a number above 0 and at most 1")

    def rounds(self, n: int, seed: int) -> Schedule:
        def draw(t: int) -> np.ndarray:
            rng = _generator(seed, 10, t)
            step = int(rng.integers(1, n))
            if self.directed:
                partner = np.roll(np.arange(n), step)  # i receives from i - step
            else:
                partner = _paired(n, step, int(rng.integers(n)))
            other = np.eye(n)[partner]
            return (1.0 - self.eta) * np.eye(n) + self.eta * ((n - 1) / n * other + np.eye(n) / n)

        # Song et al. 2022 (arXiv 2210.07881): mean over all n - 1 distances; for pairs only bounds are known
        exact = (1.0 - self.eta) ** 2 + self.eta**2 * (1.0 - 2.0 / n)
        contraction = exact if self.directed else None
        return Schedule(self.name, n, draw, seed=seed, directed=self.directed, max_degree=1, contraction=contraction)


class EpidemicOracle(TimeVarying, frozen=True, kw_only=True, tag="epidemic-oracle"):
    """A new random regular graph in every round, with equal weights (Epidemic Learning with an oracle)."""

    s: int = 4
    """Neighbours of each peer in a round: 1 to peers - 1, with peers x s even."""

    smallest: ClassVar[int] = 2

    def __post_init__(self) -> None:
        require(self.s >= 1, "s", self.s, "1 or more")

    def rounds(self, n: int, seed: int) -> Schedule:
        check_degree(self.name, "s", self.s, n)

        def draw(t: int) -> np.ndarray:
            graph = regular(self.s, n, int(_generator(seed, 11, t).integers(2**62)))
            # Permuted: the formula for the expectation needs each peer in each place equally often
            place = _generator(seed, 12, t).permutation(n)
            beside = nx.to_numpy_array(graph, nodelist=range(n), weight=None)[np.ix_(place, place)]
            mean: np.ndarray = (beside + np.eye(n)) / (self.s + 1.0)
            return mean

        return Schedule(self.name, n, draw, seed=seed, max_degree=self.s, contraction=(1.0 - self.s / (n - 1)) / (self.s + 1.0))


class EpidemicLocal(TimeVarying, frozen=True, kw_only=True, tag="epidemic-local"):
    """Each peer sends to s random peers and averages the models it receives; the mean is kept only in expectation."""

    s: int = 4
    """Peers that each peer sends to in a round, chosen independently of the others: 1 to peers - 1."""

    smallest: ClassVar[int] = 2

    def __post_init__(self) -> None:
        require(self.s >= 1, "s", self.s, "1 or more")

    def rounds(self, n: int, seed: int) -> Schedule:
        _check_below("s", self.s, n)

        def draw(t: int) -> np.ndarray:
            rng = _generator(seed, 13, t)
            heard = np.eye(n)
            for sender in range(n):
                targets = rng.choice(n - 1, size=self.s, replace=False)
                heard[targets + (targets >= sender), sender] = 1.0
            mean: np.ndarray = heard / heard.sum(axis=1, keepdims=True)
            return mean

        # De Vos et al. 2023 (arXiv 2310.01972): disagreement about the mean before the round
        contraction = (1.0 - (1.0 - self.s / (n - 1)) ** n) / self.s - 1.0 / (n - 1)
        return Schedule(self.name, n, draw, seed=seed, directed=True, max_degree=self.s, contraction=contraction)


class RandomMatching(TimeVarying, frozen=True, kw_only=True, tag="random-matching"):
    """Each round: peers average in random pairs; with an odd number one peer exchanges nothing."""

    smallest: ClassVar[int] = 2

    def rounds(self, n: int, seed: int) -> Schedule:
        def draw(t: int) -> np.ndarray:
            order = _generator(seed, 14, t).permutation(n)
            return grouped(n, [order[i : i + 2] for i in range(0, n - 1, 2)])

        return Schedule(self.name, n, draw, seed=seed, max_degree=1, contraction=_of_groups(n, (n + 1) // 2))


class Moshpit(TimeVarying, frozen=True, kw_only=True, tag="moshpit"):
    """Peers on a grid average in groups along one axis after the other; exact if n is a power of the group size.

    Ryabinin, Gorbunov, Plokhotnyuk and Pekhimenko 2021 (arXiv 2103.03239). Departure: if n is not a power of `size`, the
    paper's grid has holes and its groups depend on the members; here random groups of sizes that differ by at most 1 are
    drawn in each round.
    """

    size: int = 4
    """Peers in a group: 2 to peers."""

    smallest: ClassVar[int] = 2

    def __post_init__(self) -> None:
        require(self.size >= 2, "size", self.size, "2 or more")

    def rounds(self, n: int, seed: int) -> Schedule:
        _check_below("size", self.size - 1, n, shown=self.size)
        axes = _powers(self.size, n)
        if self.size ** len(axes) == n:

            def along(t: int) -> np.ndarray:
                step = axes[t]
                return grouped(n, [range(i, i + step * self.size, step) for i in range(n) if not i // step % self.size])

            return Schedule(self.name, n, along, seed=seed, period=len(axes), max_degree=self.size - 1)
        count = -(-n // self.size)

        def draw(t: int) -> np.ndarray:
            return grouped(n, np.array_split(_generator(seed, 15, t).permutation(n), count))

        largest = -(-n // count)
        return Schedule(self.name, n, draw, seed=seed, max_degree=largest - 1, contraction=_of_groups(n, count))


def _exponential(name: str, k: int, n: int, seed: int) -> Schedule:
    """Return rounds with the offsets j (k+1)^t, j = 0..k, each of weight 1 / (k + 1); weights of equal offsets add up."""
    strides = _powers(k + 1, n)

    def draw(t: int) -> np.ndarray:
        matrix = np.zeros((n, n))
        for j in range(k + 1):
            matrix[(np.arange(n) + j * strides[t]) % n, np.arange(n)] += 1.0 / (k + 1)
        return matrix

    return Schedule(name, n, draw, seed=seed, period=len(strides), directed=True, max_degree=k)


def _powers(base: int, n: int) -> list[int]:
    """Return 1, base, base^2, ...: 1 and all powers below n."""
    powers = [1]
    while powers[-1] * base < n:
        powers.append(powers[-1] * base)
    return powers


def _paired(n: int, step: int, start: int) -> np.ndarray:
    """Return each peer's partner: from `start` on, i and i + step are paired if both are free; others get themselves."""
    partner = np.arange(n)
    for i in range(start, start + n):
        one, other = i % n, (i + step) % n
        if partner[one] == one and partner[other] == other:
            partner[one], partner[other] = other, one
    return partner


def _of_groups(n: int, count: int) -> float:
    """Return the contraction of averaging in `count` random groups, a projection of that rank: (count - 1) / (n - 1)."""
    return (count - 1) / (n - 1)


def _generator(seed: int, stream: int, t: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream, t])


def _check_below(field: str, value: int, n: int, shown: int | None = None) -> None:
    if value >= n:
        given = value if shown is None else shown
        raise ValueError(f"{field} = {given} needs at least {value + 1} peers, not {n}; raise peers or lower {field}")
