"""The fork server: what it holds, when it is replaced, and that no start waits for one that is stopped."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from grapevine.experiments.worlds.processes import forkserver


@pytest.mark.slow
@pytest.mark.parametrize(("interrupted", "limit_s"), [(True, 1e9), (False, 0.0)])
def test_a_start_waits_for_no_fork_server_that_is_stopped(
    interrupted: bool, limit_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(forkserver, "end_fork_server", ended.set)
    monkeypatch.setattr(forkserver, "INTERRUPTED_START_S", 0.0)
    with forkserver.bounded_start(lambda: interrupted, limit_s):
        assert ended.wait(10)


def test_a_start_that_goes_well_leaves_the_fork_server_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(forkserver, "end_fork_server", ended.set)
    with forkserver.bounded_start(lambda: False, 1e9):
        assert threading.active_count() > 1
    assert not ended.is_set()


def test_a_fork_server_that_lacks_what_a_task_needs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[None] = []
    monkeypatch.setattr(forkserver, "_loaded", set())
    monkeypatch.setattr(forkserver, "end_fork_server", lambda: ended.append(None))
    monkeypatch.setattr(forkserver.forkserver, "ensure_running", lambda: None)
    for modules, replaced in (
        ((), 0),
        (("grapevine.experiments.tasks.autograd",), 1),
        ((), 1),
        (("grapevine.experiments.tasks.autograd",), 1),
    ):
        forkserver.start_fork_server(modules)
        assert len(ended) == replaced
        held = forkserver.forkserver._forkserver._preload_modules  # type: ignore[attr-defined]
        assert (
            held == ["grapevine.experiments.tasks.autograd", "grapevine.experiments.worlds.processes.preload"][not replaced :]
        )


@pytest.mark.slow
def test_the_fork_server_holds_whatever_a_peer_imports_and_no_torch() -> None:
    """Otherwise each peer would import it anew: seconds of processor time at every start of a fleet."""
    program = (
        "import sys; import grapevine.experiments.worlds.processes.preload\n"
        "held = set(sys.modules)\n"
        "import grapevine, grapevine.experiments.worlds.processes.child, grapevine.experiments.tasks\n"
        "print(sorted(set(sys.modules) - held), 'torch' in held)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[] False\n"
