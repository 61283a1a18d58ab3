"""The start of a fleet's processes: every peer and the evaluator, until all of them are connected."""

from __future__ import annotations

import secrets
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from grapevine.experiments.faults import fault_of
from grapevine.experiments.fleet import Fleet
from grapevine.experiments.worlds.interrupt import Interrupt
from grapevine.experiments.worlds.processes import control
from grapevine.experiments.worlds.processes.attention import Attention
from grapevine.experiments.worlds.processes.child import evaluator_main, peer_main
from grapevine.experiments.worlds.processes.forkserver import (
    UNGUARDED,
    Child,
    WorldError,
    bounded_start,
    server_folder,
    start_fork_server,
)
from grapevine.experiments.worlds.processes.peer_spec import peer_spec
from grapevine.netem.kernel.namespaces import NamespaceError, Namespaces

SETUP_S = 120.0
RAISED = 1  # exit status of a process that could not read its arguments


class Startup:
    """Starts the processes of one fleet; `peers` and `evaluator` are those started so far, also after an error."""

    def __init__(self, fleet: Fleet, network: Namespaces | None, interrupt: Interrupt, attention: Attention) -> None:
        self.fleet = fleet
        self.network = network
        self.interrupt = interrupt
        self.attention = attention
        self.peers: dict[int, Child] = {}
        self.evaluator: Child | None = None

    def run(self, room: Path, realtime: bool) -> None:
        """Start all processes and wait until the peers are connected; `realtime`: whether they ask for real-time priority.

        Raises WorldError if a process ends or does not answer, KeyboardInterrupt after an interrupt.
        """
        experiment, run = self.fleet.experiment, secrets.randbits(63)
        start_fork_server(self.fleet.problem.preload)
        self._bring_network_up()
        names = list(self.fleet.problem.arrays)
        with bounded_start(lambda: self.interrupt.requested, SETUP_S):
            for peer in range(experiment.peers):
                self.interrupt.heed()
                spec = peer_spec(self.fleet, peer, names, room, run, realtime, self.network)
                self.peers[peer] = Child(f"peer {peer}", peer_main, (spec, (room, server_folder())))
            arguments = self.fleet.problem, names, room, experiment.peers, (room, server_folder())
            self.evaluator = Child("evaluator", evaluator_main, arguments)
        import pyarrow.parquet  # noqa: F401 - while the peers set up, not while they train

        addresses = {peer: message.address for peer, message in self._hear_all(control.Ready).items()}
        for peer, child in self.peers.items():
            child.say(control.Connect({other: addresses[other] for other in self.fleet.graph.neighbors(peer)}))
        self._hear_all(control.Connected)

    def _bring_network_up(self) -> None:
        if self.network is not None:
            try:
                self.network.__enter__()
            except NamespaceError as error:
                raise WorldError(f"the kernel refused the network: {error}") from None

    def _hear_all(self, kind: type) -> dict[int, Any]:
        """Return one message of this kind from every peer.  Raises WorldError if a peer ends or does not answer."""
        heard: dict[int, Any] = {}
        deadline_s = self.attention.s + SETUP_S
        while len(heard) < len(self.peers):
            self.interrupt.heed()
            if self.attention.s > deadline_s:
                missing = [child.name for peer, child in self.peers.items() if peer not in heard]
                raise WorldError(f"{', '.join(missing)}: no answer within {SETUP_S:.0f} s of the start")
            for peer, child in self.peers.items():
                if peer in heard:
                    continue
                child.go_on()
                for message in child.read():
                    if isinstance(message, kind):
                        heard[peer] = message
                if not child.alive:
                    words, experiment = child.last_words, self.fleet.experiment
                    raise ended_early(child, words and fault_of(words, experiment, self.fleet.problem).sentence)
            wait([child.connection for peer, child in self.peers.items() if peer not in heard], 0.1)
            self.attention.look()
        return heard


def ended_early(child: Child, raised: str = "") -> WorldError:
    """Return the error of a process that ended before the start, with its cause: the exception `raised`, if it is known."""
    ending = child.ending()
    if child.process.exitcode == UNGUARDED:
        return WorldError(
            "the script starts its fleet when it is imported, and every peer's process imports the script: put the call under "
            '`if __name__ == "__main__":`'
        )
    code = child.process.exitcode
    cure = "objects from Python must be importable: define them at the top level of a file, or use the virtual world"
    cause = f"{ending}; {cure}" if code == RAISED else ending
    return WorldError(f"{child.name} ended while it was set up: {raised or cause}", child.last_words)
