"""The throughput of whole messages between two processes: encoded, framed, sent, checked, assembled."""

from __future__ import annotations

import multiprocessing
import select
import tempfile
import time
from typing import Any

import numpy as np

from grapevine.peer import wire
from grapevine.peer.codecs import Float32
from grapevine.peer.endpoint import Endpoint
from grapevine.peer.payloads import Dense, encode
from grapevine.peer.sockets import Sockets

LIMIT_BYTES = 1 << 26
RUN = 7


def _receive(address: str, messages: int, answer: Any) -> None:
    sockets, endpoint, received, started_s, moved_bytes = Sockets(address), Endpoint(1, [0], LIMIT_BYTES), 0, 0.0, 0
    answer.send(sockets.address)
    while received < messages:
        frames = sockets.drain()
        if not frames:
            select.select([sockets.fd], [], [], 1)
        for parts in frames:
            frame = wire.decode(parts, RUN, LIMIT_BYTES)
            assert isinstance(frame, wire.Chunk)
            complete = endpoint.receive(frame, time.monotonic_ns())
            if complete is not None:
                received += 1
                moved_bytes += complete[0].body.nbytes if received > 1 else 0
                started_s = started_s or time.monotonic()
    answer.send(moved_bytes / (time.monotonic() - started_s))


def wire_bytes_per_s(message_bytes: int, total_bytes: int) -> float:
    """Return the bytes per second of messages of one size, from encoding to the whole body on the other side, over ipc."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    messages = max(20, total_bytes // message_bytes)
    folder = tempfile.TemporaryDirectory()
    process = context.Process(target=_receive, args=(f"ipc://{folder.name}/receiver", messages, theirs))
    process.start()
    sockets, endpoint = Sockets(f"ipc://{folder.name}/sender"), Endpoint(0, [1], LIMIT_BYTES)
    sockets.connect({1: ours.recv()})
    endpoint.meters[1].rate_bytes_per_s = 1e9  # as after a first measurement: chunks of full size
    values = np.ones(message_bytes // 4, np.float32)
    for _ in range(messages):
        for chunk in endpoint.send(1, encode(Dense(values), Float32(), 0)[0], 0, 2e7):
            while not sockets.send(1, wire.encode(chunk, RUN)):
                time.sleep(0.0005)
    rate = float(ours.recv())
    process.join()
    sockets.close()
    folder.cleanup()
    return rate
