"""What every strategy is: a frozen configuration and one coroutine."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import msgspec

from grapevine.peer.expected import Expected
from grapevine.peer.peer import Peer
from grapevine.peer.spaces import Facts, Space


class Strategy(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """How a peer trains with its neighbours; its fields are its configuration.

    `shares` says what it puts on the wire, which decides on which graphs it is stable: "parameters" contract the distance
    between peers on any connected graph, "gradients" do so only where everyone hears everyone, "nothing" never does.
    `synchronous` says that no step ends before the contributions of that step have come, so that nobody runs ahead;
    `sends_first` that what a step waits for travels while the gradient is computed.
    `aggregates` says whether whole contributions of one round come together, so that the aggregator has a choice to make.
    `needs` says what graph its roles take: any that is "connected", a "complete" one, or one where the first `hubs` peers
    are neighbours of everybody.  `follows_rounds` says that it asks for `peer.targets`, `peer.sources` and `peer.weight`, so
    that the graph may change from round to round and links may go one way; `pushes_sums` that it carries mass along, so
    that W need not keep the mean.  `needs_order` says that it goes wrong where messages of a link overtake each other.
    `membership` says whether peers may join and leave while it runs: not at all ("fixed"), at any instant ("at-once"), or from
    one step on that is the same for all ("by-step", for strategies that wait for the messages of each step).  `alike` says that
    all peers hold the same weights at every step, so that a peer which joins needs those of the very step from which it is a
    member; `leaves` that it calls `peer.leave`.
    `gossip` says that whole models follow x <- W x - eta g, or W (x - eta g), step by step: then the consensus distance can be
    predicted from W.
    `asks` names the work that it asks its task for beside plain gradients: "clip" and "targets" for `peer.gradient` with that
    argument, "predict" for `peer.predict`, and the names that it gives to `peer.work`.
    """

    shares: ClassVar[Literal["nothing", "parameters", "gradients"]] = "parameters"
    synchronous: ClassVar[bool] = False
    sends_first: ClassVar[bool] = False
    aggregates: ClassVar[bool] = False
    needs: ClassVar[Literal["connected", "complete", "hubs"]] = "connected"
    follows_rounds: ClassVar[bool] = False
    pushes_sums: ClassVar[bool] = False
    needs_order: ClassVar[bool] = False
    membership: ClassVar[Literal["fixed", "at-once", "by-step"]] = "fixed"
    alike: ClassVar[bool] = False
    leaves: ClassVar[bool] = False
    gossip: ClassVar[Literal["none", "combine-then-adapt", "adapt-then-combine"]] = "none"

    @property
    def link_share(self) -> float:
        """Which share of a link's rate its messages fill, where it sends as much as fits; forecasts of bytes go by it."""
        return 1.0

    asks: ClassVar[tuple[str, ...]] = ()

    @property
    def hubs(self) -> int:
        """How many peers, from peer 0 on, everybody talks to; they serve, train nothing, and hold no data."""
        return 0

    @property
    def steps_ahead(self) -> int:
        """By how much the number of a message is ahead of the step in which it is sent: 0 where a step sends before
        `peer.apply`, 1 where it sends after it; for strategies whose members change "by-step"."""
        return 0

    @property
    def held_out_share(self) -> float:
        """Which share of its samples every peer keeps apart from training, at least one, for `peer.evaluate`; 0 = none."""
        return 0.0

    def spaces(self, facts: Facts) -> tuple[Space, ...]:
        """The vectors besides the model that peers send parts of, each with name, size and dtype; at most 64.

        Every peer of a run has the same: `facts` hold what their sizes may depend on.  A payload names its space
        (`Dense(votes, space="votes")`), and so do `peer.gather`, `peer.pay`, `peer.room`, `peer.new_ledger` and `Expected`.
        """
        return ()

    @property
    def probe_samples(self) -> int:
        """How many training samples nobody trains with, so that all peers share them as the probe set; 0 = none."""
        return 0

    @property
    def asked(self) -> frozenset[str]:
        """All that it asks its task for, by the names under which a task offers it."""
        looks = {"held-out"} if self.held_out_share else set()
        return frozenset({*self.asks, *looks, *({"probe"} if self.probe_samples else ())})

    def expects(self, peer: Peer) -> tuple[Expected, ...] | None:
        """The forms of message that this strategy sends, as a peer may receive them; whatever has none of them is dropped and
        counted before `run` sees it.

        None declares nothing: then a message needs an element, finite values and finite scalars.  Messages without elements
        must be declared (`Expected("none", ...)`), also where a peer has to hear that another, whose own values are no longer
        finite, sends none.
        """
        return None

    @abstractmethod
    async def run(self, peer: Peer) -> None:
        """Train until `peer.running` is false."""
        raise NotImplementedError
