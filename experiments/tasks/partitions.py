"""How the training data are split among the peers: the menu `AnyPartition`, and figures of what came out.

All peers are treated alike: each rule is the same for every peer, and which peer gets which share is left to the seed.
Every index is used exactly once, except by `bootstrap`, which draws with replacement.
"""

from typing import NamedTuple

import msgspec
import numpy as np

_STREAM = 0x5A17  # keeps these draws apart from everything else that is drawn from the experiment's seed
_TRIES = 20


class Partition(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """How the training data are split among the peers."""

    def split(self, labels: np.ndarray, peers: int, seed: int) -> list[np.ndarray]:
        """Split samples 0..len(labels)-1 among the peers: one int64 array of indices for each, sorted.

        Raises ValueError where there are too few samples for so many peers, or where the rule needs classes and the
        labels are none.
        """
        if peers > len(labels) and not isinstance(self, Bootstrap):
            raise ValueError(
                f"{peers} peers cannot share {len(labels)} training samples, since every peer needs one: "
                f"use at most {len(labels)} peers, or the partition bootstrap, which draws with replacement"
            )
        shards = self._shards(labels, peers, np.random.default_rng([seed, _STREAM]))
        return [np.sort(shard).astype(np.int64) for shard in shards]

    def _shards(self, labels: np.ndarray, peers: int, rng: np.random.Generator) -> list[np.ndarray]:
        raise NotImplementedError


class Spared(Partition, frozen=True, tag="spared"):
    """Another rule for all peers but the first ones, who hold nothing because they train nothing; in no menu."""

    partition: Partition
    """How the others share."""
    servers: int
    """So many peers, from peer 0 on, hold nothing."""

    def split(self, labels: np.ndarray, peers: int, seed: int) -> list[np.ndarray]:
        return [np.zeros(0, np.int64)] * self.servers + self.partition.split(labels, peers - self.servers, seed)


class Iid(Partition, frozen=True, tag="iid"):
    """Every peer gets an equal random share; sizes differ by at most one."""

    def _shards(self, labels: np.ndarray, peers: int, rng: np.random.Generator) -> list[np.ndarray]:
        return np.array_split(rng.permutation(len(labels)), peers)


class Bootstrap(Partition, frozen=True, tag="bootstrap"):
    """Every peer draws its own samples from all data, with replacement: any number of peers, however few the data."""

    samples: int = 100
    """Samples that each peer draws, 1 to a million; some are drawn by several peers, or twice by one."""

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= 1_000_000:
            raise ValueError(f"samples = {self.samples}: every peer needs at least 1 sample, and a million at most")

    def _shards(self, labels: np.ndarray, peers: int, rng: np.random.Generator) -> list[np.ndarray]:
        return list(rng.integers(len(labels), size=(peers, self.samples)))


class Dirichlet(Partition, frozen=True, tag="dirichlet"):
    """Label skew: each class is dealt out by a draw from Dir(alpha); small alpha = few classes a peer, unequal sizes.

    Class by class (Yurochkin et al., ICML 2019; Lin et al., ICML 2021): draw p ~ Dir(alpha, ..., alpha), set p to zero
    for peers that hold an even share already, renormalise, cut the shuffled class at the cumulative sums; draw
    everything again while a peer has fewer than `minimum` samples. Departures: the classes come in random order, so
    that none is always dealt last; and after 20 draws in vain the best of them is mended, by moving random samples from
    the largest peers to those below the minimum.
    """

    alpha: float = 0.5
    """Concentration, above 0: 0.1 is strong skew, 1 mild, 100 nearly iid."""
    minimum: int | None = None
    """Fewest samples of a peer (at least 1); half of an even share when left out."""

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
        return _mend(best, least, rng)


class Shards(Partition, frozen=True, tag="shards"):
    """Sorted by label and cut into equal shards, a few dealt to each peer: with 2, most peers see about two classes.

    McMahan et al., AISTATS 2017, section 3. Shards differ in size by at most one sample.
    """

    per_peer: int = 2
    """Shards of each peer (at least 1)."""

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
    """How unlike the peers' data are."""

    sizes: list[int]
    """Samples of each peer."""
    classes: list[int]
    """Different labels of each peer."""
    distances: list[float]
    """Total variation between each peer's label frequencies and everybody's: 0 = alike, towards 1 = nothing in common."""


def skew(labels: np.ndarray, shards: list[np.ndarray]) -> Skew | None:
    """Measure how unlike the peers' data are; None where the labels are no classes."""
    counts = count_labels(labels, shards)
    if counts is None:
        return None
    held = counts.sum(axis=1)
    laws = counts / np.maximum(held, 1)[:, None]
    overall = counts.sum(axis=0) / counts.sum()
    distances = np.where(held > 0, 0.5 * np.abs(laws - overall).sum(axis=1), 0.0)
    return Skew([len(shard) for shard in shards], [int(row) for row in (counts > 0).sum(axis=1)], distances.tolist())


def count_labels(labels: np.ndarray, shards: list[np.ndarray]) -> np.ndarray | None:
    """How many samples of each label each peer holds, float64 [peers, classes]; None where the labels are no classes."""
    if not _are_classes(labels):
        return None
    _, codes = np.unique(labels, return_inverse=True)
    return np.array([np.bincount(codes[shard], minlength=codes.max() + 1) for shard in shards], dtype=np.float64)


def _are_classes(labels: np.ndarray) -> bool:
    return labels.ndim == 1 and labels.dtype.kind in "iub"


def _by_class(labels: np.ndarray, rule: str) -> list[np.ndarray]:
    """The indices of each class, classes in ascending order."""
    if not _are_classes(labels):
        raise ValueError(
            f'the partition "{rule}" sorts samples by class, but the labels are {labels.dtype} of shape {labels.shape}; '
            'give one integer label per sample, or use "iid"'
        )
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _deal(classes: list[np.ndarray], peers: int, alpha: float, rng: np.random.Generator) -> list[np.ndarray]:
    """One draw of the class-wise rule."""
    even = sum(map(len, classes)) / peers
    held: list[list[np.ndarray]] = [[] for _ in range(peers)]
    sizes = np.zeros(peers, dtype=np.int64)
    for number in rng.permutation(len(classes)):
        members = rng.permutation(classes[number])
        law = np.where(sizes < even, rng.dirichlet(np.full(peers, alpha)), 0.0)
        if not law.sum() > 0:  # a tiny alpha gave all of it to peers that are full
            law = (sizes < even).astype(np.float64)
        cuts = (np.cumsum(law / law.sum())[:-1] * len(members)).astype(np.int64)
        for peer, part in enumerate(np.split(members, cuts)):
            held[peer].append(part)
            sizes[peer] += len(part)
    return [np.concatenate(parts) for parts in held]


def _mend(shards: list[np.ndarray], least: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Move random samples from the largest peers to those below the minimum, and no more of them than needed."""
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
