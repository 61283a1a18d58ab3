"""Sockets of a peer: who is heard, and what becomes of a neighbour's address once the neighbour is dead."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from grapevine.peer.sockets import BATCH_BYTES, Sockets

DEADLINE_MS = 10_000


@pytest.fixture(params=["ipc", "tcp"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sockets]:
    sockets = Sockets(f"ipc://{tmp_path}/peer-1" if request.param == "ipc" else "tcp://127.0.0.1:*")
    yield sockets
    if not sockets.context.closed:
        sockets.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Sockets]:
    sockets = Sockets(f"ipc://{tmp_path}/peer-0")
    yield sockets
    sockets.close()


@pytest.mark.slow
def test_a_process_at_a_dead_neighbours_address_receives_nothing(listening: Sockets, own: Sockets) -> None:
    own.connect({1: listening.address})
    assert own.send(1, [b"weights"])
    assert listening.router.poll(DEADLINE_MS)
    listening.close()
    stranger = zmq.Context().socket(zmq.ROUTER)
    stranger.setsockopt(zmq.LINGER, 0)
    stranger.bind(listening.address)
    for _ in range(300):  # for longer than zmq waits before it connects again
        own.send(1, [b"weights"])
        assert not stranger.poll(1)
    assert not own.send(1, [b"weights"])
    stranger.close(0)


def test_connecting_ends_when_everybody_has_answered(listening: Sockets, own: Sockets) -> None:
    """Whatever is sent then arrives, although the name is gone from the folder."""
    own.connect({1: listening.address})
    if listening.address.startswith("ipc"):
        Path(listening.address.removeprefix("ipc://")).unlink()
    assert own.send(1, [b"weights"])
    assert listening.router.poll(DEADLINE_MS)
    assert [bytes(part) for part in listening.drain()[0]] == [b"weights"]


def test_small_parts_are_copied_and_frames_arrive_whole_and_in_order(listening: Sockets, own: Sockets) -> None:
    """A view of a small part would keep the 8 KiB that libzmq has read at a time, whatever else was in it."""
    own.connect({1: listening.address})
    frames = [[b"header", b"", b"x" * size] for size in (1, BATCH_BYTES, BATCH_BYTES + 1, 1 << 20)] * 5 + [[b"alone"]]
    for frame in frames:
        assert own.send(1, frame)
    arrived: list[list[Any]] = []
    while len(arrived) < len(frames):
        assert listening.router.poll(DEADLINE_MS)
        arrived.extend(listening.drain(3))
    assert [[bytes(part) for part in parts] for parts in arrived] == frames
    assert all(type(part) is bytes for parts in arrived for part in parts if len(part) <= BATCH_BYTES)


def test_a_neighbour_that_does_not_answer_is_named(own: Sockets, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match=r"peer 7 has not answered within 0\.05 s"):
        own.connect({7: f"ipc://{tmp_path}/nobody"}, 0.05)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_other_users_of_the_machine_cannot_reach_a_peer(tmp_path: Path) -> None:
    """Not even where the folder lets them in."""
    folder = f"/proc/self/fd/{os.open(tmp_path, os.O_RDONLY)}"  # the way to pytest's folder is closed to others
    sockets = Sockets(f"ipc://{folder}/peer-0")
    (tmp_path / "peer-0").chmod(0o777)
    heard = {}
    for user in (65534, os.getuid()):
        if (pid := os.fork()) == 0:
            os.setuid(user)
            dealer = zmq.Context().socket(zmq.DEALER)
            dealer.connect(sockets.address)
            dealer.send(b"x")
            dealer.poll(300)
            os._exit(0)
        os.waitpid(pid, 0)
        heard[user] = sockets.drain()
    assert not heard[65534]
    assert heard[os.getuid()]
    sockets.close()
    os.close(int(folder.rpartition("/")[2]))
