"""Numbers as text: percentages, figures of at most four digits, lists of peers."""

from __future__ import annotations

from collections.abc import Sequence

MOST_NAMED = 12
"""List at most this many peer ids; above that print the count."""


def percent(share: float | None) -> str:
    """Return a share as a percentage: 0.912 -> '91.2 %'; unknown -> '-'."""
    return "-" if share is None else f"{100 * share:.1f} %"


def figure(value: float | None, unit: str = "") -> str:
    """Return a number with at most four digits, or with separated thousands; unknown -> '-'."""
    if value is None:
        return "-"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{text} {unit}".rstrip()


def plural(count: int, noun: str) -> str:
    """ "1 run", "1,200 runs"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def peers_text(peers: Sequence[int]) -> str:
    """Return a list of peers as text: [3] -> 'peer 3'; [3, 5] -> 'peers 3 and 5'; [] -> 'none'.

    Four or more in a row are "peers 0 to 7"; of more than 12 others the first ones and the count are given.
    """
    if len(peers) > 3 and list(peers) == list(range(peers[0], peers[-1] + 1)):
        return f"peers {peers[0]} to {peers[-1]}"
    if len(peers) > MOST_NAMED:
        return f"{len(peers):,} peers ({', '.join(map(str, peers[:3]))}, ...)"
    names = [str(peer) for peer in peers]
    if len(names) < 2:
        return f"peer {names[0]}" if names else "none"
    return f"peers {', '.join(names[:-1])} and {names[-1]}"
