"""Parameter servers: workers push gradients and pull weights (Li et al., OSDI 2014)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

from grapevine.peer.expected import COUNT, Expected
from grapevine.peer.message import Message
from grapevine.peer.payloads import Dense
from grapevine.peer.peer import Peer
from grapevine.peer.strategies.base import Strategy

_PUSH, _PULL, _TICK, _BYE, _WEIGHTS, _MIRROR, _LAST_MIRROR = (float(kind) for kind in range(7))
_NOTHING = np.zeros(0, np.float32)
_Count = Annotated[int, msgspec.Meta(ge=1)]


class ParameterServer(Strategy, frozen=True, tag="parameter-server"):
    """Workers push gradients to servers among the peers and pull weights from them, by BSP, SSP or ASP (Li et al. 2014).

    Source: M. Li et al., "Scaling Distributed Machine Learning with the Parameter Server", OSDI 2014; SSP: Q. Ho et al., NIPS
    2013; backup workers: J. Chen et al., 2016, arXiv 1604.00981.

    When: a push every `push_every` steps, a pull every `pull_every` steps.  Sends: the mean gradient since the last push; the
    whole model back.  To: the first `servers` peers, which hold an equal range of the vector each and do not train.  How, by
    `mode`:

      "bsp"   a server takes one step on the mean of all workers' gradients of a round, and a pull waits for the round; with
              `backup` = b the first n - b gradients of the round make the mean, and later ones are dropped
      "ssp"   every gradient is a step of its own, and a worker begins step c only if c - (the slowest worker's clock) <= slack
      "asp"   no peer waits

    With `overlap` a pull is requested before a gradient and used after it: communication and computing share the step, and
    every gradient is computed at weights that are one pull older.  In "ssp" the answer to a request of step c is then the
    permission to begin step c + 1, so `slack` bounds the lead as without `overlap`.  It must be at least 1: with 0 the
    permission for the next step would wait for the end of this step.

    Departures: gradients of "ssp" and "asp" are scaled by 1/n, so that the learning rate means the same in all modes.  Workers
    do not change their weights between pulls.  With several servers, each sends its range to the others after every round, so
    that each holds a whole model to be scored.  If a server is lost, each worker trains that server's range by itself.  A
    worker whose gradient is not finite pushes no values: the round goes on without it.
    """

    needs: ClassVar[Literal["connected", "complete", "hubs"]] = "hubs"

    servers: _Count = 1
    """Number of peers, from peer 0 on, that serve instead of training; each holds an equal range; >= 1."""
    mode: Literal["bsp", "ssp", "asp"] = "bsp"
    """Rule of waiting: "bsp" for all workers, "ssp" for workers more than `slack` steps behind, "asp" for none."""
    slack: Annotated[int, msgspec.Meta(ge=0)] = 3
    """Steps that a worker may be ahead of the slowest one when it begins a step ("ssp"), >= 0; >= 1 with `overlap`."""
    push_every: _Count = 1
    """Steps between two pushes, >= 1."""
    pull_every: _Count = 1
    """Steps between two pulls, >= 1; in "bsp" the same as push_every."""
    overlap: bool = False
    """Whether a worker waits for the answer to a pull after the next gradient instead of before it."""
    backup: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Backup workers: number of the latest gradients of a round for which the server does not wait ("bsp"), >= 0."""

    def __post_init__(self) -> None:
        if self.mode == "bsp" and self.push_every != self.pull_every:
            raise ValueError(
                f'push_every = {self.push_every} and pull_every = {self.pull_every}: with mode = "bsp" a pull waits for its '
                'round, so set both to the same number, or mode = "ssp" or "asp"'
            )
        if self.backup and self.mode != "bsp":
            raise ValueError(f'backup = {self.backup} is for rounds: set mode = "bsp", or backup = 0')
        if self.mode == "ssp" and self.overlap and not self.slack:
            raise ValueError(
                "overlap = true and slack = 0: the permission to begin a step is requested one step before it, so no worker "
                'would ever get it: set slack = 1 or more, overlap = false, or mode = "bsp"'
            )

    @property
    def hubs(self) -> int:
        return self.servers

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        servers, workers = range(self.servers), range(self.servers, peer.peers)
        if peer.id >= self.servers:
            answer = ((_WEIGHTS, _WEIGHTS), COUNT)
            ranges = [self.range_of(server, peer.size) for server in servers]
            parts = [Expected("part", answer, range(i, i + 1), where) for i, where in enumerate(ranges)]
            return *parts, Expected("none", answer, servers)
        push, *rest = (((kind, kind), COUNT, COUNT) for kind in (_PUSH, _PULL, _TICK, _BYE))
        news = ((_MIRROR, _LAST_MIRROR),)
        return (
            Expected("part", push, workers, self.range_of(peer.id, peer.size)), Expected("none", push, workers),
            *(Expected("none", scalars, workers) for scalars in rest),
            Expected("part", news, servers), Expected("none", news, servers),
        )  # fmt: skip

    @property
    def synchronous(self) -> bool:  # type: ignore[override]  # it depends on a field
        return self.mode == "bsp"

    async def run(self, peer: Peer) -> None:
        if peer.id < self.servers:
            await _Server(self, peer).run()
        else:
            await _Worker(self, peer).run()

    def range_of(self, server: int, size: int) -> slice:
        """Return the elements that a server holds."""
        return slice(server * size // self.servers, (server + 1) * size // self.servers)


class _Server:
    def __init__(self, config: ParameterServer, peer: Peer) -> None:
        self.config = config
        self.peer = peer
        self.range = config.range_of(peer.id, peer.size)
        self.stepper = peer.optimizer.start(self.range.stop - self.range.start)
        self.version = 0  # rounds done ("bsp")
        self.clocks = {worker: 0 for worker in peer.neighbours if worker >= config.servers}
        self.pushes: dict[int, dict[int, np.ndarray]] = {}  # by round and worker; without elements = no finite gradient
        self.waiting: dict[int, tuple[float, int, int]] = {}
        self.finished: set[int] = set()  # other servers that have no workers left

    @property
    def workers(self) -> list[int]:
        return [worker for worker in self.clocks if worker in self.peer.mixing]

    async def run(self) -> None:
        """Serve until all workers have left, then exchange the last weights with the other servers."""
        while self.workers:
            message = await self.peer.receive()
            if message is not None:
                self._take_in(message)
            await self._make_steps()
        await self._mirror(_LAST_MIRROR)
        while any(server not in self.finished for server in self.peer.neighbours if server < self.config.servers):
            message = await self.peer.receive()
            if message is not None:
                self._take_in(message)

    def _take_in(self, message: Message) -> None:
        kind, source = message.scalars[0], message.source
        if kind in (_MIRROR, _LAST_MIRROR):
            self.peer.weights[message.payload.where()] = message.payload.values
            if kind == _LAST_MIRROR:
                self.finished.add(source)
            return
        if kind == _BYE:
            self.clocks.pop(source, None)
            return
        clock, turn = int(message.scalars[1]), int(message.scalars[2])
        if kind != _PUSH:
            self.waiting[source] = (kind, clock, turn)
        elif self.config.mode != "bsp" and message.payload.count:
            part = self.peer.weights[self.range]
            self.stepper.step(part, message.payload.values / np.float32(len(self.workers)))
        elif self.config.mode == "bsp" and turn >= self.version:  # else it is too late: from a backup worker
            self.pushes.setdefault(turn, {})[source] = message.payload.values
        if source in self.clocks:
            self.clocks[source] = max(self.clocks[source], clock)

    async def _make_steps(self) -> None:
        """Make every step that is possible, then answer all workers that need not wait any longer."""
        slowest = min((self.clocks[worker] for worker in self.workers), default=0)
        advanced = self.config.mode != "bsp" and slowest > self.peer.step
        while len(rows := self._round()) >= self._enough():
            if finite := [row for row in rows[: self._enough()] if len(row)]:
                mean = np.mean(finite, axis=0, dtype=np.float64)
                self.stepper.step(self.peer.weights[self.range], np.asarray(mean, np.float32))
            self.pushes.pop(self.version, None)
            self.version += 1
            advanced = True
        self.peer.step = self.version if self.config.mode == "bsp" else max(slowest, self.peer.step)
        for worker, (kind, clock, turn) in list(self.waiting.items()):
            if self._may_go(clock, turn, slowest):
                del self.waiting[worker]
                payload = Dense(self.peer.weights[self.range], self.range.start) if kind == _PULL else Dense(_NOTHING)
                await self.peer.send(worker, payload, (_WEIGHTS, float(self.version)))
        if advanced:
            await self._mirror(_MIRROR)

    def _round(self) -> list[np.ndarray]:
        """Return the pushes of living workers for the present round, in order of arrival; each has the range, or no element."""
        found = self.pushes.get(self.version, {})
        return [values for worker, values in found.items() if worker in self.workers]

    def _enough(self) -> int:
        return max(1, len(self.workers) - self.config.backup)

    def _may_go(self, clock: int, turn: int, slowest: int) -> bool:
        if self.config.mode == "bsp":
            return self.version >= turn
        next_step = clock + self.config.overlap  # the step that begins after the answer
        return self.config.mode == "asp" or next_step - slowest <= self.config.slack

    async def _mirror(self, kind: float) -> None:
        for server in [other for other in self.peer.neighbours if other < self.config.servers]:
            await self.peer.send(server, Dense(self.peer.weights[self.range], self.range.start), (kind,))


class _Worker:
    def __init__(self, config: ParameterServer, peer: Peer) -> None:
        self.config = config
        self.peer = peer
        self.turn = 0  # the round that the next push belongs to ("bsp")
        self.total = np.zeros(peer.size, np.float32)
        self.count = 0
        self.alone = {server: peer.optimizer.start(self._length(server)) for server in range(config.servers)}

    async def run(self) -> None:
        """Pull weights, compute gradients, and push their means until the peer is stopped."""
        config, peer = self.config, self.peer
        while peer.running:
            servers = await self._request(peer.step % config.pull_every == 0) if peer.step else []
            if not config.overlap:
                await self._await_answers(servers)
            gradient = await peer.gradient()
            if config.overlap:
                await self._await_answers(servers)
            self.total += gradient
            self.count += 1
            peer.step += 1
            for server, stepper in self.alone.items():
                if server not in peer.mixing:
                    where = config.range_of(server, peer.size)
                    stepper.step(peer.weights[where], gradient[where])
            if peer.step % config.push_every == 0:
                await self._push()
        await self._push()
        await self._await_answers(await self._request(True))
        for server in self._servers():
            await peer.send(server, Dense(_NOTHING), self._about(_BYE))

    async def _push(self) -> None:
        """Send every server its range of the mean gradient since the last push."""
        if not self.count:
            return
        mean = self.total / np.float32(self.count)
        for server in self._servers():
            where = self.config.range_of(server, self.peer.size)
            await self.peer.send(server, Dense(mean[where], where.start), self._about(_PUSH))
        self.total[:] = 0
        self.count = 0
        self.turn += 1

    async def _request(self, pull: bool) -> list[int]:
        """Request every server's weights, or its permission to go on; return the servers that get a request."""
        if not pull and self.config.mode != "ssp":
            return []
        servers = self._servers()
        for server in servers:
            await self.peer.send(server, Dense(_NOTHING), self._about(_PULL if pull else _TICK))
        return servers

    async def _await_answers(self, servers: list[int]) -> None:
        """Wait for the answers of servers, and use their weights."""
        for server in servers:
            answer: Message | None = None
            while answer is None and server in self.peer.mixing:
                answer = await self.peer.expect(server)
            if answer is not None:
                self.peer.weights[answer.payload.where()] = answer.payload.values
                self.turn = max(self.turn, int(answer.scalars[1])) if self.config.mode == "bsp" else self.turn

    def _servers(self) -> list[int]:
        return [server for server in range(self.config.servers) if server in self.peer.mixing]

    def _about(self, kind: float) -> tuple[float, ...]:
        return (kind, float(self.peer.step), float(self.turn))

    def _length(self, server: int) -> int:
        where = self.config.range_of(server, self.peer.size)
        return int(where.stop - where.start)
