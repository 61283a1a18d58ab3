"""The messages that wait for one peer's strategy; those that cannot be read or are not expected are dropped and counted."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence

from grapevine.peer.endpoint import Arrival
from grapevine.peer.expected import Expected, misfit
from grapevine.peer.message import Message
from grapevine.peer.payloads import Head, decode, decode_head
from grapevine.peer.spaces import Spaces
from grapevine.peer.wire import WireError

LATE = "late"
"""The kind of error by which `errors` counts messages that came after `collect` had asked for a later step."""


class Inbox:
    """The messages of one peer that its strategy has not taken yet, in order of arrival.

    A message may wait in bytes; it is decoded when it is taken.  `expected` holds the forms of message that the strategy
    declares (None = every message that has an element, finite values and finite scalars).  A message that cannot be decoded or
    has none of these forms is dropped, and `errors` counts it by the kind of error.
    """

    __slots__ = ("_errors", "_spaces", "_waiting", "expected", "late_step", "put")

    def __init__(self, spaces: Spaces, errors: Counter[str]) -> None:
        self._waiting: deque[Arrival | Message] = deque()
        self.put: Callable[[Arrival | Message], None] = self._waiting.append
        """Add a whole message: in bytes as it came off the wire, or decoded."""
        self._spaces = spaces
        self._errors = errors
        self.expected: Sequence[Expected] | None = None
        self.late_step: int | None = None
        """The step of the last message that `collect` dropped as too late."""

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Arrival | Message]:
        return iter(self._waiting)

    def clear(self) -> None:
        """Drop all messages."""
        self._waiting.clear()

    def take(self, neighbours: Collection[int]) -> Message | None:
        """Return the first message from one of these neighbours and drop the others before it; None if there is none."""
        waiting = self._waiting
        while waiting:
            if (message := self._opened(waiting.popleft(), neighbours)) is not None:
                return message
        return None

    def take_from(self, source: int) -> Message | None:
        """Return the first message of one neighbour and leave those of the others; None if there is none."""
        while (place := next((place for place, item in enumerate(self._waiting) if item.source == source), None)) is not None:
            item = self._waiting[place]
            del self._waiting[place]
            if (message := self._opened(item, (source,))) is not None:
                return message
        return None

    def collect(self, step: int, space: str, found: dict[int, Message | None], neighbours: Collection[int]) -> None:
        """Move the messages of one step and space into `found`, by sender: the first of each, None if it is not as expected.

        Messages of earlier steps in this space are dropped; those of later steps and of other spaces stay, in their order.
        """
        waiting, size, expected = self._waiting, self._spaces.sizes[space], self.expected
        for _ in range(len(waiting)):
            item = waiting.popleft()
            message = item if isinstance(item, Message) else self.decoded(item, neighbours)
            if message is None:
                continue
            source, sent_step, payload, _, _ = message
            if payload.space != space:
                waiting.append(message)
            elif sent_step == step and source not in found:
                if word := misfit(message, size, expected):
                    self._errors[word] += 1
                found[source] = None if word else message
            elif sent_step >= step:
                waiting.append(message)
            else:
                self.late_step = sent_step
                self._errors[LATE] += 1

    def steps(self, neighbours: Collection[int]) -> list[tuple[int, int]]:
        """Return the sender and the step of each message that waits, in order of arrival."""
        opened = (item if isinstance(item, Message) else self.decoded(item, neighbours) for item in self._waiting)
        return [(message.source, message.step) for message in opened if message is not None]

    def decoded(self, arrival: Arrival, neighbours: Collection[int]) -> Message | None:
        """Decode a message; None if it cannot be read, which is counted, or does not come from one of these neighbours."""
        if arrival.source not in neighbours:
            return None
        try:
            head: Head = decode_head(arrival.head)
            payload = decode(head, arrival.body, self._spaces)
        except WireError as error:
            self._errors[error.kind] += 1
            return None
        return Message(arrival.source, head.step, payload, head.scalars, arrival.arrived_ns)

    def _opened(self, item: Arrival | Message, neighbours: Collection[int]) -> Message | None:
        message = item if isinstance(item, Message) else self.decoded(item, neighbours)
        return message if message is not None and message.source in neighbours and self._fits(message) else None

    def _fits(self, message: Message) -> bool:
        """Whether a message has a form that the strategy expects; count it if not."""
        word = misfit(message, self._spaces.sizes[message.payload.space], self.expected)
        if word:
            self._errors[word] += 1
        return not word
