"""Finite sequences of rounds that end in exact agreement: hyper-hypercubes, and base graphs for any number of peers.

Takezawa, Sato, Bao, Niwa and Yamada, "Beyond exponential graph: communication-efficient topologies for decentralized
learning via finite-time convergence" (NeurIPS 2023, arXiv 2305.11420), sections 4.1 to 4.3. Departures: peers that a round
does not need exchange nothing; in the paper some of them form extra cliques, which do not change the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

Round = dict[tuple[int, int], float]
"""The pairs of peers that average in a round, the smaller number first, each with the weight of the other's model."""


def base(k: int, n: int) -> list[Round]:
    """Return the rounds of Base-(k+1): the shorter of two sequences.

    One is Simple Base-(k+1) on all peers; the other is Simple Base-(k+1) inside groups, then a hyper-hypercube across them.
    A peer has at most k neighbours per round; agreement is exact after the last round, for every n >= 1 and k >= 1.
    """
    simple = simple_base(k, range(n))
    smooth, rest = _smooth_part(k, n)
    if smooth == 1 or rest == 1:
        return simple
    inside = _together(simple_base(k, range(group * rest, (group + 1) * rest)) for group in range(smooth))
    across = _together(hyper_hypercube(k, range(place, n, rest)) for place in range(rest))
    return min(simple, inside + across, key=len)


def simple_base(k: int, peers: Sequence[int]) -> list[Round]:
    """Return the rounds of Simple Base-(k+1): at most k neighbours per peer and round, at most 2 log_{k+1}(n) + 2 rounds."""
    if _factors(k, len(peers)) is not None:
        return hyper_hypercube(k, peers)
    parts = _parts(k, peers)
    first = [hyper_hypercube(k, part) for _, part in parts]
    inside = [[hyper_hypercube(k, block) for block in _blocks(part, count)] for count, part in parts]
    leading = len(first[0])
    rounds = [_merged(_turn(run, t) for run in first) for t in range(leading)]
    for t in range(1 + len(inside[0][0])):
        now: Round = _exchange(parts, t) if t < len(parts) - 1 else {}
        for place, (count, part) in enumerate(parts):
            since = t - place - 1  # rounds since this part exchanged with all later parts
            if since >= 0:
                runs = inside[place] if len(part) > count else [first[place]]
                now |= _merged(_turn(run, since) for run in runs)
        rounds.append(now)
    return rounds


def hyper_hypercube(k: int, peers: Sequence[int]) -> list[Round]:
    """Return the rounds of the k-peer hyper-hypercube: round l joins peers whose places differ in the l-th digit only.

    Raises ValueError if the number of peers has a prime factor above k + 1.
    """
    factors = _factors(k, len(peers))
    if factors is None:
        raise ValueError(
            f"the hyper-hypercube needs a number of peers whose prime factors are all at most k + 1 = {k + 1}, "
            f"not {len(peers)}; set peers to {_nearest(k, len(peers))}, raise k, or choose 'base', which works for any number"
        )
    rounds = []
    stride = 1
    for factor in factors:
        now: Round = {}
        for start in range(len(peers)):
            if start // stride % factor == 0:
                clique = [peers[start + digit * stride] for digit in range(factor)]
                now |= dict.fromkeys(combinations(sorted(clique), 2), 1.0 / factor)
        rounds.append(now)
        stride *= factor
    return rounds


def _exchange(parts: Sequence[tuple[int, Sequence[int]]], place: int) -> Round:
    """Return the round in which each peer of the later parts averages with one peer of each block of this part.

    No peer of this part is used twice; each later peer then holds its share of this part's mean.
    """
    count, part = parts[place]
    later = [peer for _, other in parts[place + 1 :] for peer in other]
    weight = len(part) / (count * (len(part) + len(later)))
    blocks = _blocks(part, count)
    return {_pair(peer, block[i]): weight for i, peer in enumerate(later) for block in blocks}


def _parts(k: int, peers: Sequence[int]) -> list[tuple[int, Sequence[int]]]:
    """Split the peers by the digits of their number in base k + 1: each part is (digit, digit x power of k + 1 peers)."""
    parts = []
    power = 1
    while power * (k + 1) <= len(peers):
        power *= k + 1
    start = 0
    while power:
        digit = (len(peers) - start) // power
        if digit:
            parts.append((digit, peers[start : start + digit * power]))
            start += digit * power
        power //= k + 1
    return parts


def _blocks(part: Sequence[int], count: int) -> list[Sequence[int]]:
    size = len(part) // count
    return [part[i * size : (i + 1) * size] for i in range(count)]


def _factors(k: int, n: int) -> list[int] | None:
    """Return n as a product of numbers from 2 to k + 1, large ones preferred, ascending; None if that is impossible."""
    factors = []
    for factor in range(k + 1, 1, -1):
        while n % factor == 0:
            factors.append(factor)
            n //= factor
    return sorted(factors) if n == 1 else None


def _smooth_part(k: int, n: int) -> tuple[int, int]:
    """Return (p, q) with n = p q, where p has all the prime factors up to k + 1."""
    rest = n
    for factor in range(2, k + 2):
        while rest % factor == 0:
            rest //= factor
    return n // rest, rest


def _nearest(k: int, n: int) -> str:
    below = next(m for m in range(n, 0, -1) if _factors(k, m) is not None)
    above = next(m for m in range(n, 2 * n) if _factors(k, m) is not None)
    return f"{below} or {above}"


def _turn(rounds: Sequence[Round], t: int) -> Round:
    return rounds[t % len(rounds)] if rounds else {}


def _together(runs: Iterator[list[Round]]) -> list[Round]:
    """Merge sequences of equal length, on disjoint sets of peers, into one sequence."""
    return [_merged(iter(rounds)) for rounds in zip(*runs, strict=True)]


def _merged(rounds: Iterator[Round]) -> Round:
    merged: Round = {}
    for one in rounds:
        merged |= one
    return merged


def _pair(i: int, j: int) -> tuple[int, int]:
    return (i, j) if i < j else (j, i)
