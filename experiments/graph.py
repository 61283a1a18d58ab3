"""The graph of a fleet, or its schedule, and the mixing weights on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from grapevine import topology
from grapevine.experiments.config.experiment import Experiment
from grapevine.experiments.tasks import Problem
from grapevine.netem import NetworkPlan
from grapevine.topology import Schedule, TimeVarying
from grapevine.topology.graphs.base import check_links

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def laid_graph(experiment: Experiment, problem: Problem | None) -> nx.Graph | Schedule:
    """Return the graph of the fleet, or its schedule.  Raises ValueError if it cannot be made."""
    given, peers = experiment.topology, experiment.peers
    if isinstance(given, Schedule):
        if not np.allclose(given.matrix(0).sum(axis=1), 1.0):
            cure = 'for push-sum give the graph itself, with graph.graph["mixing"] = "push-sum"'
            raise ValueError(f"the rows of the schedule's matrices do not sum to 1, as averaging needs; {cure}")
        return given
    if isinstance(given, TimeVarying):
        return given.plan(peers, experiment.seed)
    if isinstance(given, nx.Graph):
        return _both_ways(topology.from_graph(given, directed=True))
    counts, delays = labels_and_delays(experiment, problem)
    return _both_ways(given.build(peers, experiment.seed, directed=True, label_counts=counts, delays=delays))


def laid_after(experiment: Experiment) -> str:
    """Return what the graph is made from besides its own settings: "nothing", the "data" of the peers, or the "network"."""
    return getattr(experiment.topology, "laid_after", "nothing")


def labels_and_delays(experiment: Experiment, problem: Problem | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the label counts [peers, classes] and the delays [peers, peers], s, from which the graph is made; else None."""
    counts = delays = None
    peers = experiment.peers
    if problem is not None:
        counts = getattr(problem, "label_counts", None)
        if counts is None:
            name = topology_name(experiment)
            raise ValueError(f"{name} is laid after the peers' labels, and this task has none; choose micro-clouds")
    if laid_after(experiment) == "network":
        check_links(peers * (peers - 1) / 2, "what overlay chooses from", peers)
        delays = asked_delays_s(experiment.network.plan(nx.complete_graph(peers), experiment.seed), peers)
    return counts, delays


def _both_ways(graph: nx.Graph) -> nx.Graph:
    """Return a directed graph as an undirected one if all its links go both ways, as in many files."""
    symmetric = graph.is_directed() and all(graph.has_edge(target, source) for source, target in graph.edges)
    return graph.to_undirected() if symmetric else graph


def asked_delays_s(plan: NetworkPlan, peers: int) -> np.ndarray:
    """Return the configured one-way delays of a plan, in seconds, float64 [peers, peers]; infinite if there is no link."""
    delays = np.full((peers, peers), np.inf)
    np.fill_diagonal(delays, 0.0)
    for (source, target), spec in plan.links.items():
        delays[source, target] = spec.delay_ns / 1e9
    return delays


def topology_name(experiment: Experiment) -> str:
    """Return the name of the experiment's topology in its menu; "given" for a graph or a schedule from Python."""
    given = experiment.topology
    return "given" if isinstance(given, nx.Graph | Schedule) else str(given.__struct_config__.tag)


def mixing_rule(experiment: Experiment) -> str:
    """Return the rule of the mixing weights: the table's `mixing`, or a networkx graph's attribute `graph.graph["mixing"]`."""
    given = experiment.topology
    if isinstance(given, nx.Graph):
        return str(given.graph.get("mixing", "metropolis"))
    return getattr(given, "mixing", "metropolis")


def mixing_shares(experiment: Experiment, laid: nx.Graph | Schedule, plan: NetworkPlan) -> tuple[csr_array, Schedule | None]:
    """Return W of the first round as a sparse array [peers, peers], and the rounds if W changes or links go one way."""
    from scipy.sparse import csr_array

    if isinstance(laid, Schedule):
        return csr_array(laid.matrix(0)), laid
    rule, rates = mixing_rule(experiment), None
    if rule == "sinkhorn":
        rates = np.zeros((experiment.peers, experiment.peers))
        for (source, target), spec in plan.links.items():
            rates[source, target] = min(spec.effective_rate_bytes_per_s, plan.uplinks[source], plan.downlinks[target])
    if not laid.is_directed():
        if rule == "push-sum":
            cure = "choose metropolis, which keeps the mean on every undirected graph"
            raise ValueError(f"push-sum is for links that go one way, and the links of this graph go both ways; {cure}")
        return topology.sparse_mixing(laid, rule, rates), None
    if rule == "metropolis":
        degrees = {degree for _, degree in (*laid.in_degree, *laid.out_degree)}
        if len(degrees) > 1:
            raise ValueError(
                "links go one way and peers have unequal numbers of them, so that equal weights do not keep the fleet's mean; "
                f'set {_where_mixing(experiment)} = "push-sum" (with strategy d-psgd), or "uniform", with which the mean drifts'
            )
        rule = "uniform"  # the same weights as metropolis, because all degrees are equal
    return topology.sparse_mixing(laid, rule, rates), topology.still(laid, rule, rates)


def shares_among_all(shares: csr_array, members: list[int], peers: int) -> csr_array:
    """Return the members' W (rows by ascending member) as the W of all peers; an absent peer has weight 1 on itself."""
    from scipy.sparse import coo_array, csr_array

    places, among = np.asarray(sorted(members)), coo_array(shares)
    absent = np.setdiff1d(np.arange(peers), places)
    rows, columns = (np.concatenate([places[part], absent]) for part in among.coords)
    return csr_array((np.concatenate([among.data, np.ones(len(absent))]), (rows, columns)), shape=(peers, peers))


def _where_mixing(experiment: Experiment) -> str:
    return 'graph.graph["mixing"]' if isinstance(experiment.topology, nx.Graph) else "mixing"
