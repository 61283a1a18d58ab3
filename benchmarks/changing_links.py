"""The processor time of a message in virtual time over links with traces: `python -m benchmarks.changing_links`."""

from __future__ import annotations

import time

import numpy as np
from rich.console import Console

from grapevine.netem.links.link import ChangingLink, Link, TcpLink
from grapevine.netem.links.losses import Losses
from grapevine.netem.links.profile import Profile, Steady
from grapevine.netem.links.profile_laws import Cellular, Listed, ProfileLaw
from grapevine.netem.links.tcp import Tcp
from grapevine.netem.shaping.shaper import Shaper

LINKS = 1_000
MESSAGES = 100
SIZE_BYTES = 20_000
PAUSE_NS = 100_000_000
CELL = Cellular(rate_bytes_per_s=1.5e6, variation=0.8, correlation=0.8, delay_ns=35_000_000)


def microseconds_a_message(links: list[Link]) -> float:
    """Return the processor time of a message, us, if every link gets one every 0.1 s through its own shaper."""
    shapers = [Shaper({0: link}) for link in links]
    began_s = time.process_time()
    for place in range(MESSAGES):
        now_ns = place * PAUSE_NS
        for shaper in shapers:
            shaper.offer(0, None, SIZE_BYTES, now_ns)
            shaper.release(now_ns)
    return (time.process_time() - began_s) / MESSAGES / len(links) * 1e6


def main() -> None:
    rngs = [np.random.default_rng([1, place]) for place in range(LINKS)]
    drawn = CELL.profile(rngs[0])
    drawn.finish(0, 1e9)
    trace: ProfileLaw = Listed(given=drawn.known, looped=True)
    shared = trace.profile(rngs[0])
    kinds: dict[str, list[Link]] = {
        "constant": [Link(1.5e6, 35_000_000) for _ in rngs],
        "a trace, shared": [ChangingLink(shared, ahead_ns=place * PAUSE_NS) for place in range(LINKS)],
        "a trace each": [ChangingLink(trace.profile(rng)) for rng in rngs],
        "cellular, drawn during the run": [ChangingLink(CELL.profile(rng)) for rng in rngs],
        "tcp cubic, 0.1 % loss": [
            TcpLink(Steady(1.5e6, 35_000_000, 0.001), Tcp("cubic", 70_000_000, Losses(0.001, rng))) for rng in rngs
        ],
        "tcp cubic over the trace": [TcpLink(Profile(drawn.known, True), Tcp("cubic", 70_000_000)) for _ in rngs],
    }
    for name, links in kinds.items():
        Console().print(f"{LINKS:,} links, {name}: {microseconds_a_message(links):.1f} us a message (target 10 us with traces)")


if __name__ == "__main__":
    main()
