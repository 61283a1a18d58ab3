"""The wait of a strategy in a deadlock, in words."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from types import FrameType
from typing import Any

from grapevine.experiments.faults import users_file
from grapevine.peer.peer import Peer

CURE = "give peer.gather the value that peer.step had when the messages were sent"


def wait_text(peer: Peer, strategy: Coroutine[Any, Any, None]) -> str:
    """Return the step for which a peer waits in `gather`, with the line, and the steps that have come; "" = not in `gather`."""
    frames: list[FrameType] = []
    awaited: Any = strategy
    while inspect.iscoroutine(awaited) and awaited.cr_frame is not None:
        frames.append(awaited.cr_frame)
        awaited = awaited.cr_await
    gather = next((frame for frame in frames if frame.f_code is Peer.gather.__code__), None)
    if gather is None:
        return ""
    line = next(
        (f" ({file}, line {frame.f_lineno})" for frame in frames[::-1] if (file := users_file(frame.f_code.co_filename))), ""
    )
    step, late = gather.f_locals["step"], peer.inbox.late_step
    came = sorted({step for _, step in peer.waiting_steps()} | ({late} if late is not None else set()))
    steps = f"messages of step {', '.join(map(str, came))} have come; {CURE}" if came else "none has come"
    return f": peer {peer.id} waits for messages of step {step}{line}, and {steps}"
