"""An exception out of the user's own code in one sentence: the part, the exception, and the line of a file of the user's own.

A file is the user's own if it is neither part of grapevine nor of the standard library nor of an installed package; the files
that define the parts of the experiment are the user's own even if they are installed. A notebook's cells count as files.
"""

from __future__ import annotations

import inspect
import os
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from grapevine.experiments.config.errors import ConfigError, config_error
from grapevine.experiments.config.menus import MENUS, WRAPPERS
from grapevine.experiments.config.own_parts import is_users
from grapevine.experiments.tasks.partitions import Partition
from grapevine.experiments.tasks.share import Costs, Share

if TYPE_CHECKING:
    from grapevine.experiments.config.experiment import Experiment

T = TypeVar("T")
_PACKAGE = __name__.partition(".")[0]
_FRAME = re.compile(r'^  File "(.+)", line (\d+), in (.+)$', re.MULTILINE)
_BEGIN = "Traceback (most recent call last):\n"
_LONGEST = 300
_HINTS = {
    "no running event loop": "write `await peer.sleep(...)`, because asyncio does not run here",
    "'coroutine'": "write `await` before the call that returned the coroutine",
}
"""Words of an exception -> the cure."""


class Frame(NamedTuple):
    """One place of a traceback."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{_short(self.file)}, line {self.line}, in {self.function}"


class Fault(NamedTuple):
    """An exception of a run, and where it comes from."""

    exception: str
    """The exception in one line, such as "KeyError: 'x'"."""
    place: Frame | None
    """The innermost place in a file of the user's own; else, if no part is the user's own, the innermost of all; else None."""
    key: str
    """The key of the part whose code raised, such as "task" or "wrappers[0]"; "" = unknown."""
    own: bool
    """Whether code of the user's own raised, or called the code that raised."""

    @property
    def part(self) -> str:
        """The part in words, such as "task" or "wrapper"; "" if it is unknown, or if no code of the user's own was running."""
        return ("wrapper" if self.key.startswith(WRAPPERS.plural) else self.key) if self.own else ""

    @property
    def sentence(self) -> str:
        """The fault in words: "the task raised KeyError: 'x' (mine.py, line 12, in gradient)"."""
        return f"the {self.part} raised {self.text}" if self.part else self.text

    @property
    def text(self) -> str:
        """The exception and the place: "KeyError: 'x' (mine.py, line 12, in run)", and a cure if there is one."""
        hint = next((f"; {cure}" for words, cure in _HINTS.items() if words in self.exception), "") if self.own else ""
        return self.at(self.exception) + hint

    def at(self, words: str) -> str:
        """Return words followed by the place."""
        return words if self.place is None else f"{words} ({self.place})"


def fault_of(error: BaseException | str, experiment: Experiment, problem: Any = None) -> Fault:
    """Return the fault of an exception, or of a traceback as text; `problem` is the experiment's, if it was made."""
    text = error if isinstance(error, str) else "".join(traceback.format_exception(error))
    last = text.rpartition(_BEGIN)[2].rstrip()
    unindented = [line for line in last.splitlines() if line and not line.startswith(" ")]
    exception = (unindented[0] if unindented else last.strip())[:_LONGEST]
    frames = [Frame(file, int(line), function) for file, line, function in _FRAME.findall(last)]
    parts = _parts(experiment)
    files = {code.co_filename for part in parts.values() if is_own(part) for code in _codes(type(part), own=True)}
    while frames and not (frames[-1].file in files or is_users(frames[-1].file)):
        frames.pop()
    if not frames:
        innermost = None if any(map(is_own, parts.values())) else _last_frame(last)
        return Fault(exception, innermost, "", False)
    return Fault(exception, frames[-1], _key_of(frames, parts, problem), True)


def located(experiment: Experiment, key: str, action: Callable[[], T]) -> T:
    """Return `action()`, which uses the experiment's part `key`; raise ConfigError for an exception of the user's own code.

    A ValueError of a part of grapevine is a ConfigError too: its message is "problem; cure".
    """
    try:
        return action()
    except ConfigError as error:
        raise error.at(key=key) from error.__cause__
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        refusal = _refusal(error, experiment, key)
        if refusal is None:
            raise
        raise refusal from refusal.__cause__


def is_own(part: Any) -> bool:
    """Return whether a part of an experiment is of a class of the user's own."""
    return hasattr(part, "__struct_config__") and type(part).__module__.partition(".")[0] != _PACKAGE


def users_file(file: str) -> str:
    """Return the name of a file as a message shows it if it is the user's own; else ""."""
    return _short(file) if is_users(file) else ""


def _refusal(error: BaseException, experiment: Experiment, key: str) -> ConfigError | None:
    """Return the ConfigError for an exception; None if the exception is not one of the input."""
    if isinstance(error, ValueError) and key == "task" and _is_of_split(error):
        return config_error(error, key="partition")
    fault = fault_of(error, experiment)
    if fault.own:
        refusal = ConfigError(key=fault.key or key, problem=f"raised {fault.text}")
        if isinstance(error, ValueError) and str(error):
            said = config_error(error)
            refusal = ConfigError(key=fault.key or key, problem=fault.at(said.problem), cure=said.cure)
        refusal.__cause__ = error
        return refusal
    if isinstance(error, ValueError) and key:
        return config_error(error, key=key)
    part = _parts(experiment).get(key)
    if not is_own(part):
        return None
    cure = "correct its methods: they return what the recipe of its family in CONTRIBUTING.md shows"
    problem = f"its results cannot be used: {fault.exception}"
    return ConfigError(key=key, value=MENUS[key].called(part), problem=problem, cure=cure)


def _is_of_split(error: BaseException) -> bool:
    """Return whether a check of the partitions has raised an error: then the task that has called them is not at fault."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename == inspect.getfile(Partition)


def _parts(experiment: Experiment) -> dict[str, Any]:
    """Return the parts of an experiment by their keys."""
    parts = {key: getattr(experiment, key) for key in MENUS}
    return parts | {f"{WRAPPERS.plural}[{place}]": wrapper for place, wrapper in enumerate(experiment.wrappers)}


def _key_of(frames: list[Frame], parts: dict[str, Any], problem: Any) -> str:
    """Return the key of the part that the innermost of the frames belongs to, or else the next one outwards; "" = none."""
    codes = {key: list(_codes(type(part))) for key, part in parts.items()}
    codes["task"] += [*_codes(type(problem)), *_codes(Share), *_codes(Costs)]
    with suppress(Exception):
        codes["optimizer"] += _codes(type(parts["optimizer"].start(1)))
    for frame in reversed(frames):
        for key, known in codes.items():
            if any(_holds(code, frame) for code in known):
                return key
    return ""


def _codes(cls: type, own: bool = False) -> Iterator[CodeType]:
    """Yield the code of each method of a class and of its base classes; `own`: without those of grapevine."""
    for kin in cls.__mro__:
        if own and kin.__module__.partition(".")[0] == _PACKAGE:
            continue
        for member in vars(kin).values():
            function = inspect.unwrap(getattr(member, "__func__", None) or getattr(member, "fget", None) or member)
            code = getattr(function, "__code__", None)
            if isinstance(code, CodeType):
                yield code


def _short(file: str) -> str:
    """Return a file's path from the working folder if it is in it; else the whole path."""
    inside = os.path.relpath(file) if Path(file).is_absolute() else file
    return file if inside.startswith("..") else inside


def _holds(code: CodeType, frame: Frame) -> bool:
    """Return whether a place is inside a function, or a function within it."""
    return code.co_filename == frame.file and code.co_firstlineno <= frame.line <= _last_line(code)


def _last_line(code: CodeType) -> int:
    inner = [_last_line(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return max([code.co_firstlineno, *inner, *(line for _, _, line in code.co_lines() if line)])


def _last_frame(text: str) -> Frame | None:
    found = _FRAME.findall(text)
    return Frame(found[-1][0], int(found[-1][1]), found[-1][2]) if found else None
