"""The members of a running fleet and their mixing weights, for every world.

The plan holds the graph after each join and each leave. A joining peer needs time to take weights over, and a leaving peer to
send what it owes, so for a while the fleet is between two graphs: then the links of both hold whose ends are both members.
A peer that leaves without the plan (it dies, or its strategy leaves) loses its links, and the graph is not repaired. A peer
that joins without the plan, by a poke, gets every link that it ever has in the plan.
"""

from __future__ import annotations

from collections.abc import Collection

import networkx as nx

from grapevine import topology
from grapevine.experiments.membership import Change, Edge, MembershipPlan

Mixing = dict[int, dict[int, float]]
"""W_ij by peer and neighbour, without the diagonal of W."""


class Members:
    """The members of one run: `present` are the members now, `mixing` is the W that was computed last."""

    def __init__(self, plan: MembershipPlan) -> None:
        self.plan = plan
        self.present = set(plan.first)
        self.mixing: Mixing = {}
        self._graph: nx.Graph = nx.Graph(plan.graph.edges)
        self._graph.add_nodes_from(plan.first)
        self._begun = 0  # number of changes of the plan that have begun
        self._open: list[tuple[int, Change]] = []  # changes that have begun and are not done, in order of time
        self._lingering: dict[int, frozenset[Edge]] = {}  # links that a change removes once all changes up to it are done
        self._guests: set[int] = set()
        self.mixing = self.weights()

    def begin(self, peer: int, joins: bool) -> None:
        """Begin the next change of the plan: until it is done, its graph holds beside the earlier ones."""
        number, change = self._begun, self.plan.changes[self._begun]
        assert (change.peer, change.joins) == (peer, joins), "changes begin in the order of the plan"
        self._begun += 1
        self._graph.remove_edges_from(change.removed)
        self._graph.add_edges_from(change.added)
        self._guests.discard(peer)
        (self._graph.add_node if joins else self._graph.remove_node)(peer)
        self._lingering[number] = change.removed
        self._open.append((number, change))

    def enter(self, peer: int) -> None:
        """Make a peer a member from now on."""
        self.present.add(peer)
        if peer not in self._graph:
            self._guests.add(peer)
        self.done(peer)

    def exit(self, peer: int) -> None:
        """Remove a member: it has left, or died."""
        self.present.discard(peer)
        self._guests.discard(peer)
        self.done(peer)

    def done(self, peer: int) -> None:
        """End the changes that have begun with a peer, whether they succeeded or not."""
        self._open = [entry for entry in self._open if entry[1].peer != peer]
        first_open = self._open[0][0] if self._open else self._begun
        self._lingering = {number: edges for number, edges in self._lingering.items() if number >= first_open}

    def links(self, *joining: int, apart_from: Collection[int] = ()) -> nx.Graph:
        """Return the links among the members and the peers `joining`; the peers `apart_from`, whose strategies have ended, get
        no new link."""
        living = self.present.union(joining)
        graph = nx.Graph()
        graph.add_nodes_from(sorted(living))
        graph.add_edges_from(self._graph.edges)
        for edges in self._lingering.values():
            graph.add_edges_from(edges)
        for guest in self._guests.union(peer for peer in joining if peer not in self._graph):
            graph.add_edges_from((guest, other) for other in self.plan.reach.neighbors(guest))
        graph.remove_nodes_from([peer for peer in graph if peer not in living])
        for peer in apart_from:
            if peer in graph:
                graph.remove_edges_from([(peer, o) for o in list(graph[peer]) if o not in self.mixing.get(peer, ())])
        return graph

    def waits_for_others(self, peer: int, waiting: Collection[int]) -> bool:
        """Whether a peer that joins now would have no neighbour, because all its neighbours are still joining.

        The peers `waiting` wait for others themselves: if only these join, no peer waits for another.
        """
        others_join = any(change.joins and change.peer not in {peer, *waiting} for _, change in self._open)
        return bool(self.present) and others_join and not self.links(peer).degree(peer)

    def weights(self, *joining: int, apart_from: Collection[int] = ()) -> Mixing:
        """Return W over the members and the peers `joining`: symmetric; each row sums to 1 with its diagonal element."""
        graph = self.links(*joining, apart_from=apart_from)
        order = sorted(graph)
        if not order:
            return {}
        ordered = nx.Graph()
        ordered.add_nodes_from(order)
        ordered.add_edges_from(graph.edges)
        shares = topology.sparse_mixing(ordered, self.plan.rule)
        mixing: Mixing = {}
        for place, peer in enumerate(order):
            row = slice(shares.indptr[place], shares.indptr[place + 1])
            heard = zip(shares.indices[row].tolist(), shares.data[row].tolist(), strict=True)
            mixing[peer] = {order[other]: weight for other, weight in sorted(heard) if other != place}
        return mixing

    def renew(self, apart_from: Collection[int] = ()) -> tuple[Mixing, Mixing]:
        """Compute W again; return it before and after."""
        before, self.mixing = self.mixing, self.weights(apart_from=apart_from)
        return before, self.mixing
