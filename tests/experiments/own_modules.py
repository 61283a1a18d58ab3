"""Modules of a user's own, written into a folder for one test and forgotten after it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grapevine.experiments.config import own_parts

OWN = "_own"
"""How the names of such modules end."""
STRATEGY = '''
from typing import Annotated, ClassVar, Literal

import msgspec

from grapevine import Peer, Strategy


class Averaging(Strategy, frozen=True, tag="averaging"):
    """Averages whole models after every step.

    More words.
    """

    synchronous: ClassVar[bool] = True
    aggregates: ClassVar[bool] = True

    gamma: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    """How far a peer moves towards its neighbours; above 0, at most 1."""
    order: Literal["first", "last"] = "first"
    """Which comes first."""
    cap: float | None = 3.0
    """A field that may be None."""

    async def run(self, peer: Peer) -> None:
        while peer.running:
            peer.apply(await peer.gradient())
            own = await peer.broadcast_model()
            before = peer.weights.copy()
            peer.mix(await peer.gather(step=peer.step), own)
            peer.weights[:] = before + self.gamma * (peer.weights - before)


def helper() -> None:
    """No class at all."""
'''


@contextmanager
def forgotten() -> Iterator[None]:
    """What is imported and appended to the path inside is gone after it."""
    modules, path, offered = set(sys.modules), list(sys.path), list(own_parts._offered)
    try:
        yield
    finally:
        sys.path[:] = path
        own_parts._offered[:] = offered
        for name in set(sys.modules) - modules:
            if name.partition(".")[0].endswith(OWN):
                del sys.modules[name]


def write(folder: Path, name: str, text: str = STRATEGY) -> Path:
    """A module of that name, which ends in `OWN`, in a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.py"
    file.write_text(text, encoding="utf-8")
    return file
