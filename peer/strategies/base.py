"""The base of all strategies: a frozen configuration and one coroutine."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import msgspec

from grapevine.peer.codecs import Codec
from grapevine.peer.expected import Expected
from grapevine.peer.peer import Peer
from grapevine.peer.spaces import Facts, Space


class Strategy(msgspec.Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True):
    """The rule by which a peer trains with its neighbours; its fields are its configuration.

    Class attributes describe the strategy to the other parts; one that depends on a field may be a property.

    - `shares`: the values that it sends, which decide on which graphs it is stable.  "parameters" contract the distance between
      peers on any connected graph, "gradients" only if all peers are neighbours of each other, "nothing" never.
    - `synchronous`: no step ends before the contributions of that step have arrived, so that no peer runs ahead.
    - `sends_first`: the messages that a step waits for travel while the gradient is computed.
    - `aggregates`: whole contributions of one round are combined, so that the choice of the aggregator matters.
    - `needs`: the graph that it requires: any "connected" one, a "complete" one, or "hubs", one in which the first `hubs` peers
      are neighbours of all others.
    - `follows_rounds`: it uses `peer.targets`, `peer.sources` and `peer.weight`, so that the graph may change from round to
      round and links may go one way.
    - `pushes_sums`: it sends push-sum mass along, so that W need not keep the mean.
    - `needs_order`: it fails if messages of a link overtake each other.
    - `membership`: the times at which peers may join and leave: never ("fixed"), at any instant ("at-once"), or from a step on
      that is the same for all peers ("by-step", for strategies that wait for the messages of each step).
    - `alike`: all peers hold the same weights at every step, so that a joiner needs the weights of the very step from which
      it is a member.
    - `leaves`: it calls `peer.leave`.
    - `gossip`: whole models follow x <- W x - eta g, or W (x - eta g), step by step: then the consensus distance can be
      predicted from W.
    - `asks`: the work of its task that it uses besides plain gradients: "clip" and "targets" for `peer.gradient` with that
      argument, "predict" for `peer.predict`, and the names that it passes to `peer.work`.
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
        """The share of a link's rate that its messages fill, if it sends as much as fits; forecasts of bytes use it."""
        return 1.0

    def step_bytes(self, size: int, codec: Codec) -> float | None:
        """Return the bytes of the bodies that a peer sends to one neighbour in a step, on average; forecasts use it.

        `size` is the number of elements of the model, `codec` the experiment's: `Dense.body_bytes(count, codec)` and
        `Sparse.body_bytes(count, codec)` are the bytes of `count` elements.  None = a whole model in each step, or, without
        `aggregates`, as much of it as `link_share` of the link carries.
        """
        return None

    asks: ClassVar[tuple[str, ...]] = ()

    @property
    def hubs(self) -> int:
        """The number of peers, from peer 0 on, that are servers: they are neighbours of all others, and hold no data."""
        return 0

    @property
    def steps_ahead(self) -> int:
        """The step number of a message less the step in which it is sent: 0 if a step sends before `peer.apply`, 1 if after it.

        Only strategies whose members change "by-step" need it.
        """
        return 0

    @property
    def held_out_share(self) -> float:
        """The share of its samples that every peer keeps apart for `peer.evaluate`, at least one sample; 0 = none."""
        return 0.0

    def spaces(self, facts: Facts) -> tuple[Space, ...]:
        """Return the vectors besides the model that peers exchange, each with name, size and dtype; at most 64.

        All peers of a run have the same spaces; their sizes may depend on `facts`.  A payload names its space
        (`Dense(votes, space="votes")`), and so do `peer.gather`, `peer.pay`, `peer.room`, `peer.new_ledger` and `Expected`.
        """
        return ()

    @property
    def probe_samples(self) -> int:
        """The number of training samples with which no peer trains and which all share as the probe set; 0 = none."""
        return 0

    @property
    def asked(self) -> frozenset[str]:
        """All work of its task that it uses, by the names under which a task offers it."""
        evaluated = {"held-out"} if self.held_out_share else set()
        return frozenset({*self.asks, *evaluated, *({"probe"} if self.probe_samples else ())})

    def expects(self, peer: Peer) -> tuple[Expected, ...] | None:
        """Return the forms of message that a peer may receive; a message of another form is dropped and counted.

        None declares no form: then a message needs an element, finite values and finite scalars.  Messages without elements
        must be declared (`Expected("none", ...)`), also those that a peer sends because its own values are no longer finite.
        """
        return None

    @abstractmethod
    async def run(self, peer: Peer) -> None:
        """Train until `peer.running` is false."""
        raise NotImplementedError
