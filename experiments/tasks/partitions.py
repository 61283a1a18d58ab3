"""Partitions, which split the training data among the peers (the menu `AnyPartition`), and figures of the result.

Each rule is the same for every peer; the seed decides which peer gets which share. Every index is used exactly once, except by
`bootstrap`, which draws with replacement.
"""

from abc import abstractmethod
from typing import NamedTuple

import msgspec
import numpy as np

_STREAM = 0x5A17  # keeps these random numbers apart from those that other parts draw from the same seed
_TRIES = 20


class Partition(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """The rule that splits the training data among the peers."""

    @abstractmethod
    def split(self, labels: np.ndarray, peers: int, seed: int) -> list[np.ndarray]:
        """Return the samples 0..len(labels)-1 split among the peers: one int64 array of indices for each, sorted.

        Raises ValueError if there are too few samples for so many peers, or if the rule needs classes and the labels are not
        classes.
        """
        raise NotImplementedError


class _Rule(Partition, frozen=True, kw_only=True):
    """A partition of the menu, by a generator of its own."""

    def split(self, labels: np.ndarray, peers: int, seed: int) -> list[np.ndarray]:
        if peers > len(labels) and not isinstance(self, Bootstrap):
            raise ValueError(
                f"{peers} peers cannot share {len(labels)} training samples, since every peer needs one: "
                f"use at most {len(labels)} peers, or the partition bootstrap, which draws with replacement"
            )
        shards = self._shards(labels, peers, np.random.default_rng([seed, _STREAM]))
        return [np.sort(shard).astype(np.int64) for shard in shards]

    @abstractmethod
    def _shards(self, labels: np.ndarray, peers: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Return the indices of each peer's samples, in any order; `split` has checked their number."""
        raise NotImplementedError


class Spared(Partition, frozen=True, tag="spared"):
    """Another partition for all peers except servers, which hold no samples because they do not train; in no menu."""

    partition: Partition
    """The partition for the other peers."""
    servers: int
    """The number of servers: peers 0 to servers - 1."""

    def split(self, labels: np.ndarray, peers: int, seed: int) -> list[np.ndarray]:
        return [np.zeros(0, np.int64)] * self.servers + self.partition.split(labels, peers - self.servers, seed)


class Checked(Partition, frozen=True, tag="checked"):
    """A user's own partition, whose result is checked; in no menu."""

    partition: Partition
    """The partition that splits the data."""

    def split(self, labels: np.ndarray, peers: int, seed: int) -> list[np.ndarray]:
        """Return the split of the partition.  Raises ValueError if it is not one array of indices of `labels` for each peer."""
        found: object = self.partition.split(labels, peers, seed)
        if not isinstance(found, list | tuple) or len(found) != peers:
            count = f"{len(found)} parts" if isinstance(found, list | tuple) else type(found).__name__
            raise ValueError(f"split(...) returned {count} for {peers} peers; return a list with one array of indices for each")
        shards = [np.asarray(shard) for shard in found]
        for peer, shard in enumerate(shards):
            if shard.ndim != 1 or (len(shard) and shard.dtype.kind not in "iu"):
                kind = f"{shard.dtype} of shape {list(shard.shape)}"
                raise ValueError(f"split(...) returned {kind} for peer {peer}; return whole numbers, int64 [samples]")
            if len(shard) and not 0 <= shard.min() <= shard.max() < len(labels):
                least, most = shard.min(), shard.max()
                raise ValueError(f"split(...) gave peer {peer} indices from {least} to {most}; there are {len(labels)} samples")
        return [shard.astype(np.int64) for shard in shards]


class Iid(_Rule, frozen=True, tag="iid"):
    """Every peer gets an equal random share; sizes differ by at most one."""

    def _shards(self, labels: np.ndarray, peers: int, rng: np.random.Generator) -> list[np.ndarray]:
        return np.array_split(rng.permutation(len(labels)), peers)


class Bootstrap(_Rule, frozen=True, tag="bootstrap"):
    """Every peer draws its own samples from all data, with replacement: any number of peers for any amount of data."""

    samples: int = 100
    """Number of samples that each peer draws, 1 to a million; several peers may draw the same sample, or one peer twice."""

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= 1_000_000:
            raise ValueError(f"samples = {self.samples}: expected 1 to 1,000,000 samples for each peer")

    def _shards(self, labels: np.ndarray, peers: int, rng: np.random.Generator) -> list[np.ndarray]:
        return list(rng.integers(len(labels), size=(peers, self.samples)))


class Dirichlet(_Rule, frozen=True, tag="dirichlet"):
    """Label skew: each class is split in proportions drawn from Dir(alpha); small alpha = few classes a peer, unequal sizes.

    Class by class (Yurochkin et al., ICML 2019; Lin et al., ICML 2021): draw p ~ Dir(alpha, ..., alpha), set p to zero
    for peers that hold an even share already, renormalise, cut the shuffled class at the cumulative sums; draw
    everything again while a peer has fewer than `minimum` samples. Departures: the classes come in random order, so
    that none is always split last; and if 20 draws fail, the best of them is corrected, by moving random samples from
    the largest peers to those below the minimum.
    """

    alpha: float = 0.5
    """Concentration, above 0: 0.1 is strong skew, 1 mild, 100 nearly iid."""
    minimum: int | None = None
    """The least number of samples of a peer (at least 1); left out = half of an even share."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha < float("inf"):
            raise ValueError(f"alpha = {self.alpha}: the concentration must be above 0 and finite, for example 0.3")
        if self.minimum is not None and self.minimum < 1:
            raise ValueError(f"minimum = {self.minimum}: every peer needs at least 1 sample")

    def _shards(self, labels: np.ndarray, peers: int, rng: np.random.Generator) -> list[np.ndarray]:
        least = self.minimum if self.minimum is not None else max(1, len(labels) // (2 * peers))
        if least * peers > len(labels):
            raise ValueError(
                f"{peers} peers with minimum = {least} need {least * peers} training samples, there are {len(labels)}: "
                f"set minimum to {len(labels) // peers} or less, or use at most {len(labels) // least} peers"
            )
        classes = _by_class(labels, "dirichlet")
        best: list[np.ndarray] = []
        for _ in range(_TRIES):
            shards = _deal(classes, peers, self.alpha, rng)
            if not best or min(map(len, shards)) > min(map(len, best)):
                best = shards
            if min(map(len, best)) >= least:
                return best
        return _filled(best, least, rng)


class Shards(_Rule, frozen=True, tag="shards"):
    """Samples sorted by label and cut into equal shards, a few for each peer: with 2, most peers see about two classes.

    McMahan et al., AISTATS 2017, section 3. Shards differ in size by at most one sample.
    """

    per_peer: int = 2
    """Number of shards of each peer (at least 1)."""

    def __post_init__(self) -> None:
        if self.per_peer < 1:
            raise ValueError(f"per_peer = {self.per_peer}: every peer needs at least 1 shard")

    def _shards(self, labels: np.ndarray, peers: int, rng: np.random.Generator) -> list[np.ndarray]:
        wanted = peers * self.per_peer
        if wanted > len(labels):
            raise ValueError(
                f"{peers} peers with per_peer = {self.per_peer} need {wanted} shards, for {len(labels)} training samples: "
                f"set per_peer to {len(labels) // peers} or less, or use at most {len(labels) // self.per_peer} peers"
            )
        by_label = np.concatenate([rng.permutation(members) for members in _by_class(labels, "shards")])
        pieces = np.array_split(by_label, wanted)
        dealt = rng.permutation(wanted).reshape(peers, self.per_peer)
        return [np.concatenate([pieces[piece] for piece in row]) for row in dealt]


AnyPartition = Iid | Dirichlet | Shards | Bootstrap


class Skew(NamedTuple):
    """The differences between the peers' data."""

    sizes: list[int]
    """Number of samples of each peer."""
    classes: list[int]
    """Number of different labels of each peer."""
    distances: list[float]
    """Total variation between each peer's label frequencies and those of all peers: 0 = equal, near 1 = no common labels."""


def skew(labels: np.ndarray, shards: list[np.ndarray]) -> Skew | None:
    """Return the differences between the peers' data; None if the labels are not classes."""
    counts = count_labels(labels, shards)
    if counts is None:
        return None
    held = counts.sum(axis=1)
    laws = counts / np.maximum(held, 1)[:, None]
    overall = counts.sum(axis=0) / counts.sum()
    distances = np.where(held > 0, 0.5 * np.abs(laws - overall).sum(axis=1), 0.0)
    return Skew([len(shard) for shard in shards], [int(row) for row in (counts > 0).sum(axis=1)], distances.tolist())


def count_labels(labels: np.ndarray, shards: list[np.ndarray]) -> np.ndarray | None:
    """Return each peer's number of samples of each label, float64 [peers, classes]; None if the labels are not classes."""
    if not _are_classes(labels):
        return None
    _, codes = np.unique(labels, return_inverse=True)
    return np.array([np.bincount(codes[shard], minlength=codes.max() + 1) for shard in shards], dtype=np.float64)


def _are_classes(labels: np.ndarray) -> bool:
    return labels.ndim == 1 and labels.dtype.kind in "iub"


def _by_class(labels: np.ndarray, rule: str) -> list[np.ndarray]:
    """Return the indices of each class, classes in ascending order."""
    if not _are_classes(labels):
        raise ValueError(
            f'the partition "{rule}" sorts samples by class, but the labels are {labels.dtype} of shape {labels.shape}; '
            'give one integer label per sample, or use "iid"'
        )
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _deal(classes: list[np.ndarray], peers: int, alpha: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Return one draw of the class-wise rule."""
    even = sum(map(len, classes)) / peers
    held: list[list[np.ndarray]] = [[] for _ in range(peers)]
    sizes = np.zeros(peers, dtype=np.int64)
    for number in rng.permutation(len(classes)):
        members = rng.permutation(classes[number])
        law = np.where(sizes < even, rng.dirichlet(np.full(peers, alpha)), 0.0)
        if not law.sum() > 0:  # a very small alpha gave the whole class to peers that are full
            law = (sizes < even).astype(np.float64)
        cuts = (np.cumsum(law / law.sum())[:-1] * len(members)).astype(np.int64)
        for peer, part in enumerate(np.split(members, cuts)):
            held[peer].append(part)
            sizes[peer] += len(part)
    return [np.concatenate(parts) for parts in held]


def _filled(shards: list[np.ndarray], least: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the shards after moving random samples, no more than needed, from the largest peers to those below the minimum."""
    shards = [rng.permutation(shard) for shard in shards]
    sizes = np.array([len(shard) for shard in shards])
    for poor in rng.permutation(len(shards)):
        while sizes[poor] < least:
            rich = int(sizes.argmax())
            count = min(least - sizes[poor], max(1, (sizes[rich] - least) // 2))
            shards[poor] = np.concatenate([shards[poor], shards[rich][:count]])
            shards[rich] = shards[rich][count:]
            sizes[poor] += count
            sizes[rich] -= count
    return shards
