"""Networks in namespaces: set-up and removal, real TCP at the configured rates, and missing requirements."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from grapevine.netem import Edges, Network, Uniform
from grapevine.netem.kernel import namespaces
from grapevine.netem.kernel.namespaces import NamespaceError, Namespaces, apply, enter, leftovers, missing, new_prefix, remove
from grapevine.netem.kernel.plan import Command, address
from grapevine.netem.networks.plan import NetworkPlan

pytestmark = pytest.mark.live

PAYLOAD = 1448 / 1500
"""TCP's payload as a share of a full IP packet."""
RATE = Uniform(rate="20 Mbit/s", backend="kernel")


def planned(network: Network, peers: int = 2) -> NetworkPlan:
    return network.plan(nx.path_graph(peers), 0)


def mine() -> set[str]:
    """Return the namespaces that this process has made and not removed."""
    return {path.name for path in namespaces.NAMES.glob(f"gv-{os.getpid()}-*")}


@pytest.fixture
def kernel() -> None:
    lack = missing(planned(RATE))
    if lack is not None:
        pytest.skip(f"needs namespaces: {lack[0]}")


# ---- up and down ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("kernel")
def test_a_network_comes_up_and_goes_without_a_trace() -> None:
    with Namespaces(planned(RATE, 3)) as network:
        assert mine() == {f"{network.prefix}-{name}" for name in ("hub", "p0", "p1", "p2")}
        assert {network.name(peer) for peer in range(3)} < mine()
        assert network.prefix not in leftovers()  # since its launcher, this process, lives
    assert mine() == set()
    network.undo()  # once more does no harm


@pytest.mark.usefixtures("kernel")
def test_a_network_that_cannot_be_brought_up_leaves_nothing() -> None:
    network = Namespaces(planned(RATE))
    network.commands.insert(-3, Command("tc", network.name(1), "qdisc add dev nothing root htb"))
    with pytest.raises(NamespaceError, match=r'`tc -n gv-\S+-p1 qdisc add dev nothing root htb`: Cannot find device "nothing"'):
        network.__enter__()
    assert mine() == set()


@pytest.mark.usefixtures("kernel")
def test_leftovers_are_the_namespaces_of_ended_processes_alone() -> None:
    """A process number that was reused is recognised by the start of its process."""
    own, dead, reused, foreign = new_prefix(), "gv-4194305-77-0", f"gv-{os.getpid()}-77-0", "gv-others-p3"
    names = [f"{own}-p0", f"{dead}-hub", f"{dead}-p12", f"{reused}-p0", foreign]
    apply([Command("ip", "", f"netns add {name}") for name in names])
    try:
        found = leftovers()
        assert found[dead] == [f"{dead}-hub", f"{dead}-p12"]
        assert found[reused] == [f"{reused}-p0"]
        assert own not in found
        assert not any(foreign in left for left in found.values())
        remove(found[dead])
        assert dead not in leftovers()
    finally:
        remove([name for name in names if (namespaces.NAMES / name).exists()])
    assert mine() == set()


# ---- real TCP -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("kernel")
def test_tcp_reaches_the_configured_rate_on_each_link_and_in_each_direction() -> None:
    """A chain whose links differ, all busy at once; then the same links the other way, at other rates."""
    there, back = {(0, 1): 5, (1, 2): 20, (2, 3): 100}, {(1, 0): 20, (2, 1): 100, (3, 2): 5}
    graph = nx.DiGraph()
    for (source, target), rate in (there | back).items():
        graph.add_edge(source, target, rate=f"{rate} Mbit/s")
    plan = Edges(backend="kernel").plan(graph, 0)
    with Namespaces(plan) as network:
        for rates in (there, back):
            asked = {pair: rate * 125e3 * PAYLOAD for pair, rate in rates.items()}
            expect(network, asked)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(("side", "pairs"), [("uplink", [(0, 1), (0, 2)]), ("downlink", [(1, 0), (2, 0)])])
def test_links_share_a_line_fairly(side: str, pairs: list[tuple[int, int]]) -> None:
    """Of 10 Mbit/s the slow link gets its 2, and the other, which could take 9, gets the rest."""
    graph = nx.DiGraph([*pairs, *[(b, a) for a, b in pairs]])
    nx.set_edge_attributes(graph, {pairs[0]: {"rate": "2 Mbit/s"}})
    options: dict[str, Any] = {side: "10 Mbit/s", "rate": "9 Mbit/s", "backend": "kernel"}
    with Namespaces(Edges(**options).plan(graph, 0)) as network:
        expect(network, {pairs[0]: 2 * 125e3 * PAYLOAD, pairs[1]: 8 * 125e3 * PAYLOAD})


def expect(network: Namespaces, asked: dict[tuple[int, int], float]) -> None:
    """Assert that all flows at once get their rate: never more, and not 6 % less if the machine is not busy."""
    best = dict.fromkeys(asked, 0.0)
    for _ in range(3):
        for pair, got in goodput(network, asked).items():
            best[pair] = max(best[pair], got / asked[pair])
        if min(best.values()) > 0.94:
            break
    assert min(best.values()) > 0.94
    assert max(best.values()) < 1.03


def goodput(network: Namespaces, pairs: Iterable[tuple[int, int]], seconds: float = 0.6) -> dict[tuple[int, int], float]:
    """Return TCP's goodput from each first to each second peer, all at once, bytes/s, without its start and end."""
    marks: dict[tuple[int, int], list[tuple[float, int]]] = {pair: [] for pair in pairs}
    listening = {pair: threading.Event() for pair in pairs}
    failures: list[BaseException] = []

    def receive(source: int, target: int) -> None:
        enter(network.name(target))
        with socket.create_server(("", 5000 + source)) as server:
            server.settimeout(10)
            listening[source, target].set()
            connection, _ = server.accept()
            with connection:
                connection.settimeout(10)
                total = 0
                while piece := connection.recv(1 << 18):
                    total += len(piece)
                    marks[source, target].append((time.perf_counter(), total))

    def send(source: int, target: int) -> None:
        enter(network.name(source))
        assert listening[source, target].wait(10)
        end = time.perf_counter() + seconds
        with socket.create_connection((address(target), 5000 + source), 10) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
            while time.perf_counter() < end:
                connection.sendall(bytes(16_384))

    def guarded(work: Any, pair: tuple[int, int]) -> None:
        try:
            work(*pair)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work, pair)) for pair in pairs for work in (receive, send)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    return {pair: _slope(times, seconds) for pair, times in marks.items()}


def _slope(times: list[tuple[float, int]], seconds: float) -> float:
    first_s = times[0][0]
    steady = [mark for mark in times if first_s + 0.2 * seconds < mark[0] < first_s + seconds]
    return (steady[-1][1] - steady[0][1]) / (steady[-1][0] - steady[0][0])


# ---- what is missing ------------------------------------------------------------------------------------------------


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ip").write_text("#!/bin/sh\n")
    (tmp_path / "ip").chmod(0o755)
    monkeypatch.setattr(namespaces, "_PATH", str(tmp_path))
    assert missing(planned(RATE)) == ("this machine has no program tc", "install it: apt install iproute2")
    monkeypatch.setattr(namespaces, "_PATH", str(tmp_path / "nothing"))
    problem, _ = missing(planned(RATE)) or ("", "")
    assert problem == "this machine has no program ip and no program tc"


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces.shutil, "which", lambda tool, path: f"/usr/sbin/{tool}")
    monkeypatch.setattr(namespaces.os, "geteuid", lambda: 1000)
    problem, cure = missing(planned(RATE)) or ("", "")
    assert problem == "only root may make namespaces"
    assert "sudo" in cure
    assert "userspace" in cure


@pytest.mark.parametrize(
    ("lacks", "network", "module"),
    [
        ("netem", Uniform(delay="1 ms", loss=0.1), "delay and loss (kernel module sch_netem)"),
        ("htb", RATE, "rates (kernel module sch_htb)"),
        ("u32", RATE, "filters (kernel module cls_u32)"),
        ("sh", RATE, "routing (a /proc/sys that can be written)"),
        ("veth", RATE, "virtual Ethernet cards (kernel module veth)"),
    ],
)
def test_a_missing_module_is_named(monkeypatch: pytest.MonkeyPatch, lacks: str, network: Network, module: str) -> None:
    """Each module is tried in a namespace, which is gone afterwards; netem only if it is needed."""
    removed: list[str] = []
    tried = kernel_without(monkeypatch, lacks, removed)
    problem, cure = missing(planned(network)) or ("", "")
    assert f"this kernel does not support {module}: `" in problem
    assert problem.endswith("Error: no such thing")
    assert 'backend = "userspace"' in cure
    assert ("set rates alone" in cure) == (lacks == "netem")
    assert len(removed) == 1
    assert all(command.namespace in ("", removed[0]) for command in tried)


def test_rates_alone_do_not_need_netem(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_without(monkeypatch, "netem", [])
    assert missing(planned(RATE)) is None
    assert missing(planned(Uniform(jitter="1 ms"))) is not None


def test_a_system_without_namespaces_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_without(monkeypatch, "netns", [])
    problem, cure = missing(planned(RATE)) or ("", "")
    assert problem.startswith("root cannot make namespaces on this system: `ip netns add gv-")
    assert "CAP_SYS_ADMIN" in cure


def kernel_without(monkeypatch: pytest.MonkeyPatch, lacks: str, removed: list[str]) -> list[Command]:
    """Pretend to be root on a machine whose kernel refuses each command with one word; return the commands tried."""
    tried: list[Command] = []

    def pretend(steps: list[Command]) -> None:
        for step in steps:
            tried.append(step)
            if lacks in step.words.split():
                raise NamespaceError(f"`{step}`: Error: no such thing")

    monkeypatch.setattr(namespaces.shutil, "which", lambda tool, path: f"/usr/sbin/{tool}")
    monkeypatch.setattr(namespaces.os, "geteuid", lambda: 0)
    monkeypatch.setattr(namespaces, "apply", pretend)
    monkeypatch.setattr(namespaces, "remove", removed.extend)
    return tried


def test_entering_a_namespace_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError, match="gv-0-0-0-p0"):
        enter("gv-0-0-0-p0")
