"""Observe real TCP over an emulated link, as a reference for benchmarks.tcp_model: `python -m benchmarks.tcp_observe out.json`.

For each condition two processes, each in a network namespace, use one TCP connection; a third carries every IP packet
between their TUN devices, with a rate, a droptail queue of max(BDP, 50 ms), independent loss of packets and a delay, in
both directions. Needs root and /dev/net/tun; no packet leaves the namespaces, and they end with their processes. The
messages' sizes alternate, the pauses between them are drawn from a range. For each message the file holds the time from its
first byte's sending to its last byte's arrival, and the pause before it, so that a model can replay it. Conditions under which
the third process was too late (LATE_SHARE) are left out, and printed.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import json
import math
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

QUEUE_S = 0.05
PORT = 5000
ADDRESSES = ("10.0.0.1", "10.0.0.2")
SIZES = (30_000, 64_000, 150_000, 400_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000)
RTTS = (0.01, 0.03, 0.05, 0.06, 0.1, 0.12, 0.15, 0.25)
RATES = tuple(megabit * 1e6 for megabit in (5, 8, 15, 30, 50, 80, 150, 200))
MESSAGE_AT_MOST_S = 4.0
QUIET_SHARE = 0.25  # of the time, for links without loss: their times vary less
MSS_BYTES = 1448
CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
WHAT = (
    "Real Linux TCP (persistent connection) on a packet-level emulated link: droptail queue max(1 BDP, 50 ms), Bernoulli loss "
    "per packet in both directions. Messages of `sizes` (bytes) in turn, from the connection's first on; of each `took_ms`, "
    "one way to its last byte, and `pause_ms` before it. rtt in s, rate in bit/s at IP level, late_ms: 99th percentile of the "
    "emulator's lateness."
)
LATE_SHARE = 0.05
"""The largest lateness of the emulator (99th percentile) as a share of the round trip."""


class Condition(msgspec.Struct, frozen=True):
    """A link, a congestion control, and the messages' sizes and pauses."""

    rtt: float
    rate: float
    loss: float
    cc: str
    pause: tuple[float, float]
    sizes: tuple[int, ...]


def conditions(seed: int, each: int) -> list[Condition]:
    """Draw `each` conditions of every congestion control and loss, in which no message should take much longer than 4 s."""
    rng = random.Random(seed)
    found = []
    for control in ("cubic", "bbr"):
        for loss in (0.0, 0.001, 0.005, 0.01):
            for _ in range(each):
                rtt, rate = rng.choice(RTTS), rng.choice(RATES)
                reached = rate
                if control == "cubic" and loss:
                    reached = min(rate, 1.22 * 8 * MSS_BYTES / (rtt * math.sqrt(loss)))
                fit = [size for size in SIZES if 8 * size / reached + 2 * rtt < MESSAGE_AT_MOST_S]
                pause = rng.choice(((0.6, 1.05), (0.05, 0.4)))
                found.append(Condition(rtt, rate, loss, control, pause, tuple(sorted(rng.sample(fit, min(3, len(fit)))))))
    return found


def observe(condition: Condition, lasts_s: float, seed: int) -> dict[str, Any]:
    """Send messages for `lasts_s`; return the condition with its observations, drops and 99th percentile of lateness, ms."""
    command = [sys.executable, "-m", "benchmarks.tcp_observe", "--one", msgspec.json.encode(condition).decode()]
    command += [str(lasts_s), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=lasts_s + 120)
    return {**msgspec.to_builtins(condition), **json.loads(done.stdout)}


# ---- one condition, in three processes ----------------------------------------------------------------------------------


def _observe_here(condition: Condition, lasts_s: float, seed: int) -> dict[str, Any]:
    ready, answers, results = os.pipe(), os.pipe(), os.pipe()
    receiver_at, receiver_pid = _endpoint(lambda: _receive(ready[1], answers[1]), 1)
    sender_at, sender_pid = _endpoint(lambda: _send(condition, lasts_s, seed, ready[0], answers[0], results[1]), 0)
    for end in (ready[0], ready[1], answers[0], answers[1], results[1]):
        os.close(end)
    try:
        _hurry()
        text, drops, late_s = _carry(sender_at, receiver_at, results[0], condition, seed)
    finally:
        for pid in (sender_pid, receiver_pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
            os.waitpid(pid, 0)
    late_ms = 1e3 * sorted(late_s)[int(0.99 * len(late_s))] if late_s else 0.0
    took_ms, pause_ms = zip(*json.loads(text), strict=True)
    return {"drops": drops, "late_ms": round(late_ms, 3), "took_ms": took_ms, "pause_ms": pause_ms}


def _endpoint(work: Any, which: int) -> tuple[int, int]:
    """Start a process in its own namespace that calls `work`; return its open TUN device and its process number."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    pid = os.fork()
    if pid == 0:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "a new network namespace needs root")
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22s", b"tun0", IFF_TUN | IFF_NO_PI, b""))
            for words in (f"addr add {ADDRESSES[which]}/24 dev tun0", "link set tun0 txqueuelen 20000 up", "link set lo up"):
                subprocess.run(["ip", *words.split()], check=True)
            _hurry()
            socket.send_fds(theirs, [b"x"], [device])
            work()
        except BaseException:  # noqa: BLE001 - the other process sees the closed connection
            traceback.print_exc()
        finally:
            os._exit(0)
    theirs.close()
    _, (device,), _, _ = socket.recv_fds(ours, 1, 1)
    ours.close()
    return device, pid


def _hurry() -> None:
    """Set real-time priority, so that other work on this machine does not delay packets."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def _receive(ready: int, answers: int) -> None:
    """Answer each message with the time of its last byte's arrival."""
    with socket.create_server((ADDRESSES[1], PORT)) as server:
        os.write(ready, b"x")
        connection, _ = server.accept()
        buffer = bytearray(1 << 20)
        while head := connection.recv(8, socket.MSG_WAITALL):
            left = struct.unpack("!q", head)[0] - 8
            while left:
                left -= connection.recv_into(buffer, min(left, len(buffer)))
            os.write(answers, struct.pack("!d", time.monotonic()))


def _send(condition: Condition, lasts_s: float, seed: int, ready: int, answers: int, results: int) -> None:
    rng = random.Random(seed)
    os.read(ready, 1)
    found = []
    with socket.socket() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, condition.cc.encode())
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connect((ADDRESSES[1], PORT))
        arrived_s = time.monotonic()
        ends_s = arrived_s + lasts_s
        while time.monotonic() < ends_s:
            for size in condition.sizes:
                time.sleep(rng.uniform(*condition.pause))
                began_s = time.monotonic()
                connection.sendall(struct.pack("!q", size) + bytes(size - 8))
                pause_s = began_s - arrived_s
                arrived_s = struct.unpack("!d", os.read(answers, 8))[0]
                found.append((round(1e3 * (arrived_s - began_s), 1), round(1e3 * pause_s)))
    with open(results, "w") as file:
        print(json.dumps(found), file=file)


# ---- the link -----------------------------------------------------------------------------------------------------------


class _Packet(NamedTuple):
    due_s: float
    data: bytes


class _Way:
    """One direction of the link."""

    def __init__(self, condition: Condition, rng: random.Random) -> None:
        self._condition = condition
        self._rng = rng
        self._queue_s = max(condition.rtt, QUEUE_S)
        self._free_s = 0.0
        self.waiting: deque[_Packet] = deque()
        self.drops = 0

    def take(self, data: bytes, now_s: float) -> None:
        begins_s = max(now_s, self._free_s)
        if begins_s - now_s > self._queue_s or self._rng.random() < self._condition.loss:
            self.drops += 1
            return
        self._free_s = begins_s + 8 * len(data) / self._condition.rate
        self.waiting.append(_Packet(self._free_s + self._condition.rtt / 2, data))


def _carry(sender: int, receiver: int, results: int, condition: Condition, seed: int) -> tuple[str, int, list[float]]:
    """Carry packets until there is a result; return it, the number of dropped data packets, and the packets' lateness, s."""
    rng = random.Random(seed + 1)
    forth, back = _Way(condition, rng), _Way(condition, rng)
    late_s: list[float] = []
    clock = time.monotonic
    while True:
        due_s = min((way.waiting[0].due_s for way in (forth, back) if way.waiting), default=math.inf)
        can_read, _, _ = select.select([sender, receiver, results], [], [], max(0.0, min(due_s - clock(), 1.0)))
        if results in can_read:
            with open(results) as file:
                return file.readline(), forth.drops, late_s
        for source, way, target in ((sender, forth, receiver), (receiver, back, sender)):
            if source in can_read:
                for data in _packets(source):
                    way.take(data, clock())
            now_s = clock()
            while way.waiting and way.waiting[0].due_s <= now_s:
                packet = way.waiting.popleft()
                late_s.append(now_s - packet.due_s)
                with contextlib.suppress(OSError):
                    os.write(target, packet.data)


def _packets(device: int) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError):
        for _ in range(64):
            data = os.read(device, 2048)
            if data[0] >> 4 == 4:  # IPv6 packets are router solicitations
                yield data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("tcp_observations.json"))
    parser.add_argument("--each", type=int, default=4, help="number of conditions of every congestion control and loss")
    parser.add_argument("--lasts", type=float, default=60.0, help="seconds for each condition")
    parser.add_argument("--at-once", type=int, default=4, help="number of conditions at one time")
    parser.add_argument("--seed", type=int, default=1, help="seed of the conditions, pauses and losses")
    parser.add_argument("--held-out", action="store_true", help="mark the conditions as held out from the making of a model")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        condition = msgspec.json.decode(options.one[0], type=Condition)
        print(json.dumps(_observe_here(condition, float(options.one[1]), int(options.one[2]))))
        return
    chosen = conditions(options.seed, options.each)
    with ThreadPoolExecutor(options.at_once) as pool:
        seeds = range(1000 * options.seed, 1000 * options.seed + len(chosen))
        lasts_s = [options.lasts * (1.0 if condition.loss else QUIET_SHARE) for condition in chosen]
        found = list(pool.map(observe, chosen, lasts_s, seeds))
    sound = [each for each in found if each["late_ms"] <= 1e3 * LATE_SHARE * each["rtt"]]
    for each in found:
        if each not in sound:
            print(f"left out, late by {each['late_ms']} ms: {each['cc']} {each['rtt']} s {each['rate'] / 1e6:g} Mbit/s")
    text = ",\n".join(json.dumps({**each, "held_out": options.held_out}, separators=(",", ":")) for each in sound)
    options.out.write_text(f'{{"what": {json.dumps(WHAT)},\n"conditions": [\n{text}\n]}}\n')


if __name__ == "__main__":
    main()
