"""How long somebody has listened: silence is only silence while somebody listens."""

from __future__ import annotations

import time

ROUND_S = 0.5


class Attention:
    """Seconds for which the launcher has listened, `s`, told by its calls of `look`, one a round.

    A round that took longer than ROUND_S counts as ROUND_S: a launcher that was stopped, or had no processor, heard nobody.
    """

    def __init__(self) -> None:
        self.s = 0.0
        self._looked_s = time.monotonic()

    def look(self) -> None:
        """One more round is over."""
        now_s = time.monotonic()
        self.s += min(now_s - self._looked_s, ROUND_S)
        self._looked_s = now_s
