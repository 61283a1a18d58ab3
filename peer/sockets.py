"""The only place that knows zmq: one ROUTER that hears everybody, one DEALER towards each neighbour."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import zmq

from peer.wire import CHUNK_LIMIT_BYTES

ZERO_COPY_BYTES = 65_536  # below, copying into zmq is cheaper than tracking the buffer
QUEUE_LIMIT_FRAMES = 4_096


class Sockets:
    """One peer's sockets; to be used by one thread at a time.

    `address` is where to listen: `ipc://...` (also abstract, `ipc://@name`), or `tcp://host:port` with `*` for any port;
    what was bound stands in `address` afterwards.  An abstract socket has no file that would keep other users of the machine
    away, so the kernel is asked who connects: processes of the same user only.  `priority` above 0 asks for SCHED_FIFO for
    the own thread of zmq as well.
    """

    def __init__(self, address: str, priority: int = 0) -> None:
        self.context = zmq.Context()
        if priority:
            self.context.set(zmq.THREAD_SCHED_POLICY, 1)  # SCHED_FIFO
            self.context.set(zmq.THREAD_PRIORITY, priority)
        self.router = self.context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.LINGER, 0)
        self.router.setsockopt(zmq.RCVHWM, QUEUE_LIMIT_FRAMES)
        self.router.setsockopt(zmq.MAXMSGSIZE, CHUNK_LIMIT_BYTES)  # libzmq drops larger frames before taking memory
        if address.startswith("ipc://"):
            self.router.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
        self.router.bind(address)
        self.address = address
        if not address.startswith("ipc://@"):  # the kernel's name of an abstract socket starts with a zero byte
            self.address = bytes(self.router.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
        self.fd = int(self.router.getsockopt(zmq.FD))
        self._dealers: dict[int, zmq.Socket] = {}

    def connect(self, neighbour: int, address: str) -> None:
        """Open the way to a neighbour."""
        dealer = self.context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.SNDHWM, QUEUE_LIMIT_FRAMES)
        dealer.connect(address)
        self._dealers[neighbour] = dealer

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
