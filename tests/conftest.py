"""Settings of all tests.

Libraries compute with one thread: several threads would wait for each other busily, and take the processors from live fleets.
Processes that tests start read compiled modules from __pycache__, even where PYTHONDONTWRITEBYTECODE is set: otherwise each of
them would compile the whole package anew.
"""

import os
import sys

import pytest

LIVE_TIMEOUT_S = 300

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
pytest.register_assert_rewrite("tests.experiments.worlds.watched")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Live tests wait for real processes, which a busy machine keeps waiting: their time limit is a last resort."""
    for item in items:
        if item.get_closest_marker("live") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LIVE_TIMEOUT_S))
