"""The only place that knows zmq: one ROUTER that hears everybody, one DEALER towards each neighbour."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import zmq

from grapevine.peer.wire import CHUNK_LIMIT_BYTES

ZERO_COPY_BYTES = 65_536  # below, copying into zmq is cheaper than tracking the buffer
QUEUE_LIMIT_FRAMES = 4_096
WAITING_LIMIT = 4_096  # neighbours that knock at the same time: as many as Linux lets wait
TRY_S = 2.0  # a neighbour whose queue of knocking ones is full answers nobody: knock again
NEVER = -1


class Sockets:
    """One peer's sockets; to be used by one thread at a time.

    `address` is where to listen: `ipc://PATH`, or `tcp://host:port` with `*` for any port; what was bound stands in `address`
    afterwards.  Of local sockets the kernel is asked who connects: processes of the same user only.  `priority` above 0 asks
    for SCHED_FIFO for the own thread of zmq as well.

    A connection that breaks is never made again: the neighbour is dead then, and whoever listens at its address is a stranger.
    """

    def __init__(self, address: str, priority: int = 0) -> None:
        self.context = zmq.Context()
        if priority:
            self.context.set(zmq.THREAD_SCHED_POLICY, 1)  # SCHED_FIFO
            self.context.set(zmq.THREAD_PRIORITY, priority)
        self.router = self.context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.LINGER, 0)
        self.router.setsockopt(zmq.RCVHWM, QUEUE_LIMIT_FRAMES)
        self.router.setsockopt(zmq.BACKLOG, WAITING_LIMIT)
        self.router.setsockopt(zmq.MAXMSGSIZE, CHUNK_LIMIT_BYTES)  # libzmq drops larger frames before taking memory
        if address.startswith("ipc://"):
            self.router.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
        self.router.bind(address)
        self.address = bytes(self.router.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
        self.fd = int(self.router.getsockopt(zmq.FD))
        self._dealers: dict[int, zmq.Socket[bytes]] = {}

    def connect(self, addresses: Mapping[int, str], timeout_s: float = 30.0) -> None:
        """Open the way to the neighbours, all of whom listen by now, and wait until each has answered.

        Raises ConnectionError, with the number of the neighbour, where one has not answered within the time.
        """
        deadline_s = time.monotonic() + timeout_s
        for neighbour, address in addresses.items():
            self._dealers[neighbour] = self._dealer(address)
        for neighbour, address in addresses.items():
            while not self._dealers[neighbour].poll(int(min(TRY_S, timeout_s) * 1e3), zmq.POLLOUT):
                if time.monotonic() > deadline_s:
                    raise ConnectionError(f"peer {neighbour} has not answered within {timeout_s:g} s")
                self._dealers[neighbour].close(0)
                self._dealers[neighbour] = self._dealer(address)

    def _dealer(self, address: str) -> zmq.Socket[bytes]:
        dealer = self.context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.SNDHWM, QUEUE_LIMIT_FRAMES)
        dealer.setsockopt(zmq.RECONNECT_IVL, NEVER)
        dealer.setsockopt(zmq.IMMEDIATE, 1)  # takes frames from when the connection is made, which can be waited for
        dealer.connect(address)
        return dealer

    def send(self, neighbour: int, parts: list[Any]) -> bool:
        """Hand a frame to zmq; False where the neighbour's queue is full (try again later)."""
        dealer = self._dealers.get(neighbour)
        if dealer is None:
            return True  # lost meanwhile: nobody is there to hear it
        try:
            dealer.send_multipart(parts, zmq.DONTWAIT, copy=len(parts[-1]) < ZERO_COPY_BYTES)
        except zmq.Again:
            return False
        return True

    def drain(self, most: int = 64) -> list[list[Any]]:
        """The frames that have arrived (their parts as buffers, without zmq's routing part), at most `most` of them.

        zmq's descriptor tells of changes only: wait on `fd` only after this has returned an empty list.
        """
        frames: list[list[Any]] = []
        receive = self.router.recv_multipart
        with suppress(zmq.Again):
            while len(frames) < most:
                frames.append([part.buffer for part in receive(zmq.DONTWAIT, copy=False)[1:]])
        return frames

    def disconnect(self, neighbour: int) -> None:
        """Close the way to a neighbour; what was queued for it is dropped."""
        dealer = self._dealers.pop(neighbour, None)
        if dealer is not None:
            dealer.close(0)

    def close(self) -> None:
        """Close everything; nothing lingers."""
        for neighbour in list(self._dealers):
            self.disconnect(neighbour)
        self.router.close(0)
        self.context.term()
