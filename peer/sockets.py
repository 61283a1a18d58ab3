"""The sockets of one peer, by zmq: one ROUTER that receives from all neighbours, one DEALER that sends to each neighbour."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import zmq

from grapevine.peer.wire import CHUNK_LIMIT_BYTES

ZERO_COPY_BYTES = 65_536  # below, copying into zmq is cheaper than tracking the buffer
BATCH_BYTES = 8_192  # libzmq reads this much at a time; a smaller part of a frame is a view of such a batch and keeps all of it
QUEUE_LIMIT_FRAMES = 4_096
WAITING_LIMIT = 4_096  # connections that may wait to be accepted: the largest number that Linux allows
TRY_S = 2.0  # real time after which a connection is tried again: a neighbour whose queue is full does not answer
NEVER = -1


class Sockets:
    """The sockets of one peer; only one thread at a time may use them.

    `address` is the address to listen at: `ipc://PATH`, or `tcp://host:port` with `*` for any port; the attribute `address`
    holds the address that was bound.  A local socket accepts only processes of the same user, which the kernel checks.  A
    `priority` above 0 asks for SCHED_FIFO for the thread of zmq as well.

    A broken connection is never made again: its neighbour is dead, and another process may listen at the address.
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
        """Connect to the neighbours, which all listen by now, and wait until each has answered.

        Raises ConnectionError, with the number of the neighbour, if one has not answered within `timeout_s` of real time.
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
        dealer.setsockopt(zmq.IMMEDIATE, 1)  # accepts frames once the connection is made, so that one can wait for it
        dealer.connect(address)
        return dealer

    def send(self, neighbour: int, parts: list[Any]) -> bool:
        """Hand a frame to zmq; return False if the neighbour's queue is full (try again later)."""
        dealer = self._dealers.get(neighbour)
        if dealer is None:
            return True  # the neighbour was lost meanwhile
        try:
            dealer.send_multipart(parts, zmq.DONTWAIT, copy=len(parts[-1]) < ZERO_COPY_BYTES)
        except zmq.Again:
            return False
        return True

    def drain(self, most: int = 64) -> list[list[Any]]:
        """Return at most `most` of the arrived frames, their parts as bytes or as buffers, without zmq's routing part.

        Small parts are copied, so that a frame takes no more memory than its own bytes and a fixed number beyond them.
        zmq's descriptor signals changes only: wait on `fd` only after this has returned an empty list.
        """
        frames: list[list[Any]] = []
        receive = self.router.recv
        with suppress(zmq.Again):
            while len(frames) < most:
                part, parts = receive(zmq.DONTWAIT, False), []
                while part.more:
                    part = receive(zmq.DONTWAIT, False)
                    parts.append(part.buffer if len(part) > BATCH_BYTES else part.bytes)
                frames.append(parts)
        return frames

    def disconnect(self, neighbour: int) -> None:
        """Close the connection to a neighbour and drop the frames queued for it."""
        dealer = self._dealers.pop(neighbour, None)
        if dealer is not None:
            dealer.close(0)

    def close(self) -> None:
        """Close all sockets and drop all queued frames."""
        for neighbour in list(self._dealers):
            self.disconnect(neighbour)
        self.router.close(0)
        self.context.term()
