"""A run and its page, for the tests of pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.experiments.recorded import record_run
from tests.experiments.report.pages import Page


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    record_run(folder, lost=(3,), places=["Tokyo", "Tokyo", "Sao Paulo", "Sao Paulo"])
    return folder


@pytest.fixture(scope="session")
def page(run: Path) -> Page:
    return Page(run / "report.html")
