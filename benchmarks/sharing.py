"""Agreement of both worlds on shared segments: the same random transfers over a random shared network, one by one.

`python -m benchmarks.sharing [seeds]`
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import networkx as nx
import numpy as np
from rich.console import Console

from grapevine import Experiment, run
from grapevine.experiments.config.experiment import AnyWorld, Processes, Stop, Virtual
from grapevine.experiments.config.sections import Record
from grapevine.experiments.tasks import Quadratic
from grapevine.netem import Edges, UniformDevices
from grapevine.peer.payloads import Dense
from grapevine.peer.peer import Peer
from grapevine.peer.strategies import Strategy

Transfer = tuple[int, int, int, int]
"""(time of the offer in ns, source, target, number of 4-byte elements)."""
MOST_ELEMENTS = 100_000


class Transfers(Strategy, frozen=True, tag="transfers"):
    """Sends the listed transfers; a peer's final weights are the instants (s) at which each transfer arrived there."""

    listed: tuple[Transfer, ...]
    end_ns: int

    async def run(self, peer: Peer) -> None:
        peer.weights[:] = 0
        numbers = np.zeros(MOST_ELEMENTS, np.float32)
        numbered = enumerate(self.listed)
        mine = [(at_ns, place, target, size) for place, (at_ns, source, target, size) in numbered if source == peer.id]
        for at_ns, place, target, size in [*sorted(mine), (self.end_ns, -1, -1, 0)]:
            while (message := await peer.receive(at_ns)) is not None:
                peer.weights[int(message.scalars[0])] = message.arrived_ns / 1e9
            if place >= 0:
                await peer.send(target, Dense(numbers[:size]), (float(place),))


def random_network(seed: int, peers: int) -> nx.Graph:
    """Return a graph whose access lines and links have random rates and delays, some of each unlimited."""
    rng = np.random.default_rng([seed, peers])
    graph = nx.gnp_random_graph(peers, 0.6, seed=int(rng.integers(2**31)))
    nx.add_path(graph, range(peers))
    for _, node in graph.nodes(data=True):
        for line in ("uplink", "downlink"):
            if rng.random() < 0.8:
                node[line] = f"{rng.uniform(4, 20):.2f} Mbit/s"
    for *_, edge in graph.edges(data=True):
        edge["rate"] = f"{rng.uniform(2, 30):.2f} Mbit/s"
        edge["delay"] = f"{rng.choice([0.1, 1, 5, 20, 60])} ms"
    return graph


def random_transfers(graph: nx.Graph, seed: int, count: int, within_s: float) -> tuple[Transfer, ...]:
    """Return transfers of 4 to 400 KB at random instants over random links."""
    rng = np.random.default_rng([seed, count, 7])
    pairs = [pair for u, v in graph.edges for pair in ((u, v), (v, u))]
    listed = []
    for _ in range(count):
        source, target = pairs[rng.integers(len(pairs))]
        size = int(np.exp(rng.uniform(np.log(1_000), np.log(MOST_ELEMENTS))))
        listed.append((int(rng.uniform(0, within_s) * 1e9), source, target, size))
    return tuple(listed)


def arrivals_s(graph: nx.Graph, listed: tuple[Transfer, ...], world: AnyWorld, seconds: float) -> tuple[np.ndarray, float]:
    """Return each transfer's arrival (s, nan if it did not arrive) and the run's lateness (ms, 99th percentile)."""
    experiment = Experiment(
        peers=len(graph), topology=graph, network=Edges(), world=world, devices=UniformDevices(speed="1 samples/s"),
        task=Quadratic(dimension=max(MOST_ELEMENTS, len(listed))), record=Record(every="1000 s"),
        strategy=Transfers(listed=listed, end_ns=int(seconds * 1e9)), stop=Stop(time=f"{seconds} s"),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        result = run(experiment, out=Path(folder) / "run")
        found = [result.weights[target, place] for place, (_, _, target, _) in enumerate(listed)]
    return np.where(np.array(found) > 0, found, np.nan), result.summary["lateness_p99_ms"]


def agreement(seed: int, peers: int = 10, count: int = 200, within_s: float = 6.0, seconds: float = 12.0) -> dict[str, float]:
    """Return the differences of the two worlds: the share of transfers apart by more than 2 % and 2 ms, and quantiles."""
    graph = random_network(seed, peers)
    listed = random_transfers(graph, seed, count, within_s)
    virtual, _ = arrivals_s(graph, listed, Virtual(), seconds)
    live, late_ms = arrivals_s(graph, listed, Processes(), seconds)
    asked = np.array([at_ns / 1e9 for at_ns, *_ in listed])
    apart = np.abs(live - virtual)
    relative = apart / (virtual - asked)
    return {
        "arrived": float(np.isfinite(apart).mean()),
        "outside": float(((apart > 0.002) & (relative > 0.02)).mean()),
        "median_ms": float(np.nanmedian(apart) * 1e3),
        "p99_ms": float(np.nanquantile(apart, 0.99) * 1e3),
        "worst_ms": float(np.nanmax(apart) * 1e3),
        "worst_share": float(np.nanmin([0.0, *-np.minimum(apart / 0.002, relative / 0.02)]) * -1),
        "mean_transfer_ms": float(np.nanmean(virtual - asked) * 1e3),
        "lateness_p99_ms": late_ms,
    }


def main() -> None:
    console = Console()
    for seed in [int(text) for text in sys.argv[1:]] or [1, 2, 3]:
        figures = agreement(seed)
        console.print(f"seed {seed}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
