"""A peer with wrappers: they surround its strategy's coroutine and its inbox, and their changes are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from grapevine.peer.effects import GRADIENTS, Send, SendAt, Sleep, Work
from grapevine.peer.endpoint import Arrival
from grapevine.peer.message import Message
from grapevine.peer.payloads import Parcel, encode
from grapevine.peer.peer import Peer, Runs
from grapevine.peer.wrappers.base import Outgoing, Station, Wrapper

WRAPPER_STREAM = 0x77A9  # separates the random numbers of wrappers from all others of a run
T = TypeVar("T", Outgoing, Message)


class WrappedPeer(Peer):
    """A peer with wrappers between its strategy and its world.

    `altered` counts their changes by "<name of the wrapper>: <change>": sends or arrivals dropped, altered or added, sends
    delayed, gradients altered.
    """

    def wear(self, wrappers: Sequence[tuple[int, Wrapper]], seed: int) -> None:
        """Add wrappers, each with its place among the wrappers of the experiment."""
        self.altered: Counter[str] = Counter()
        self._last_ns = 0  # the instant at which the last delayed message leaves
        self.stations = [
            Station(wrapper, place, self, np.random.default_rng([seed, WRAPPER_STREAM, place, self.id]))
            for place, wrapper in wrappers
        ]

    def begin(self, strategy: Runs) -> Coroutine[Any, Any, None]:
        return self._between(strategy.run(self))

    def deliver(self, arrival: Arrival | Message) -> None:
        """Let a message that has arrived pass the wrappers, and put the resulting messages into the inbox."""
        self.calls = 0
        message = arrival if isinstance(arrival, Message) else self.inbox.decoded(arrival, (arrival.source,))
        messages = [] if message is None else [message]
        for station in reversed(self.stations):
            messages = [passed for each in messages for passed in self._pass(station, "arrivals", each)]
        for each in messages:
            super().deliver(each)

    async def _between(self, strategy: Coroutine[Any, Any, None]) -> None:
        """Run a strategy, and let its outgoing messages and its gradients pass the wrappers.

        Return when the strategy has ended and the last of its messages has left.
        """
        answer: Any = None
        raised: Exception | None = None
        try:
            while True:
                try:
                    effect = strategy.send(answer) if raised is None else strategy.throw(raised)
                except StopIteration:
                    break
                answer = raised = None
                if isinstance(effect, Send):
                    for leaving in self._sends(effect):
                        await leaving
                    continue
                try:
                    answer = await effect
                except Exception as error:  # noqa: BLE001 - raised by the task; the strategy may catch it
                    raised = error
                    continue
                if isinstance(effect, Work) and effect.name in GRADIENTS:
                    answer = answer[0], self._computed(answer[1])
        finally:
            strategy.close()
        if self._last_ns > self.instant_ns:
            await Sleep(self._last_ns)

    def _sends(self, effect: Send) -> Iterator[Send | SendAt]:
        """Yield the messages that leave in place of a message, target by target."""
        given, now_ns = effect.parcel, self.instant_ns
        for target in effect.targets:
            messages = [Outgoing(target, given.payload, given.scalars, given.step, now_ns)]
            for station in self.stations:
                messages = [passed for each in messages for passed in self._pass(station, "sends", each)]
            for message in messages:
                same = message.payload is given.payload and message[2:4] == (given.scalars, given.step)
                leaving = Send((message.target,), given if same else self._encoded(message))
                if message.leaves_ns > now_ns:
                    self._last_ns = max(self._last_ns, message.leaves_ns)
                    yield SendAt(leaving, message.leaves_ns)
                else:
                    yield leaving

    def _encoded(self, message: Outgoing) -> Parcel:
        """Encode a message that a wrapper has made; it need not be valid, since receivers decode and check it."""
        number, _, codec = self.spaces.find(message.payload.space)
        with np.errstate(all="ignore"):
            parcel = encode(message.payload, codec, message.step, message.scalars, number, self.codec_rng)[0]
        parcel.payload = None
        return parcel

    def _computed(self, gradient: np.ndarray) -> np.ndarray:
        """Return the gradient that the strategy gets after all wrappers."""
        for station in reversed(self.stations):
            station.now_ns = self.instant_ns
            view = gradient.view()
            view.flags.writeable = False
            found = station.wrapper.computed(station, view)
            if found is not view:
                if not isinstance(found, np.ndarray) or found.shape != gradient.shape:
                    raise _foreign(station, "computed", found, f"an array of shape {gradient.shape}")
                self._note(station, "gradients altered")
                gradient = np.asarray(found, np.float32)
        return gradient

    def _pass(self, station: Station, what: str, message: T) -> list[T]:
        """Return the messages that a wrapper returns for a message, and count its changes."""
        wrapper = station.wrapper
        method = wrapper.sending if isinstance(message, Outgoing) else wrapper.arriving
        station.now_ns = self.instant_ns if isinstance(message, Outgoing) else max(self.instant_ns, message.arrived_ns)
        answer: Any = method(station, message)
        if not isinstance(answer, Iterable) or isinstance(answer, type(message)):
            raise _foreign(station, method.__name__, answer, "a list of messages, () for none")
        passed: list[T] = list(answer)
        if wrong := [each for each in passed if not isinstance(each, type(message))]:
            raise _foreign(station, method.__name__, wrong[0], f"each message as {type(message).__name__}")
        for each in passed:
            if isinstance(each, Outgoing) and not isinstance(each.leaves_ns, int | np.integer):
                raise _foreign(station, method.__name__, each.leaves_ns, "leaves_ns as a whole number of ns, such as int(...)")
        if not passed:
            self._note(station, f"{what} dropped")
        for place, each in enumerate(passed):
            if place:
                self._note(station, f"{what} added")
            elif each is not message:
                later = isinstance(each, Outgoing) and each.leaves_ns > message.leaves_ns
                if later:
                    self._note(station, f"{what} delayed")
                if not later or each[:-1] != message[:-1]:
                    self._note(station, f"{what} altered")
        return passed

    def _note(self, station: Station, what: str) -> None:
        self.altered[f"{type(station.wrapper).__struct_config__.tag}: {what}"] += 1


def _foreign(station: Station, method: str, answer: Any, expected: str) -> TypeError:
    return TypeError(f"{type(station.wrapper).__name__}.{method} returned {answer!r:.80}; it must return {expected}")
