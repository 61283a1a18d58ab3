"""A user's own parts, named "module:Class": the class for a name in a file, and the name for a class.

Modules are searched for on the interpreter's path, as Python does, and then in the folder of the experiment file. That folder
is appended to `sys.path`, so that it never hides a module of the standard library or of an installed package, and so that the
peers' processes, which take over the path, find the same class.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from grapevine.experiments.config.errors import ConfigError, nearest

MAIN = "__main__"
"""The module of classes that are defined in a script or a notebook."""

_REFERENCE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_INSTALLED = [Path(path) for kind, path in sysconfig.get_paths().items() if "lib" in kind]
_FOREIGN = [*_INSTALLED, Path(__file__).parents[2]]
"""The folders of installed modules and of this package: code in them is not the user's own."""
_CELLS = ("<stdin>", "<ipython-input")
"""The names of code that was typed, as tracebacks have them."""
_offered: list[str] = []
"""The folders of experiment files that were appended to `sys.path`."""


def load(reference: str, folder: Path | None, key: str, family: str, bases: Sequence[type]) -> type[msgspec.Struct]:
    """Return the class that "module:Class" names; `folder` is searched after the interpreter's path.

    Raises ConfigError for `key`, with the cure, if there is no such module or class, if the import of the module raises, or if
    the class is not of the `family` (a subclass of one of `bases`).
    """
    if not _REFERENCE.fullmatch(reference):
        cure = f'write the module, a colon and the class, such as "mine:{bases[0].__name__}"'
        raise ConfigError(key=key, value=reference, problem=f'"{reference}" does not have the form module:Class', cure=cure)
    name, _, path = reference.partition(":")
    module = sys.modules[MAIN] if name == MAIN else _module(name, folder, key, reference)
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise _no_such_class(module, path, key, bases, folder)
    if (
        not (isinstance(found, type) and issubclass(found, msgspec.Struct) and issubclass(found, tuple(bases)))
        or found in bases
    ):
        mistake = "is the base class itself" if found in bases else f"cannot be used as {family}"
        several = " or another base class of parts" if len(bases) > 2 else ""
        cure = f"name a class that is derived from grapevine.{bases[0].__name__}{several}"
        raise ConfigError(key=key, value=reference, problem=f"{path} of {_place(module)} {mistake}", cure=cure)
    return found


def unwritten(cls: type) -> list[str]:
    """Return the methods that a class must define and does not: those that its base class marks as abstract."""
    return [name for name in dir(cls) if getattr(getattr(cls, name, None), "__isabstractmethod__", False)]


def refuse_unwritten(cls: type, key: str, name: str) -> None:
    """Raise ConfigError for `key` if the class of a part called `name` lacks methods that its family needs."""
    if lacking := unwritten(cls):
        problem = f"the class {cls.__name__} does not define {', '.join(lacking)}"
        cure = "write it, as the recipe of its family in CONTRIBUTING.md shows"
        raise ConfigError(key=key, value=name, problem=problem, cure=cure)


def reference_of(cls: type) -> str | None:
    """Return "module:Class" if that names the class in this process; None for a class inside a function."""
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return f"{cls.__module__}:{cls.__qualname__}" if found is cls else None


def travels(reference: str) -> bool:
    """Return whether another process can find the class: not if a script or a notebook defines it."""
    return reference.partition(":")[0] != MAIN


def folder_of(cls: type) -> Path | None:
    """Return the folder in which another process finds the class's module; None if the module is installed."""
    top = sys.modules.get(cls.__module__.partition(".")[0])
    places = list(getattr(top, "__path__", ())) or [getattr(top, "__file__", None)]
    if cls.__module__ == MAIN or places[0] is None:
        return None
    folder = Path(places[0]).absolute().parent
    return None if folder in _INSTALLED else folder


def code_digest(cls: type) -> str | None:
    """Return a digest of the source of a class and of the user's base classes, which shows that a part has changed.

    None if the source is unknown. Functions that the class calls are not part of the digest.
    """
    digest = hashlib.sha256()
    for kin in cls.__mro__:
        if kin.__module__.partition(".")[0] in ("builtins", "msgspec", __name__.partition(".")[0]):
            continue
        try:
            digest.update(inspect.getsource(kin).encode("utf-8", "replace"))
        except (OSError, TypeError):
            return None
    return digest.hexdigest()[:16]


def _module(name: str, folder: Path | None, key: str, reference: str) -> ModuleType:
    top = name.partition(".")[0]
    searched = " on the interpreter's path" if folder is None else f", neither on the interpreter's path nor in {folder}"
    wanted = None
    if folder is not None:
        standard = [place for place in sys.path if place not in _offered]
        wanted = PathFinder.find_spec(top, [*standard, str(folder)])
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
            _offered.append(str(folder))
            importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a module may raise anything, SystemExit included
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise _no_such_module(error.name, searched, key, reference) from None
        raised = " ".join(traceback.format_exception_only(error)[-1].split())
        cure = f'correct the module; python -c "import {name}" shows the whole traceback'
        problem = f"importing {name} raised {raised}{line_of(error)}"
        raise ConfigError(key=key, value=reference, problem=problem, cure=cure) from None
    loaded = getattr(sys.modules[top], "__file__", None)
    other = loaded is not None and wanted is not None and wanted.origin is not None and wanted.origin != loaded
    if other and any(Path(str(loaded)).is_relative_to(place) for place in _offered):
        problem = f"the module {top} is already loaded from {loaded}, and this file needs {wanted.origin if wanted else ''}"
        raise ConfigError(key=key, value=reference, problem=problem, cure="rename one of the two modules")
    return module


def _no_such_module(name: str, searched: str, key: str, reference: str) -> ConfigError:
    """Return the error for a module that does not exist, or whose package is hidden by another one of the same name."""
    package, _, inner = name.rpartition(".")
    found = sys.modules.get(package)
    if found is not None:
        place = getattr(found, "__file__", None) or next(iter(getattr(found, "__path__", ())), "this interpreter")
        module, cls = reference.split(":")
        rest = f"{inner}{module.removeprefix(name)}:{cls}"
        problem = f"there is no module {name}: Python found {package} first in {place}, and that has no {inner}"
        cure = f'rename your folder {package}, or write name = "{rest}" and from = "{package.replace(".", "/")}"'
        return ConfigError(key=key, value=reference, problem=problem, cure=cure)
    cure = f"put {name.replace('.', '/')}.py into the folder of the experiment file, or its folder on PYTHONPATH"
    return ConfigError(key=key, value=reference, problem=f"there is no module {name}{searched}", cure=cure)


def _no_such_class(module: ModuleType, path: str, key: str, bases: Sequence[type], folder: Path | None) -> ConfigError:
    reference = f"{module.__name__}:{path}"
    if module.__name__ == MAIN:
        problem = f"{path} is defined in a script or a notebook, and another program cannot import it from there"
        cure = f'move it to a module, such as mine.py, and write "mine:{path}"'
        return ConfigError(key=key, value=reference, problem=problem, cure=cure)
    known = [name for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, tuple(bases))]
    own = [name for name in known if getattr(module, name).__module__ == module.__name__]
    guess = nearest(path, own)
    cure = f"the module has: {', '.join(own)}" if own else f"define it there, derived from grapevine.{bases[0].__name__}"
    cure = f"did you mean {guess}? {cure}" if guess else cure
    hidden = None if folder is None else next(folder.glob(f"{module.__name__.partition('.')[0]}.py"), None)
    if hidden is not None and str(hidden) != getattr(module, "__file__", None):
        cure = f"rename {hidden}: another module with this name comes first on the interpreter's path"
    return ConfigError(key=key, value=reference, problem=f"{_place(module)} has no class {path}", cure=cure)


def _place(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    return f"{module.__name__} ({file})" if file else module.__name__


def is_users(file: str) -> bool:
    """Return whether a file of a traceback is the user's own: a file outside this package and installed ones, or a cell."""
    if file.startswith("<"):
        return file.startswith(_CELLS)
    return not any(Path(file).is_relative_to(place) for place in _FOREIGN)


def line_of(error: BaseException) -> str:
    """Return the file and line of the user's code that raised an exception, in words: " (mine.py, line 3)"; "" = none."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})" if error.filename else ""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
