"""The commands that set up a network in the kernel, to the letter, and networks that they cannot express."""

from __future__ import annotations

import networkx as nx
import pytest

from grapevine.netem import Ec2, FourG, Network, ScheduleNetwork, Uniform
from grapevine.netem.kernel.plan import address, carried_by_kernel, commands, needs_netem
from grapevine.netem.links.profile import Profile, Step
from grapevine.netem.networks.plan import Cable, NetworkPlan

WHOLE = """\
ip netns add gv-1-hub
ip netns add gv-1-p0
ip netns add gv-1-p1
ip -n gv-1-hub link set lo up
ip -n gv-1-hub addr add 10.88.255.254/32 dev lo
ip netns exec gv-1-hub sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
ip -n gv-1-p0 link add eth0 type veth peer name p0 netns gv-1-hub
ip -n gv-1-p0 link set lo up
ip -n gv-1-p0 addr add 10.88.0.1/32 dev eth0
ip -n gv-1-p0 link set eth0 gso_max_segs 1 up
ip -n gv-1-p0 route add default via 10.88.255.254 dev eth0 onlink
ip -n gv-1-hub link set p0 up
ip -n gv-1-hub route add 10.88.0.1/32 dev p0
ip -n gv-1-p1 link add eth0 type veth peer name p1 netns gv-1-hub
ip -n gv-1-p1 link set lo up
ip -n gv-1-p1 addr add 10.88.0.2/32 dev eth0
ip -n gv-1-p1 link set eth0 gso_max_segs 1 up
ip -n gv-1-p1 route add default via 10.88.255.254 dev eth0 onlink
ip -n gv-1-hub link set p1 up
ip -n gv-1-hub route add 10.88.0.2/32 dev p1
tc -n gv-1-p0 qdisc add dev eth0 root handle 1: htb
tc -n gv-1-p0 class add dev eth0 parent 1: classid 1:1 htb rate 30280000bit ceil 30280000bit burst 3750 cburst 3750 quantum 1514
tc -n gv-1-p0 class add dev eth0 parent 1:1 classid 1:3 htb rate 20186667bit ceil 20186667bit burst 2500 cburst 2500 quantum 1514
tc -n gv-1-p0 filter add dev eth0 parent 1: protocol ip prio 1 u32 match ip dst 10.88.0.2/32 flowid 1:3
tc -n gv-1-hub qdisc add dev p0 root handle 1: htb
tc -n gv-1-hub class add dev p0 parent 1: classid 1:3 htb rate 100gbit ceil 100gbit burst 12500000 cburst 12500000 quantum 1514
tc -n gv-1-hub filter add dev p0 parent 1: protocol ip prio 1 u32 match ip src 10.88.0.2/32 flowid 1:3
tc -n gv-1-hub qdisc add dev p0 parent 1:3 handle 3: netem limit 320 delay 40000us 4000us loss 0.1% rate 100gbit
tc -n gv-1-p1 qdisc add dev eth0 root handle 1: htb
tc -n gv-1-p1 class add dev eth0 parent 1: classid 1:1 htb rate 30280000bit ceil 30280000bit burst 3750 cburst 3750 quantum 1514
tc -n gv-1-p1 class add dev eth0 parent 1:1 classid 1:2 htb rate 20186667bit ceil 20186667bit burst 2500 cburst 2500 quantum 1514
tc -n gv-1-p1 filter add dev eth0 parent 1: protocol ip prio 1 u32 match ip dst 10.88.0.1/32 flowid 1:2
tc -n gv-1-hub qdisc add dev p1 root handle 1: htb
tc -n gv-1-hub class add dev p1 parent 1: classid 1:2 htb rate 100gbit ceil 100gbit burst 12500000 cburst 12500000 quantum 1514
tc -n gv-1-hub filter add dev p1 parent 1: protocol ip prio 1 u32 match ip src 10.88.0.1/32 flowid 1:2
tc -n gv-1-hub qdisc add dev p1 parent 1:2 handle 2: netem limit 320 delay 40000us 4000us loss 0.1% rate 100gbit
"""  # noqa: E501

DOWNLINK_OF_THREE = """\
tc -n x-hub qdisc add dev p1 root handle 1: htb
tc -n x-hub class add dev p1 parent 1: classid 1:1 htb rate 30280000bit ceil 30280000bit burst 3750 cburst 3750 quantum 1514
tc -n x-hub class add dev p1 parent 1:1 classid 1:2 htb rate 15140000bit ceil 30280000bit burst 1875 cburst 3750 quantum 1514
tc -n x-hub filter add dev p1 parent 1: protocol ip prio 1 u32 match ip src 10.88.0.1/32 flowid 1:2
tc -n x-hub qdisc add dev p1 parent 1:2 handle 2: bfifo limit 187500
tc -n x-hub class add dev p1 parent 1:1 classid 1:4 htb rate 15140000bit ceil 30280000bit burst 1875 cburst 3750 quantum 1514
tc -n x-hub filter add dev p1 parent 1: protocol ip prio 1 u32 match ip src 10.88.0.3/32 flowid 1:4
tc -n x-hub qdisc add dev p1 parent 1:4 handle 4: bfifo limit 187500
"""


def planned(network: Network, peers: int = 2) -> NetworkPlan:
    return network.plan(nx.path_graph(peers), 0)


def text(network: Network, peers: int = 2, dilation: float = 1.0, prefix: str = "x") -> list[str]:
    return [str(command) for command in commands(planned(network, peers), prefix, dilation)]


def test_two_peers_to_the_letter() -> None:
    network = Uniform(rate="20 Mbit/s", delay="40 ms", jitter="4 ms", loss=0.001, uplink="30 Mbit/s", backend="kernel")
    assert text(network, prefix="gv-1") == WHOLE.splitlines()


def test_senders_share_a_downlink_in_the_hub() -> None:
    """Each sender has its share guaranteed and may borrow the rest; its queue takes 50 ms."""
    lines = text(Uniform(rate="20 Mbit/s", downlink="30 Mbit/s"), 3)
    assert [line for line in lines if "tc -n x-hub" in line and "dev p1" in line] == DOWNLINK_OF_THREE.splitlines()


def test_rates_alone_need_neither_netem_nor_queues_in_the_hub() -> None:
    network = Uniform(rate="20 Mbit/s", uplink="30 Mbit/s")
    assert not [line for line in text(network) if line.startswith("tc -n x-hub") or "netem" in line]
    assert needs_netem(planned(network)) == ""


def test_a_network_without_limits_has_no_queues() -> None:
    assert not [line for line in text(Uniform()) if line.startswith("tc")]


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Uniform(delay="1.5 ms"), "delay 1500us rate"),
        (Uniform(delay="40 ms", jitter="4 ms", jitter_law="normal"), "delay 40000us 4000us distribution normal rate"),
        (Uniform(delay="40 ms", jitter="4 ms", jitter_law="pareto"), "delay 40000us 4000us distribution pareto rate"),
        (Uniform(loss=0.02), "loss 2% rate"),
        (Uniform(loss=0.02, loss_burst=4, backend="kernel"), "loss gemodel 0.510204% 25% rate"),
    ],
)
def test_netem_gets_each_law(network: Network, words: str) -> None:
    netem = [line.partition(" netem limit ")[2].partition(" ")[2] for line in text(network) if " netem " in line]
    assert netem == [f"{words} 100gbit"] * 2


def test_bursts_lose_the_configured_share() -> None:
    """p / (p + r) of a two-state chain is its share of bad packets, and 1 / r the mean length of a burst."""
    line = next(line for line in text(Uniform(loss=0.02, loss_burst=4, backend="kernel")) if "gemodel" in line)
    enter, leave = (float(word.rstrip("%")) / 100 for word in line.split("gemodel ")[1].split()[:2])
    assert enter / (enter + leave) == pytest.approx(0.02, rel=1e-5)
    assert 1 / leave == pytest.approx(4)


def test_dilation_slows_rates_and_stretches_delays() -> None:
    lines = text(Uniform(rate="20 Mbit/s", delay="40 ms"), dilation=2)
    assert any("htb rate 10093333bit" in line for line in lines)
    assert any("delay 80000us" in line for line in lines)


def test_each_link_has_its_own_figures() -> None:
    """A link between two regions differs from a link within one."""
    plan = Ec2(places=("Virginia", "Tokyo")).plan(nx.path_graph(2), 0)
    rates = [round(plan.links[pair].rate_bytes_per_s * 8 * 1514 / 1500) for pair in ((0, 1), (1, 0))]
    for peer, rate in enumerate(rates):
        assert any(f"tc -n x-p{peer} class" in str(c) and f"rate {rate}bit" in str(c) for c in commands(plan, "x"))


def test_tcp_hands_over_several_packets_at_once_on_fast_lossless_links_alone() -> None:
    """TCP's buffers of up to 64 KB hold many packets: on slow links they would be bursts, and netem would lose whole bursts."""
    for network, segments in (("20 Mbit/s", 1), ("1 Gbit/s", 4), ("unlimited", 44)):
        assert f"ip -n x-p0 link set eth0 gso_max_segs {segments} up" in text(Uniform(rate=network))
    assert "ip -n x-p0 link set eth0 gso_max_segs 1 up" in text(Uniform(loss=0.01))
    assert "ip -n x-p0 link set eth0 gso_max_segs 1 up" in text(Uniform(downlink="10 Mbit/s"))


def test_addresses_differ_and_fit_their_network() -> None:
    known = [address(peer) for peer in range(65_000)]
    assert len(set(known)) == len(known)
    assert (known[0], known[254], known[-1]) == ("10.88.0.1", "10.88.0.255", "10.88.253.232")


def test_links_carried_by_the_kernel_are_not_shaped_in_userspace() -> None:
    plan = carried_by_kernel(planned(Uniform(rate="20 Mbit/s", delay="40 ms", uplink="30 Mbit/s", backend="kernel")))
    assert plan.kernel
    assert plan.link(0, 1).send(5, 1_000_000).due_ns == 5
    assert plan.shared().routes == {}
    assert plan.links[0, 1].delay_ns == 40_000_000
    assert plan.links[0, 1].effective_rate_bytes_per_s == pytest.approx(2.5e6 * 1448 / 1500)


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (Uniform(rate="9 Mbit/s", tcp="bbr"), "its own TCP"),
        (Uniform(rate="9 Mbit/s", outage_every="1 min"), "cannot change a link over time"),
        (ScheduleNetwork(), "cannot change a link over time"),
        (FourG(), "cannot change a link over time"),
        (Uniform(delay="9 ms", jitter="1 ms", jitter_correlation=0.5), "ignores its jitter correlation"),
    ],
)
def test_options_that_tc_lacks_are_refused_with_the_cure(network: Network, why: str) -> None:
    for ask in (lambda plan: commands(plan, "x"), carried_by_kernel):
        with pytest.raises(ValueError, match=f'link 0 -> 1: .*{why}.*use backend = "userspace"'):
            ask(planned(network))


def test_shared_segments_other_than_uplinks_and_downlinks_are_refused() -> None:
    profile = Profile((Step(1_000_000_000, 1e6, 0, 0.0),), looped=False)
    for options in ({"cables": (Cable(1.0, ()),)}, {"up_profiles": {0: profile}}, {"down_profiles": {0: profile}}):
        with pytest.raises(ValueError, match=r'(cables|downlinks over time).*use backend = "userspace"'):
            commands(NetworkPlan(links={}, uplinks=[], downlinks=[], **options), "x")
