"""A description of the machine that a run was made on."""

from __future__ import annotations

import functools
import os
import platform
import socket
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("grapevine", "numpy", "torch", "networkx", "scikit-learn", "pyzmq", "msgspec", "pyarrow", "pandas")


def describe_machine() -> dict[str, Any]:
    """Return a description of this machine for the manifest: host, processors, memory, system, and versions of packages."""
    return {
        "host": socket.gethostname(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
    }


@functools.cache
def _version(package: str) -> str | None:
    """Return the installed version of a package, if any; cached, because reading it takes longer than a short run."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or f"unknown ({sys.platform})"
