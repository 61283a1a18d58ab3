"""The processes that the launcher starts: a peer, and the evaluator.

Both ignore the terminal's interrupt (the launcher stops them) and end at once when the launcher's end of the pipe closes, after
any end of the launcher: no orphan survives. A stopped process cannot see that; but each is a process group of its own, and
Linux ends (SIGHUP) stopped processes of a group that has become orphaned.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Coroutine, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from grapevine.experiments.scenario import altered_device
from grapevine.experiments.tasks.share import Share
from grapevine.experiments.worlds.boards import boards, put_up
from grapevine.experiments.worlds.peer_report import FINAL, Reporter, batch_generator, rounds_over, thinned
from grapevine.experiments.worlds.processes import control
from grapevine.experiments.worlds.processes.board_file import map_board
from grapevine.experiments.worlds.processes.flow_file import open_table
from grapevine.experiments.worlds.processes.live_member import LiveMember
from grapevine.experiments.worlds.processes.peer_spec import PeerSpec
from grapevine.experiments.worlds.processes.pipe import ChildPipe
from grapevine.experiments.worlds.processes.snapshots import Snapshots, unspool
from grapevine.experiments.worlds.scoring import Evaluate, score
from grapevine.experiments.worlds.unawaited import unawaited
from grapevine.netem import Shaper, SharingShaper, Steady
from grapevine.netem.kernel.namespaces import enter
from grapevine.netem.networks.plan import capped_rate
from grapevine.peer.carrier import Carrier
from grapevine.peer.endpoint import Endpoint
from grapevine.peer.live import Clock, LivePeer
from grapevine.peer.membership import life
from grapevine.peer.payloads import message_limit_bytes
from grapevine.peer.realtime import Privilege
from grapevine.peer.sockets import Sockets
from grapevine.peer.wrappers.wrapped import WrappedPeer
from grapevine.topology.schedules.living import OverLiving

LOCAL = "ipc://"
IO_PRIORITY, STRATEGY_PRIORITY = 2, 1  # real-time priorities, if they are permitted
STRATEGIES_SHARE = 0.5  # of the machine, for all strategies together: one above its part loses its real-time priority
PEER_NICE = 10  # of peers as fast as the host, so that many of them leave time for the launcher
EVALUATOR_NICE = 10
EVALUATOR_BEAT_S = 1.0
SWITCH_INTERVAL_S = 0.0002  # so that a computing main thread lets the I/O thread run sooner than after 5 ms


class _Learner(Share):
    """One peer's share of the task, on its emulated device."""

    def __init__(self, spec: PeerSpec) -> None:
        super().__init__(spec.problem, spec.peer.id, batch_generator(spec.seed, spec.peer.id))
        self.device = spec.device

    def duration_ns(self, samples: int, now_ns: int, step: int) -> int:
        return self.device.step_ns(samples, now_ns, step)


class _PeerProcess:
    """A peer's two threads and their messages with the launcher."""

    def __init__(self, spec: PeerSpec, pipe: ChildPipe) -> None:
        self.spec = spec
        self.pipe = pipe
        self.snapshots = Snapshots(spec.room, spec.peers, spec.problem.size)
        self.peer = spec.peer
        if isinstance(self.peer, WrappedPeer):
            wrappers = [(station.place, station.wrapper) for station in self.peer.stations]
            mapped = functools.partial(map_board, spec.room)
            put_up(self.peer, boards(wrappers, spec.peers, self.peer.spaces, mapped, new=False))
        self.clock = Clock(spec.dilation)
        endpoint = Endpoint(self.peer.id, spec.links, message_limit_bytes(self.peer.spaces))
        self.learner = self.peer.data = _Learner(spec)
        kind = LivePeer if spec.membership is None else LiveMember
        self.live = kind(self.peer, endpoint, self.learner, self.clock, spec.stop_ns, spec.every_ns, self.snapshot)
        priority = IO_PRIORITY if spec.realtime else 0
        self.privilege: Privilege | None = None
        self.folder = os.open(spec.room, os.O_RDONLY | os.O_DIRECTORY)
        self.sockets = Sockets(self._in_full(spec.address), priority)
        self.shaper = _shaper(spec)
        self.carrier = Carrier(
            self.live,
            self.sockets,
            self.shaper,
            spec.run,
            pipe.connection.fileno(),
            self._on_control,
            self._beat,
            priority,
        )
        self.reporter = Reporter(self.peer, self.carrier.sent, self.carrier.received)

    def run(self) -> None:
        """Connect to the neighbours, wait for the start, train, report, and serve until the launcher sends Exit."""
        local = self.spec.address.startswith(LOCAL)
        self.pipe.say(control.Ready(self.spec.address if local else self.sockets.address))
        connect = self.pipe.hear()
        assert isinstance(connect, control.Connect)
        self.sockets.connect({neighbour: self._in_full(address) for neighbour, address in connect.addresses.items()})
        self._warm_up()
        self.pipe.say(control.Connected())
        start = self.pipe.hear()
        if not isinstance(start, control.Start):
            return
        self.clock.epoch_ns = start.epoch_ns
        if self.spec.dies_ns is not None:
            death = threading.Timer(self.clock.seconds_until(self.spec.dies_ns), os.kill, (os.getpid(), signal.SIGKILL))
            death.daemon = True
            death.start()
        if self.carrier.priority:
            share = STRATEGIES_SHARE * len(os.sched_getaffinity(0)) / self.spec.peers
            self.privilege = Privilege(min(share, STRATEGIES_SHARE), STRATEGY_PRIORITY)
        thread = threading.Thread(target=self._carry, name="carrier", daemon=True)
        thread.start()
        with unawaited(lambda text: self.pipe.say(control.Remark(text))):
            self.live.run(self._strategy())
        self.snapshot(FINAL, self.peer.now_ns)
        if isinstance(self.live, LiveMember):
            self.live.give()
        thread.join()

    def _strategy(self) -> Coroutine[Any, Any, None]:
        """Return the coroutine of this peer for the whole run."""
        strategy, law = self.spec.strategy, self.spec.membership
        if not isinstance(self.live, LiveMember) or law is None:
            return self.peer.begin(strategy)
        by_step = strategy.membership == "by-step"
        self.live.begin(self.pipe.say, by_step, self._rounds_over, law.weights, law.givers)
        return life(self.peer, strategy, self.live.handover)

    def _rounds_over(self, living: list[int]) -> OverLiving | None:
        return rounds_over(self.spec.schedule, self.spec.seed, living)

    def _in_full(self, address: str) -> str:
        """Return an address with a local name as a path in the run's folder, by its descriptor: at most 107 characters fit."""
        return address.replace(LOCAL, f"{LOCAL}/proc/self/fd/{self.folder}/", 1)

    def snapshot(self, index: int, now_ns: int) -> None:
        """Write the weights into the snapshots, and send the report since the last one."""
        self.snapshots.write(index, self.peer.id, self.peer.weights)
        lateness, self.carrier.lateness_ns = self.carrier.lateness_ns, []
        overrun, self.live.overrun_ns = self.live.overrun_ns, []
        late = [*thinned(lateness), *thinned(overrun)]
        self.pipe.say(self.reporter.report(index, now_ns, late, self.live.endpoint.errors))

    def _warm_up(self) -> None:
        """Compute a gradient before the clock starts, because the first one of a process is slower than all others."""
        if not self.spec.problem.samples[self.peer.id]:
            return  # a server holds no data and computes no gradients
        sampler = self.spec.problem.sampler(self.peer.id, np.random.default_rng(0))
        self.spec.problem.gradient(self.peer.weights.copy(), sampler.draw(self.peer.batch_size))

    def _beat(self, carrier: Carrier) -> None:
        self.pipe.beat()
        if self.privilege is not None:
            self.privilege.check()

    def _carry(self) -> None:
        try:
            self.carrier.run()
        except BaseException:  # noqa: BLE001 - the launcher reports any exception
            self.pipe.say(control.Failed(traceback.format_exc()))
            os._exit(1)

    def _on_control(self, carrier: Carrier) -> None:
        message = self.pipe.hear()
        if isinstance(message, control.Lost):
            carrier.lose(message.peer)
        elif isinstance(message, control.Alter):
            self._alter(message)
        elif isinstance(message, control.Stop):
            carrier.stop()
        elif isinstance(message, control.Where):
            self.pipe.say(control.Here(_main_stack()))
        elif isinstance(message, control.Turnover):
            carrier.change(message)
        elif isinstance(message, control.Exit):
            carrier.stop()
            carrier.finished = True

    def _alter(self, message: control.Alter) -> None:
        """Apply new alterations; messages on the wire and the step under way keep their times."""
        for neighbour, state in message.links.items():
            own = Steady(state.rate_bytes_per_s, state.delay_ns, state.loss)
            cap = capped_rate if state.capped else None
            link = self.spec.links[neighbour] = self.spec.links[neighbour].altered(state.changes, own, cap)
            self.shaper.relink(neighbour, link)
        if message.tempos is not None:
            self.learner.device = altered_device(self.learner.device, tuple(message.tempos))


def _main_stack() -> str:
    """Return the stack of the main thread, in which the strategy runs, in the form of a traceback."""
    frame = sys._current_frames()[threading.main_thread().ident or 0]  # noqa: SLF001 - the documented way to another thread's stack
    return "".join(["Traceback (most recent call last):\n", *traceback.format_stack(frame), "Running\n"])


def _shaper(spec: PeerSpec) -> Shaper | SharingShaper:
    """Return the shaper of a peer's sending: of its own links, or with other peers of segments that several links share."""
    flows = {pair[1]: flow for flow, pair in enumerate(spec.shared.routes) if pair[0] == spec.peer.id}
    if not flows:
        return Shaper(spec.links)
    return SharingShaper(spec.links, flows, *open_table(spec.room, spec.shared))


def peer_main(spec: PeerSpec, folders: Sequence[Path], connection: Connection) -> None:
    """Run a peer's process; it removes `folders` if the launcher dies."""
    _by_itself()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _one_thread()
    os.nice(0 if spec.device.step_ns(1) else PEER_NICE)
    pipe = ChildPipe(connection, folders)
    try:
        if spec.namespace:
            enter(spec.namespace)  # before any other thread or socket, which would stay outside
        spec.problem.attach(unspool(spec.room, spec.arrays))
        _PeerProcess(spec, pipe).run()
    except BaseException:  # noqa: BLE001 - the launcher reports any exception
        pipe.say(control.Failed(traceback.format_exc()))
        os._exit(1)
    os._exit(0)  # the kernel closes sockets and mappings


def evaluator_main(
    problem: Any, arrays: list[str], room: Path, peers: int, folders: Sequence[Path], connection: Connection
) -> None:
    """Run the evaluator's process: it scores snapshots, at the lowest priority.

    A second thread sends signs of life, because one score may take long.
    """
    _by_itself()
    os.nice(EVALUATOR_NICE)
    _one_thread()
    pipe = ChildPipe(connection, folders)
    threading.Thread(target=_beat_for_ever, args=(pipe,), name="beat", daemon=True).start()
    try:
        problem.attach(unspool(room, arrays))
        snapshots = Snapshots(room, peers, problem.size)
        pipe.say(control.Connected())
        while isinstance(task := pipe.hear(), Evaluate):
            weights = snapshots.read(task.index, task.peers)
            pipe.say(control.Unscored(task.index) if weights is None else score(problem, weights, task))
    except BaseException:  # noqa: BLE001 - the launcher reports any exception
        pipe.say(control.Failed(traceback.format_exc()))
        os._exit(1)
    os._exit(0)


def _beat_for_ever(pipe: ChildPipe) -> None:
    while True:
        pipe.beat()
        time.sleep(EVALUATOR_BEAT_S)


def _by_itself() -> None:
    """Leave the terminal's signals to the launcher, and make sure that no stopped process survives the launcher."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setpgid(0, 0)
    os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]  # noqa: SLF001 - it keeps the fork server alive


def _one_thread() -> None:
    """Let torch compute in one thread, because peers share the cores."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
