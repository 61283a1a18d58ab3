"""The vectors that peers exchange: the model, and the named spaces that a strategy declares besides it.

Strategies use a space by its name; on the wire it has a number, its place among the declared ones (the model is number 0).  All
peers of a run have the same spaces, so a number that was not declared is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from grapevine.peer.codecs import Codec, Float32, Plain
from grapevine.peer.layout import Layout
from grapevine.peer.wire import WireError

MODEL = "model"
"""The name of the space of the peers' weights."""
MOST_SPACES = 64
"""The largest number of spaces that a strategy may declare."""
MOST_ELEMENTS = 2**32
"""The largest number of elements of a space: an index has 32 bits."""
DTYPES = ("float32", "uint32", "uint8")
_WIDTH_BYTES = {"float32": 4, "uint32": 4, "uint8": 1}


class Space(NamedTuple):
    """A named vector other than the model that peers send parts of: logits, keys, votes, a histogram, dual variables.

    `size` is its number of elements, 1 to 2^32; `dtype` is text, or numpy's np.float32, np.uint32 or np.uint8.  float32
    spaces are sent in the experiment's codec, which may round them, and may have a ledger; uint32 and uint8 spaces are sent
    as their plain bytes, exactly.
    """

    name: str
    size: int
    dtype: Literal["float32", "uint32", "uint8"] = "float32"

    @property
    def floats(self) -> bool:
        """Whether the space holds float32 numbers, which may be rounded or not finite."""
        return self.dtype == "float32"

    @property
    def size_bytes(self) -> int:
        """The number of bytes of all elements as they lie in memory."""
        return _WIDTH_BYTES[self.dtype] * self.size


class Facts(NamedTuple):
    """The numbers that the sizes of a strategy's spaces may depend on; the same for all peers of a run."""

    size: int
    """Number of elements of the model."""
    layout: Layout
    """The model's tensors."""
    peers: int
    """Number of peers at the start."""
    outputs: int | None = None
    """Number of outputs of the model for one sample; None if the task does not know it."""
    probe_samples: int | None = None
    """Number of samples in the probe set; None if there is no probe set."""


def checked(declared: Sequence[Space]) -> tuple[Space, ...]:
    """Return the spaces that a strategy declares; raise ValueError, with the cure, if one of them is not valid."""
    declared = tuple(map(_with_dtype_named, declared))
    if len(declared) > MOST_SPACES:
        raise ValueError(f"{len(declared)} spaces are declared; a strategy may have at most {MOST_SPACES}")
    names = {MODEL}
    for space in declared:
        if not isinstance(space, Space):
            raise ValueError(f"{space!r} is not a space; return Space(name, size, dtype) for each")
        if not isinstance(space.name, str) or not space.name or space.name in names:
            problem = "is the model's own name" if space.name == MODEL else "is empty or declared twice"
            raise ValueError(f"the space name {space.name!r} {problem}; give each space a name of its own")
        if space.dtype not in DTYPES:
            choices = ", ".join(f'"{dtype}"' for dtype in DTYPES)
            raise ValueError(f"space {space.name!r} holds {space.dtype!r}; write its dtype as text, one of {choices}")
        if isinstance(space.size, bool) or not isinstance(space.size, int) or not 1 <= space.size <= MOST_ELEMENTS:
            raise ValueError(f"space {space.name!r} has {space.size!r} elements; give a whole number from 1 to 2^32")
        names.add(space.name)
    return declared


def _with_dtype_named(space: Space) -> Space:
    """Return a space whose dtype is text, also if it was given as numpy's own, such as np.uint8; others unchanged."""
    if not isinstance(space, Space) or isinstance(space.dtype, str):
        return space
    names = [dtype for dtype in DTYPES if space.dtype in (np.dtype(dtype), np.dtype(dtype).type)]
    return space._replace(dtype=names[0]) if names else space


class Spaces:
    """The spaces of one run, the model first, and the codec of each.

    `size` is the number of elements of the model, `codec` the codec of the experiment.
    """

    __slots__ = ("all", "codecs", "named", "sizes")

    def __init__(self, size: int, codec: Codec | None = None, declared: Sequence[Space] = ()) -> None:
        self.all = (Space(MODEL, size), *declared)
        self.sizes = {space.name: space.size for space in self.all}
        codec = codec or Float32()
        self.codecs: tuple[Codec, ...] = tuple(
            codec if space.dtype == "float32" else Plain(dtype=space.dtype) for space in self.all
        )
        self.named = {space.name: (number, space, self.codecs[number]) for number, space in enumerate(self.all)}

    def find(self, name: str) -> tuple[int, Space, Codec]:
        """Return a space's number, the space and its codec; raise ValueError, with all names, for an unknown one."""
        found = self.named.get(name)
        if found is None:
            raise ValueError(
                f"there is no space {name!r}; declared are {', '.join(self.named)}: let the strategy's spaces() return it"
            )
        return found

    def numbered(self, number: int) -> tuple[Space, Codec]:
        """Return the space of a number from the wire, and its codec; raise WireError if it was not declared."""
        if number >= len(self.all):
            raise WireError("space", f"space number {number}; this run has {len(self.all)}")
        return self.all[number], self.codecs[number]
