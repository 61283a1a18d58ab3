"""Computation in one thread, because sums of floating-point numbers depend on their division among threads."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_BLAS = ("scipy_openblas{}64_", "scipy_openblas{}", "openblas{}64_", "openblas{}", "mkl{}")
"""Patterns of the names of a BLAS's `_get_num_threads` and `_set_num_threads` (MKL: `_get_max_threads`)."""


@contextmanager
def one_thread(modules: Iterable[str] = ()) -> Iterator[None]:
    """Import `modules`, which may load numpy's BLAS and torch, then let both compute in one thread inside this context.

    Without it the digest of a virtual run would depend on the number of cores: with two threads OpenBLAS divides a product
    of 512 x 961 and 961 x 960 numbers in other places than with one, and torch a convolution.
    """
    for module in modules:
        importlib.import_module(module)
    before = [(switch, threads) for threads, switch in _switches()]
    for switch, _ in before:
        switch(1)
    try:
        yield
    finally:
        for switch, threads in before:
            switch(threads)


def _switches() -> Iterator[tuple[int, Callable[[int], object]]]:
    """Yield the number of threads of each loaded library, and the function that sets it."""
    if (torch := sys.modules.get("torch")) is not None:
        yield torch.get_num_threads(), torch.set_num_threads
    for path in _loaded("blas", "mkl_rt"):
        library = ctypes.CDLL(path)
        for name in _BLAS:
            get = getattr(library, name.format("_get_max_threads" if name == "mkl{}" else "_get_num_threads"), None)
            put = getattr(library, name.format("_set_num_threads"), None)
            if get is not None and put is not None:
                yield int(get()), put
                break


class _Library(ctypes.Structure):
    """The beginning of the C structure dl_phdr_info."""

    _fields_ = (("address", ctypes.c_void_p), ("path", ctypes.c_char_p))


_LOOK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Library), ctypes.c_size_t, ctypes.c_void_p)


def _loaded(*parts: str) -> list[str]:
    """Return the paths of this process's shared libraries whose names contain one of `parts`."""
    paths: list[str] = []

    def look(library: Any, _size_bytes: int, _data: Any) -> int:
        path = os.fsdecode(library.contents.path or b"")
        if any(part in path.rpartition("/")[2] for part in parts):
            paths.append(path)
        return 0

    ctypes.CDLL(None).dl_iterate_phdr(_LOOK(look), None)
    return paths
