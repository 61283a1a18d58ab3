"""The time for which the launcher has listened: a peer counts as silent only in that time."""

from __future__ import annotations

import time

ROUND_S = 0.5


class Attention:
    """Counts in `s` the seconds for which the launcher has listened; it calls `look` once a round.

    A round that took longer than ROUND_S counts as ROUND_S: a launcher that was stopped, or had no processor, did not listen.
    """

    def __init__(self) -> None:
        self.s = 0.0
        self._looked_s = time.monotonic()

    def look(self) -> None:
        """End a round."""
        now_s = time.monotonic()
        self.s += min(now_s - self._looked_s, ROUND_S)
        self._looked_s = now_s
